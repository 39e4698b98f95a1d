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

use std::collections::BTreeSet;
use std::net::IpAddr;

use hashbrown::HashMap;

use super::ledger::{self, Ledger};
use super::mirror::{Mirror, TABLE_LOCAL};
use crate::config::Bypass;
use crate::id::{IfIndex, Mac, PortId};
use crate::netlink::{Family, Hop, Link, Prefix, Route, RouteKind};
use crate::tables::neigh::Neigh;
use crate::tables::{NextHop, RpFilter};
use effective::Effective;
use kept::Kept;

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
    /// What the namespace uses, and what becomes of it.
    pub ledger: Ledger,
}

/// Compiles the state of a namespace of which `ports` are ours, and whose operator
/// says to pass `bypass` by.
#[must_use]
pub fn compile(mirror: &Mirror, bypass: &[Bypass], ports: &[(PortId, IfIndex)]) -> Compiled {
    let ledger = ledger::judge(mirror, bypass);
    let mut c = Compiler {
        mirror,
        ports: ports.iter().map(|(port, ifindex)| (*ifindex, *port)).collect(),
        indices: HashMap::new(),
        out: Compiled {
            next_hops: vec![NextHop::Kernel],
            stays_with_kernel_v4: ledger.stays(Family::V4),
            stays_with_kernel_v6: ledger.stays(Family::V6),
            ledger,
            ..Compiled::default()
        },
    };
    c.indices.insert(NextHop::Kernel, KERNEL);
    for family in [Family::V4, Family::V6] {
        c.routes(family);
    }
    c.neighbors();
    c.out.ports = ports.iter().filter_map(|(port, ifindex)| c.port(*port, *ifindex)).collect();
    c.out
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
        let mut kept = Kept::default();
        let effective = Effective::of(self.mirror, family, |routes| {
            self.forward(family, routes).unwrap_or_else(|why| {
                kept.count(why, routes);
                NextHop::Kernel
            })
        });
        kept.tell(&mut self.out.ledger, family);
        self.out.locals.extend(effective.locals());
        // One of a device that is down has no route, and yet IPv4 takes nothing from it.
        let addresses = self.mirror.addresses.iter().map(|a| a.prefix.addr);
        self.out.locals.extend(addresses.filter(IpAddr::is_ipv4));
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
        let way_out = self.way_out(hop).ok_or("other-devices")?;
        let mtu = mtu(way_out.1, family).min(route.mtu.unwrap_or(u32::MAX));
        Ok(NextHop::Forward { port: way_out.0, gateway: hop.gateway, mtu })
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
