//! The one table that the kernel's tables amount to, where its rules look into one after
//! the other for every packet.

use std::iter::Peekable;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::control::mirror::{Mirror, SetId, TABLE_LOCAL};
use crate::netlink::{Family, Prefix};

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

/// A prefix of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) prefix: Prefix,
    /// Which table, in the order of lookup.
    pub(super) rank: usize,
    /// The table.
    pub(super) table: u32,
    /// Its routes.
    pub(super) set: SetId,
}

/// The prefixes of all tables, each before those inside of it, of equal ones that of the
/// earliest table first.
pub(super) fn prefixes<'a>(
    mirror: &'a Mirror,
    family: Family,
    tables: &'a [u32],
) -> impl Iterator<Item = Entry> + 'a {
    let of = |(rank, table): (usize, &'a u32)| {
        let all = mirror.routes.prefixes(*table, family);
        all.map(move |(prefix, set)| Entry { prefix, rank, table: *table, set }).peekable()
    };
    let mut each: Vec<Peekable<_>> = tables.iter().enumerate().map(of).collect();
    std::iter::from_fn(move || {
        let firsts = each.iter_mut().enumerate();
        let firsts = firsts.filter_map(|(at, all)| Some((all.peek()?.prefix, at)));
        let (_, at) = firsts.min()?;
        each[at].next()
    })
}

/// What is hidden by an earlier table's prefix, and whose packets are, while prefixes are
/// gone through in their order.
#[derive(Default)]
pub(super) struct Around {
    seen: Vec<(Bits, usize)>,
    owners: Vec<(Bits, bool)>,
}

impl Around {
    /// An earlier table's prefix hides it: an equal one, or one around it.
    pub(super) fn hides(&mut self, entry: &Entry) -> bool {
        let bits = Bits::of(entry.prefix);
        while self.seen.last().is_some_and(|(outer, _)| !outer.contains(bits)) {
            self.seen.pop();
        }
        // What was kept around it is of the earliest table there is.
        if self.seen.last().is_some_and(|(_, rank)| *rank < entry.rank) {
            return true;
        }
        self.seen.push((bits, entry.rank));
        false
    }

    /// Takes note of whose the packets of a prefix are that is not hidden. True: the XDP
    /// program has to be told, since those of the prefix around it are not.
    pub(super) fn is_told(&mut self, entry: &Entry, kernel: bool) -> bool {
        if is_local(entry) || passed_anyway(entry.prefix) {
            return false;
        }
        let bits = Bits::of(entry.prefix);
        while self.owners.last().is_some_and(|(outer, _)| !outer.contains(bits)) {
            self.owners.pop();
        }
        let around = self.owners.last().is_some_and(|(_, kernel)| *kernel);
        self.owners.push((bits, kernel));
        kernel != around
    }
}

/// A single address of the local table: the program has a map of them.
pub(super) fn is_local(entry: &Entry) -> bool {
    entry.table == TABLE_LOCAL && entry.prefix.len == Family::of(entry.prefix.addr).bits()
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
