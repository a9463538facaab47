//! ambit-runtime.
