//! Generated load: marked UDP packets, made and counted in the kernel by eBPF
//! programs, so that neither end is what is measured.
//!
//! | file | what it gives |
//! |---|---|
//! | [`frame`] | what the packets look like |
//! | [`generator`] | sends them out of a device, at full rate or paced |
//! | [`sink`] | counts what arrives at a device, own and leaked |
//! | [`fairness`] | a quiet tenant beside others that flood |
//! | [`objects`] | how many eBPF objects the kernel holds |
//!
//! Each packet carries the mark of its tenant, a sequence number and the time it
//! was made at. A packet that a sink sees with another mark than its own has
//! leaked from one tenant to another.
#![deny(unsafe_code)]

pub mod fairness;
pub mod frame;
pub mod generator;
mod object;
pub mod objects;
pub mod sink;
#[allow(unsafe_code, reason = "one system call that std does not have")]
mod sys;

pub use frame::Frame;
pub use generator::{Generator, Load, Sent};
pub use nsplane_abi::traffic::Counts;
pub use sink::Sink;
