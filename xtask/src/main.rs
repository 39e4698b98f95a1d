//! The project's own commands.

mod ebpf;

fn main() {}
