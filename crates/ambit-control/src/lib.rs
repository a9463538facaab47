//! ambit-control.
