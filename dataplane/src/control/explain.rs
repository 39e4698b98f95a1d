//! What control knows of the place where a packet arrives: for `nsplane explain`.
//!
//! Tables, maps and settings are those that are in use; what is said of a packet comes
//! from them. Here is what the XDP program does by its maps (its own reader of headers,
//! and a record of what the maps hold), and which of the kernel's routes a packet meets.
//! What the worker does then is the worker's to say.

use std::net::IpAddr;

use nsplane_abi::headers::{self, Candidate};
use nsplane_abi::{
    PORT_KERNEL_ROUTES_V4, PORT_KERNEL_ROUTES_V6, PORT_ROUTE_V4, PORT_ROUTE_V6, PassReason,
    PortConf,
};

use super::Control;
use super::compile::{Compiled, rule_priority};
use super::mirror::Mirror;
use super::namespaces::NamespaceState;
use super::plan::{self, Owner};
use super::ports::PortState;
use crate::id::{IfIndex, NsId, PortId};
use crate::netlink::{Family, Link, Prefix, Route, RouteKind, RuleAction, Selector};
use crate::netns::Netns;
use crate::tables::policy::Found;
use crate::tables::{Role, World};

/// Where a packet arrives: a port of a namespace.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The namespace's number.
    pub ns: NsId,
    /// The port's number.
    pub port: PortId,
    /// What the workers forward by.
    pub world: &'a World,
    n: &'a NamespaceState,
    state: &'a PortState,
    link: &'a Link,
    control: &'a Control,
}

impl Control {
    /// The port that a device of a namespace is.
    ///
    /// # Errors
    /// A sentence for the user: the namespace is not driven, or the device no port.
    pub fn place(&self, netns: &str, device: &str) -> Result<Place<'_>, String> {
        let chosen = self.chosen(Some(netns))?;
        let Some((ns, n)) = chosen.first().copied() else {
            return Err(format!("no namespace {netns:?} here"));
        };
        let link = n.mirror.links.values().find(|l| l.name == device);
        let id = link.and_then(|l| n.ports.get(&l.ifindex));
        let state = id.and_then(|id| self.ports.get(id.index()));
        let (Some(link), Some(port), Some(state)) = (link, id.copied(), state) else {
            return Err(self.no_port(n, device));
        };
        let place = Place { ns, port, world: &self.world, n, state, link, control: self };
        match self.world.ports.get(port.index()).and_then(Option::as_ref).map(|p| &p.role) {
            Some(Role::Cross(_)) => Err(format!(
                "{device} of {netns} is the far end of a member's stand-in: what arrives there is \
                 sent on, and not routed"
            )),
            _ => Ok(place),
        }
    }

    /// Why a device is no port, and which are.
    fn no_port(&self, n: &NamespaceState, device: &str) -> String {
        let netns = n.netns.name();
        let why = super::query::not_ports(n).find(|p| p.device == device).map(|p| p.reason);
        let why = match why {
            Some(reason) if reason.is_empty() => format!("{device} of {netns} is no port"),
            Some(reason) => format!("{device} of {netns} is no port: {reason}"),
            None if device == "lo" => format!("{device} of {netns} is no port: the kernel's own"),
            None => format!("no device {device:?} in {netns}"),
        };
        let names = n.ports.values().filter_map(|id| self.device_name(n, *id));
        let names = names.collect::<Vec<_>>().join(", ");
        let names = if names.is_empty() { "none".to_owned() } else { names };
        format!("{why}; ports: {names}")
    }
}

