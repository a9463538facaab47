//! istiod-lite.
