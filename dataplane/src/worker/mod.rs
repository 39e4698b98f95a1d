//! Worker threads: run to completion over the queues they own.
//!
//! [`stages`] decides, on one packet or on those of a batch that are as nearly all are, and is
//! pure; [`run`] moves batches of frames (`batch`, `single`) by those verdicts and owns
//! everything that moves, a turn of a namespace at a time (`turns`, in the order that
//! `schedule` says); [`idle`] says when to spin and when to
//! sleep. What a queue, a frame, a sleep really is comes from outside
//! ([`io`], [`idle::Sleep`]); [`sim`] has them in memory, for tests and benches.
//!
//! Not here: system calls, clocks (time is an argument), netlink, sockets' making
//! and closing.
//!
//! Invariants: a frame is moved, never copied or forgotten: it is in a queue, in
//! a pool or depot, in a ring between threads, or in one batch. In steady state
//! nothing is allocated and nothing is locked.

pub mod idle;
pub mod io;
pub mod run;
pub mod sim;
pub mod stages;

mod batch;
mod budget;
mod egress;
pub mod long;
mod pool;
mod schedule;
mod single;
mod turns;

pub use run::{Config, Parts, Round, Worker};
