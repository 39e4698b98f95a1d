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

/// Neighbours of one namespace.
#[derive(Clone, Debug, Default)]
pub struct NeighTable {
    v4: HashMap<u64, Mac>,
    v6: HashMap<(u128, u16), Mac>,
}

/// Port and address in one word.
fn key4(port: PortId, addr: Ipv4Addr) -> u64 {
    (u64::from(port.0) << 32) | u64::from(addr.to_bits())
}

fn key6(port: PortId, addr: Ipv6Addr) -> (u128, u16) {
    (addr.to_bits(), port.0)
}

impl NeighTable {
    /// The Ethernet address of a neighbour on a port's link.
    #[must_use]
    #[inline]
    pub fn get(&self, port: PortId, addr: IpAddr) -> Option<Mac> {
        match addr {
            IpAddr::V4(addr) => self.v4.get(&key4(port, addr)).copied(),
            IpAddr::V6(addr) => self.v6.get(&key6(port, addr)).copied(),
        }
    }

    /// Sets a neighbour's address; returns the one before.
    pub fn insert(&mut self, port: PortId, addr: IpAddr, mac: Mac) -> Option<Mac> {
        match addr {
            IpAddr::V4(addr) => self.v4.insert(key4(port, addr), mac),
            IpAddr::V6(addr) => self.v6.insert(key6(port, addr), mac),
        }
    }

    /// Forgets a neighbour; returns its address.
    pub fn remove(&mut self, port: PortId, addr: IpAddr) -> Option<Mac> {
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

impl FromIterator<(PortId, IpAddr, Mac)> for NeighTable {
    fn from_iter<I: IntoIterator<Item = (PortId, IpAddr, Mac)>>(entries: I) -> Self {
        let mut table = Self::default();
        for (port, addr, mac) in entries {
            table.insert(port, addr, mac);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_address_on_two_ports_is_two_neighbours() {
        let (a, b) = (PortId(1), PortId(2));
        for addr in ["10.0.0.1", "fe80::1"] {
            let addr: IpAddr = addr.parse().unwrap();
            let mut table: NeighTable =
                [(a, addr, Mac([1; 6])), (b, addr, Mac([2; 6]))].into_iter().collect();
            assert_eq!(table.get(a, addr), Some(Mac([1; 6])));
            assert_eq!(table.get(b, addr), Some(Mac([2; 6])));
            assert_eq!(table.get(PortId(3), addr), None);
            assert_eq!(table.insert(a, addr, Mac([3; 6])), Some(Mac([1; 6])));
            assert_eq!(table.remove(a, addr), Some(Mac([3; 6])));
            assert_eq!((table.len(), table.get(b, addr)), (1, Some(Mac([2; 6]))));
        }
    }
}
