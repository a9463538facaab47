//! istiod-lite.
fn main() {}
