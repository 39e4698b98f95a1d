//! Messages between control and workers, and the rings between workers.

use crossbeam::queue::ArrayQueue;

use crate::id::{Generation, PortId, QueueId, WorkerId};
use crate::stats::PuntReason;

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

/// A packet on its way into the kernel's stack.
#[derive(Debug)]
pub struct Punted<F> {
    /// The packet. Its L4 checksum is complete.
    pub frame: F,
    /// The port it came in on.
    pub port: PortId,
    /// The use of the port's slot.
    pub generation: Generation,
    /// Why.
    pub reason: PuntReason,
}

/// Packets to punt; full means drop and count.
pub type PuntQueue<F> = ArrayQueue<Punted<F>>;

/// Free frames that one thread has too many of and another may need, in
/// magazines of one batch.
pub type Depot<F> = ArrayQueue<arrayvec::ArrayVec<F, 64>>;
