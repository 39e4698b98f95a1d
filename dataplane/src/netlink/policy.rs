//! Policy rules and next-hop objects, as the kernel tells of them.

use std::net::IpAddr;

use super::event::{Family, Hop, Prefix};

/// A policy rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// The family whose packets it is for.
    pub family: Family,
    /// Its place in the order; of equal ones the first that was made comes first.
    pub priority: u32,
    /// Which packets it is for.
    pub selector: Selector,
    /// What is done with them.
    pub action: RuleAction,
    /// Results of the table that do not count.
    pub suppress: Suppress,
    /// What of it we do not know the meaning of.
    pub unknown: Option<&'static str>,
    /// The message, but for what changes by itself: tells rules from each other.
    pub identity: Box<[u8]>,
}

impl Rule {
    /// One that looks into a table for every packet.
    #[must_use]
    pub fn to_table(family: Family, priority: u32, table: u32) -> Self {
        let identity = [family as u32, priority, table].map(u32::to_ne_bytes).concat();
        Self {
            family,
            priority,
            selector: Selector::default(),
            action: RuleAction::Table(table),
            suppress: Suppress::default(),
            unknown: None,
            identity: identity.into(),
        }
    }
}

/// Which packets a rule is for: those that are as all of this says; `invert` says the
/// others.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector {
    /// It is for the packets that do not match.
    pub invert: bool,
    /// Source.
    pub src: Option<Prefix>,
    /// Destination.
    pub dst: Option<Prefix>,
    /// Name of the device that they came in on.
    pub iif: Option<String>,
    /// Name of the device that their sender chose.
    pub oif: Option<String>,
    /// Mark, and which bits of it count.
    pub mark: (u32, u32),
    /// The TOS byte, and which bits of it count.
    pub tos: (u8, u8),
    /// Protocol; 0 for any.
    pub proto: u8,
    /// Source port.
    pub sport: Ports,
    /// Destination port.
    pub dport: Ports,
    /// Only packets of a VRF.
    pub l3mdev: bool,
}

/// A range of ports, ends included; both 0 for any. With a mask it is the bits of the
/// start that count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    /// The first.
    pub start: u16,
    /// The last.
    pub end: u16,
    /// Which bits count; 0: it is a range.
    pub mask: u16,
}

/// What a rule does (`FR_ACT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleAction {
    /// Looks into a table; the next rule, where that has no route.
    Table(u32),
    /// Goes on at the rules of that priority.
    Goto(u32),
    /// Nothing.
    Nop,
    /// Drops the packet, with an answer or without: blackhole, unreachable, prohibit.
    Refuse,
    /// What we do not know.
    Unknown,
}

/// Results that a rule does not take: then the next rule is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Suppress {
    /// Prefixes of that length or shorter.
    pub prefixlen: Option<u32>,
    /// Routes out of a device of that group.
    pub ifgroup: Option<u32>,
}

impl Suppress {
    /// It says anything at all.
    #[must_use]
    pub fn any_given(self) -> bool {
        self != Self::default()
    }
}

/// A next-hop object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHopObject {
    /// Its number.
    pub id: u32,
    /// What it is.
    pub kind: NextHopKind,
}

/// What a next-hop object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextHopKind {
    /// One way.
    Hop(Hop),
    /// Several objects to be balanced over by the packets' hash, with their weights, in
    /// the kernel's order.
    Group(Box<[(u32, u16)]>),
    /// Packets end there.
    Blackhole,
    /// A resilient group, an FDB entry, or what we do not know.
    Other,
}

impl NextHopObject {
    /// The way, if it is one.
    #[must_use]
    pub fn hop(&self) -> Option<Hop> {
        match self.kind {
            NextHopKind::Hop(hop) => Some(hop),
            _ => None,
        }
    }

    /// Takes a member out of a group. True: it was one.
    pub fn leave(&mut self, id: u32) -> bool {
        let NextHopKind::Group(members) = &mut self.kind else { return false };
        let left: Box<[_]> = members.iter().copied().filter(|(m, _)| *m != id).collect();
        let left_some = left.len() != members.len();
        *members = left;
        left_some
    }
}

/// The whole address space of a family.
#[must_use]
pub fn everything(family: Family) -> Prefix {
    let addr = match family {
        Family::V4 => IpAddr::from([0; 4]),
        Family::V6 => IpAddr::from([0; 16]),
    };
    Prefix { addr, len: 0 }
}
