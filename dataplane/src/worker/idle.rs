//! When a worker spins and when it sleeps.
//!
//! ```text
//!  packets ──► next round at once
//!  none, `spin_rounds` times ──► arm the bell ─► anything there? ─ no ─► sleep until a
//!                                                       │ yes            descriptor, the bell,
//!                                                       ▼                or the timeout
//!                                                   next round
//! ```
//!
//! Work that nothing announces shortens the sleep: where a kick left frames in a
//! TX ring, or a queue has no frame to receive into, the worker looks again after
//! [`Idle::pending_timeout`] (1 ms), as long as that lasts. Otherwise it wakes
//! [`Idle::timeout`] by [`Idle::timeout`], also to let go of an old world.

use std::os::fd::RawFd;
use std::time::Duration;

use super::io::Queue;
use super::run::Worker;
use crate::id::{Generation, PortId, QueueId};

/// A socket to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watched {
    /// Its descriptor; a later socket may have the same.
    pub fd: RawFd,
    /// Whose it is, which tells one socket from a later one.
    pub of: (PortId, QueueId, Generation),
}

/// How a worker's thread waits. In production: epoll over the queues' sockets and
/// the bell's eventfd.
pub trait Sleep {
    /// These sockets, and no others, are to end a wait from now on.
    fn watch(&mut self, sockets: &mut dyn Iterator<Item = Watched>);

    /// Waits for a descriptor to become readable or the bell to be rung; a bell
    /// rung before the call ends it at once.
    fn wait(&mut self, timeout: Duration);
}

/// How patient a worker is.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    /// Empty rounds, one after the other, before it sleeps. A round over a few
    /// idle queues takes about 0.1 us.
    pub spin_rounds: u32,
    /// Longest sleep.
    pub timeout: Duration,
    /// Longest sleep while something waits to be tried again.
    pub pending_timeout: Duration,
}

impl Default for Idle {
    fn default() -> Self {
        Self {
            spin_rounds: 200,
            timeout: Duration::from_secs(1),
            pending_timeout: Duration::from_millis(1),
        }
    }
}

/// Runs a worker until it is told to stop. `now` reads a monotonic clock, in
/// nanoseconds, once a round.
pub fn run_loop<Q: Queue>(
    worker: &mut Worker<Q>,
    sleep: &mut impl Sleep,
    idle: &Idle,
    mut now: impl FnMut() -> u64,
) {
    let mut empty = 0;
    loop {
        let round = worker.round(now());
        if round.queues_changed {
            sleep.watch(&mut worker.sockets());
        }
        if round.stopped {
            return;
        }
        if round.packets > 0 {
            empty = 0;
            continue;
        }
        if empty < idle.spin_rounds {
            empty += 1;
            std::hint::spin_loop();
            continue;
        }
        worker.bell().arm();
        if !worker.has_work() {
            worker.stats().sleeps.add(1);
            sleep.wait(if round.pending { idle.pending_timeout } else { idle.timeout });
        }
        worker.bell().disarm();
    }
}
