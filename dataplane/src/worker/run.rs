//! A worker: what it owns, and one round over it.
//!
//! ```text
//!  round: messages ─► newest world ─► who has work? ─► a turn for each who had none before,
//!         and for one of the others ─► ring the bells of those who got something
//!  turn:  receive, decide, send ─► kick ─► reap ─► refill
//! ```
//!
//! Who drives which queue is [`crate::port::owner`]'s to say; the worker drives
//! what it is given. A packet whose egress port has a queue here leaves by it; else
//! it goes over a ring to the worker that has one, which sends it and counts it. A full ring, whichever, drops and counts; nothing waits.
//!
//! A port is taken away by message: its queues go back to control with all frames
//! that are in their rings; packets for it that are still between workers are
//! dropped there with `EgressGone`.

use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender};

use super::budget::Budget;
use super::egress::Span;
use super::idle::Watched;
use super::io::{BATCH, Frames, Memory, Queue};
use super::pool::Pool;
use super::stages::usual::Ways;
use super::turns::Turns;
use crate::id::{Generation, PortId, QueueId, WorkerId};
use crate::port::{Account, Depot, FromWorker, Mesh, PuntQueue, ToWorker};
use crate::stats::WorkerStats;
use crate::sync::{Doorbell, Reader};
use crate::tables::World;

/// Lists of frames that are in use at one time: what was received, a group of it, what of
/// that is over the share, and what finds no place.
const LISTS: usize = 4;

/// The frames of a queue's memory.
pub type FrameOf<Q> = <<Q as Queue>::Memory as Memory>::Frame;

/// A worker's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which worker it is.
    pub id: WorkerId,
    /// Ports have numbers below this; also the size of the worker's counters.
    pub max_ports: usize,
    /// Frames that there are, in all of the memory.
    pub frames: usize,
    /// Fewer free frames than this: fetch some from the depot.
    pub pool_low: usize,
    /// More free frames than this: give some to the depot.
    pub pool_high: usize,
    /// Packets a second that a namespace may punt through this worker: its share
    /// of what the namespace may in all.
    pub punt_rate: u32,
    /// Packets that a namespace may punt at once through this worker.
    pub punt_burst: u32,
    /// Frames that may be in transmit rings of this worker's queues at one time.
    pub tx_room: u32,
}

impl Config {
    /// Packets a second that a namespace may punt, over all workers.
    pub const PUNT_RATE: u32 = 20_000;
    /// Packets that a namespace may punt at once, over all workers.
    pub const PUNT_BURST: u32 = 2_000;

    /// Settings for one of `workers` workers that share `frames` frames.
    #[must_use]
    pub fn new(id: WorkerId, workers: u16, max_ports: usize, frames: usize) -> Self {
        let workers = workers.max(1);
        Self {
            id,
            max_ports,
            frames,
            pool_low: 256,
            pool_high: (frames / 32 / usize::from(workers)).clamp(384, 1024),
            punt_rate: (Self::PUNT_RATE / u32::from(workers)).max(1),
            punt_burst: (Self::PUNT_BURST / u32::from(workers)).max(1),
            tx_room: (frames / 16 / usize::from(workers)).max(4 * BATCH) as u32,
        }
    }
}

/// What a worker shares with other threads.
pub struct Parts<Q: Queue> {
    /// The memory of all frames.
    pub memory: Q::Memory,
    /// Messages to the worker. Ring its bell (in `mesh`) after sending one.
    pub inbox: Receiver<ToWorker<Q>>,
    /// Messages from the worker.
    pub outbox: Sender<FromWorker<Q>>,
    /// The tables.
    pub world: Reader<World>,
    /// The worker's counters.
    pub stats: Arc<WorkerStats>,
    /// Packets to punt; who takes them gives the frames to the depot, by full
    /// magazines: it has few places.
    pub punts: Arc<PuntQueue<FrameOf<Q>>>,
    /// The bell of the thread that punts.
    pub punt_bell: Arc<Doorbell>,
    /// Free frames of all threads.
    pub depot: Arc<Depot<FrameOf<Q>>>,
    /// The rings to and from the other workers.
    pub mesh: Arc<Mesh<FrameOf<Q>>>,
}

/// A queue in a worker's hands.
pub(super) struct Owned<Q> {
    pub(super) port: PortId,
    pub(super) generation: Generation,
    pub(super) queue: QueueId,
    pub(super) io: Q,
    /// Frames given to receive into and not yet received.
    pub(super) posted: usize,
    /// Frames given to transmit and not yet reaped.
    pub(super) in_flight: usize,
    /// The TX ring got frames since the last kick.
    pub(super) touched: bool,
    /// The last kick left frames in the TX ring.
    pub(super) pending: bool,
    /// Its socket died; it is no more used, and waits to be taken away.
    pub(super) dead: bool,
    /// Whose it is, as the world says.
    pub(super) account: Account,
    /// It is among those with frames in flight.
    pub(super) flying: bool,
    /// It has no frame to receive into, and found none.
    pub(super) hungry: bool,
    /// It may want more frames to receive into than it found.
    pub(super) short: bool,
}

