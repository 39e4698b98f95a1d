//! Publication and wake-ups between threads.
//!
//! [`Publisher`] hands one writer's value, whole, to many readers; a [`Doorbell`]
//! wakes a thread that may be asleep, without a system call when it is not.
//!
//! Not here: queues (crossbeam's are used), and any system call; what wakes a
//! thread is given as a closure.
//!
//! Invariants: a reader that finds nothing new does one atomic load and nothing
//! else; an old value is freed on the publisher's thread; a push that is followed
//! by [`Doorbell::ring`] is either seen by the sleeper's re-check or wakes it.
//!
//! The two files are compiled twice: over `std`, and in tests over loom's models,
//! which try every interleaving. `cargo test -p nsplane sync` runs both.

mod prim {
    pub(super) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
    pub(super) use std::sync::{Arc, Mutex, PoisonError};
}
mod doorbell;
mod publish;

#[cfg(test)]
mod over_loom;

pub use doorbell::Doorbell;
pub use publish::{Publisher, Reader};
