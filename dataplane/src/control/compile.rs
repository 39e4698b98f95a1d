//! From a mirror to what workers and the XDP program forward by.
//!
//! Pure. What is not done exactly as the kernel would is left to the kernel, in
//! three sizes: a family of the namespace ([`Compiled::stays_with_kernel_v4`]),
//! a port, or a prefix ([`NextHop::Kernel`]).
//!
//! What the kernel does with the rules it comes with (`local`, `main`, `default`):
//! the first table in which any prefix matches decides, and in it the longest.
//! Hence a prefix of `local` hides all of `main` below it, however long, and
//! `main`'s default route all of `default`. So these tables are one to the workers
//! (`effective`). Where rules ask for more of a packet, or take not every result, the
//! workers go through them (`policy`).
//!
//! The packets that the XDP program passes by their addresses alone need no
//! entries for it: IPv4 loopback (127/8) and multicast (224/4), IPv6 loopback,
//! link-local (fe80::/10) and multicast (ff00::/8).

mod classes;
mod delta;
mod effective;
mod hops;
mod kept;
mod kernel_map;
mod policy;
mod ports;
mod routes;
mod ways;
mod which;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::{HashMap, HashSet};

use super::ledger::{self, Ledger};
use super::mirror::Mirror;
use crate::config::Bypass;
use crate::id::{IfIndex, PortId};
use crate::netlink::{Family, Prefix};
use crate::plant::{self, Bug};
use crate::tables::NextHop;
use crate::tables::fib::{Rib4, Rib6};
use crate::tables::multipath::Group;
use crate::tables::neigh::Neigh;
use classes::{Classes, Moved};
use delta::Change;
use hops::Hops;
use kept::Kept;

pub use delta::Touched;
pub(super) use policy::{rule_priority, strange_rule};
pub use ports::PortSettings;
pub use routes::{Policy, Routes};
pub use which::Which;

/// `next_hops[KERNEL]` is always [`NextHop::Kernel`].
pub const KERNEL: u32 = 0;

/// Everything that follows from one namespace's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// IPv4 routes: prefix, its length, index into `next_hops`. Each prefix once. None
    /// where there is a policy.
    pub v4: Rib4,
    /// IPv6 routes, likewise.
    pub v6: Rib6,
    /// IPv4's rules and tables, where the tables are not one.
    pub policy_v4: Option<Policy<u32>>,
    /// The same of IPv6.
    pub policy_v6: Option<Policy<u128>>,
    /// Where routes lead; each once, the first is [`NextHop::Kernel`]. Some may be of
    /// routes that are gone.
    pub next_hops: Vec<NextHop>,
    /// For each of them, the conditions that its routes meet by which rules do not take
    /// them.
    pub suppressed: Vec<u8>,
    /// Several next hops that routes are balanced over.
    pub groups: Vec<Group>,
    /// Neighbours that can be sent to.
    pub neighbors: Vec<((PortId, IpAddr), Neigh)>,
    /// The ports whose devices exist.
    pub ports: Vec<PortSettings>,
    /// Addresses that the namespace delivers, or broadcasts, itself.
    pub locals: BTreeSet<IpAddr>,
    /// Prefixes whose packets the XDP program passes, and ours inside of them: the
    /// longest that matches decides, no match means ours. Empty in the common case. True:
    /// the kernel's; false: ours, inside one of the kernel's.
    pub kernel_routes: BTreeMap<Prefix, bool>,
    /// Why the kernel forwards all IPv4 of the namespace, if it does.
    pub stays_with_kernel_v4: Option<String>,
    /// Why the kernel forwards all IPv6 of the namespace, if it does.
    pub stays_with_kernel_v6: Option<String>,
    /// What the namespace uses, and what becomes of it.
    pub ledger: Ledger,
    v4_state: State,
    v6_state: State,
    /// How many next hops had routes when they were counted last.
    used: usize,
}

/// What of a family is kept to compile single prefixes by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    kept: Kept,
    classes: Classes,
    /// The tables that are looked into one after the other; none where rules ask for more.
    looked: Vec<u32>,
}

/// A namespace's state, and what else counts.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Its kernel state.
    pub mirror: &'a Mirror,
    /// What of that the operator says to pass by.
    pub bypass: &'a [Bypass],
    /// Its ports.
    pub ports: &'a [(PortId, IfIndex)],
}

