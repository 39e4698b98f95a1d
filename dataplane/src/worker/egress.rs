//! The way out: a transmit ring of our own, or another worker.

use super::io::{BATCH, Frames, Queue};
use super::long;
use super::run::{Driver, FrameOf};
use crate::id::{PortId, QueueId};
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
    /// Bytes of all packets.
    pub(super) bytes: u64,
    /// Frames of all packets: the places that they take in rings.
    pub(super) places: usize,
    /// The packets, each by its first frame.
    pub(super) packets: Frames<F>,
}

impl<F> Group<F> {
    /// Nothing yet, with an empty list for it.
    pub(super) fn new(way: Way, packets: Frames<F>) -> Self {
        Self { way, bytes: 0, places: 0, packets }
    }

    /// Adds a packet of so many frames and bytes.
    #[inline]
    pub(super) fn push(&mut self, packet: F, (frames, bytes): (usize, usize)) {
        self.bytes += bytes as u64;
        self.places += frames;
        self.packets.push(packet);
    }
}

impl<Q: Queue> Driver<Q> {
    /// Finds anew where each port's and each namespace's queues are.
    pub(super) fn index_queues(&mut self, world: &World) {
        self.queues.sort_by_key(|owned| (owned.port, owned.queue));
        self.spans.fill(Span::default());
        for (at, owned) in self.queues.iter().enumerate() {
            let span = &mut self.spans[owned.port.index()];
            if span.len == 0 {
                span.start = at;
            }
            span.len += 1;
        }
        self.turns.index(world, &mut self.queues);
    }

    /// Our queue to send out of a port by: the one with the ingress queue's number,
    /// else any; None if none of the port's is ours.
    pub(super) fn tx_queue(&self, egress: PortId, like: QueueId) -> Option<usize> {
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

    /// Frames and bytes of a packet.
    #[inline]
    pub(super) fn extent(&self, packet: &mut FrameOf<Q>) -> (usize, usize) {
        (long::frames(&self.memory, packet), long::bytes(&self.memory, packet))
    }

    /// An empty list with room for a batch.
    pub(super) fn list(&mut self) -> Frames<FrameOf<Q>> {
        self.lists.pop().unwrap_or_else(|| Vec::with_capacity(BATCH))
    }

    /// Takes such a list back.
    pub(super) fn put_list(&mut self, mut list: Frames<FrameOf<Q>>) {
        for packet in list.drain(..) {
            self.recycle(packet);
        }
        self.lists.push(list);
    }

    /// Takes packets off a group's end until it needs no more than `places`.
    fn split(&mut self, group: &mut Group<FrameOf<Q>>, places: usize) -> Group<FrameOf<Q>> {
        let mut beyond = Group::new(group.way, self.list());
        while group.places > places
            && let Some(mut packet) = group.packets.pop()
        {
            let extent = self.extent(&mut packet);
            group.places -= extent.0;
            group.bytes -= extent.1 as u64;
            beyond.push(packet, extent);
        }
        beyond
    }

    pub(super) fn transmit(&mut self, at: usize, mut group: Group<FrameOf<Q>>) {
        let owned = &self.queues[at];
        if owned.dead || owned.generation != group.way.generation {
            return self.discard(group, DropReason::EgressGone);
        }
        let account = owned.account;
        let mut may = self.turns.may_send(account, group.places);
        if may < group.places {
            self.kick(at);
            self.reap(at);
            may = self.turns.may_send(account, group.places);
        }
        if may < group.places {
            let beyond = self.split(&mut group, may);
            self.discard(beyond, DropReason::TxShare);
        }
        let mut sent = self.put(at, &mut group);
        if !group.packets.is_empty() {
            // Full: let the kernel take some, once.
            self.kick(at);
            self.reap(at);
            sent += self.put(at, &mut group);
        }
        let mut left = 0;
        for packet in &mut group.packets {
            left += long::bytes(&self.memory, packet) as u64;
        }
        let ingress = self.stats.port(group.way.ingress);
        ingress.forwarded_packets.add(sent as u64);
        ingress.forwarded_bytes.add(group.bytes.saturating_sub(left));
        self.stats.port(group.way.egress).tx_packets.add(sent as u64);
        self.discard(group, DropReason::TxFull);
    }

    /// Returns how many packets found room in the ring.
    fn put(&mut self, at: usize, group: &mut Group<FrameOf<Q>>) -> usize {
        let owned = &mut self.queues[at];
        let before = group.packets.len();
        let frames = owned.io.transmit(&mut group.packets);
        self.turns.sent(at, owned, frames);
        before - group.packets.len()
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
        let share = self.mesh.waiting(to);
        let may = share.enter(way.account, group.places as u32);
        let beyond = self.split(&mut group, may as usize);
        let mut left = Group::new(way, self.list());
        let ring = self.mesh.ring(self.id, to);
        let mut packets = group.packets.len();
        for frame in group.packets.drain(..) {
            if let Err(mut handed) = ring.push(Handed { way, frame }) {
                let extent = self.extent(&mut handed.frame);
                left.push(handed.frame, extent);
            }
        }
        // Places that the last packet did not fit into, and those that found no ring.
        let places = may - group.places as u32 + left.places as u32;
        self.mesh.waiting(to).leave(way.account, places);
        self.put_list(group.packets);
        packets -= left.packets.len();
        if packets > 0 {
            self.stats.handed_over.add(packets as u64);
            self.to_ring[to.index()] = true;
        }
        let full = self.mesh.waiting(to).is_full();
        let why = if full { DropReason::HandoverFull } else { DropReason::HandoverShare };
        self.discard(beyond, why);
        self.discard(left, DropReason::HandoverFull);
    }

    /// Recycles the frames of a group that cannot leave, and counts them.
    pub(super) fn discard(&mut self, group: Group<FrameOf<Q>>, reason: DropReason) {
        if !group.packets.is_empty() {
            let drops = &self.stats.port(group.way.ingress).drops[reason as usize];
            drops.add(group.packets.len() as u64);
        }
        self.put_list(group.packets);
    }

    /// Starts transmission, and hears what became of it.
    pub(super) fn kick(&mut self, at: usize) {
        let owned = &mut self.queues[at];
        let kick = owned.io.kick();
        owned.touched = false;
        owned.pending = kick.pending;
        self.turns.beside += kick.calls as usize;
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
        self.turns.reaped(owned, reaped);
    }
}
