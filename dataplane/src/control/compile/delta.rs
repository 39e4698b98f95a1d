//! Single prefixes whose routes changed, without a look at the others.
//!
//! What a prefix means depends on its own routes, and on these of others:
//!
//! | what | depends on | so |
//! |---|---|---|
//! | where it leads | its best routes, next-hop objects, devices, neighbours' family | others than routes: all of the family is made anew |
//! | whether it is seen | prefixes of earlier tables around it ([`super::effective`]) | it is looked for in those; they are the local table, and small |
//! | whether it hides others | prefixes of later tables inside of it | with any there, all is made anew |
//! | what the XDP program must know | whether the prefix around it is the kernel's; what is inside, whether it is itself | a prefix that changes hands with others inside: all is made anew |
//! | lines of the ledger | itself | counted by prefix ([`super::kept`]) |
//!
//! A change in the local table makes all anew: whose address a packet goes to decides
//! before any route does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::HashSet;

use super::effective::{contains, passed_anyway};
use super::policy::{self, Rules};
use super::{Compiler, KernelRoute};
use crate::control::mirror::{Dirty, TABLE_LOCAL};
use crate::netlink::{Event, Family, Prefix, Route};
use crate::tables::NextHop;
use crate::tables::fib::{Rib4, Rib6};

/// As many prefixes are looked at one by one, however few the table has.
const FEW: usize = 1024;

/// Prefixes whose routes changed, and nothing else of the family's.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    v4: Vec<(u32, Prefix)>,
    v6: Vec<(u32, Prefix)>,
}

impl Touched {
    /// Table and prefix of the route that an event is about.
    #[must_use]
    pub fn named_by(event: &Event) -> Option<(u32, Prefix)> {
        match event {
            Event::Route(route, _) | Event::RouteGone(route) => Some((route.table, route.dst)),
            _ => None,
        }
    }

