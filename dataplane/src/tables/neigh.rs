//! Resolved neighbours: (port, address) to Ethernet address.
//!
//! Namespacing: *replicated*, although large hash tables are tagged by rule: this
//! one is published whole with its namespace, so a neighbour that changes in one
//! namespace copies that namespace's table only, and a dead namespace's neighbours
//! go with it. One tagged table changed in place is for the day when copying
//! shows in a measurement.
//!
//! Keyed hashing: hosts on a link choose the addresses that end up here, so the
//! hash has a key that they do not know. It is hashbrown's default, foldhash, with
//! a random seed a table: not proof against somebody who learns the seed, which
//! SipHash would be at five times the price a packet, but the table is small (the
//! kernel holds at most `gc_thresh3` neighbours, 1,024 unless raised) and shows
//! nobody its hashes. Each key is hashed as one or two whole words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::HashMap;

use crate::id::{Mac, PortId};

/// A neighbour that can be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neigh {
    /// Its Ethernet address.
    pub mac: Mac,
    /// Nobody confirmed it lately (`NUD_STALE`): the kernel would, did it send.
    pub stale: bool,
}

impl Neigh {
    /// A neighbour that needs no confirming.
    #[must_use]
    pub fn fresh(mac: Mac) -> Self {
        Self { mac, stale: false }
    }
}

/// Neighbours of one namespace.
#[derive(Clone, Debug, Default)]
pub struct NeighTable {
    v4: HashMap<u64, Neigh>,
    v6: HashMap<(u128, u16), Neigh>,
}

/// Port and address in one word.
fn key4(port: PortId, addr: Ipv4Addr) -> u64 {
    (u64::from(port.0) << 32) | u64::from(addr.to_bits())
}

fn key6(port: PortId, addr: Ipv6Addr) -> (u128, u16) {
    (addr.to_bits(), port.0)
}

impl NeighTable {
    /// A neighbour on a port's link.
    #[must_use]
    #[inline]
    pub fn get(&self, port: PortId, addr: &IpAddr) -> Option<Neigh> {
        match addr {
            IpAddr::V4(addr) => self.v4.get(&key4(port, *addr)).copied(),
            IpAddr::V6(addr) => self.v6.get(&key6(port, *addr)).copied(),
        }
    }

    /// Sets a neighbour; returns the one before.
    pub fn insert(&mut self, port: PortId, addr: IpAddr, neigh: Neigh) -> Option<Neigh> {
        match addr {
            IpAddr::V4(addr) => self.v4.insert(key4(port, addr), neigh),
            IpAddr::V6(addr) => self.v6.insert(key6(port, addr), neigh),
        }
    }

    /// Forgets a neighbour; returns what it was.
    pub fn remove(&mut self, port: PortId, addr: IpAddr) -> Option<Neigh> {
        match addr {
            IpAddr::V4(addr) => self.v4.remove(&key4(port, addr)),
            IpAddr::V6(addr) => self.v6.remove(&key6(port, addr)),
        }
    }

    /// Neighbours in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// No neighbours.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl FromIterator<(PortId, IpAddr, Neigh)> for NeighTable {
    fn from_iter<I: IntoIterator<Item = (PortId, IpAddr, Neigh)>>(entries: I) -> Self {
        let mut table = Self::default();
        for (port, addr, neigh) in entries {
            table.insert(port, addr, neigh);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neigh(n: u8) -> Neigh {
        Neigh::fresh(Mac([n; 6]))
    }

    #[test]
    fn the_same_address_on_two_ports_is_two_neighbours() {
        let (a, b) = (PortId(1), PortId(2));
        for addr in ["10.0.0.1", "fe80::1"] {
            let addr: IpAddr = addr.parse().unwrap();
            let mut table: NeighTable =
                [(a, addr, neigh(1)), (b, addr, neigh(2))].into_iter().collect();
            assert_eq!(table.get(a, &addr), Some(neigh(1)));
            assert_eq!(table.get(b, &addr), Some(neigh(2)));
            assert_eq!(table.get(PortId(3), &addr), None);
            assert_eq!(table.insert(a, addr, neigh(3)), Some(neigh(1)));
            assert_eq!(table.remove(a, addr), Some(neigh(3)));
            assert_eq!((table.len(), table.get(b, &addr)), (1, Some(neigh(2))));
        }
    }
}
