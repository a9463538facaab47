//! ambit.
fn main() {}