/// Compiles the state of a namespace.
#[must_use]
pub fn compile(source: Source<'_>) -> Compiled {
    let mut out = Compiled::default();
    out.update(source, Which::ALL);
    out
}

/// Next hops without a route that are put up with before all are numbered anew.
const UNUSED: usize = 256;

impl Compiled {
    /// Makes parts anew, the others being as the state has them already. Returns which
    /// came out differently.
    pub fn update(&mut self, source: Source<'_>, what: Which) -> Which {
        self.update_prefixes(source, what, Touched::default())
    }

    /// The same, where of a family that is not to be made anew single prefixes are.
    pub fn update_prefixes(&mut self, source: Source<'_>, what: Which, touched: Touched) -> Which {
        let what = what.and(self.judge(source, what, touched.any_local()));
        let mut changed = self.update_once(source, what, touched);
        // Counting them goes through all routes: only where there may be too many, and not
        // again before there are as many more.
        if self.next_hops.len() > 2 * self.used + UNUSED {
            self.used = self.used_next_hops();
        }
        // A number's meaning may change from group to group.
        if self.next_hops.len() > 2 * self.used + UNUSED
            || self.groups.len() > self.next_hops.len() + UNUSED
        {
            self.next_hops.clear();
            self.suppressed.clear();
            self.groups.clear();
            let both = Which { v4: true, v6: true, ..Which::default() };
            changed = changed.and(self.update_once(source, both, Touched::default()));
            (changed.v4, changed.v6) = (true, true);
        }
        changed
    }

    /// Goes through the ledger. Returns what else is to be made anew: who forwards a
    /// family may hang on a setting, and a port's settings on a route.
    fn judge(&mut self, source: Source<'_>, what: Which, local: bool) -> Which {
        // Neighbours, and routes to elsewhere, which change most, are in no line of it.
        if !(what.v4 | what.v6 | what.ways | what.ports | local) {
            return Which::default();
        }
        self.ledger.entries = ledger::judge(source.mirror, source.bypass).entries;
        let other = |family, was: &Option<String>| self.ledger.stays(family) != *was;
        let v4 = other(Family::V4, &self.stays_with_kernel_v4);
        let v6 = other(Family::V6, &self.stays_with_kernel_v6);
        Which { v4, v6, ports: v4 | v6, ..Which::default() }
    }

    fn update_once(&mut self, source: Source<'_>, what: Which, mut touched: Touched) -> Which {
        let Source { mirror, ports, .. } = source;
        let by_device = ports.iter().map(|(port, ifindex)| (*ifindex, *port)).collect();
        let hops = Hops::take(self);
        let mut c = Compiler { mirror, ports: by_device, hops, maps: false, out: self };
        let mut moved = Moved::default();
        let ways = what.ways && c.look_again(&mut moved);
        let mut change =
            |family| Change { touched: touched.take(family), ways: what.ways, moved: &moved };
        let (v4, v6) = (change(Family::V4), change(Family::V6));
        let changed = Which {
            v4: c.update_v4(what.v4, v4),
            v6: c.update_v6(what.v6, v6),
            ways,
            neighbors: what.neighbors && c.neighbors(),
            ports: what.ports && c.all_ports(ports),
            maps: c.maps,
        };
        let Compiler { hops, out, .. } = c;
        hops.give_back(out);
        changed
    }

    /// The tables of IPv4: one, or those that rules lead to.
    pub fn tables_v4(&self) -> impl Iterator<Item = (Ipv4Addr, u8, u32)> {
        let apart = self.policy_v4.iter().flat_map(|p| &p.tables).flat_map(|(_, t)| t);
        self.v4.iter().chain(apart.map(|r| (Ipv4Addr::from_bits(r.0), r.1, r.2)))
    }

    /// The tables of IPv6, likewise.
    pub fn tables_v6(&self) -> impl Iterator<Item = (Ipv6Addr, u8, u32)> {
        let apart = self.policy_v6.iter().flat_map(|p| &p.tables).flat_map(|(_, t)| t);
        self.v6.iter().chain(apart.map(|r| (Ipv6Addr::from_bits(r.0), r.1, r.2)))
    }

