//! Routes of all tables, keyed as the kernel keys them.
//!
//! The kernel tells routes apart by table, destination, source (IPv6), TOS (IPv4)
//! and priority; under one such key there may be several, in an order that the
//! flags of their messages tell. IPv6 merges those with a router into one route
//! of several next hops, and takes single next hops out of it again.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::TABLE_LOCAL;
use crate::id::IfIndex;
use crate::netlink::{Family, Hop, Insert, Prefix, Route, RouteKind};

/// What tells routes apart. Ordered so that a table's routes are together, a
/// family's of them, and a destination's of those, shorter prefixes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    table: u32,
    dst: Prefix,
    source: Option<Prefix>,
    tos: u8,
    priority: u32,
}

impl Key {
    fn of(r: &Route) -> Self {
        Self { table: r.table, dst: r.dst, source: r.source, tos: r.tos, priority: r.priority }
    }
}

/// Routes of one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// No list is empty.
    map: BTreeMap<Key, Vec<Route>>,
    /// How many they are in all: counting them goes through a million.
    len: usize,
}

/// What [`Routes::drop_dead_v4`] did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Dropped {
    /// A route was dropped.
    pub(super) any: bool,
    /// One of them had several next hops.
    pub(super) several_hops: bool,
}

/// The same route, as far as its messages tell.
fn same(a: &Route, b: &Route) -> bool {
    alike(a, b) && a.prefsrc == b.prefsrc && a.mtu == b.mtu
}

/// The same way, whatever else differs: some values change without a message.
fn alike(a: &Route, b: &Route) -> bool {
    a.kind == b.kind && a.nexthop == b.nexthop && sorted(&a.hops) == sorted(&b.hops)
}

fn sorted(hops: &[Hop]) -> Vec<Hop> {
    // Whether one is dead tells no routes apart.
    let mut hops: Vec<Hop> = hops.iter().map(|h| Hop { dead: false, ..*h }).collect();
    hops.sort_unstable();
    hops
}

/// IPv6 merges such routes into one (`rt6_qualify_for_ecmp`).
fn merges(r: &Route) -> bool {
    Family::of(r.dst.addr) == Family::V6
        && r.nexthop.is_none()
        && !r.hops.is_empty()
        && r.hops.iter().all(|h| h.gateway.is_some())
}

/// The same next hop: a message about one of several does not say its weight.
fn same_hop(a: &Hop, b: &Hop) -> bool {
    (a.oif, a.gateway, a.encap) == (b.oif, b.gateway, b.encap)
}

fn has_hop(r: &Route, hop: &Hop) -> bool {
    r.hops.iter().any(|h| same_hop(h, hop))
}

fn overlap(a: &Route, b: &Route) -> bool {
    a.hops.iter().any(|h| has_hop(b, h))
}

