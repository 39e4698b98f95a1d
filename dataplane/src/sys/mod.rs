//! System calls that no library wraps the way we need them. Unsafe is allowed
//! here and in `xsk`; each function is a safe, small wrapper that names its
//! system call in its error.

pub mod bpf;
pub mod cap;
pub mod cpu;
pub mod ethtool;
pub mod limits;
pub mod lines;
pub mod memory;
pub mod mounts;
pub mod netns;
pub mod poll;
pub mod programs;
pub mod readable;
pub mod thread;
