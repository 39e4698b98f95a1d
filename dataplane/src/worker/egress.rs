//! The way out: a transmit ring of our own, or another worker.

use arrayvec::ArrayVec;

use super::io::{Frames, Memory, Queue};
use super::run::{Driver, FrameOf};
use crate::id::{PortId, QueueId, WorkerId};
use crate::port::{self, FromWorker, Handed, Way};
use crate::stats::DropReason;
use crate::tables::World;

/// Where the queues of a port are among a worker's, which are sorted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    start: usize,
    len: usize,
}

/// Packets of one way, at most a batch.
pub(super) struct Group<F> {
    pub(super) way: Way,
    pub(super) bytes: u64,
    pub(super) frames: Frames<F>,
}

impl<F> Group<F> {
    pub(super) fn new(way: Way) -> Self {
        Self { way, bytes: 0, frames: ArrayVec::new() }
    }
}

impl<Q: Queue> Driver<Q> {
    /// Finds anew where each port's queues are.
    pub(super) fn index_queues(&mut self) {
        self.queues.sort_by_key(|owned| (owned.port, owned.queue));
        self.spans.fill(Span::default());
        for (at, owned) in self.queues.iter().enumerate() {
            let span = &mut self.spans[owned.port.index()];
            if span.len == 0 {
                span.start = at;
            }
            span.len += 1;
        }
    }

    /// Our queue to send out of a port by: the one with the ingress queue's number,
    /// else any; None if none of the port's is ours.
    fn tx_queue(&self, egress: PortId, like: QueueId) -> Option<usize> {
        let span = self.spans.get(egress.index()).filter(|span| span.len > 0)?;
        let ours = span.start..span.start + span.len;
        let same = ours.clone().find(|&at| self.queues[at].queue == like);
        Some(same.unwrap_or(span.start + usize::from(like.0) % span.len))
    }

    /// Sends a group by a queue of ours, or hands it to the worker that has one.
    pub(super) fn send(&mut self, world: &World, group: Group<FrameOf<Q>>) {
        match self.tx_queue(group.way.egress, group.way.queue) {
            Some(at) => self.transmit(at, group),
            None => self.hand_over(world, group),
        }
    }

    /// Takes in what other workers handed over. Returns how many packets.
    pub(super) fn take_handed(&mut self) -> usize {
        let me = self.id;
        let mut packets = 0;
        for from in (0..self.mesh.workers()).map(WorkerId).filter(|&from| from != me) {
            // As many as the ring holds now: a fast producer cannot keep us here.
            let mut left = self.mesh.ring(from, me).len();
            packets += left;
            let mut next = None;
            while left > 0 || next.is_some() {
                left -= self.take_group(from, left, &mut next);
            }
        }
        packets
    }

    /// Sends the packets at the front of a ring that go one way, at most `left` of them
    /// and `next`, which was taken before; `next` is the first that goes another way.
    /// Returns how many it took.
    fn take_group(
        &mut self,
        from: WorkerId,
        left: usize,
        next: &mut Option<Handed<FrameOf<Q>>>,
    ) -> usize {
        let mesh = self.mesh.clone();
        let ring = mesh.ring(from, self.id);
        let mut taken = 0;
        let mut group: Option<Group<FrameOf<Q>>> = None;
        while let Some(mut handed) = next.take().or_else(|| {
            let more = (taken < left).then(|| ring.pop()).flatten()?;
            taken += 1;
            Some(more)
        }) {
            let group = group.get_or_insert_with(|| Group::new(handed.way));
            if group.way != handed.way || group.frames.is_full() {
                *next = Some(handed);
                break;
            }
            group.bytes += self.memory.packet(&mut handed.frame).len() as u64;
            group.frames.push(handed.frame);
        }
        if let Some(group) = group {
            match self.tx_queue(group.way.egress, group.way.queue) {
                Some(at) => self.transmit(at, group),
                None => self.discard(group, DropReason::EgressGone),
            }
        }
        taken
    }

    fn transmit(&mut self, at: usize, mut group: Group<FrameOf<Q>>) {
        let owned = &mut self.queues[at];
        if owned.dead || owned.generation != group.way.generation {
            return self.discard(group, DropReason::EgressGone);
        }
        let mut sent = owned.io.transmit(&mut group.frames);
        owned.in_flight += sent;
        owned.touched |= sent > 0;
        if !group.frames.is_empty() {
            // Full: let the kernel take some, once.
            self.kick(at);
            self.reap(at);
            let owned = &mut self.queues[at];
            let more = owned.io.transmit(&mut group.frames);
            owned.in_flight += more;
            owned.touched |= more > 0;
            sent += more;
        }
        let left: u64 =
            group.frames.iter_mut().map(|frame| self.memory.packet(frame).len() as u64).sum();
        let ingress = self.stats.port(group.way.ingress);
        ingress.forwarded_packets.add(sent as u64);
        ingress.forwarded_bytes.add(group.bytes.saturating_sub(left));
        self.stats.port(group.way.egress).tx_packets.add(sent as u64);
        self.discard(group, DropReason::TxFull);
    }

    fn hand_over(&mut self, world: &World, mut group: Group<FrameOf<Q>>) {
        let way = group.way;
        let port = world.ports.get(way.egress.index()).and_then(Option::as_ref);
        let Some(queues) = port.map(|port| port.queues).filter(|&queues| queues > 0) else {
            return self.discard(group, DropReason::EgressGone);
        };
        let queue = QueueId(way.queue.0 % queues);
        let to = port::owner(way.egress, queue, self.mesh.workers());
        if to == self.id {
            // Ours to have, and we have none: not yet given, or taken away.
            return self.discard(group, DropReason::EgressGone);
        }
        let ring = self.mesh.ring(self.id, to);
        let mut packets = 0;
        let mut left = Frames::new();
        for frame in group.frames.drain(..) {
            match ring.push(Handed { way, frame }) {
                Ok(()) => packets += 1,
                Err(handed) => left.push(handed.frame),
            }
        }
        if packets > 0 {
            self.stats.handed_over.add(packets);
            self.to_ring[to.index()] = true;
        }
        group.frames = left;
        self.discard(group, DropReason::HandoverFull);
    }

    /// Recycles the frames of a group that cannot leave, and counts them.
    fn discard(&mut self, group: Group<FrameOf<Q>>, reason: DropReason) {
        if group.frames.is_empty() {
            return;
        }
        let drops = &self.stats.port(group.way.ingress).drops[reason as usize];
        drops.add(group.frames.len() as u64);
        self.pool.free().extend(group.frames);
    }

    /// Starts transmission, and hears what became of it.
    pub(super) fn kick(&mut self, at: usize) {
        let owned = &mut self.queues[at];
        let kick = owned.io.kick();
        owned.touched = false;
        owned.pending = kick.pending;
        self.stats.kicks.add(u64::from(kick.calls));
        if kick.refused > 0 {
            self.stats.port(owned.port).tx_refused.add(u64::from(kick.refused));
        }
        if kick.dead && !owned.dead {
            owned.dead = true;
            owned.pending = false;
            let (port, generation, queue) = (owned.port, owned.generation, owned.queue);
            self.tell(FromWorker::QueueDead { port, generation, queue });
        }
    }

    /// Takes back what was sent.
    pub(super) fn reap(&mut self, at: usize) {
        let owned = &mut self.queues[at];
        let reaped = owned.io.reap(self.pool.free());
        owned.in_flight = owned.in_flight.saturating_sub(reaped);
    }
}
