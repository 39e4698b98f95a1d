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

use std::collections::BTreeSet;
use std::net::IpAddr;

use hashbrown::HashMap;

use super::mirror::{Mirror, TABLE_DEFAULT, TABLE_LOCAL, TABLE_MAIN};
use crate::id::{IfIndex, Mac, PortId};
use crate::netlink::{Family, Hop, Link, Prefix, Qdisc, Route, RouteKind};
use crate::tables::neigh::Neigh;
use crate::tables::{NextHop, RpFilter};
use effective::Effective;

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
    /// Where routes lead; each once, the first is [`NextHop::Kernel`].
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
    let mut c = Compiler {
        mirror,
        ports: ports.iter().map(|(port, ifindex)| (*ifindex, *port)).collect(),
        indices: HashMap::new(),
        out: Compiled { next_hops: vec![NextHop::Kernel], ..Compiled::default() },
    };
    c.indices.insert(NextHop::Kernel, KERNEL);
    c.out.stays_with_kernel_v4 = stays(mirror, Family::V4);
    c.out.stays_with_kernel_v6 = stays(mirror, Family::V6);
    for family in [Family::V4, Family::V6] {
        c.routes(family);
    }
    c.neighbors();
    c.out.ports = ports.iter().filter_map(|(port, ifindex)| c.port(*port, *ifindex)).collect();
    c.out
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
    out: Compiled,
}

impl Compiler<'_> {
    /// One family's routes, local addresses, and what the XDP program must know.
    fn routes(&mut self, family: Family) {
        let effective = Effective::of(self.mirror, family, |routes| self.decide(family, routes));
        self.out.locals.extend(effective.locals());
        let stays = match family {
            Family::V4 => &self.out.stays_with_kernel_v4,
            Family::V6 => &self.out.stays_with_kernel_v6,
        };
        if stays.is_some() {
            return;
        }
        self.out.kernel_routes.extend(effective.kernel_routes());
        for (prefix, next_hop) in effective.iter() {
            let index = self.index(next_hop);
            match prefix.addr {
                IpAddr::V4(a) => self.out.v4.push((a.to_bits(), prefix.len, index)),
                IpAddr::V6(a) => self.out.v6.push((a.to_bits(), prefix.len, index)),
            }
        }
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

    fn neighbors(&mut self) {
        let known = self.mirror.neighbors.values();
        let mut usable: Vec<_> = known
            .filter_map(|n| {
                let neigh = Neigh { mac: n.usable()?, stale: n.stale() };
                Some(((*self.ports.get(&n.ifindex)?, n.addr), neigh))
            })
            .collect();
        usable.sort_unstable();
        self.out.neighbors = usable;
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