    /// Notes what an event named, if that is all that it changed: false, if not.
    pub fn note(&mut self, named: Option<(u32, Prefix)>, changed: Dirty) -> bool {
        let Some((table, prefix)) = named else { return false };
        let family = Family::of(prefix.addr);
        if table == TABLE_LOCAL || !changed.is_one_route(family) {
            return false;
        }
        self.of_mut(family).push((table, prefix));
        true
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Those of a family: table and prefix, in order, each once.
    pub(super) fn take(&mut self, family: Family) -> Vec<(u32, Prefix)> {
        let mut all = std::mem::take(self.of_mut(family));
        all.sort_unstable();
        all.dedup();
        all
    }

    fn of_mut(&mut self, family: Family) -> &mut Vec<(u32, Prefix)> {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

/// A family's table.
pub(super) trait Table {
    fn len(&self) -> usize;
    fn get(&self, prefix: Prefix) -> Option<u32>;
    fn set(&mut self, prefix: Prefix, hop: Option<u32>);
    fn has_inside(&self, prefix: Prefix) -> bool;
}

macro_rules! table {
    ($rib:ty, $family:ident, $addr:ty) => {
        impl Table for $rib {
            fn len(&self) -> usize {
                <$rib>::len(self)
            }
            fn get(&self, prefix: Prefix) -> Option<u32> {
                <$rib>::get(self, addr(prefix), prefix.len)
            }
            fn set(&mut self, prefix: Prefix, hop: Option<u32>) {
                match hop {
                    Some(hop) => self.insert(addr(prefix), prefix.len, hop),
                    None => self.remove(addr(prefix), prefix.len),
                };
            }
            fn has_inside(&self, prefix: Prefix) -> bool {
                <$rib>::has_inside(self, addr(prefix), prefix.len)
            }
        }
        impl OfFamily for $addr {
            fn of(addr: IpAddr) -> Self {
                match addr {
                    IpAddr::$family(addr) => addr,
                    // A family's prefixes are asked for in its own table.
                    _ => Self::UNSPECIFIED,
                }
            }
        }
    };
}

trait OfFamily {
    fn of(addr: IpAddr) -> Self;
}

fn addr<A: OfFamily>(prefix: Prefix) -> A {
    A::of(prefix.addr)
}

table!(Rib4, V4, Ipv4Addr);
table!(Rib6, V6, Ipv6Addr);

/// Prefixes of tables that are looked into earlier.
struct Earlier {
    single: HashSet<IpAddr>,
    wide: Vec<Prefix>,
}

impl Earlier {
    fn hides(&self, family: Family, prefix: Prefix) -> bool {
        (prefix.len == family.bits() && self.single.contains(&prefix.addr))
            || self.wide.iter().any(|wide| contains(*wide, prefix))
    }
}

impl Compiler<'_> {
    /// Looks at single prefixes again. True: something came out differently. None: all of
    /// the family has to be made anew.
    pub(super) fn delta<T: Table>(
        &mut self,
        family: Family,
        touched: &[(u32, Prefix)],
        routes: &mut T,
    ) -> Option<bool> {
        if touched.len() > FEW.max(routes.len() / 4) {
            return None;
        }
        let rules = policy::rules(self.mirror, family, |name| self.port_named(name));
        let Rules::Tables(tables) = rules else { return None };
        let rank = |table: &u32| tables.iter().position(|t| t == table);
        let Some(first) = touched.iter().filter_map(|(table, _)| rank(table)).min() else {
            // No packet's way leads there.
            return Some(false);
        };
        if touched.iter().filter_map(|(table, _)| rank(table)).any(|r| r != first) {
            return None;
        }
        let later = tables[first + 1..].iter();
        if later.flat_map(|t| self.mirror.routes.of(*t, family)).next().is_some() {
            return None;
        }
        let earlier = self.earlier(family, &tables[..first])?;
        let mut kept = std::mem::take(self.out.kept_mut(family));
        let stays = self.out.ledger.stays(family).is_some();
        let mut changed = false;
        for (table, prefix) in touched {
            if rank(table).is_none() {
                continue;
            }
            kept.forget(*table, *prefix);
            let found: Vec<&Route> = self.mirror.routes.at(*table, *prefix).collect();
            let next_hop = if found.is_empty() {
                None
            } else {
                Some(self.in_one_table(family, &found, &mut kept))
            };
            // What earlier tables hide they hid before: no packet's way leads there.
            if !stays && !earlier.hides(family, *prefix) {
                changed |= self.put(family, *prefix, next_hop, routes)?;
            }
        }
        self.out.ledger.set_routes(family, kept.entries(family));
        *self.out.kept_mut(family) = kept;
        Some(changed)
    }

    /// None: there are so many that looking through them is as good as making all anew.
    fn earlier(&self, family: Family, tables: &[u32]) -> Option<Earlier> {
        let mut earlier = Earlier { single: HashSet::new(), wide: Vec::new() };
        for route in tables.iter().flat_map(|t| self.mirror.routes.of(*t, family)) {
            if route.dst.len == family.bits() {
                earlier.single.insert(route.dst.addr);
            } else if earlier.wide.last() != Some(&route.dst) {
                earlier.wide.push(route.dst);
            }
            if earlier.wide.len() > FEW || earlier.single.len() > 16 * FEW {
                return None;
            }
        }
        Some(earlier)
    }

    /// Puts a prefix's next hop where it belongs. True: it had another.
    fn put<T: Table>(
        &mut self,
        family: Family,
        prefix: Prefix,
        next_hop: Option<NextHop>,
        routes: &mut T,
    ) -> Option<bool> {
        let index = next_hop.map(|next_hop| self.hops.index(next_hop, 0));
        let before = routes.get(prefix);
        if index == before {
            return Some(false);
        }
        if !passed_anyway(prefix) {
            let around = self.is_kernels_around(prefix);
            let of = |index: Option<u32>| index.map_or(around, |i| !self.hops.get(i).is_ours());
            let (was, is) = (of(before), of(index));
            if was != is {
                if prefix.len != family.bits() && routes.has_inside(prefix) {
                    return None;
                }
                let listed = index.is_some() && is != around;
                self.list(prefix, listed.then_some(is));
            }
        }
        routes.set(prefix, index);
        Some(true)
    }

    /// Packets of the prefix would be the kernel's, were it not there itself.
    fn is_kernels_around(&self, prefix: Prefix) -> bool {
        let list = &self.out.kernel_routes;
        if list.is_empty() {
            return false;
        }
        (0..prefix.len)
            .rev()
            .find_map(|len| Some(list[at(list, shorter(prefix, len)).ok()?].kernel))
            == Some(true)
    }

    /// Has the program told whose a prefix is, or no more told.
    fn list(&mut self, prefix: Prefix, kernel: Option<bool>) {
        let list = &mut self.out.kernel_routes;
        match (at(list, prefix), kernel) {
            (Ok(at), Some(kernel)) => list[at].kernel = kernel,
            (Ok(at), None) => drop(list.remove(at)),
            (Err(at), Some(kernel)) => list.insert(at, KernelRoute { prefix, kernel }),
            (Err(_), None) => {}
        }
    }
}

/// Where a prefix is in the list, or belongs: IPv4's before IPv6's, each in order.
fn at(list: &[KernelRoute], prefix: Prefix) -> Result<usize, usize> {
    list.binary_search_by_key(&prefix, |r| r.prefix)
}

fn shorter(prefix: Prefix, len: u8) -> Prefix {
    let addr = match prefix.addr {
        IpAddr::V4(a) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            Ipv4Addr::from_bits(a.to_bits() & mask).into()
        }
        IpAddr::V6(a) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
            Ipv6Addr::from_bits(a.to_bits() & mask).into()
        }
    };
    Prefix { addr, len }
}
