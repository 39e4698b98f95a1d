//! From a mirror to what workers and the XDP program forward by.
//!
//! Pure. What is not done exactly as the kernel would is left to the kernel, in
//! three sizes: a family of the namespace ([`Compiled::stays_with_kernel_v4`]),
//! a port, or a prefix ([`NextHop::Kernel`]).
//!
//! What the kernel does with the rules it comes with (`local`, `main`, `default`):
//! the first table in which any prefix matches decides, and in it the longest.
//! Hence a prefix of `local` hides all of `main` below it, however long, and
//! `main`'s default route all of `default`. Any other rule keeps the family with
//! the kernel.
//!
//! The packets that the XDP program passes by their addresses alone need no
//! entries for it: IPv4 loopback (127/8) and multicast (224/4), IPv6 loopback,
//! link-local (fe80::/10) and multicast (ff00::/8).

mod effective;
mod kept;
mod which;

use std::collections::BTreeSet;
use std::net::IpAddr;

use hashbrown::{HashMap, HashSet};

use super::ledger::{self, Ledger};
use super::mirror::{Mirror, TABLE_LOCAL};
use crate::config::Bypass;
use crate::id::{IfIndex, Mac, PortId};
use crate::netlink::{Family, Hop, Link, Prefix, Route, RouteKind};
use crate::plant::{self, Bug};
use crate::tables::neigh::Neigh;
use crate::tables::{NextHop, RpFilter};
use effective::Effective;
use kept::Kept;

pub use which::Which;

/// `next_hops[KERNEL]` is always [`NextHop::Kernel`].
pub const KERNEL: u32 = 0;

/// A port's settings, as its device and namespace have them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSettings {
    /// The port.
    pub port: PortId,
    /// Its device.
    pub ifindex: IfIndex,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Longest IP packet that may leave here, in bytes.
    pub mtu: u32,
    /// Up, with carrier, and a router's port.
    pub up: bool,
    /// IPv4 that arrives here may be routed by us.
    pub forward_v4: bool,
    /// IPv6 that arrives here may be routed by us.
    pub forward_v6: bool,
    /// Reverse-path filter in force.
    pub rp_filter: RpFilter,
    /// A member of a bridge, bond or VRF: what arrives here is its master's.
    pub enslaved: bool,
}

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
    /// IPv4 routes: prefix, its length, index into `next_hops`. Each prefix once.
    pub v4: Vec<(u32, u8, u32)>,
    /// IPv6 routes, likewise.
    pub v6: Vec<(u128, u8, u32)>,
    /// Where routes lead; each once, the first is [`NextHop::Kernel`]. Some may be of
    /// routes that are gone.
    pub next_hops: Vec<NextHop>,
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
        let what = what.and(self.judge(source, what));
        let mut changed = self.update_once(source, what);
        // Counting them goes through all routes: only where there may be too many.
        let grew = (what.v4 | what.v6) && self.next_hops.len() > UNUSED;
        if grew && self.next_hops.len() > 2 * self.used_next_hops() + UNUSED {
            self.next_hops.clear();
            self.update_once(source, Which { v4: true, v6: true, ..Which::default() });
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

    fn update_once(&mut self, source: Source<'_>, what: Which) -> Which {
        let Source { mirror, ports, .. } = source;
        if self.next_hops.is_empty() {
            self.next_hops.push(NextHop::Kernel);
        }
        let indices = self.next_hops.iter().copied().zip(0..).collect();
        let by_device = ports.iter().map(|(port, ifindex)| (*ifindex, *port)).collect();
        let mut c = Compiler { mirror, ports: by_device, indices, out: self };
        Which {
            v4: what.v4 && c.v4(),
            v6: what.v6 && c.v6(),
            neighbors: what.neighbors && c.neighbors(),
            ports: what.ports && c.all_ports(ports),
        }
    }

    fn used_next_hops(&self) -> usize {
        let v4 = self.v4.iter().map(|r| r.2);
        let used: HashSet<u32> = v4.chain(self.v6.iter().map(|r| r.2)).collect();
        used.len()
    }
}

