//! ambit-cni.
