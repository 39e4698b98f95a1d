//! Longest-prefix match.
//!
//! Routes are compiled into sorted, disjoint ranges, each with the value of its
//! longest route, so that a lookup is one search for the last start that is not
//! above the address; large tables get an index over the address' first bits that
//! narrows the search (the idea of DXR: Zec, Rizzo, Mikuc, 2012).
//!
//! ```text
//!  10.0.0.0/8 -> 1, 10.1.0.0/16 -> 2      starts  0.0.0.0 10.0.0.0 10.1.0.0 10.2.0.0 11.0.0.0
//!                                         values  none    1        2        1        none
//! ```
//!
//! Namespacing: *replicated*, one table a namespace. A tenant has tens of routes:
//! that is some hundred bytes, and publishing or freeing it touches nobody else.
//! A tagged table would put all tenants' routes into one structure that every
//! change of one rebuilds.
//!
//! Not here: changing a table in place. It is built anew and published whole; a
//! million routes take 0.1 s (IPv4) or 0.2 s (IPv6), and 8 to 40 MB.
//!
//! Invariants: a table that has ranges begins at address zero; neighbouring ranges
//! differ in value.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Value of a range that no route covers.
const NONE: u32 = u32::MAX;

/// Below this many ranges a plain binary search is as good as an index.
const INDEX_FROM: usize = 256;
/// Most address bits that an index covers: 4 MiB.
const MAX_INDEX_BITS: u32 = 20;

/// An address as a number.
trait Address: Copy + Ord {
    const BITS: u32;
    const ZERO: Self;
    /// The host bits of a prefix of `len` bits, all set.
    fn host_bits(len: u32) -> Self;
    fn and_not(self, other: Self) -> Self;
    fn or(self, other: Self) -> Self;
    /// The next address; None after the last.
    fn next(self) -> Option<Self>;
    /// The first `bits` bits, at most `MAX_INDEX_BITS`.
    fn top(self, bits: u32) -> usize;
    /// The first address whose `top` is `index`.
    fn from_top(index: usize, bits: u32) -> Self;
}

macro_rules! address {
    ($t:ty) => {
        impl Address for $t {
            const BITS: u32 = <$t>::BITS;
            const ZERO: Self = 0;
            fn host_bits(len: u32) -> Self {
                <$t>::MAX.checked_shr(len).unwrap_or(0)
            }
            fn and_not(self, other: Self) -> Self {
                self & !other
            }
            fn or(self, other: Self) -> Self {
                self | other
            }
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
            #[inline]
            fn top(self, bits: u32) -> usize {
                (self >> (<$t>::BITS - bits)) as usize
            }
            fn from_top(index: usize, bits: u32) -> Self {
                (index as $t) << (<$t>::BITS - bits)
            }
        }
    };
}
address!(u32);
address!(u128);

/// A compiled table.
#[derive(Clone, Debug, Default)]
struct Ranges<A> {
    starts: Box<[A]>,
    values: Box<[u32]>,
    /// For each value of the first `index_bits` bits, and one more: the range that
    /// holds its first address. Empty in small tables.
    index: Box<[u32]>,
    index_bits: u32,
}

impl<A: Address> Ranges<A> {
    fn build(routes: impl Iterator<Item = (A, u8, u32)>) -> Self {
        let mut sorted: Vec<(A, u8, u32)> = routes
            .map(|(addr, len, value)| {
                let len = u32::from(len).min(A::BITS);
                (addr.and_not(A::host_bits(len)), len as u8, value)
            })
            .collect();
        // Stable, so that of equal prefixes the one given last comes last.
        sorted.sort_by_key(|&(addr, len, _)| (addr, len));
        let mut flat = Flat::new(sorted.len());
        // The prefixes that contain the current one, outermost first: last address, value.
        let mut around: Vec<(A, u32)> = Vec::new();
        for (addr, len, value) in sorted {
            flat.close(&mut around, |last| last < addr);
            flat.push(addr, value);
            around.push((addr.or(A::host_bits(u32::from(len))), value));
        }
        flat.close(&mut around, |_| true);
        flat.finish()
    }

    #[inline]
    fn lookup(&self, addr: A) -> Option<u32> {
        let (from, to) = if self.index.is_empty() {
            (0, self.starts.len())
        } else {
            let top = addr.top(self.index_bits);
            (self.index[top] as usize, self.index[top + 1] as usize + 1)
        };
        // The first of the ranges looked at starts at or before the address.
        let after = self.starts[from..to].partition_point(|&start| start <= addr);
        let value = *self.values.get((from + after).checked_sub(1)?)?;
        (value != NONE).then_some(value)
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.starts) + size_of_val(&*self.values) + size_of_val(&*self.index)
    }
}

