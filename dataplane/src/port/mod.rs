//! Messages between control and workers, the rings between workers, the way to the punt
//! thread; and how namespaces share what they all use of these: [`share`] says how many
//! places each may have of a queue, [`lanes`] has whoever empties it take from each in turn.

pub mod in_turn;
pub mod lanes;
pub mod punts;
pub mod share;

mod depot;

use crossbeam::queue::ArrayQueue;

use crate::id::{Generation, PortId, QueueId, WorkerId};
use crate::sync::Doorbell;
pub use depot::Depot;
pub use in_turn::InTurn;
pub use lanes::Lanes;
pub use punts::{PuntQueue, Punted};
pub use share::{Account, Share};

/// Most frames that move between threads at once.
pub const BATCH: usize = 64;

/// Which of `workers` drives a port's queue. Queue q of a port with one queue a
/// worker is on its own worker, and single-queue ports are spread over all.
#[must_use]
pub fn owner(port: PortId, queue: QueueId, workers: u16) -> WorkerId {
    // The sum of two u16 does not fit one.
    let sum = u32::from(port.0) + u32::from(queue.0);
    WorkerId((sum % u32::from(workers.max(1))) as u16)
}

/// From control to a worker.
#[derive(Debug)]
pub enum ToWorker<Q> {
    /// Drive this queue from now on.
    AddQueue {
        /// The port.
        port: PortId,
        /// The use of the port's slot that the queue belongs to.
        generation: Generation,
        /// The queue.
        queue: QueueId,
        /// Its rings.
        io: Q,
        /// Frames that are in its fill ring already.
        posted: usize,
    },
    /// Stop driving all queues of this port and give them back.
    RemovePort {
        /// The port.
        port: PortId,
        /// The use of the port's slot that is meant.
        generation: Generation,
    },
    /// Give everything back and end.
    Stop,
}

/// From a worker to control.
#[derive(Debug)]
pub enum FromWorker<Q> {
    /// A queue that the worker no longer drives. Dropping it closes the socket,
    /// which takes the kernel about 10 ms: not for a worker to do.
    QueueRemoved {
        /// Who had it.
        worker: WorkerId,
        /// The port.
        port: PortId,
        /// The use of the port's slot.
        generation: Generation,
        /// The queue.
        queue: QueueId,
        /// Its rings.
        io: Q,
    },
    /// All queues of the port that this worker had are given back.
    PortRemoved {
        /// Who says so.
        worker: WorkerId,
        /// The port.
        port: PortId,
        /// The use of the port's slot.
        generation: Generation,
    },
    /// A queue's socket died under the worker (its device moved or went away).
    QueueDead {
        /// The port.
        port: PortId,
        /// The use of the port's slot.
        generation: Generation,
        /// The queue.
        queue: QueueId,
    },
    /// The worker ended.
    Stopped {
        /// Which.
        worker: WorkerId,
    },
}

/// Where a packet that was decided on goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The port or member it came in on: its are the counters.
    pub ingress: PortId,
    /// The port that it is sent by.
    pub egress: PortId,
    /// The use of the egress port's slot that was decided for.
    pub generation: Generation,
    /// The queue to prefer there.
    pub queue: QueueId,
    /// Whose it is.
    pub account: Account,
}

/// A packet, rewritten and ready, on its way to the worker that drives a queue of its
/// egress port.
#[derive(Debug)]
pub struct Handed<F> {
    /// Where it goes.
    pub way: Way,
    /// The packet.
    pub frame: F,
}

/// Rings between workers: one from each to each, with one producer and one
/// consumer, and each worker's bell.
///
/// They hold packets, not batches: how long a stall of the consumer they last is then
/// a matter of the packet rate, whatever the size of the batches that it makes.
///
/// Invariant: only worker `from` pushes to, only worker `to` pops from the ring
/// (from, to); so order is kept and a full ring is one pair's trouble. Who pushes has
/// taken a place of [`Mesh::waiting`], who sends gives it back.
pub struct Mesh<F> {
    workers: u16,
    depth: usize,
    rings: Box<[ArrayQueue<Handed<F>>]>,
    waiting: Box<[Share]>,
    bells: Box<[Doorbell]>,
}

impl<F> Mesh<F> {
    /// A mesh for as many workers as there are bells, with `depth` packets a ring.
    ///
    /// # Panics
    /// With no bell, or more than 65,535, or a depth of 0: our bug.
    #[must_use]
    pub fn new(bells: Vec<Doorbell>, depth: usize) -> Self {
        let workers = u16::try_from(bells.len()).expect("a worker id is a u16");
        assert!(workers > 0, "a mesh of no workers");
        let pairs = bells.len() * bells.len();
        Self {
            workers,
            depth,
            rings: (0..pairs).map(|_| ArrayQueue::new(depth)).collect(),
            waiting: bells.iter().map(|_| Share::new(depth as u32)).collect(),
            bells: bells.into(),
        }
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> u16 {
        self.workers
    }

    /// Packets that may wait for a worker, in its rings and taken out of them.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The places of packets that wait for a worker.
    ///
    /// # Panics
    /// If there is no such worker: our bug.
    #[must_use]
    #[inline]
    pub fn waiting(&self, at: WorkerId) -> &Share {
        &self.waiting[at.index()]
    }

    /// The ring between two workers.
    ///
    /// # Panics
    /// If there is no such worker: our bug.
    #[must_use]
    #[inline]
    pub fn ring(&self, from: WorkerId, to: WorkerId) -> &ArrayQueue<Handed<F>> {
        &self.rings[from.index() * usize::from(self.workers) + to.index()]
    }

    /// A worker's bell; ring it after a push, and after a message to the worker.
    ///
    /// # Panics
    /// If there is no such worker: our bug.
    #[must_use]
    pub fn bell(&self, worker: WorkerId) -> &Doorbell {
        &self.bells[worker.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_spread_over_workers_without_overflow() {
        let owner = |port, queue, workers| owner(PortId(port), QueueId(queue), workers).0;
        assert_eq!([owner(0, 0, 2), owner(1, 0, 2), owner(1, 1, 2)], [0, 1, 0]);
        assert_eq!(owner(u16::MAX, u16::MAX, 4), 2);
        assert_eq!(owner(5, 5, 1), 0);
    }
}