impl<'a> Place<'a> {
    /// The namespace.
    #[must_use]
    pub fn netns(&self) -> &'a Netns {
        &self.n.netns
    }

    /// The device.
    #[must_use]
    pub fn link(&self) -> &'a Link {
        self.link
    }

    /// What was made of the namespace's state.
    #[must_use]
    pub fn compiled(&self) -> &'a Compiled {
        &self.n.compiled
    }

    /// The namespace's state.
    #[must_use]
    pub fn mirror(&self) -> &'a Mirror {
        &self.n.mirror
    }

    /// Number and generation of the port, and of whose it is a part, if it is one.
    #[must_use]
    pub fn member(&self) -> String {
        let number = format!("port {}.{}", self.port.0, self.state.generation.0);
        match self.control.member_of(self.state) {
            Some((netns, device, by)) => {
                format!("{number}, a member of {device} in {netns} by {by}")
            }
            None => format!("{number}, a whole device"),
        }
    }

    /// What a port's device is called here.
    #[must_use]
    pub fn name(&self, port: PortId) -> String {
        self.control.device_name(self.n, port).unwrap_or_else(|| format!("port {}", port.0))
    }

    /// What a device is called here.
    #[must_use]
    pub fn device(&self, ifindex: IfIndex) -> String {
        let link = self.n.mirror.links.get(&ifindex);
        link.map_or_else(|| format!("device {}", ifindex.0), |l| l.name.clone())
    }

    /// The device that a port is.
    #[must_use]
    pub fn ifindex(&self, port: PortId) -> Option<IfIndex> {
        Some(self.control.ports.get(port.index())?.ifindex)
    }

    /// An address from which packets may come in on the device: a neighbour's, or else
    /// one of the device's network.
    #[must_use]
    pub fn somebody(&self, family: Family) -> Option<IpAddr> {
        let here = self.link.ifindex;
        let fits = |addr: &IpAddr| Family::of(*addr) == family && !is_link_local(*addr);
        let mine = self.n.mirror.addresses.iter().filter(|a| a.ifindex == here);
        let mine: Vec<Prefix> = mine.map(|a| a.prefix).filter(|p| fits(&p.addr)).collect();
        let known = self.n.mirror.neighbors.values();
        let known = known.filter(|n| n.ifindex == here && n.usable().is_some() && fits(&n.addr));
        let known = known.map(|n| n.addr).filter(|a| mine.iter().any(|p| holds(*p, *a))).min();
        known.or_else(|| mine.into_iter().find_map(beside))
    }

    /// What the XDP program does with a frame (without VLAN tags) that is the port's.
    #[must_use]
    pub fn program(&self, frame: &[u8]) -> PassReason {
        let conf = self.n.maps.ports.get(&self.port).copied().unwrap_or_default();
        if conf.generation != self.state.generation.0 {
            return PassReason::Stale;
        }
        program(&conf, &self.n.maps, self.ns, frame).err().unwrap_or(PassReason::Redirected)
    }

    /// The kernel's route that a packet meets: in that table of the rules', if it is said
    /// by which it goes; else in the first that has one, as the usual rules have it.
    #[must_use]
    pub fn route(&self, dst: IpAddr, table: Option<u32>) -> Option<Route> {
        if let Some(table) = table {
            return self.longest(table, dst);
        }
        let family = Family::of(dst);
        let rules = self.n.mirror.rules.iter().filter(|r| r.family == family);
        let tables = rules.filter_map(|rule| match rule.action {
            RuleAction::Table(table) if rule.selector == Selector::default() => Some(table),
            _ => None,
        });
        let mut met = tables.filter_map(|table| self.longest(table, dst));
        met.find(|route| route.kind != RouteKind::Throw)
    }

    /// The kernel's rule and table of what the workers found by their rules.
    #[must_use]
    pub fn rule(&self, family: Family, found: &Found) -> (Option<u32>, Option<u32>) {
        let named = |name: &str| {
            let link = self.n.mirror.links.values().find(|l| l.name == name)?;
            self.n.ports.get(&link.ifindex).copied()
        };
        let priority = rule_priority(&self.n.mirror, family, named, found.rule);
        let compiled = &self.n.compiled;
        let at = found.table.map(usize::from);
        let table = match family {
            Family::V4 => compiled.policy_v4.as_ref().and_then(|p| Some(p.tables.get(at?)?.0)),
            Family::V6 => compiled.policy_v6.as_ref().and_then(|p| Some(p.tables.get(at?)?.0)),
        };
        (priority, table)
    }

    fn longest(&self, table: u32, dst: IpAddr) -> Option<Route> {
        let lens = (0..=Family::of(dst).bits()).rev();
        let routes = &self.n.mirror.routes;
        let mut nets = lens.map(|len| network(dst, len));
        nets.find_map(|net| Some(routes.first_of(table, net)?.at(table, net)))
    }
}

/// The XDP program's decision, as far as packet and maps make it: `ebpf/nsplane-ebpf`.
fn program(conf: &PortConf, maps: &plan::State, ns: NsId, frame: &[u8]) -> Result<(), PassReason> {
    if conf.flags == 0 {
        return Err(PassReason::NotRouted);
    }
    if frame.len() > conf.max_frame as usize {
        return Err(PassReason::TooLong);
    }
    let (src, dst, routes, asks): (IpAddr, IpAddr, _, _) = match headers::classify(frame, conf.mac)?
    {
        Candidate::V4 { src, dst } => {
            (src.into(), dst.into(), PORT_ROUTE_V4, PORT_KERNEL_ROUTES_V4)
        }
        Candidate::V6 { src, dst } => {
            (src.into(), dst.into(), PORT_ROUTE_V6, PORT_KERNEL_ROUTES_V6)
        }
    };
    if conf.flags & routes == 0 {
        return Err(PassReason::NotRouted);
    }
    if maps.locals.contains(&(ns, dst)) || maps.locals.contains(&(ns, src)) {
        return Err(PassReason::Local);
    }
    if conf.flags & asks != 0 && owner(maps, ns, dst) == Some(Owner::Kernel) {
        return Err(PassReason::KernelRoute);
    }
    Ok(())
}

/// Whose the longest prefix in the maps is that a destination is in.
fn owner(maps: &plan::State, ns: NsId, dst: IpAddr) -> Option<Owner> {
    let mut lens = (0..=Family::of(dst).bits()).rev();
    lens.find_map(|len| maps.routes.get(&(ns, network(dst, len))).copied())
}

/// The network of so many bits that an address is in.
fn network(addr: IpAddr, len: u8) -> Prefix {
    let rest = u32::from(Family::of(addr).bits().saturating_sub(len));
    let addr = match addr {
        IpAddr::V4(a) => IpAddr::V4((a.to_bits() & u32::MAX.unbounded_shl(rest)).into()),
        IpAddr::V6(a) => IpAddr::V6((a.to_bits() & u128::MAX.unbounded_shl(rest)).into()),
    };
    Prefix { addr, len }
}

fn holds(prefix: Prefix, addr: IpAddr) -> bool {
    network(addr, prefix.len).addr == network(prefix.addr, prefix.len).addr
}

fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    }
}

/// Another address of the network that a device's own is in.
fn beside(own: Prefix) -> Option<IpAddr> {
    let room = Family::of(own.addr).bits().checked_sub(own.len)?;
    // The first of a longer network is the network's own.
    let candidates: &[u8] = match room {
        0 => &[],
        1 => &[0, 1],
        _ => &[1, 2],
    };
    let net = network(own.addr, own.len).addr;
    let mut others = candidates.iter().map(|n| match net {
        IpAddr::V4(a) => IpAddr::V4((a.to_bits() | u32::from(*n)).into()),
        IpAddr::V6(a) => IpAddr::V6((a.to_bits() | u128::from(*n)).into()),
    });
    others.find(|a| *a != own.addr)
}

#[cfg(test)]
mod tests;
