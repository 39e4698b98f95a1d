//! The lab: what namespace tests, the demo and benchmarks stand on.
//!
//! | file | what it gives |
//! |---|---|
//! | [`command`] | runs a program, its output in the error |
//! | [`netns`] | a namespace that is gone when its guard is |
//! | [`crowd`] | many namespaces with two devices each |
//! | [`tenant`] | two hosts and a router, wired by veth pairs |
//! | [`mover`] | two tenants alike, and a device that moves between them |
//! | [`process`] | `nsplane` as a child process, and what it says of itself |
//! | [`frame`] | packets made byte by byte |
//! | [`who_is`] | questions and answers of ARP and neighbour discovery |
//! | [`raw`] | sends and sees whole frames on a device |
//! | [`programs`] | BPF programs and sockets of somebody else's |
//! | [`daemons`] | FRR and BIRD, each in its namespace |
//! | [`flow`] | ping and TCP transfers between namespaces |
//! | [`interrupt`] | Ctrl-C as a flag, for whoever has to clean up |
//! | [`lab`] | a tenant under nsplane, probed packet by packet |
//! | [`wait`] | waiting for a condition instead of sleeping |
//!
//! Not here: generated load (`nsplane-bench`), and anything of the dataplane's
//! own code: the lab knows `nsplane` only by its command line.
//!
//! Promise: whatever the lab makes it removes again, also when a test panics;
//! what a killed process left behind is swept by the next one
//! ([`netns::sweep`]).
//!
//! ```no_run
//! use nsplane_tests::{flow, tenant::{Host, Tenant, TenantSpec}};
//!
//! let tenant = Tenant::new("blue", &TenantSpec::default())?;
//! let seen = flow::ping(tenant.host(Host::A), Host::B.v4().into(), 3)?;
//! assert_eq!(seen.received, 3);
//! # Ok::<(), anyhow::Error>(())
//! ```
#![deny(unsafe_code)]

pub mod command;
pub mod crowd;
pub mod daemons;
pub mod flow;
pub mod frame;
pub mod interrupt;
pub mod lab;
pub mod macvlans;
pub mod mover;
pub mod netns;
pub mod process;
#[allow(unsafe_code, reason = "system calls that std does not have")]
pub mod programs;
#[allow(unsafe_code, reason = "packet sockets")]
pub mod raw;
pub mod stop;
#[allow(unsafe_code, reason = "system calls that std does not have")]
mod sys;
pub mod tenant;
pub mod trunk;
pub mod wait;
pub mod who_is;
