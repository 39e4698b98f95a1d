//! The one table that the kernel's tables amount to, where its rules look into one after
//! the other for every packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::KernelRoute;
use crate::control::mirror::{Mirror, TABLE_LOCAL};
use crate::netlink::{Family, Prefix, Route};
use crate::tables::NextHop;

/// A prefix, its address's bits at the top. Ordered so that a prefix comes before
/// those inside of it, and those before its neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bits {
    pub(super) bits: u128,
    pub(super) len: u8,
}

impl Bits {
    pub(super) fn of(p: Prefix) -> Self {
        let bits = match p.addr {
            IpAddr::V4(a) => u128::from(a.to_bits()) << 96,
            IpAddr::V6(a) => a.to_bits(),
        };
        Self { bits: bits & mask(p.len), len: p.len }
    }

    pub(super) fn contains(self, other: Self) -> bool {
        self.len <= other.len && (self.bits ^ other.bits) & mask(self.len) == 0
    }

    pub(super) fn prefix(self, family: Family) -> Prefix {
        let addr = match family {
            // The top 32 bits; the rest is zero.
            Family::V4 => Ipv4Addr::from_bits((self.bits >> 96) as u32).into(),
            Family::V6 => Ipv6Addr::from_bits(self.bits).into(),
        };
        Prefix { addr, len: self.len }
    }
}

fn mask(len: u8) -> u128 {
    match len {
        0 => 0,
        n => u128::MAX << (128 - n.min(128)),
    }
}

struct Entry {
    bits: Bits,
    /// Which table, in the order of lookup.
    rank: u16,
    /// A single address of the local table.
    local: bool,
    next_hop: NextHop,
}

/// The routes of one family that can match at all, each prefix once.
pub(super) struct Effective {
    family: Family,
    entries: Vec<Entry>,
}

impl Effective {
    /// Merges the tables; `decide` says what becomes of one prefix of one table.
    pub(super) fn of(
        mirror: &Mirror,
        family: Family,
        tables: &[u32],
        mut decide: impl FnMut(&[&Route]) -> NextHop,
    ) -> Self {
        let mut entries = Vec::new();
        for (table, rank) in tables.iter().zip(0_u16..) {
            each_prefix(mirror, family, *table, |routes| {
                let dst = routes[0].dst;
                let local = *table == TABLE_LOCAL && dst.len == family.bits();
                let bits = Bits::of(dst);
                entries.push(Entry { bits, rank, local, next_hop: decide(routes) });
            });
        }
        entries.sort_by_key(|e| (e.bits, e.rank));
        drop_hidden(&mut entries);
        Self { family, entries }
    }

    /// All of them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Prefix, NextHop)> {
        self.entries.iter().map(|e| (e.bits.prefix(self.family), e.next_hop))
    }

    /// The least list by whose longest match the kernel's prefixes are told from
    /// ours: a prefix is named only where it differs from the one around it.
    pub(super) fn kernel_routes(&self) -> Vec<KernelRoute> {
        let mut out = Vec::new();
        let mut around: Vec<(Bits, bool)> = Vec::new();
        for e in &self.entries {
            let prefix = e.bits.prefix(self.family);
            if e.local || passed_anyway(prefix) {
                continue;
            }
            while around.last().is_some_and(|(bits, _)| !bits.contains(e.bits)) {
                around.pop();
            }
            let kernel = !e.next_hop.is_ours();
            if kernel != around.last().is_some_and(|(_, kernel)| *kernel) {
                out.push(KernelRoute { prefix, kernel });
            }
            around.push((e.bits, kernel));
        }
        out
    }
}

/// Calls `each` with the routes of each prefix of a table: one at least, the prefixes in
/// their order.
pub(super) fn each_prefix(
    mirror: &Mirror,
    family: Family,
    table: u32,
    mut each: impl FnMut(&[&Route]),
) {
    let mut here: Vec<&Route> = Vec::new();
    let mut routes = mirror.routes.of(table, family).peekable();
    while let Some(route) = routes.next() {
        here.push(route);
        if routes.peek().is_none_or(|next| next.dst != route.dst) {
            each(&here);
            here.clear();
        }
    }
}

/// Drops what an earlier table's prefix hides: an equal one, or one around it.
fn drop_hidden(entries: &mut Vec<Entry>) {
    let mut around: Vec<(Bits, u16)> = Vec::new();
    entries.retain(|e| {
        while around.last().is_some_and(|(bits, _)| !bits.contains(e.bits)) {
            around.pop();
        }
        // What was kept around it is of the earliest table there is.
        if around.last().is_some_and(|(_, rank)| *rank < e.rank) {
            return false;
        }
        around.push((e.bits, e.rank));
        true
    });
}

/// One prefix is inside of another, or the same.
pub(super) fn contains(outer: Prefix, inner: Prefix) -> bool {
    Bits::of(outer).contains(Bits::of(inner))
}

/// All of the prefix is passed by the XDP program for its addresses alone.
pub(super) fn passed_anyway(p: Prefix) -> bool {
    let within = |net: IpAddr, len| Bits::of(Prefix { addr: net, len }).contains(Bits::of(p));
    match p.addr {
        IpAddr::V4(_) => within([127, 0, 0, 0].into(), 8) || within([224, 0, 0, 0].into(), 4),
        IpAddr::V6(_) => {
            within(Ipv6Addr::LOCALHOST.into(), 128)
                || within(Ipv6Addr::from_bits(0xfe80 << 112).into(), 10)
                || within(Ipv6Addr::from_bits(0xff00 << 112).into(), 8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containment() {
        let b = |a: [u8; 4], len| Bits::of(Prefix { addr: a.into(), len });
        assert!(b([0; 4], 0).contains(b([10, 0, 0, 0], 8)));
        assert!(b([10, 0, 0, 0], 8).contains(b([10, 1, 0, 0], 16)));
        assert!(!b([10, 1, 0, 0], 16).contains(b([10, 0, 0, 0], 8)));
        assert!(!b([10, 0, 0, 0], 16).contains(b([10, 1, 0, 0], 16)));
        let p = Prefix { addr: [10, 1, 0, 0].into(), len: 16 };
        assert_eq!(Bits::of(p).prefix(Family::V4), p);
    }
}
