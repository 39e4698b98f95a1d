//! The control thread: from the kernel's state to the workers' tables.

pub mod compile;
pub mod mirror;
pub mod plan;
