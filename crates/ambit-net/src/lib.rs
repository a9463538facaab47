//! ambit-net.
