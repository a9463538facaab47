//! ambit-state.