impl Routes {
    /// Number of routes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// All routes, by table, family, destination, and what tells them apart.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.map.values().flatten()
    }

    /// The routes of one table and family, in the same order.
    pub fn of(&self, table: u32, family: Family) -> impl Iterator<Item = &Route> {
        let addr = match family {
            Family::V4 => IpAddr::from([0; 4]),
            Family::V6 => IpAddr::from([0; 16]),
        };
        let dst = Prefix { addr, len: 0 };
        let first = Key { table, dst, source: None, tos: 0, priority: 0 };
        self.map
            .range(first..)
            .take_while(move |(k, _)| k.table == table && Family::of(k.dst.addr) == family)
            .flat_map(|(_, routes)| routes)
    }

    /// The routes of one destination in a table, in the same order.
    pub fn at(&self, table: u32, dst: Prefix) -> impl Iterator<Item = &Route> {
        let first = Key { table, dst, source: None, tos: 0, priority: 0 };
        let here = self.map.range(first..);
        here.take_while(move |(k, _)| (k.table, k.dst) == (table, dst)).flat_map(|(_, list)| list)
    }

    /// The route of a destination that wins over its others in the table: the one of the
    /// least metric, the first of several.
    #[must_use]
    pub fn first_of(&self, table: u32, dst: Prefix) -> Option<&Route> {
        self.at(table, dst).min_by_key(|r| r.priority)
    }

    /// Puts a route in, as the kernel did. False: it was there already.
    pub(super) fn insert(&mut self, route: Route, how: Insert) -> bool {
        // Room for one: nearly all have one, and there may be a million.
        let list = self.map.entry(Key::of(&route)).or_insert_with(|| Vec::with_capacity(1));
        let before = list.len();
        if let [only] = list.as_slice()
            && *only == route
        {
            return false;
        }
        match Family::of(route.dst.addr) {
            Family::V4 => insert_v4(list, route, how),
            Family::V6 => insert_v6(list, route, how),
        }
        self.len = self.len + list.len() - before;
        true
    }

    /// Takes a route out, or next hops out of one. False: there was none.
    pub(super) fn remove(&mut self, route: &Route) -> bool {
        let key = Key::of(route);
        let Some(list) = self.map.get_mut(&key) else { return false };
        let before = list.len();
        let gone = if merges(route) { remove_hops(list, route) } else { remove_one(list, route) };
        self.len = self.len + list.len() - before;
        if list.is_empty() {
            self.map.remove(&key);
        }
        gone
    }

    /// Drops IPv4 routes out of `ifindex` all of whose devices are dead. `local`
    /// routes stay: an address is the host's, whatever becomes of its device.
    pub(super) fn drop_dead_v4(
        &mut self,
        ifindex: IfIndex,
        dead: impl Fn(IfIndex) -> bool,
    ) -> Dropped {
        let mut dropped = Dropped::default();
        self.retain(|r| {
            let goes = Family::of(r.dst.addr) == Family::V4
                && r.kind != RouteKind::Local
                && r.hops.iter().any(|h| h.oif == Some(ifindex))
                && r.hops.iter().all(|h| h.dead || h.oif.is_none_or(&dead));
            dropped.any |= goes;
            dropped.several_hops |= goes && r.hops.len() > 1;
            !goes
        });
        dropped
    }

    /// Marks the next hops out of `ifindex` of IPv4 routes with several. True: news.
    pub(super) fn mark_dead_v4(&mut self, ifindex: IfIndex, dead: bool) -> bool {
        let mut any = false;
        let several = |r: &&mut Route| r.dst.addr.is_ipv4() && r.hops.len() > 1;
        for route in self.map.values_mut().flatten().filter(several) {
            for hop in route.hops.iter_mut().filter(|h| h.oif == Some(ifindex)) {
                any |= hop.dead != dead;
                hop.dead = dead;
            }
        }
        any
    }

    /// Drops IPv4 routes out of a device without IPv4: those of one next hop, and those
    /// of several that are all dead. `local` ones stay: the kernel tells their end.
    pub(super) fn drop_without_address_v4(&mut self, ifindex: IfIndex) -> bool {
        self.retain(|r| {
            !(r.dst.addr.is_ipv4()
                && r.kind != RouteKind::Local
                && r.hops.iter().any(|h| h.oif == Some(ifindex))
                && r.hops.iter().all(|h| h.dead || h.oif == Some(ifindex)))
        })
    }

    /// There is a `local` IPv4 route out of the device other than to `addr`.
    pub(super) fn has_other_local_v4(&self, ifindex: IfIndex, addr: IpAddr) -> bool {
        self.iter().any(|r| {
            r.kind == RouteKind::Local
                && r.dst.addr.is_ipv4()
                && r.dst != Prefix { addr, len: 32 }
                && r.hops.iter().any(|h| h.oif == Some(ifindex))
        })
    }

    /// Drops what leads out of a device that is gone. IPv4 drops a route of several
    /// next hops whole when one's device goes (`fib_sync_down_dev`), IPv6 drops
    /// those next hops.
    pub(super) fn drop_device(&mut self, ifindex: IfIndex) -> bool {
        let mut any = false;
        for route in self.map.values_mut().flatten().filter(|r| r.dst.addr.is_ipv6()) {
            let before = route.hops.len();
            if route.hops.iter().any(|h| h.oif != Some(ifindex)) {
                route.hops.retain(|h| h.oif != Some(ifindex));
                any |= before != route.hops.len();
            }
        }
        any | self.retain(|r| r.hops.iter().all(|h| h.oif != Some(ifindex)))
    }

    /// Drops the routes that lead to a next-hop object.
    pub(super) fn drop_nexthop(&mut self, id: u32) -> bool {
        self.retain(|r| r.nexthop != Some(id))
    }

    /// Drops the IPv4 routes that prefer `addr` as source.
    pub(super) fn drop_prefsrc_v4(&mut self, addr: IpAddr) -> bool {
        addr.is_ipv4() && self.retain(|r| r.prefsrc != Some(addr))
    }

    /// The address is delivered locally.
    pub(super) fn is_local_v4(&self, addr: IpAddr) -> bool {
        let dst = Prefix { addr, len: 32 };
        self.at(TABLE_LOCAL, dst).any(|r| r.kind == RouteKind::Local)
    }

    /// Keeps what `keep` says. True: something went.
    fn retain(&mut self, mut keep: impl FnMut(&Route) -> bool) -> bool {
        let before = self.len;
        self.map.retain(|_, list| {
            let here = list.len();
            list.retain(&mut keep);
            self.len -= here - list.len();
            !list.is_empty()
        });
        self.len != before
    }
}

/// net/ipv4/fib_trie.c, `fib_table_insert`.
fn insert_v4(list: &mut Vec<Route>, route: Route, how: Insert) {
    if how == Insert::Replace {
        if !list.is_empty() {
            list.remove(0);
        }
        list.retain(|r| !same(r, &route));
        list.insert(0, route);
    } else if let Some(old) = list.iter_mut().find(|r| same(r, &route)) {
        *old = route;
    } else if how == Insert::Last {
        list.push(route);
    } else {
        list.insert(0, route);
    }
}

/// net/ipv6/ip6_fib.c, `fib6_add_rt2node`. A message about one of several merged
/// next hops names them all.
fn insert_v6(list: &mut Vec<Route>, route: Route, how: Insert) {
    let mut at = list.len();
    if how == Insert::Replace {
        let alike = list.iter().position(|r| merges(r) == merges(&route));
        at = alike.unwrap_or(0).min(list.len());
        if at < list.len() {
            list.remove(at);
        }
    }
    let joins = |r: &Route| merges(r) && merges(&route) && overlap(r, &route);
    let first = list.iter().position(|r| same(r, &route) || joins(r));
    list.retain(|r| !(same(r, &route) || joins(r)));
    let at = first.unwrap_or(at).min(list.len());
    list.insert(at, route);
}

fn remove_one(list: &mut Vec<Route>, route: &Route) -> bool {
    let exact = list.iter().position(|r| same(r, route));
    let Some(at) = exact.or_else(|| list.iter().position(|r| alike(r, route))) else {
        return false;
    };
    list.remove(at);
    true
}

/// Takes the route's next hops out of those that have them.
fn remove_hops(list: &mut Vec<Route>, route: &Route) -> bool {
    let mut any = false;
    for r in list.iter_mut().filter(|r| merges(r)) {
        let before = r.hops.len();
        r.hops.retain(|h| !has_hop(route, h));
        any |= before != r.hops.len();
    }
    // Emptied here: those that never had next hops do not merge.
    if any {
        list.retain(|r| !(r.hops.is_empty() && r.nexthop.is_none() && r.kind == route.kind));
    }
    any
}
