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

use std::collections::BTreeSet;
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
use hops::Hops;
use kept::Kept;

pub use delta::Touched;
pub(super) use policy::{rule_priority, strange_rule};
pub use ports::PortSettings;
pub use routes::{Policy, Routes};
pub use which::Which;

/// `next_hops[KERNEL]` is always [`NextHop::Kernel`].
pub const KERNEL: u32 = 0;

/// A prefix for the XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KernelRoute {
    /// The prefix.
    pub prefix: Prefix,
    /// True: the kernel's. False: ours, inside one of the kernel's.
    pub kernel: bool,
}

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
    /// longest that matches decides, no match means ours. Empty in the common case.
    pub kernel_routes: Vec<KernelRoute>,
    /// Why the kernel forwards all IPv4 of the namespace, if it does.
    pub stays_with_kernel_v4: Option<String>,
    /// Why the kernel forwards all IPv6 of the namespace, if it does.
    pub stays_with_kernel_v6: Option<String>,
    /// What the namespace uses, and what becomes of it.
    pub ledger: Ledger,
    kept_v4: Kept,
    kept_v6: Kept,
    /// How many next hops had routes when they were counted last.
    used: usize,
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
        let what = what.and(self.judge(source, what));
        let mut changed = self.update_once(source, what, touched);
        // Counting them goes through all routes: only where there may be too many, and not
        // again before there are as many more.
        if self.next_hops.len() > 2 * self.used + UNUSED {
            self.used = self.used_next_hops();
        }
        if self.next_hops.len() > 2 * self.used + UNUSED {
            self.next_hops.clear();
            self.suppressed.clear();
            self.groups.clear();
            let both = Which { v4: true, v6: true, ..Which::default() };
            self.update_once(source, both, Touched::default());
            (changed.v4, changed.v6) = (true, true);
        }
        changed
    }

    /// Goes through the ledger. Returns what else is to be made anew: who forwards a
    /// family may hang on a setting, and a port's settings on a route.
    fn judge(&mut self, source: Source<'_>, what: Which) -> Which {
        // Neighbours, which change most, are in no line of it.
        if !(what.v4 | what.v6 | what.ports) {
            return Which::default();
        }
        self.ledger.entries = ledger::judge(source.mirror, source.bypass).entries;
        let other = |family, was: &Option<String>| self.ledger.stays(family) != *was;
        let v4 = other(Family::V4, &self.stays_with_kernel_v4);
        let v6 = other(Family::V6, &self.stays_with_kernel_v6);
        Which { v4, v6, neighbors: false, ports: v4 | v6 }
    }

    fn update_once(&mut self, source: Source<'_>, what: Which, mut touched: Touched) -> Which {
        let Source { mirror, ports, .. } = source;
        let by_device = ports.iter().map(|(port, ifindex)| (*ifindex, *port)).collect();
        let hops = Hops::take(self);
        let mut c = Compiler { mirror, ports: by_device, hops, out: self };
        let changed = Which {
            v4: c.update_v4(what.v4, &touched.take(Family::V4)),
            v6: c.update_v6(what.v6, &touched.take(Family::V6)),
            neighbors: what.neighbors && c.neighbors(),
            ports: what.ports && c.all_ports(ports),
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

    fn kept_mut(&mut self, family: Family) -> &mut Kept {
        match family {
            Family::V4 => &mut self.kept_v4,
            Family::V6 => &mut self.kept_v6,
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
    out: &'a mut Compiled,
}

impl Compiler<'_> {
    fn update_v4(&mut self, all: bool, touched: &[(u32, Prefix)]) -> bool {
        if !all && touched.is_empty() {
            return false;
        }
        let mut routes = std::mem::take(&mut self.out.v4);
        let one_by_one = if all { None } else { self.delta(Family::V4, touched, &mut routes) };
        self.out.v4 = routes;
        one_by_one.unwrap_or_else(|| self.v4())
    }

    fn update_v6(&mut self, all: bool, touched: &[(u32, Prefix)]) -> bool {
        if !all && touched.is_empty() {
            return false;
        }
        let mut routes = std::mem::take(&mut self.out.v6);
        let one_by_one = if all { None } else { self.delta(Family::V6, touched, &mut routes) };
        self.out.v6 = routes;
        one_by_one.unwrap_or_else(|| self.v6())
    }

    fn v4(&mut self) -> bool {
        let stays = self.out.ledger.stays(Family::V4);
        let (made, mut changed) = self.routes::<u32>(Family::V4, stays.is_some());
        changed |= replace(&mut self.out.stays_with_kernel_v4, stays);
        changed |= replace(&mut self.out.policy_v4, made.policy);
        let routes =
            made.routes.into_iter().map(|(a, len, hop)| (Ipv4Addr::from_bits(a), len, hop));
        changed | replace(&mut self.out.v4, routes.collect())
    }

    fn v6(&mut self) -> bool {
        let stays = self.out.ledger.stays(Family::V6);
        let (made, mut changed) = self.routes::<u128>(Family::V6, stays.is_some());
        changed |= replace(&mut self.out.stays_with_kernel_v6, stays);
        changed |= replace(&mut self.out.policy_v6, made.policy);
        let routes =
            made.routes.into_iter().map(|(a, len, hop)| (Ipv6Addr::from_bits(a), len, hop));
        changed | replace(&mut self.out.v6, routes.collect())
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
