//! The routes of one prefix of a table: how they come beside each other, and go.
//!
//! The kernel tells them apart by source (IPv6), TOS (IPv4) and priority; under one such
//! key there may be several, in an order that the flags of their messages tell. IPv6
//! merges those with a router into one route of several next hops, and takes single next
//! hops out of it again.

use std::net::IpAddr;

use crate::id::IfIndex;
use crate::netlink::{Family, Hop, Insert, Prefix, Route, RouteKind};

/// A route but for its table and destination, of which there may be a million: the
/// kernel's `fib_alias` with its `fib_info`. Fields as in [`Route`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Alias {
    /// IPv6 only: which sources, where the route asks.
    pub source: Option<Prefix>,
    /// IPv4 only: which DSCP, 0 for any.
    pub tos: u8,
    /// The metric: the least wins.
    pub priority: u32,
    /// What becomes of matching packets.
    pub kind: RouteKind,
    /// The source address of the host's own packets.
    pub prefsrc: Option<IpAddr>,
    /// The longest packet that may take the route, where it says so.
    pub mtu: Option<u32>,
    /// The next-hop object it leads to; `hops` is empty then.
    pub nexthop: Option<u32>,
    /// The ways: none (blackhole), one, or several to be balanced over.
    pub hops: Vec<Hop>,
    /// The kernel will stop using it at some time, without saying so at once.
    pub expires: bool,
    /// It carries something that we do not know.
    pub unknown: bool,
}

impl Alias {
    /// A route, apart from where it is.
    pub(super) fn of(route: Route) -> (u32, Prefix, Self) {
        let Route { table, dst, source, tos, priority, kind, .. } = route;
        let Route { prefsrc, mtu, nexthop, hops, expires, unknown, .. } = route;
        let alias =
            Self { source, tos, priority, kind, prefsrc, mtu, nexthop, hops, expires, unknown };
        (table, dst, alias)
    }

    /// The route that it is there.
    #[must_use]
    pub fn at(&self, table: u32, dst: Prefix) -> Route {
        let Self { source, tos, priority, kind, prefsrc, mtu, nexthop, hops, expires, unknown } =
            self.clone();
        Route {
            table,
            dst,
            source,
            tos,
            priority,
            kind,
            prefsrc,
            mtu,
            nexthop,
            hops,
            expires,
            unknown,
        }
    }

    /// What the kernel tells the routes of a prefix apart by.
    pub(super) fn key(&self) -> (Option<Prefix>, u8, u32) {
        (self.source, self.tos, self.priority)
    }

    /// Some packet leaves by the device.
    pub(super) fn leads_out_of(&self, ifindex: IfIndex) -> bool {
        self.hops.iter().any(|h| h.oif == Some(ifindex))
    }
}

/// Puts a route in, as the kernel did.
pub(super) fn insert(family: Family, list: &mut Vec<Alias>, alias: Alias, how: Insert) {
    with_key_of(list, alias, |list, alias| match family {
        Family::V4 => insert_v4(list, alias, how),
        Family::V6 => insert_v6(list, alias, how),
    });
}

/// Takes a route out, or next hops out of one. False: there was none.
pub(super) fn remove(family: Family, list: &mut Vec<Alias>, alias: Alias) -> bool {
    let merged = family == Family::V6 && merges(&alias);
    with_key_of(list, alias, |list, alias| match merged {
        true => remove_hops(list, &alias),
        false => remove_one(list, &alias),
    })
}

/// Changes the part of a list that has the same key. The list is in the order of keys.
fn with_key_of<T>(
    list: &mut Vec<Alias>,
    alias: Alias,
    change: impl FnOnce(&mut Vec<Alias>, Alias) -> T,
) -> T {
    let key = alias.key();
    let first = list.partition_point(|a| a.key() < key);
    let end = list.partition_point(|a| a.key() <= key);
    let mut here: Vec<Alias> = list.splice(first..end, []).collect();
    let done = change(&mut here, alias);
    list.splice(first..first, here);
    done
}

/// The same route, as far as its messages tell.
fn same(a: &Alias, b: &Alias) -> bool {
    alike(a, b) && a.prefsrc == b.prefsrc && a.mtu == b.mtu
}

/// The same way, whatever else differs: some values change without a message.
fn alike(a: &Alias, b: &Alias) -> bool {
    a.kind == b.kind && a.nexthop == b.nexthop && sorted(&a.hops) == sorted(&b.hops)
}

fn sorted(hops: &[Hop]) -> Vec<Hop> {
    // Whether one is dead tells no routes apart.
    let mut hops: Vec<Hop> = hops.iter().map(|h| Hop { dead: false, ..*h }).collect();
    hops.sort_unstable();
    hops
}

/// IPv6 merges such routes into one (`rt6_qualify_for_ecmp`).
fn merges(a: &Alias) -> bool {
    a.nexthop.is_none() && !a.hops.is_empty() && a.hops.iter().all(|h| h.gateway.is_some())
}

/// The same next hop: a message about one of several does not say its weight.
fn same_hop(a: &Hop, b: &Hop) -> bool {
    (a.oif, a.gateway, a.encap) == (b.oif, b.gateway, b.encap)
}

fn has_hop(a: &Alias, hop: &Hop) -> bool {
    a.hops.iter().any(|h| same_hop(h, hop))
}

fn overlap(a: &Alias, b: &Alias) -> bool {
    a.hops.iter().any(|h| has_hop(b, h))
}

/// net/ipv4/fib_trie.c, `fib_table_insert`.
fn insert_v4(list: &mut Vec<Alias>, alias: Alias, how: Insert) {
    if how == Insert::Replace {
        if !list.is_empty() {
            list.remove(0);
        }
        list.retain(|a| !same(a, &alias));
        list.insert(0, alias);
    } else if let Some(old) = list.iter_mut().find(|a| same(a, &alias)) {
        *old = alias;
    } else if how == Insert::Last {
        list.push(alias);
    } else {
        list.insert(0, alias);
    }
}

/// net/ipv6/ip6_fib.c, `fib6_add_rt2node`. A message about one of several merged
/// next hops names them all.
fn insert_v6(list: &mut Vec<Alias>, alias: Alias, how: Insert) {
    let mut at = list.len();
    if how == Insert::Replace {
        let alike = list.iter().position(|a| merges(a) == merges(&alias));
        at = alike.unwrap_or(0).min(list.len());
        if at < list.len() {
            list.remove(at);
        }
    }
    let joins = |a: &Alias| merges(a) && merges(&alias) && overlap(a, &alias);
    let first = list.iter().position(|a| same(a, &alias) || joins(a));
    list.retain(|a| !(same(a, &alias) || joins(a)));
    let at = first.unwrap_or(at).min(list.len());
    list.insert(at, alias);
}

fn remove_one(list: &mut Vec<Alias>, alias: &Alias) -> bool {
    let exact = list.iter().position(|a| same(a, alias));
    let Some(at) = exact.or_else(|| list.iter().position(|a| alike(a, alias))) else {
        return false;
    };
    list.remove(at);
    true
}

/// Takes the route's next hops out of those that have them.
fn remove_hops(list: &mut Vec<Alias>, alias: &Alias) -> bool {
    let mut any = false;
    for a in list.iter_mut().filter(|a| merges(a)) {
        let before = a.hops.len();
        a.hops.retain(|h| !has_hop(alias, h));
        any |= before != a.hops.len();
    }
    // Emptied here: those that never had next hops do not merge.
    if any {
        list.retain(|a| !(a.hops.is_empty() && a.nexthop.is_none() && a.kind == alias.kind));
    }
    any
}
