//! ambit-manifest.