struct Compiler<'a> {
    mirror: &'a Mirror,
    ports: HashMap<IfIndex, PortId>,
    indices: HashMap<NextHop, u32>,
    out: &'a mut Compiled,
}

impl Compiler<'_> {
    fn v4(&mut self) -> bool {
        let stays = self.out.ledger.stays(Family::V4);
        let mut routes = Vec::new();
        let mut changed = self.routes(Family::V4, stays.is_some(), |prefix, index| {
            if let IpAddr::V4(a) = prefix.addr {
                routes.push((a.to_bits(), prefix.len, index));
            }
        });
        changed |= replace(&mut self.out.stays_with_kernel_v4, stays);
        changed | replace(&mut self.out.v4, routes)
    }

    fn v6(&mut self) -> bool {
        let stays = self.out.ledger.stays(Family::V6);
        let mut routes = Vec::new();
        let mut changed = self.routes(Family::V6, stays.is_some(), |prefix, index| {
            if let IpAddr::V6(a) = prefix.addr {
                routes.push((a.to_bits(), prefix.len, index));
            }
        });
        changed |= replace(&mut self.out.stays_with_kernel_v6, stays);
        changed | replace(&mut self.out.v6, routes)
    }

    /// One family's routes, local addresses, and what the XDP program must know.
    /// True: the latter two changed.
    fn routes(&mut self, family: Family, stays: bool, mut each: impl FnMut(Prefix, u32)) -> bool {
        let mut kept = Kept::default();
        let effective = Effective::of(self.mirror, family, |routes| {
            self.forward(family, routes).unwrap_or_else(|why| {
                kept.count(why, routes);
                NextHop::Kernel
            })
        });
        self.out.ledger.set_routes(family, kept.entries(family));
        let of_family = |addr: &IpAddr| Family::of(*addr) == family;
        let mut locals: BTreeSet<IpAddr> = effective.locals().collect();
        if family == Family::V4 {
            // One of a device that is down has no route, and yet the kernel takes
            // nothing from it.
            let addresses = self.mirror.addresses.iter().map(|a| a.prefix.addr);
            locals.extend(addresses.filter(of_family));
        }
        locals.extend(self.out.locals.iter().filter(|a| !of_family(a)));
        let mut kernel_routes = if stays { Vec::new() } else { effective.kernel_routes() };
        let others = self.out.kernel_routes.iter().filter(|r| !of_family(&r.prefix.addr));
        // IPv4's before IPv6's, so that the order says nothing.
        let at = if family == Family::V4 { kernel_routes.len() } else { 0 };
        kernel_routes.splice(at..at, others.copied());
        if !stays {
            for (prefix, next_hop) in effective.iter() {
                each(prefix, self.index(next_hop));
            }
        }
        let changed = replace(&mut self.out.locals, locals);
        changed | replace(&mut self.out.kernel_routes, kernel_routes)
    }

    fn index(&mut self, next_hop: NextHop) -> u32 {
        let next_hops = &mut self.out.next_hops;
        *self.indices.entry(next_hop).or_insert_with(|| {
            next_hops.push(next_hop);
            // There are no more next hops than routes, nor routes than memory.
            u32::try_from(next_hops.len() - 1).unwrap_or(KERNEL)
        })
    }

    /// Where packets go that match the prefix of `routes`, all of one table; or why
    /// only the kernel can follow it: an item of the ledger.
    fn forward(&self, family: Family, routes: &[&Route]) -> Result<NextHop, &'static str> {
        // Routes that are for some packets only, or carry what we do not know,
        // make the choice between all of the prefix the kernel's.
        if routes.iter().any(|r| r.tos != 0 || r.source.is_some()) {
            return Err("some-packets");
        }
        if routes.iter().any(|r| r.unknown) {
            return Err("unknown-route");
        }
        let least = routes.iter().map(|r| r.priority).min();
        let mut best = routes.iter().filter(|r| Some(r.priority) == least);
        // Of several the kernel takes the first that lives, or (IPv6) takes turns.
        let (Some(route), None) = (best.next(), best.next()) else { return Err("multipath") };
        if route.table == TABLE_LOCAL || route.kind != RouteKind::Unicast {
            return Err("refusing");
        }
        if route.expires {
            return Err("expiring");
        }
        let hop = self.hop(route).ok_or("multipath")?;
        if hop.encap {
            return Err("encap");
        }
        let (port, link) = self.way_out(hop).ok_or("other-devices")?;
        let mtu = mtu(link, family).min(route.mtu.unwrap_or(u32::MAX));
        Ok(NextHop::Forward { port, gateway: hop.gateway, mtu })
    }

    /// The port that a next hop leads to, where we may send.
    fn way_out(&self, hop: Hop) -> Option<(PortId, &Link)> {
        let ifindex = hop.oif?;
        let port = *self.ports.get(&ifindex)?;
        let link = self.mirror.links.get(&ifindex)?;
        let ours = usable(link) && !self.out.ledger.keeps_leaving(ifindex);
        ours.then_some((port, link))
    }

    /// The one way that a route takes.
    fn hop(&self, route: &Route) -> Option<Hop> {
        match (route.nexthop, route.hops.as_slice()) {
            (Some(id), _) => self.mirror.nexthops.get(&id)?.hop,
            (None, [only]) => Some(*only),
            _ => None,
        }
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

    fn all_ports(&mut self, ports: &[(PortId, IfIndex)]) -> bool {
        let settings = ports.iter().filter_map(|(port, ifindex)| self.port(*port, *ifindex));
        let settings = settings.collect();
        replace(&mut self.out.ports, settings)
    }

    fn port(&self, port: PortId, ifindex: IfIndex) -> Option<PortSettings> {
        let mirror = self.mirror;
        let link = mirror.links.get(&ifindex)?;
        let enslaved = link.master.is_some();
        let ledger = &self.out.ledger;
        Some(PortSettings {
            port,
            ifindex,
            mac: link.mac.unwrap_or_default(),
            mtu: link.mtu,
            up: usable(link),
            forward_v4: !enslaved
                && !ledger.keeps_arriving(ifindex, Family::V4)
                && self.out.stays_with_kernel_v4.is_none()
                && mirror.forwards_v4(ifindex),
            forward_v6: !enslaved
                && !ledger.keeps_arriving(ifindex, Family::V6)
                && self.out.stays_with_kernel_v6.is_none()
                && mirror.forwards_v6()
                && has_ipv6(mirror, ifindex),
            rp_filter: match mirror.rp_filter(ifindex) {
                0 => RpFilter::Off,
                1 => RpFilter::Strict,
                _ => RpFilter::Loose,
            },
            enslaved,
        })
    }
}

/// Puts a new value in place of an old one. True: they differ.
fn replace<T: PartialEq>(old: &mut T, new: T) -> bool {
    let changed = *old != new;
    *old = new;
    changed
}

/// Packets can leave by the device, and it is a router's port by itself.
fn usable(link: &Link) -> bool {
    link.up && link.carrier && link.master.is_none()
}

fn mtu(link: &Link, family: Family) -> u32 {
    match family {
        Family::V4 => link.mtu,
        Family::V6 => link.mtu6.map_or(link.mtu, |m| m.min(link.mtu)),
    }
}

/// IPv6 is at work on the device. The kernel drops what arrives where it is
/// disabled, but does not announce that: it takes the addresses away.
fn has_ipv6(mirror: &Mirror, ifindex: IfIndex) -> bool {
    mirror.addresses.iter().any(|a| a.ifindex == ifindex && a.prefix.addr.is_ipv6())
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod update_tests;
