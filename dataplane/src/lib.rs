//! nsplane: a dataplane that knows Linux network namespaces.
//!
//! Layers, imports go down only (`cargo xtask check-layers` holds it):
//!
//! | layer | rooms |
//! |---|---|
//! | 0 | [`id`] [`stats`] [`wire`] [`sync`] [`sys`] |
//! | 1 | [`netns`] [`netlink`] [`xsk`] [`bpf`] |
//! | 2 | [`tables`] [`port`] [`config`] |
//! | 3 | [`control`] [`worker`] |
//! | 4 | [`api`] [`runtime`] |
#![deny(unsafe_code)]

pub mod id;
pub mod plant;
pub mod stats;
pub mod sync;
#[allow(unsafe_code, reason = "system calls")]
pub mod sys;
pub mod wire;

pub mod bpf;
pub mod netlink;
pub mod netns;
#[allow(unsafe_code, reason = "rings and frames shared with the kernel")]
pub mod xsk;

pub mod config;
pub mod port;
pub mod tables;

pub mod control;
pub mod worker;

pub mod api;
pub mod runtime;
