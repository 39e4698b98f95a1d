//! Packets as nearly all are, many at once: to the same verdicts as [`super::decide`] comes.
//!
//! ```text
//!  heads of all ─► routes of all ─► a way for each ─► rewritten
//!    └───────────────┴────────────────┴── anything else: left as it is, for `decide`
//! ```
//! Only what is certain to be forwarded here is done here; of all else nothing is said, and
//! `decide` says it. So what a rule means, and when the kernel is asked, is written once; that
//! the two agree is tested on packets of all kinds.
//!
//! A way, once found, is kept for as long as the world is the same ([`Ways`]).

mod head;
mod ways;

use std::net::IpAddr;

use nsplane_abi::Tag;
use nsplane_abi::tag::{TAG_CSUM_PARTIAL, TAG_ODD};

use super::route::{self, Out};
use crate::id::{Generation, PortId};
use crate::plant;
use crate::tables::fib::NO_MATCH;
use crate::tables::{Namespace, NextHop, Port, RpFilter, World};
use crate::wire::ethernet;
use head::MacWord;
pub use head::{Family, Head, V4, V6};
pub use ways::{Key, Leave, Way, Ways};

/// Most packets of a batch.
const MOST: usize = crate::port::BATCH;

/// What is the same for all plain packets of one receive ring, as one world has it.
#[derive(Clone, Copy)]
pub struct Ring<'w> {
    world: &'w World,
    ns: &'w Namespace,
    port: PortId,
    ingress: &'w Port,
    /// What a tag begins with that agrees.
    tag: u64,
    mac: MacWord,
}

impl<'w> Ring<'w> {
    /// None where ring and world do not agree.
    #[must_use]
    pub fn new(world: &'w World, port: PortId, generation: Generation) -> Option<Self> {
        // What is planted is planted in `decide`.
        if plant::POSSIBLE {
            return None;
        }
        let (ingress, ns) = super::ring(world, port, generation).ok()?;
        let tag = Tag { ns: ingress.ns.packed(), port: port.0, ..Tag::default() };
        let tag = Tag { generation: generation.low(), ..tag }.names();
        Some(Self { world, ns, port, ingress, tag, mac: MacWord::of(ingress.mac) })
    }

    /// Packets of the family can be done here at all.
    #[must_use]
    #[inline]
    pub fn takes<F: Family>(&self) -> bool {
        F::forwarding(self.ingress) && !F::has_policy(self.ns)
    }

    /// What counts of a packet, if it is plain, usual, and the ring's.
    #[inline(always)]
    pub fn head<F: Family>(&self, tag: &Tag, frame: &[u8]) -> Option<Head<F::Addr>> {
        let plain = tag.flags & (TAG_ODD | TAG_CSUM_PARTIAL) == 0;
        if !plain || tag.names() != self.tag {
            return None;
        }
        F::head(self.mac, frame)
    }

    /// Finds out where heads lead: the indices of their next hops.
    #[inline]
    pub fn routes<F: Family>(&self, heads: &Heads<F>, out: &mut [u32; MOST]) {
        let n = heads.len;
        F::lookup_all(self.ns, &heads.dst[..n], &mut out[..n]);
        if F::HAS_FILTER && self.ingress.rp_filter != RpFilter::Off {
            let mut back = [NO_MATCH; MOST];
            F::lookup_all(self.ns, &heads.src[..n], &mut back[..n]);
            for (out, back) in out.iter_mut().zip(&back[..n]) {
                let back = self.ns.next_hops.get(*back as usize);
                if !route::believed(self.ns, self.port, self.ingress, back) {
                    *out = NO_MATCH;
                }
            }
        }
    }

    /// How a packet with this head and next hop leaves, if it may.
    #[inline(always)]
    pub fn way<'a, F: Family>(
        &self,
        ways: &'a mut Ways,
        (dst, len): (F::Addr, u16),
        hop: u32,
    ) -> Option<&'a Way> {
        let Some(NextHop::Forward { gateway, .. }) = self.ns.next_hops.get(hop as usize) else {
            return None;
        };
        let link = if gateway.is_some() { 0 } else { F::key(dst) };
        let key = Key::new(self.port, hop, link);
        let at = ways.place(&key);
        if !ways.knows(at, &key) {
            ways.put(at, key, self.find(F::addr(dst), hop)?);
        }
        let way = ways.at(at);
        (u32::from(len) <= way.longest).then_some(way)
    }

    /// A way as `decide` finds it, for packets of any length.
    #[inline(never)]
    fn find(&self, dst: IpAddr, hop: u32) -> Option<Way> {
        let &NextHop::Forward { port, ref gateway, mtu } = self.ns.next_hops.get(hop as usize)?
        else {
            return None;
        };
        let out = Out { port, gateway: gateway.as_ref(), mtu };
        let (forward, longest) =
            super::leave(self.world, self.ns, (self.port, self.ingress), (&dst, 0), out).ok()?;
        if !forward.tags.is_empty() || forward.sample.is_some() {
            return None;
        }
        let mut addresses = [0; 2 * 6];
        addresses[..6].copy_from_slice(&forward.dst.0);
        addresses[6..].copy_from_slice(&forward.src.0);
        // What is longer has no length that fits the frame's.
        let longest = longest.min(u32::from(u16::MAX) - ethernet::LEN as u32);
        let leave = Leave::new(self.port, forward.port, forward.generation);
        Some(Way { leave, addresses, longest })
    }
}

/// Heads of a batch, those of one family.
pub struct Heads<F: Family> {
    len: usize,
    /// Which of the batch.
    at: [u8; MOST],
    lens: [u16; MOST],
    dst: [F::Addr; MOST],
    src: [F::Addr; MOST],
}

impl<F: Family> Default for Heads<F> {
    fn default() -> Self {
        let none = [F::NONE; MOST];
        Self { len: 0, at: [0; MOST], lens: [0; MOST], dst: none, src: none }
    }
}

impl<F: Family> Heads<F> {
    /// Those that `next` has, at most a batch: which of the batch each is of, and the head.
    #[inline(always)]
    pub fn fill(&mut self, mut next: impl FnMut() -> Option<(usize, Head<F::Addr>)>) {
        let mut n = 0;
        while let Some((at, head)) = next() {
            // A mask, so that no bound is to be checked.
            self.at[n % MOST] = at as u8;
            self.lens[n % MOST] = head.len;
            self.dst[n % MOST] = head.dst;
            self.src[n % MOST] = head.src;
            n += 1;
        }
        self.len = n.min(MOST);
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many there are.
    #[must_use]
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Of the nth: which packet of the batch it is of, its destination, and the length of
    /// its IP packet.
    #[must_use]
    #[inline(always)]
    pub fn nth(&self, n: usize) -> (usize, (F::Addr, u16)) {
        let n = n % MOST;
        (usize::from(self.at[n]), (self.dst[n], self.lens[n]))
    }
}

#[cfg(test)]
mod tests;
