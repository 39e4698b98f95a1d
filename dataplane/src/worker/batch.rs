//! One batch from one queue: what is usual together, the rest one by one, then each its way.
//!
//! ```text
//!  receive ─► heads ─► routes ─► ways ─► rewrite ───────────► all one way: as they are
//!               │        │        │                 ┌───────► else: in groups
//!               └────────┴────────┴─► one by one ───┘
//!                  not usual          (`single`)
//! ```

use arrayvec::ArrayVec;

use super::egress::Group;
use super::io::{BATCH, Memory, Queue};
use super::run::{Driver, FrameOf};
use super::single::{Origin, Tally};
use super::stages::usual::{Family, Heads, Leave, Ring, V4, V6};
use crate::tables::World;
use crate::wire::ethernet;

/// How many packets ahead of the one that is looked at are being fetched.
const PREFETCH: usize = 8;

const _: () = assert!(BATCH == 64, "a batch is the bits of a word");

/// What was received from a queue.
#[derive(Clone, Copy, Default)]
pub(super) struct Batch {
    pub(super) packets: usize,
    /// As many frames were taken as may be at once: there may be more.
    pub(super) more: bool,
}

/// Packets of a batch on their way out; a slot is emptied when its group leaves.
pub(super) type Leaving<F> = ArrayVec<Option<(F, Leave)>, BATCH>;

/// What became of the usual packets of a batch.
struct Done {
    /// The others, a bit each.
    left: u64,
    /// By number in the batch.
    leave: [Leave; BATCH],
    /// Bytes that leave.
    bytes: u64,
}

impl Done {
    /// Where all `packets` leave, if that is one place.
    fn all_by(&self, packets: usize) -> Option<Leave> {
        let (first, others) = self.leave[..packets].split_first()?;
        (self.left == 0 && others.iter().all(|leave| leave == first)).then_some(*first)
    }
}

impl<Q: Queue> Driver<Q> {
    /// Receives and handles at most one batch from queue `at`, and at most `most` packets.
    ///
    /// A long packet is one of them, and costs the turn what its further frames would.
    pub(super) fn run_queue(&mut self, world: &World, at: usize, most: usize, now: u64) -> Batch {
        let mut frames = self.list();
        let owned = &mut self.queues[at];
        let taken = owned.io.receive(&mut frames, most);
        if taken == 0 {
            self.put_list(frames);
            return Batch::default();
        }
        owned.posted = owned.posted.saturating_sub(taken);
        let packets = frames.len();
        self.turns.beside += taken - packets.min(taken);
        // Of long packets the limit is reached with fewer of them.
        let batch = Batch { packets, more: taken >= most.min(BATCH) };
        if packets == 0 {
            self.put_list(frames);
            return batch;
        }
        let (port, generation) = (owned.port, owned.generation);
        let (queue, account) = (owned.queue, owned.account);
        let ns = world.ports.get(port.index()).and_then(Option::as_ref).map(|port| port.ns);
        let origin = Origin { port, generation, queue, ns, account };
        let mut tally = Tally::default();
        let done = self.usual(world, origin, &mut frames, &mut tally);
        if let Some(leave) = done.all_by(packets) {
            tally.add_to(self.stats.port(port));
            let way = origin.way(world, leave);
            self.send(world, Group { way, bytes: done.bytes, places: packets, packets: frames });
        } else {
            let mut leaving = Leaving::new();
            for (at, frame) in frames.drain(..).enumerate() {
                if done.left >> at & 1 == 0 {
                    leaving.push(Some((frame, done.leave[at])));
                } else {
                    self.single(world, origin, frame, now, &mut tally, &mut leaving);
                }
            }
            tally.add_to(self.stats.port(port));
            self.put_list(frames);
            self.leave(world, origin, leaving);
        }
        batch
    }

    /// Makes the usual packets of a batch ready to leave.
    fn usual(
        &mut self,
        world: &World,
        origin: Origin,
        frames: &mut [FrameOf<Q>],
        tally: &mut Tally,
    ) -> Done {
        for frame in frames.iter().take(PREFETCH) {
            self.memory.prefetch(frame);
        }
        let left = u64::MAX >> (BATCH - frames.len());
        let mut done = Done { left, leave: [Leave::default(); BATCH], bytes: 0 };
        let Some(ring) = Ring::new(world, origin.port, origin.generation) else {
            return done;
        };
        if ring.takes::<V4>() {
            self.usual_of::<V4>(&ring, frames, &mut done, tally);
        }
        if done.left != 0 && ring.takes::<V6>() {
            self.usual_of::<V6>(&ring, frames, &mut done, tally);
        }
        done
    }

    /// Those of one family.
    #[inline(never)]
    fn usual_of<F: Family>(
        &mut self,
        ring: &Ring<'_>,
        frames: &mut [FrameOf<Q>],
        done: &mut Done,
        tally: &mut Tally,
    ) {
        let mut heads = Heads::<F>::default();
        let mut look = done.left;
        heads.fill(|| {
            while look != 0 {
                let at = look.trailing_zeros() as usize;
                look &= look - 1;
                if let Some(ahead) = frames.get(at + PREFETCH) {
                    self.memory.prefetch(ahead);
                }
                let frame = &mut frames[at];
                let (tag, long) = (self.memory.tag(frame), self.memory.is_long(frame));
                if let Some(head) = ring.head::<F>(&tag, self.memory.packet(frame))
                    && !long
                {
                    return Some((at, head));
                }
            }
            None
        });
        if heads.is_empty() {
            return;
        }
        let mut hops = [0; BATCH];
        ring.routes(&heads, &mut hops);
        let (mut left, mut bytes, mut leaving_bytes) = (done.left, 0, 0);
        for n in 0..heads.len() {
            let (at, (dst, len)) = heads.nth(n);
            let Some(way) = ring.way::<F>(&mut self.ways, (dst, len), hops[n % BATCH]) else {
                continue;
            };
            let frame = &mut frames[at];
            let packet = self.memory.packet(frame);
            let (here, len) = (packet.len(), ethernet::LEN + usize::from(len));
            F::rewrite(packet, &way.addresses);
            // A mask, so that no bound is to be checked.
            done.leave[at % BATCH] = way.leave;
            left &= !(1 << at);
            bytes += here as u64;
            leaving_bytes += len as u64;
            if here > len {
                self.memory.truncate(frame, len);
            }
        }
        tally.packets += u64::from((done.left ^ left).count_ones());
        tally.bytes += bytes;
        done.bytes += leaving_bytes;
        done.left = left;
    }

    /// Sends packets in groups of one egress port; within a group order is kept.
    fn leave(&mut self, world: &World, origin: Origin, mut leaving: Leaving<FrameOf<Q>>) {
        for first in 0..leaving.len() {
            let Some(&(_, leave)) = leaving[first].as_ref() else {
                continue;
            };
            let mut group = Group::new(origin.way(world, leave), self.list());
            for slot in &mut leaving[first..] {
                if let Some((mut frame, _)) = slot.take_if(|(_, other)| *other == leave) {
                    let extent = self.extent(&mut frame);
                    group.push(frame, extent);
                }
            }
            self.send(world, group);
        }
    }
}
