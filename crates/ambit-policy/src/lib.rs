//! ambit-policy.