/// Ranges while they are laid down from left to right.
struct Flat<A> {
    starts: Vec<A>,
    values: Vec<u32>,
}

impl<A: Address> Flat<A> {
    fn new(routes: usize) -> Self {
        let mut flat =
            Self { starts: Vec::with_capacity(routes + 1), values: Vec::with_capacity(routes + 1) };
        if routes > 0 {
            flat.push(A::ZERO, NONE);
        }
        flat
    }

    /// From `start` on it is `value`; what was said of the same start before does not count.
    fn push(&mut self, start: A, value: u32) {
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.values.pop();
        }
        if self.values.last() != Some(&value) {
            self.starts.push(start);
            self.values.push(value);
        }
    }

    /// Ends the inner prefixes whose last address `ended` says so of: after each,
    /// it is the next outer one's value again.
    fn close(&mut self, around: &mut Vec<(A, u32)>, ended: impl Fn(A) -> bool) {
        while let Some(&(last, _)) = around.last()
            && ended(last)
        {
            around.pop();
            if let Some(next) = last.next() {
                self.push(next, around.last().map_or(NONE, |&(_, value)| value));
            }
        }
    }

    fn finish(self) -> Ranges<A> {
        let ranges = self.starts.len();
        let mut index = Vec::new();
        let mut index_bits = 0;
        if ranges >= INDEX_FROM {
            index_bits = ranges.ilog2().min(MAX_INDEX_BITS);
            index.reserve_exact((1 << index_bits) + 1);
            let mut range = 0;
            for top in 0..1_usize << index_bits {
                let first = A::from_top(top, index_bits);
                while range + 1 < ranges && self.starts[range + 1] <= first {
                    range += 1;
                }
                index.push(range as u32);
            }
            index.push(ranges as u32 - 1);
        }
        Ranges {
            starts: self.starts.into(),
            values: self.values.into(),
            index: index.into(),
            index_bits,
        }
    }
}

/// IPv4 routes: 8 bytes a range, and up to two ranges a route.
#[derive(Clone, Debug, Default)]
pub struct Fib4(Ranges<u32>);

impl Fib4 {
    /// Compiles routes: prefix, its length in bits, the next hop's index (any but
    /// `u32::MAX`). Host bits are ignored, a length above 32 is 32; of two equal
    /// prefixes the last one counts.
    pub fn build(routes: impl IntoIterator<Item = (Ipv4Addr, u8, u32)>) -> Self {
        let routes = routes.into_iter().map(|(addr, len, hop)| (addr.to_bits(), len, hop));
        Self(Ranges::build(routes))
    }

    /// The next hop's index of the longest route that matches.
    #[must_use]
    #[inline]
    pub fn lookup(&self, addr: Ipv4Addr) -> Option<u32> {
        self.0.lookup(addr.to_bits())
    }

    /// Memory of the table, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

/// IPv6 routes: 20 bytes a range, and up to two ranges a route.
#[derive(Clone, Debug, Default)]
pub struct Fib6(Ranges<u128>);

impl Fib6 {
    /// Compiles routes, as [`Fib4::build`]; a length above 128 is 128.
    pub fn build(routes: impl IntoIterator<Item = (Ipv6Addr, u8, u32)>) -> Self {
        let routes = routes.into_iter().map(|(addr, len, hop)| (addr.to_bits(), len, hop));
        Self(Ranges::build(routes))
    }

    /// The next hop's index of the longest route that matches.
    #[must_use]
    #[inline]
    pub fn lookup(&self, addr: Ipv6Addr) -> Option<u32> {
        self.0.lookup(addr.to_bits())
    }

    /// Memory of the table, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition: of the routes that match, the longest, and of equals the last.
    fn scan<A: Address>(routes: &[(A, u8, u32)], addr: A) -> Option<u32> {
        let matches = |&&(prefix, len, _): &&(A, u8, u32)| {
            let host = A::host_bits(u32::from(len));
            prefix.and_not(host) == addr.and_not(host)
        };
        routes.iter().filter(matches).max_by_key(|&&(_, len, _)| len).map(|&(_, _, hop)| hop)
    }

