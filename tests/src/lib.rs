//! ambit-tests.