/// All of a worker but the inbox and the world, which a round reads while it
/// changes the rest.
pub(super) struct Driver<Q: Queue> {
    pub(super) id: WorkerId,
    pub(super) memory: Q::Memory,
    /// Sorted by port and queue.
    pub(super) queues: Vec<Owned<Q>>,
    /// By port.
    pub(super) spans: Box<[Span]>,
    pub(super) turns: Turns<FrameOf<Q>>,
    pub(super) pool: Pool<FrameOf<Q>>,
    /// Empty lists for frames: all that are needed at one time.
    pub(super) lists: Vec<Frames<FrameOf<Q>>>,
    pub(super) budget: Budget,
    pub(super) ways: Ways,
    pub(super) stats: Arc<WorkerStats>,
    pub(super) punts: Arc<PuntQueue<FrameOf<Q>>>,
    punt_bell: Arc<Doorbell>,
    /// Something was punted this round.
    pub(super) punted: bool,
    /// When the next packet to a stale neighbour may be punted, by a hash of the
    /// neighbour: no table that a flood of them could make grow.
    pub(super) stale_due: [u64; 256],
    pub(super) mesh: Arc<Mesh<FrameOf<Q>>>,
    /// Workers that were handed something this round.
    pub(super) to_ring: Box<[bool]>,
    outbox: Sender<FromWorker<Q>>,
}

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Round {
    /// Packets received, or taken over from other workers.
    pub packets: usize,
    /// Something waits that no arriving packet will announce: frames in a TX ring
    /// that the kernel did not take yet, or a queue without a frame to receive into.
    pub pending: bool,
    /// The worker has other queues than before: see [`Worker::sockets`].
    pub queues_changed: bool,
    /// The worker was told to stop and has given everything back.
    pub stopped: bool,
}

/// A worker. It belongs to one thread.
pub struct Worker<Q: Queue> {
    inbox: Receiver<ToWorker<Q>>,
    world: Reader<World>,
    driver: Driver<Q>,
}

impl<Q: Queue> Worker<Q> {
    /// A worker without queues and frames: queues come by message, frames from the depot.
    #[must_use]
    pub fn new(config: &Config, parts: Parts<Q>) -> Self {
        let Parts { memory, inbox, outbox, world, stats, punts, punt_bell, depot, mesh } = parts;
        let mut budget = Budget::new(config.punt_rate, config.punt_burst);
        let now = world.get();
        budget.reserve(now.namespaces.len(), &now.punt_rates);
        let driver = Driver {
            id: config.id,
            memory,
            queues: Vec::new(),
            spans: vec![Span::default(); config.max_ports].into(),
            turns: Turns::new(mesh.depth(), config.tx_room),
            pool: Pool::new(config.frames, config.pool_low, config.pool_high, depot),
            lists: (0..LISTS).map(|_| Vec::with_capacity(BATCH)).collect(),
            budget,
            ways: Ways::default(),
            stats,
            punts,
            punt_bell,
            punted: false,
            stale_due: [0; 256],
            to_ring: vec![false; usize::from(mesh.workers())].into(),
            mesh,
            outbox,
        };
        let mut worker = Self { inbox, world, driver };
        worker.driver.index_queues(worker.world.get());
        worker
    }

    /// One round over everything. `now` is a monotonic clock, in nanoseconds.
    pub fn round(&mut self, now: u64) -> Round {
        let mut round = Round::default();
        while let Ok(message) = self.inbox.try_recv() {
            round.queues_changed = true;
            if self.driver.obey(self.world.get(), message) {
                round.stopped = true;
                return round;
            }
        }
        if self.world.refresh() {
            self.driver.heed(self.world.get());
        }
        self.driver.look_after();
        let received = self.driver.turns(self.world.get(), now, &mut round);
        round.pending = self.driver.is_pending();
        self.driver.pool.balance();
        self.driver.stats.free_frames.set(self.driver.pool.len() as u64);
        self.driver.ring_bells();
        let stats = &self.driver.stats;
        stats.rounds.add(1);
        if round.packets > 0 {
            stats.busy_rounds.add(1);
            stats.packets.add(received as u64);
        }
        round
    }

    /// Something is there for the next round. Exact for what was pushed before
    /// the worker's bell was armed.
    pub fn has_work(&mut self) -> bool {
        let Driver { id, mesh, queues, turns, .. } = &mut self.driver;
        !self.inbox.is_empty()
            || turns.handed() > 0
            || (0..mesh.workers()).any(|from| !mesh.ring(WorkerId(from), *id).is_empty())
            || queues.iter_mut().any(|owned| owned.io.receives() && owned.io.has_received())
    }