    /// The addresses at which a table could go wrong: around each route's ends.
    fn edges<A: Address>(routes: &[(A, u8, u32)], before: impl Fn(A) -> A) -> Vec<A> {
        let mut out = vec![A::ZERO, A::host_bits(0)];
        for &(prefix, len, _) in routes {
            let host = A::host_bits(u32::from(len));
            let (first, last) = (prefix.and_not(host), prefix.or(host));
            out.extend([before(first), first, prefix, before(last), last]);
            out.extend(last.next());
        }
        out
    }

    /// Prefixes that often nest and collide: few distinct bits.
    fn routes4() -> impl Strategy<Value = Vec<(u32, u8, u32)>> {
        let addr = prop_oneof![any::<u32>(), any::<u32>().prop_map(|a| a & 0x8181_0181)];
        prop::collection::vec((addr, 0..=32_u8, 0..6_u32), 0..60)
    }

    fn routes6() -> impl Strategy<Value = Vec<(u128, u8, u32)>> {
        let addr = prop_oneof![
            any::<u128>(),
            any::<u128>().prop_map(|a| a & 0x8000_0000_0000_0001_0000_0000_0000_0003)
        ];
        prop::collection::vec((addr, 0..=128_u8, 0..6_u32), 0..60)
    }

    #[test]
    fn an_empty_table_matches_nothing() {
        assert_eq!(Fib4::default().lookup(Ipv4Addr::UNSPECIFIED), None);
        assert_eq!(Fib6::build([]).lookup(Ipv6Addr::LOCALHOST), None);
    }

    #[test]
    fn a_default_route_matches_to_both_ends() {
        let fib = Fib4::build([(Ipv4Addr::UNSPECIFIED, 0, 7)]);
        assert_eq!(fib.lookup(Ipv4Addr::UNSPECIFIED), Some(7));
        assert_eq!(fib.lookup(Ipv4Addr::BROADCAST), Some(7));
        assert_eq!(fib.bytes(), 8);
    }

    #[test]
    fn tens_of_routes_take_some_hundred_bytes() {
        let fib = Fib4::build((0..40).map(|i| (Ipv4Addr::new(10, 0, i, 0), 24, u32::from(i))));
        assert!(fib.bytes() < 400, "{}", fib.bytes());
    }

    #[test]
    fn a_large_table_is_indexed_and_right() {
        // A multiplicative sequence spreads prefixes over all of the space.
        let routes: Vec<(u32, u8, u32)> = (0..200_000_u32)
            .map(|i| (i.wrapping_mul(2_654_435_761), 12 + (i % 17) as u8, i % 100))
            .collect();
        let fib = Ranges::build(routes.iter().copied());
        assert!(!fib.index.is_empty());
        assert!(fib.bytes() < 4_600_000, "{}", fib.bytes());
        for addr in (0..40_u32).map(|i| i.wrapping_mul(0x0765_4321)) {
            assert_eq!(fib.lookup(addr), scan(&routes, addr));
        }
        let few: Vec<_> = routes.iter().copied().take(300).collect();
        let fib = Ranges::build(few.iter().copied());
        for addr in edges(&few, |a| a.wrapping_sub(1)) {
            assert_eq!(fib.lookup(addr), scan(&few, addr));
        }
    }

    proptest! {
        #[test]
        fn ipv4_equals_a_linear_scan(routes in routes4(), more in prop::collection::vec(any::<u32>(), 20)) {
            let fib = Ranges::build(routes.iter().copied());
            for addr in edges(&routes, |a| a.wrapping_sub(1)).into_iter().chain(more) {
                prop_assert_eq!(fib.lookup(addr), scan(&routes, addr));
            }
        }

        #[test]
        fn ipv6_equals_a_linear_scan(routes in routes6(), more in prop::collection::vec(any::<u128>(), 20)) {
            let fib = Ranges::build(routes.iter().copied());
            for addr in edges(&routes, |a| a.wrapping_sub(1)).into_iter().chain(more) {
                prop_assert_eq!(fib.lookup(addr), scan(&routes, addr));
            }
        }

        #[test]
        fn ipv6_with_an_index_equals_a_linear_scan(seed: u128) {
            let routes: Vec<(u128, u8, u32)> = (0..400_u32)
                .map(|i| (seed.wrapping_mul(u128::from(i) * 2 + 1), (i % 129) as u8, i))
                .collect();
            let fib = Ranges::build(routes.iter().copied());
            for addr in edges(&routes, |a| a.wrapping_sub(1)) {
                prop_assert_eq!(fib.lookup(addr), scan(&routes, addr));
            }
        }
    }
}
