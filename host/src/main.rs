//! The `stream` binary.
fn main() {}
