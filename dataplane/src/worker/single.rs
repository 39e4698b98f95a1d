//! One packet for itself: whatever is not as nearly all are.

use nsplane_abi::Tag;
use nsplane_abi::long::LONGEST;
use nsplane_abi::tag::{TAG_CSUM_PARTIAL, TAG_ODD};

use super::batch::Leaving;
use super::io::{Memory, Queue};
use super::long;
use super::run::{Driver, FrameOf};
use super::stages::usual::Leave;
use super::stages::{self, Decision, Forward, Verdict};
use crate::id::{Generation, NsId, PortId, QueueId};
use crate::port::{Account, Punted, Way};
use crate::stats::{DropReason, PortStats, PuntReason};
use crate::tables::World;
use crate::wire::vlan;

/// Nanoseconds between two packets that are punted because of one stale neighbour.
const STALE_SAMPLE: u64 = 1_000_000_000;

/// Where a batch came from, or one packet of it that is a member's.
#[derive(Clone, Copy)]
pub(super) struct Origin {
    pub(super) port: PortId,
    pub(super) generation: Generation,
    pub(super) queue: QueueId,
    /// The port's namespace; None where the world has no such port.
    pub(super) ns: Option<NsId>,
    /// On whose account its packets go.
    pub(super) account: Account,
}

impl Origin {
    /// The same for a packet that came in as `ingress` says, which may be a member.
    #[inline]
    pub(super) fn of(self, world: &World, ingress: PortId) -> Self {
        if ingress == self.port {
            return self;
        }
        let member = world.ports.get(ingress.index()).and_then(Option::as_ref);
        Self {
            port: ingress,
            generation: member.map_or(self.generation, |m| m.generation),
            ns: member.map(|m| m.ns),
            account: member.map_or(self.account, |m| Account::of(m.ns)),
            ..self
        }
    }

    /// The way of packets that leave so.
    #[inline]
    pub(super) fn way(self, world: &World, leave: Leave) -> Way {
        Way {
            ingress: leave.ingress(),
            egress: leave.port(),
            generation: leave.generation(),
            queue: self.queue,
            account: self.of(world, leave.ingress()).account,
        }
    }
}

fn leave(how: &Forward) -> Leave {
    Leave::new(how.ingress, how.port, how.generation)
}

/// What is counted for a batch, added to the port's counters once. What is a member's
/// is counted at once.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    csum_completed: u64,
    /// There are drops or punts.
    others: bool,
    drops: [u64; DropReason::COUNT],
    punts: [u64; PuntReason::COUNT],
}

impl Tally {
    pub(super) fn add_to(&self, stats: &PortStats) {
        stats.rx_packets.add(self.packets);
        stats.rx_bytes.add(self.bytes);
        if self.csum_completed > 0 {
            stats.csum_completed.add(self.csum_completed);
        }
        if !self.others {
            return;
        }
        let drops = stats.drops.iter().zip(self.drops);
        let punts = stats.punts.iter().zip(self.punts);
        for (counter, n) in drops.chain(punts).filter(|&(_, n)| n > 0) {
            counter.add(n);
        }
    }
}

impl<Q: Queue> Driver<Q> {
    /// Decides on a packet, and does what was decided; one that leaves is put behind the
    /// others.
    pub(super) fn single(
        &mut self,
        world: &World,
        batch: Origin,
        mut frame: FrameOf<Q>,
        now: u64,
        tally: &mut Tally,
        leaving: &mut Leaving<FrameOf<Q>>,
    ) {
        let decision = self.decide(world, batch, &mut frame, tally);
        let origin = batch.of(world, decision.ingress);
        let packet = (frame, decision.lead);
        match decision.verdict {
            Verdict::Forward(how) => {
                let Some(mut frame) = self.sample(batch, origin, packet, &how, now, tally) else {
                    return;
                };
                let lead = decision.lead;
                stages::rewrite(&mut self.memory.packet(&mut frame)[usize::from(lead)..], &how);
                if lead != 0 || !how.tags.is_empty() {
                    return self.dress(batch, origin, (frame, lead), &how, tally, leaving);
                }
                self.cut(&mut frame, usize::from(how.len));
                leaving.push(Some((frame, leave(&how))));
            }
            Verdict::Send(how) => self.dress(batch, origin, packet, &how, tally, leaving),
            Verdict::Punt(reason) => {
                if origin.ns.is_some_and(|ns| self.budget.take(ns, now)) {
                    self.punt(batch, origin, packet, reason, tally);
                } else {
                    self.count_drop(batch, origin, DropReason::PuntLimit, tally);
                    self.recycle(packet.0);
                }
            }
            Verdict::Drop(reason) => {
                self.count_drop(batch, origin, reason, tally);
                self.recycle(packet.0);
            }
        }
    }

