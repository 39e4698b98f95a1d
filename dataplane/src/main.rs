//! The `nsplane` command.

fn main() {}