    /// Sockets that become readable when packets arrive: not those that only send.
    pub fn sockets(&self) -> impl Iterator<Item = Watched> {
        let queues = self.driver.queues.iter();
        queues.filter(|owned| !owned.dead && owned.io.receives()).filter_map(|owned| {
            let of = (owned.port, owned.queue, owned.generation);
            Some(Watched { fd: owned.io.fd()?, of })
        })
    }

    /// The worker's own bell.
    #[must_use]
    pub fn bell(&self) -> &Doorbell {
        self.driver.mesh.bell(self.driver.id)
    }

    /// The worker's counters.
    #[must_use]
    pub fn stats(&self) -> &WorkerStats {
        &self.driver.stats
    }

    /// Free frames that the worker holds itself.
    #[must_use]
    pub fn free_frames(&self) -> usize {
        self.driver.pool.len()
    }

    /// Packets that other workers handed over and that are not sent yet.
    #[must_use]
    pub fn handed(&self) -> usize {
        self.driver.turns.handed()
    }
}

impl<Q: Queue> Driver<Q> {
    /// Does what a message says; true if it was to stop.
    fn obey(&mut self, world: &World, message: ToWorker<Q>) -> bool {
        match message {
            ToWorker::AddQueue { port, generation, queue, io, posted } => {
                let owned = Owned {
                    port,
                    generation,
                    queue,
                    io,
                    posted,
                    in_flight: 0,
                    touched: false,
                    pending: false,
                    dead: false,
                    account: Account::NOBODY,
                    flying: false,
                    hungry: false,
                    short: true,
                };
                if port.index() < self.spans.len() {
                    self.queues.push(owned);
                    self.index_queues(world);
                } else {
                    self.give_back(owned);
                }
            }
            ToWorker::RemovePort { port, generation } => {
                self.give_back_all(world, |owned| {
                    owned.port == port && owned.generation == generation
                });
                self.tell(FromWorker::PortRemoved { worker: self.id, port, generation });
            }
            ToWorker::Stop => {
                self.give_back_all(world, |_| true);
                self.send_all_handed();
                self.pool.give_all();
                self.tell(FromWorker::Stopped { worker: self.id });
                return true;
            }
        }
        false
    }

    /// Takes notice of a new world.
    fn heed(&mut self, world: &World) {
        self.ways.forget();
        self.budget.reserve(world.namespaces.len(), &world.punt_rates);
        if self.turns.is_stale(world, &self.queues) {
            self.index_queues(world);
        }
    }

    /// A turn for each who had no work before, and one for the next of the others.
    /// Returns how many packets were received.
    fn turns(&mut self, world: &World, now: u64, round: &mut Round) -> usize {
        self.look();
        let mut received = 0;
        for _ in 0..self.turns.schedule.fresh() {
            let Some((who, most)) = self.turns.schedule.next_fresh() else {
                break;
            };
            let turn = self.turn(world, who, most, now);
            self.turns.schedule.done_fresh(who, turn.cost, turn.busy);
            round.packets += turn.packets;
            received += turn.received;
        }
        while let Some((who, most)) = self.turns.schedule.next_robin() {
            let turn = self.turn(world, who, most, now);
            self.turns.schedule.done_robin(who, turn.cost, turn.busy);
            round.packets += turn.packets;
            received += turn.received;
            if turn.packets > 0 {
                break;
            }
        }
        received
    }

    fn give_back_all(&mut self, world: &World, which: impl Fn(&Owned<Q>) -> bool) {
        let mut at = 0;
        while at < self.queues.len() {
            if which(&self.queues[at]) {
                self.reap(at);
                let owned = self.queues.remove(at);
                self.give_back(owned);
            } else {
                at += 1;
            }
        }
        self.index_queues(world);
    }

    fn give_back(&self, owned: Owned<Q>) {
        let Owned { port, generation, queue, io, .. } = owned;
        self.tell(FromWorker::QueueRemoved { worker: self.id, port, generation, queue, io });
    }

    /// Nobody listens only when the process ends; then it does not matter.
    pub(super) fn tell(&self, message: FromWorker<Q>) {
        drop(self.outbox.send(message));
    }

    fn ring_bells(&mut self) {
        for to in 0..self.mesh.workers() {
            if std::mem::take(&mut self.to_ring[usize::from(to)]) {
                self.mesh.bell(WorkerId(to)).ring();
            }
        }
        if std::mem::take(&mut self.punted) {
            self.punt_bell.ring();
        }
    }
}

#[cfg(test)]
mod tests;