    /// Decides on a packet, and counts it.
    fn decide(
        &self,
        world: &World,
        origin: Origin,
        frame: &mut FrameOf<Q>,
        tally: &mut Tally,
    ) -> Decision {
        let tag = self.memory.tag(frame);
        let (port, generation) = (origin.port, origin.generation);
        if self.memory.is_long(frame) {
            self.decide_long(world, origin, frame, tag)
        } else if tag.flags & TAG_ODD == 0 {
            let packet = self.memory.packet(frame);
            let decision = stages::decide(world, port, generation, &tag, packet);
            tally.packets += 1;
            tally.bytes += packet.len() as u64;
            tally.csum_completed += u64::from(decision.csum_completed);
            decision
        } else {
            let below = self.memory.member_tag(frame);
            let packet = self.memory.packet(frame);
            let tags = (&tag, &below);
            let decision = stages::member::decide(world, port, generation, tags, packet);
            let bytes = packet.len() as u64;
            let csum_completed = u64::from(decision.csum_completed);
            let one = Tally { packets: 1, bytes, csum_completed, ..Tally::default() };
            one.add_to(self.stats.port(decision.ingress));
            decision
        }
    }

    /// Decides on a packet of several frames, and counts it.
    #[cold]
    fn decide_long(
        &self,
        world: &World,
        Origin { port, generation, .. }: Origin,
        frame: &mut FrameOf<Q>,
        mut tag: Tag,
    ) -> Decision {
        let below = self.memory.member_tag(frame);
        let (_, whole) = long::extent(&self.memory, frame);
        let csum_completed = long::complete_checksum(&self.memory, frame, whole, &tag);
        tag.flags &= !TAG_CSUM_PARTIAL;
        let first = self.memory.packet(frame);
        let behind = whole - first.len();
        let mut decision = if whole > LONGEST {
            // The program passes such: its settings are not of now.
            let verdict = Verdict::Drop(DropReason::Stale);
            Decision { verdict, ingress: port, lead: 0, csum_completed }
        } else if tag.flags & TAG_ODD == 0 {
            stages::decide_part(world, port, generation, &tag, (first, behind))
        } else {
            let tags = (&tag, &below);
            stages::member::decide_part(world, port, generation, tags, (first, behind))
        };
        decision.csum_completed = csum_completed;
        let one = Tally {
            packets: 1,
            bytes: whole as u64,
            csum_completed: u64::from(csum_completed),
            ..Tally::default()
        };
        one.add_to(self.stats.port(decision.ingress));
        decision
    }

    /// Punts a packet that could be forwarded, where the kernel should see some of its kind
    /// and may see this one. Returns it where it is to be forwarded.
    #[inline]
    fn sample(
        &mut self,
        batch: Origin,
        origin: Origin,
        (mut frame, lead): (FrameOf<Q>, u8),
        how: &Forward,
        now: u64,
        tally: &mut Tally,
    ) -> Option<FrameOf<Q>> {
        let Some(reason) = how.sample else { return Some(frame) };
        let frames = long::frames(&self.memory, &mut frame) as u32;
        if !self.may_sample(origin, how, (reason, frames), now) {
            return Some(frame);
        }
        // Others may have taken the room meanwhile.
        let refused = self.give_to_kernel(batch, origin, (frame, lead), reason, tally).err();
        refused.map(|(_, frame)| frame)
    }

    /// A packet that could be forwarded may be punted as a sample: there is budget
    /// to spare and room in the queue. To stale neighbours few packets will do, and
    /// for the seconds until the kernel has heard of one the table goes on saying
    /// "stale".
    fn may_sample(
        &mut self,
        origin: Origin,
        how: &Forward,
        (reason, frames): (PuntReason, u32),
        now: u64,
    ) -> bool {
        let stale = reason == PuntReason::StaleNeighbor;
        // Neighbours that share a slot wait for each other; none waits for good, since
        // one that was sampled is not stale for long.
        let slot = how.dst.0.iter().fold(how.port.0 as u8, |sum, byte| sum.rotate_left(3) ^ byte);
        let due = &mut self.stale_due[usize::from(slot)];
        if !self.punts.has_room(origin.account, frames) || (stale && now < *due) {
            return false;
        }
        let may = origin.ns.is_some_and(|ns| self.budget.take_spare(ns, now));
        if may && stale {
            *due = now.saturating_add(STALE_SAMPLE);
        }
        may
    }

