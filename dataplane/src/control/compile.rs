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
mod which;

use std::collections::BTreeSet;
use std::net::IpAddr;

use hashbrown::{HashMap, HashSet};

use super::mirror::{Mirror, TABLE_DEFAULT, TABLE_LOCAL, TABLE_MAIN};
use crate::id::{IfIndex, Mac, PortId};
use crate::netlink::{Family, Hop, Link, Prefix, Qdisc, Route, RouteKind};
use crate::tables::neigh::Neigh;
use crate::tables::{NextHop, RpFilter};
use effective::Effective;

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
}

/// Compiles the state of a namespace of which `ports` are ours.
#[must_use]
pub fn compile(mirror: &Mirror, ports: &[(PortId, IfIndex)]) -> Compiled {
    let mut out = Compiled::default();
    out.update(mirror, ports, Which::ALL);
    out
}

/// Next hops without a route that are put up with before all are numbered anew.
const UNUSED: usize = 256;

impl Compiled {
    /// Makes parts anew, the others being as the state has them already. Returns which
    /// came out differently.
    pub fn update(&mut self, mirror: &Mirror, ports: &[(PortId, IfIndex)], what: Which) -> Which {
        let mut changed = self.update_once(mirror, ports, what);
        if self.next_hops.len() > 2 * self.used_next_hops() + UNUSED {
            self.next_hops.clear();
            self.update_once(mirror, ports, Which { v4: true, v6: true, ..Which::default() });
            (changed.v4, changed.v6) = (true, true);
        }
        changed
    }

    fn update_once(&mut self, mirror: &Mirror, ports: &[(PortId, IfIndex)], what: Which) -> Which {
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

/// The rules that a namespace comes with: priority and table.
fn default_rules(family: Family) -> &'static [(u32, u32)] {
    const RULES: [(u32, u32); 3] = [(0, TABLE_LOCAL), (32766, TABLE_MAIN), (32767, TABLE_DEFAULT)];
    match family {
        Family::V4 => &RULES,
        Family::V6 => RULES.split_at(2).0,
    }
}

/// Why a family stays with the kernel.
fn stays(mirror: &Mirror, family: Family) -> Option<String> {
    let unreadable = match family {
        Family::V4 => mirror.unreadable_v4,
        Family::V6 => mirror.unreadable_v6,
    };
    if mirror.lost {
        return Some("changes of it were lost; it is being read again".to_owned());
    }
    if unreadable {
        return Some("a route, rule or next hop of it could not be read".to_owned());
    }
    let rules = || mirror.rules.iter().filter(|r| r.family == family);
    let defaults = default_rules(family);
    for rule in rules() {
        if !rule.plain {
            return Some(format!("policy rule {} selects packets", rule.priority));
        }
        if !defaults.contains(&(rule.priority, rule.table)) {
            return Some(format!("policy rule {} leads to table {}", rule.priority, rule.table));
        }
    }
    let missing = defaults
        .iter()
        .find(|(priority, table)| !rules().any(|r| (r.priority, r.table) == (*priority, *table)));
    if let Some((priority, table)) = missing {
        return Some(format!("policy rule {priority} to table {table} is missing"));
    }
    // What acts upon packets would be bypassed.
    mirror.hook(family).map(|hook| hook.name.clone())
}

struct Compiler<'a> {
    mirror: &'a Mirror,
    ports: HashMap<IfIndex, PortId>,
    indices: HashMap<NextHop, u32>,
    out: &'a mut Compiled,
}

impl Compiler<'_> {
    fn v4(&mut self) -> bool {
        let stays = stays(self.mirror, Family::V4);
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
        let stays = stays(self.mirror, Family::V6);
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
        let effective = Effective::of(self.mirror, family, |routes| self.decide(family, routes));
        let of_family = |addr: &IpAddr| Family::of(*addr) == family;
        let mut locals: BTreeSet<IpAddr> = effective.locals().collect();
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

    /// Where packets go that match the prefix of `routes`, all of one table.
    fn decide(&self, family: Family, routes: &[&Route]) -> NextHop {
        self.forward(family, routes).unwrap_or(NextHop::Kernel)
    }

    /// None: only the kernel can follow it.
    fn forward(&self, family: Family, routes: &[&Route]) -> Option<NextHop> {
        // Routes that are for some packets only, or carry what we do not know,
        // make the choice between all of the prefix the kernel's.
        let some_only = |r: &&Route| r.tos != 0 || r.source.is_some() || r.unknown;
        if routes.iter().any(some_only) {
            return None;
        }
        let least = routes.iter().map(|r| r.priority).min()?;
        let mut best = routes.iter().filter(|r| r.priority == least);
        // Of several the kernel takes the first that lives, or (IPv6) takes turns.
        let (route, None) = (best.next()?, best.next()) else { return None };
        if route.table == TABLE_LOCAL || route.kind != RouteKind::Unicast || route.expires {
            return None;
        }
        let hop = self.hop(route)?;
        let ifindex = hop.oif?;
        let port = *self.ports.get(&ifindex)?;
        let link = self.mirror.links.get(&ifindex)?;
        if hop.encap || !usable(link) || self.mirror.qdiscs(ifindex).any(Qdisc::on_egress) {
            return None;
        }
        let mtu = mtu(link, family).min(route.mtu.unwrap_or(u32::MAX));
        Some(NextHop::Forward { port, gateway: hop.gateway, mtu })
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
        let filtered = mirror.qdiscs(ifindex).any(Qdisc::on_ingress);
        Some(PortSettings {
            port,
            ifindex,
            mac: link.mac.unwrap_or_default(),
            mtu: link.mtu,
            up: usable(link),
            forward_v4: !enslaved
                && !filtered
                && self.out.stays_with_kernel_v4.is_none()
                && mirror.forwards_v4(ifindex),
            forward_v6: !enslaved
                && !filtered
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
