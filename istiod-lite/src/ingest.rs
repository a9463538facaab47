//! Manifest objects reduced to what the index reads; the command line does it the same way.

pub use ambit_ingest::{put, remove};
