//! A folder of manifests as a small object store.
//!
//! Programs write one object a file, atomically and under a lock (`Folder`); people may drop in files of their own
//! with many documents. `watch` follows both and hands on what changed. A broken file never takes its last good
//! objects out of force. What an object may say is decided in `ambit-manifest`; what it means is not known here.

mod contents;
mod error;
mod layout;
mod read;
mod store;
mod watch;

#[cfg(test)]
mod tests;

pub use contents::{Batch, FolderState};
pub use error::FolderError;
pub use store::{Folder, LOCK_WAIT_MAX, Written};
pub use watch::{COALESCE, QUEUE_MAX, watch, watch_as};
