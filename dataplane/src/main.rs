//! The `nsplane` command.

mod cli;

fn main() {}
