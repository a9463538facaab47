//! ambit-benches.
