//! Longest-prefix match: tables that are changed prefix by prefix while they are
//! looked up.
//!
//! The writer has a [`Rib4`] or [`Rib6`]: insert, remove, and then [`Rib4::snapshot`].
//! Readers have a [`Fib4`] or [`Fib6`]: a snapshot, which nothing changes any more. Two
//! snapshots share all but what changed between them: a change makes a few routes' part
//! anew and copies two short lists of pointers, whatever the size of the table
//! ([why so](../../../docs/decisions/0014-tables-that-change-in-place.md)).
//!
//! | routes | the table is | a lookup is |
//! |---|---|---|
//! | up to 127 | sorted ranges over all addresses | one search |
//! | more | blocks of addresses with up to 127 routes each | the search for the block, and one in it |
//! | IPv4, 16,384 and more | a cell for each /18, a cache line where it is needed | [two looks into memory](../../../docs/decisions/0015-many-ipv4-routes.md) |
//!
//! A table takes another form as it grows and shrinks; its readers do not notice.
//!
//! Namespacing: *replicated*, one table a namespace. A tenant has tens of routes:
//! that is some hundred bytes, and publishing or freeing it touches nobody else.
//! A tagged table would put all tenants' routes into one structure that every
//! change of one copies a part of.
//!
//! Invariants: a snapshot never changes; a lookup in it gives the value of the longest
//! prefix that matched when it was made.
//!
//! ```
//! use nsplane::tables::fib::Rib4;
//!
//! let mut rib = Rib4::default();
//! rib.insert([10, 0, 0, 0].into(), 8, 1);
//! let before = rib.snapshot();
//! rib.insert([10, 1, 0, 0].into(), 16, 2);
//! let after = rib.snapshot();
//! assert_eq!(before.lookup([10, 1, 2, 3].into()), Some(1));
//! assert_eq!(after.lookup([10, 1, 2, 3].into()), Some(2));
//! ```

mod address;
mod direct;
mod fan;
mod lanes;
mod ranges;
mod rib;
mod routes;
mod sorted;
mod table;
mod v4;
mod v6;

#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, Ipv6Addr};

use address::Address;

/// What a batched lookup says where nothing matches.
pub const NO_MATCH: u32 = ranges::NONE;

macro_rules! family {
    ($fib:ident, $rib:ident, $addr:ty, $family:literal, $table:ty, $routes:ty) => {
        #[doc = concat!("A table of ", $family, " routes, as readers see it. Cheap to clone.")]
        #[derive(Clone, Debug, Default)]
        pub struct $fib($table);

        impl $fib {
            /// A table of these routes: prefix, its length in bits, the next hop's index
            /// (any but [`NO_MATCH`]; below 32,767 they take half as much memory). Host bits are ignored, a length too long is the
            /// longest there is; of two equal prefixes the last one counts.
            pub fn build(routes: impl IntoIterator<Item = ($addr, u8, u32)>) -> Self {
                $rib::from_iter(routes).snapshot()
            }

            /// The next hop's index of the longest route that matches.
            #[must_use]
            #[inline]
            pub fn lookup(&self, addr: $addr) -> Option<u32> {
                let hop = self.0.lookup(addr.to_bits());
                (hop != NO_MATCH).then_some(hop)
            }

            /// Looks up many at once, which takes less time for each. [`NO_MATCH`] is put
            /// where nothing matches; what one of the two has more than the other is
            /// passed over.
            pub fn lookup_all(&self, addrs: &[$addr], out: &mut [u32]) {
                self.0.lookup_all(addrs, out);
            }

            /// Memory of the table, in bytes.
            #[must_use]
            pub fn bytes(&self) -> usize {
                self.0.bytes()
            }
        }

        #[doc = concat!($family, " routes, and what became of them since readers were told.")]
        #[derive(Clone, Debug, Default)]
        pub struct $rib($routes);

        impl $rib {
            /// Sets a prefix's next hop: as [`
            #[doc = stringify!($fib)]
            /// ::build`] reads them. Returns the one before.
            pub fn insert(&mut self, addr: $addr, len: u8, hop: u32) -> Option<u32> {
                let (addr, len) = prefix(addr.to_bits(), len);
                self.0.insert(addr, len, hop)
            }

            /// Takes a prefix out. Returns its next hop.
            pub fn remove(&mut self, addr: $addr, len: u8) -> Option<u32> {
                let (addr, len) = prefix(addr.to_bits(), len);
                self.0.remove(addr, len)
            }

            /// The next hop of a prefix.
            #[must_use]
            pub fn get(&self, addr: $addr, len: u8) -> Option<u32> {
                let (addr, len) = prefix(addr.to_bits(), len);
                self.0.get(addr, len)
            }

            /// All routes, in no order.
            pub fn iter(&self) -> impl Iterator<Item = ($addr, u8, u32)> {
                self.0.iter().map(|(addr, len, hop)| (<$addr>::from_bits(addr), len, hop))
            }

            /// All routes, each prefix before those inside of it.
            pub fn sorted(&self) -> impl Iterator<Item = ($addr, u8, u32)> + use<> {
                let mut all: Vec<_> = self.iter().collect();
                all.sort_unstable();
                all.into_iter()
            }

            /// A longer prefix is inside of this one, whether it is here itself or not.
            #[must_use]
            pub fn has_inside(&self, addr: $addr, len: u8) -> bool {
                let (addr, len) = prefix(addr.to_bits(), len);
                self.0.has_inside(addr, len)
            }

            /// Number of routes.
            #[must_use]
            pub fn len(&self) -> usize {
                self.0.len()
            }

            /// There are none.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// What readers are to have from here on. Takes time for what changed since
            /// the last time, none for the rest.
            pub fn snapshot(&mut self) -> $fib {
                $fib(self.0.snapshot())
            }
        }

        impl PartialEq for $rib {
            /// The same routes.
            fn eq(&self, other: &Self) -> bool {
                let same = |(addr, len, hop)| other.0.get(addr, len) == Some(hop);
                self.len() == other.len() && self.0.iter().all(same)
            }
        }

        impl Eq for $rib {}

        impl FromIterator<($addr, u8, u32)> for $rib {
            fn from_iter<I: IntoIterator<Item = ($addr, u8, u32)>>(routes: I) -> Self {
                let route = |(addr, len, hop): ($addr, u8, u32)| {
                    let (addr, len) = prefix(addr.to_bits(), len);
                    (addr, len, hop)
                };
                Self(<$routes>::of(routes.into_iter().map(route).collect()))
            }
        }
    };
}

family!(Fib4, Rib4, Ipv4Addr, "IPv4", v4::Table4, v4::Rib4);
family!(Fib6, Rib6, Ipv6Addr, "IPv6", v6::Table6, v6::Rib6);

fn prefix<A: Address>(addr: A, len: u8) -> (A, u8) {
    let len = u32::from(len).min(A::BITS);
    (addr.and_not(A::host_bits(len)), len as u8)
}