    fn state(&self, family: Family) -> &State {
        match family {
            Family::V4 => &self.v4_state,
            Family::V6 => &self.v6_state,
        }
    }

    fn state_mut(&mut self, family: Family) -> &mut State {
        match family {
            Family::V4 => &mut self.v4_state,
            Family::V6 => &mut self.v6_state,
        }
    }

    fn stays_with_kernel(&self, family: Family) -> &Option<String> {
        match family {
            Family::V4 => &self.stays_with_kernel_v4,
            Family::V6 => &self.stays_with_kernel_v6,
        }
    }

    fn used_next_hops(&self) -> usize {
        let (v4, v6) = (self.tables_v4().map(|r| r.2), self.tables_v6().map(|r| r.2));
        v4.chain(v6).collect::<HashSet<u32>>().len()
    }
}

struct Compiler<'a> {
    mirror: &'a Mirror,
    ports: HashMap<IfIndex, PortId>,
    hops: Hops,
    /// What the XDP program's maps hold came out differently.
    maps: bool,
    out: &'a mut Compiled,
}

impl Compiler<'_> {
    fn update_v4(&mut self, all: bool, change: Change<'_>) -> bool {
        if !all && !change.any() {
            return false;
        }
        let mut routes = std::mem::take(&mut self.out.v4);
        let one_by_one = if all { None } else { self.delta(Family::V4, change, &mut routes) };
        self.out.v4 = routes;
        one_by_one.unwrap_or_else(|| self.v4())
    }

    fn update_v6(&mut self, all: bool, change: Change<'_>) -> bool {
        if !all && !change.any() {
            return false;
        }
        let mut routes = std::mem::take(&mut self.out.v6);
        let one_by_one = if all { None } else { self.delta(Family::V6, change, &mut routes) };
        self.out.v6 = routes;
        one_by_one.unwrap_or_else(|| self.v6())
    }

    fn v4(&mut self) -> bool {
        let stays = self.out.ledger.stays(Family::V4);
        let made = self.routes::<u32>(Family::V4, stays.is_some());
        let mut changed = replace(&mut self.out.stays_with_kernel_v4, stays);
        changed |= replace(&mut self.out.policy_v4, made.policy);
        let routes = made.routes.iter().map(|r| (Ipv4Addr::from_bits(r.0), r.1, r.2));
        let same = |(addr, len, hop)| self.out.v4.get(addr, len) == Some(hop);
        if self.out.v4.len() == made.routes.len() && routes.clone().all(same) {
            return changed;
        }
        self.out.v4 = routes.collect();
        true
    }

    fn v6(&mut self) -> bool {
        let stays = self.out.ledger.stays(Family::V6);
        let made = self.routes::<u128>(Family::V6, stays.is_some());
        let mut changed = replace(&mut self.out.stays_with_kernel_v6, stays);
        changed |= replace(&mut self.out.policy_v6, made.policy);
        let routes = made.routes.iter().map(|r| (Ipv6Addr::from_bits(r.0), r.1, r.2));
        let same = |(addr, len, hop)| self.out.v6.get(addr, len) == Some(hop);
        if self.out.v6.len() == made.routes.len() && routes.clone().all(same) {
            return changed;
        }
        self.out.v6 = routes.collect();
        true
    }

    fn neighbors(&mut self) -> bool {
        let known = self.mirror.neighbors.values();
        let mut usable: Vec<_> = known
            .filter_map(|n| {
                let neigh = Neigh { mac: n.usable()?, stale: n.stale() };
                Some(((*self.ports.get(&n.ifindex)?, n.addr), neigh))
            })
            .collect();
        usable.sort_unstable();
        if plant::is(Bug::Neighbor) {
            for (key, neigh) in &mut usable {
                let known = self.out.neighbors.iter().find(|(known, _)| known == key);
                neigh.mac = known.map_or(neigh.mac, |(_, known)| known.mac);
            }
        }
        replace(&mut self.out.neighbors, usable)
    }
}

/// Puts a new value in place of an old one. True: they differ.
fn replace<T: PartialEq>(old: &mut T, new: T) -> bool {
    let changed = *old != new;
    *old = new;
    changed
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod update_tests;
