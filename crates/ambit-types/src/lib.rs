//! ambit-types.
