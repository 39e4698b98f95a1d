//! Which table a packet is routed by: policy rules.
//!
//! The kernel's rules in their order, without those that no packet of ours can match.
//! A rule whose table has no route for the packet, or none that counts, is passed over;
//! the first answer is the answer (net/core/fib_rules.c, `fib_rules_lookup`).
//!
//! Namespacing: *replicated*. A namespace with the rules that it came with has none of
//! this: its tables are one.
//!
//! Invariant: a rule leads to later ones only, so that a lookup ends.

use std::sync::Arc;

use super::NextHop;
use super::fib::{Fib4, Fib6};
use crate::id::PortId;

/// Longest-prefix match by an address as a number.
pub trait Table {
    /// An address.
    type Addr: Copy + PartialEq;
    /// The next hop's index of the longest route that matches.
    fn find(&self, addr: Self::Addr) -> Option<u32>;
    /// The bits of `addr` that `mask` has.
    fn masked(addr: Self::Addr, mask: Self::Addr) -> Self::Addr;
}

impl Table for Fib4 {
    type Addr = u32;
    #[inline]
    fn find(&self, addr: u32) -> Option<u32> {
        self.lookup(addr.into())
    }
    #[inline]
    fn masked(addr: u32, mask: u32) -> u32 {
        addr & mask
    }
}

impl Table for Fib6 {
    type Addr = u128;
    #[inline]
    fn find(&self, addr: u128) -> Option<u32> {
        self.lookup(addr.into())
    }
    #[inline]
    fn masked(addr: u128, mask: u128) -> u128 {
        addr & mask
    }
}

/// What of a packet rules ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<A> {
    /// Source.
    pub src: A,
    /// Destination.
    pub dst: A,
    /// What it came in on.
    pub iif: PortId,
    /// The TOS byte, or traffic class.
    pub tos: u8,
    /// Protocol of the payload.
    pub proto: u8,
    /// Source port; 0 where there is none, or in a fragment.
    pub sport: u16,
    /// Destination port, likewise.
    pub dport: u16,
}

impl<A> Key<A> {
    /// The key of an answer that comes in on `iif`: by it the reverse-path filter looks
    /// for the way back (net/ipv4/fib_frontend.c, `__fib_validate_source`).
    #[must_use]
    #[inline]
    pub fn of_answer(self, iif: PortId) -> Self {
        let Self { src, dst, sport, dport, tos, proto, .. } = self;
        Self { src: dst, dst: src, iif, tos, proto, sport: dport, dport: sport }
    }
}

/// Ports that a rule is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ports {
    /// Any, or none.
    #[default]
    Any,
    /// From the first to the last.
    Range(u16, u16),
    /// Those that have these bits, of those in the second number.
    Masked(u16, u16),
}

impl Ports {
    #[inline]
    fn matches(self, port: u16) -> bool {
        match self {
            Self::Any => true,
            Self::Range(first, last) => first <= port && port <= last,
            Self::Masked(bits, mask) => (bits ^ port) & mask == 0,
        }
    }
}

/// What a rule does with the packets that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Looks into a table.
    Table {
        /// Index into [`Policy::tables`].
        table: u16,
        /// Conditions that a result may not meet: bits of [`Policy::suppressed`].
        suppress: u8,
    },
    /// Goes on at a later rule.
    Goto(u16),
    /// Refuses the packet: the index of a next hop that says so.
    Refuse(u32),
}

/// A rule: all that it says must be so, or, inverted, not all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule<A> {
    /// It is for the others.
    pub invert: bool,
    /// What packets came in on; None: anything.
    pub iif: Option<PortId>,
    /// Source, and which bits of it count.
    pub src: (A, A),
    /// Destination, and which bits of it count.
    pub dst: (A, A),
    /// TOS byte, and which bits of it count.
    pub tos: (u8, u8),
    /// Protocol; 0: any.
    pub proto: u8,
    /// Source port.
    pub sport: Ports,
    /// Destination port.
    pub dport: Ports,
    /// What it does.
    pub action: Action,
}

/// What a lookup found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Index into [`Policy::rules`].
    pub rule: usize,
    /// Index into [`Policy::tables`]; None: the rule itself refuses the packet.
    pub table: Option<u16>,
    /// The next hop's index.
    pub index: u32,
}

/// A namespace's rules of one family, and the tables that they lead to.
#[derive(Clone, Debug)]
pub struct Policy<T: Table> {
    /// In their order.
    pub rules: Box<[Rule<T::Addr>]>,
    /// Those that rules look into.
    pub tables: Box<[Arc<T>]>,
    /// By a next hop's index: the conditions that it meets. Empty where no rule has one.
    pub suppressed: Arc<[u8]>,
}

impl<T: Table> Policy<T> {
    /// The next hop's index of the route that the packet takes.
    #[must_use]
    #[inline]
    pub fn lookup(&self, next_hops: &[NextHop], key: &Key<T::Addr>) -> Option<u32> {
        self.find(next_hops, key).map(|found| found.index)
    }

    /// The same, with what led there.
    #[must_use]
    #[inline]
    pub fn find(&self, next_hops: &[NextHop], key: &Key<T::Addr>) -> Option<Found> {
        let mut at = 0;
        while let Some(rule) = self.rules.get(at) {
            at += 1;
            if !Self::matches(rule, key) {
                continue;
            }
            match rule.action {
                // No rule leads back: see the module.
                Action::Goto(to) => at = at.max(usize::from(to)),
                Action::Refuse(index) => return Some(Found { rule: at - 1, table: None, index }),
                Action::Table { table: number, suppress } => {
                    let table = self.tables.get(usize::from(number));
                    let Some(index) = table.and_then(|t| t.find(key.dst)) else { continue };
                    let throws = next_hops.get(index as usize) == Some(&NextHop::Throw);
                    if !throws && self.meets(index) & suppress == 0 {
                        return Some(Found { rule: at - 1, table: Some(number), index });
                    }
                }
            }
        }
        None
    }

    fn meets(&self, index: u32) -> u8 {
        self.suppressed.get(index as usize).copied().unwrap_or_default()
    }

    #[inline]
    fn matches(rule: &Rule<T::Addr>, key: &Key<T::Addr>) -> bool {
        let within = |addr, (net, mask)| T::masked(addr, mask) == net;
        let all = rule.iif.is_none_or(|iif| iif == key.iif)
            && within(key.src, rule.src)
            && within(key.dst, rule.dst)
            && key.tos & rule.tos.1 == rule.tos.0
            && (rule.proto == 0 || rule.proto == key.proto)
            && rule.sport.matches(key.sport)
            && rule.dport.matches(key.dport);
        all != rule.invert
    }
}

#[cfg(test)]
mod tests;