    /// Puts on the VLAN tags that the packet leaves with, in place of those it came with.
    fn dress(
        &mut self,
        batch: Origin,
        origin: Origin,
        (mut frame, lead): (FrameOf<Q>, u8),
        how: &Forward,
        tally: &mut Tally,
        leaving: &mut Leaving<FrameOf<Q>>,
    ) {
        let (lead, len) = (usize::from(lead), usize::from(how.len));
        let dressed = len + how.tags.len();
        // Longer by at most two tags than what fits a u16, and then there is no room.
        let fits = if !self.memory.is_long(&frame) && self.memory.lengthen(&mut frame, dressed) {
            vlan::put_on(self.memory.packet(&mut frame), lead, len, how.tags)
        } else {
            // It has several frames, or needs them now.
            self.memory.multi_buffer() && self.dress_long(&mut frame, lead, len, how.tags)
        };
        if fits && dressed <= usize::from(u16::MAX) {
            self.cut(&mut frame, dressed);
            leaving.push(Some((frame, leave(how))));
        } else {
            self.count_drop(batch, origin, DropReason::NoRoom, tally);
            self.recycle(frame);
        }
    }

    #[cold]
    fn dress_long(
        &mut self,
        frame: &mut FrameOf<Q>,
        lead: usize,
        len: usize,
        tags: vlan::Tags,
    ) -> bool {
        let pool = &mut self.pool;
        long::cut(&self.memory, frame, lead + len, |frame| pool.put(frame));
        let mut spare = self.pool.take();
        let done = long::put_on(&self.memory, frame, lead, tags, &mut spare);
        spare.into_iter().for_each(|frame| self.pool.put(frame));
        done
    }

    /// Shortens a packet.
    #[inline]
    pub(super) fn cut(&mut self, frame: &mut FrameOf<Q>, len: usize) {
        if self.memory.is_long(frame) {
            let pool = &mut self.pool;
            long::cut(&self.memory, frame, len, |frame| pool.put(frame));
        } else {
            self.memory.truncate(frame, len);
        }
    }

    /// Takes the frames of a packet that goes nowhere.
    #[inline]
    pub(super) fn recycle(&mut self, frame: FrameOf<Q>) {
        let pool = &mut self.pool;
        long::give(&self.memory, frame, |frame| pool.put(frame));
    }

    fn count_drop(&self, batch: Origin, origin: Origin, reason: DropReason, tally: &mut Tally) {
        if origin.port == batch.port {
            tally.others = true;
            tally.drops[reason as usize] += 1;
        } else {
            self.stats.port(origin.port).drops[reason as usize].add(1);
        }
    }

    fn punt(
        &mut self,
        batch: Origin,
        origin: Origin,
        packet: (FrameOf<Q>, u8),
        reason: PuntReason,
        tally: &mut Tally,
    ) {
        if let Err((why, frame)) = self.give_to_kernel(batch, origin, packet, reason, tally) {
            self.count_drop(batch, origin, why, tally);
            self.recycle(frame);
        }
    }

    /// Puts a packet into the queue of the thread that punts; back, where it has no room.
    fn give_to_kernel(
        &mut self,
        batch: Origin,
        origin: Origin,
        (mut frame, lead): (FrameOf<Q>, u8),
        reason: PuntReason,
        tally: &mut Tally,
    ) -> Result<(), (DropReason, FrameOf<Q>)> {
        let Origin { port, generation, account, .. } = origin;
        let frames = long::frames(&self.memory, &mut frame) as u32;
        let punted = Punted { frame, frames, lead, port, generation, reason, account };
        self.punts.push(punted).map_err(|(why, punted)| (why, punted.frame))?;
        if port == batch.port {
            tally.others = true;
            tally.punts[reason as usize] += 1;
        } else {
            self.stats.port(port).punts[reason as usize].add(1);
        }
        self.punted = true;
        Ok(())
    }
}
