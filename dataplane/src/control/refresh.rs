//! From a namespace's state to what workers and program see of it.
//!
//! Order matters where both change: the workers' tables are published before the
//! program's maps send them more traffic, and the maps stop sending before tables
//! are withdrawn. In between the kernel forwards, which is always right.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use tracing::{info, warn};

use super::Control;
use super::compile::{Compiled, KernelRoute, PortSettings, compile};
use super::error::{Error, told};
use super::plan::{self, Action, Owner};
use super::ports::{PortState, Use};
use crate::id::{IfIndex, Mac, NsId, PortId};
use crate::netlink::Family;
use crate::tables::fib::{Fib4, Fib6};
use crate::tables::neigh::NeighTable;
use crate::tables::{Namespace, Port, Role, RpFilter, World};
use nsplane_abi::headers::ETH_LEN;
use nsplane_abi::{
    PORT_KERNEL_ROUTES_V4, PORT_KERNEL_ROUTES_V6, PORT_ROUTE_V4, PORT_ROUTE_V6, PortConf,
};

impl Control {
    /// Publishes the namespace as its state is now, and what follows from it for members.
    ///
    /// # Errors
    /// The kernel refuses a change of the program's maps.
    pub fn refresh(&mut self, ns: NsId) -> Result<(), Error> {
        self.follow_members()?;
        self.publish_namespace(ns)
    }

    /// Publishes the namespace as its state is now.
    pub(super) fn publish_namespace(&mut self, ns: NsId) -> Result<(), Error> {
        let Some(state) = self.namespace(ns) else { return Ok(()) };
        // A far end is a port, but not one of the namespace that it lies in.
        let far_end = |p: &PortId| {
            self.ports.get(p.index()).is_some_and(|p| matches!(p.part, Use::FarEnd(_)))
        };
        let (far_ends, ports): (Vec<_>, Vec<_>) =
            state.ports.iter().map(|(i, p)| (*p, *i)).partition(|(p, _)| far_end(p));
        let compiled = compile(&state.mirror, &ports);
        self.look_beside_for(ns, &compiled);
        let tables = self.tables(ns, &compiled);
        let index = usize::from(ns.index);
        if self.world.namespaces.len() <= index {
            self.world.namespaces.resize(index + 1, None);
        }
        self.world.namespaces[index] = Some(Arc::new(tables));
        for p in &compiled.ports {
            let Some(port) = self.ports.get(p.port.index()) else { continue };
            let entry = Port {
                ns,
                generation: port.generation,
                ifindex: port.ifindex,
                mac: p.mac,
                mtu: p.mtu,
                forward_v4: p.forward_v4,
                forward_v6: p.forward_v6,
                rp_filter: p.rp_filter,
                up: p.up,
                queues: port.queues.len() as u16,
                role: self.role(port),
            };
            set(&mut self.world.ports, p.port, Some(entry));
        }
        for (far, _) in &far_ends {
            let Some(port) = self.ports.get(far.index()) else { continue };
            let entry = far_end_entry(port, self.role(port));
            set(&mut self.world.ports, *far, Some(entry));
        }
        self.publish();
        let wanted = self.wanted_maps(ns, &compiled, &far_ends);
        self.tell_tiers(ns, &compiled);
        if let Some(state) = self.namespace_mut(ns) {
            state.compiled = compiled;
        }
        self.apply_maps(ns, wanted)
    }

    /// Logs it where a family of the namespace changes hands.
    fn tell_tiers(&self, ns: NsId, new: &Compiled) {
        let Some(state) = self.namespace(ns) else { return };
        let (old, netns) = (&state.compiled, state.netns.name());
        for (family, old, new) in [
            ("IPv4", &old.stays_with_kernel_v4, &new.stays_with_kernel_v4),
            ("IPv6", &old.stays_with_kernel_v6, &new.stays_with_kernel_v6),
        ] {
            match new {
                same if same == old => {}
                Some(reason) => info!(netns, family, reason, "stays with the kernel"),
                None => info!(netns, family, "is forwarded by nsplane"),
            }
        }
    }

    /// The namespace's tables; what did not change is shared with those before.
    fn tables(&self, ns: NsId, new: &Compiled) -> Namespace {
        let state = self.namespace(ns).expect("the caller has the namespace");
        let old = &state.compiled;
        let before = self.world.namespaces.get(usize::from(ns.index)).and_then(Option::as_ref);
        let before = before.filter(|b| b.id == Some(ns));
        let keep = |same: bool| before.filter(|_| same);
        Namespace {
            id: Some(ns),
            v4: keep(old.v4 == new.v4).map_or_else(|| Arc::new(fib4(new)), |b| b.v4.clone()),
            v6: keep(old.v6 == new.v6).map_or_else(|| Arc::new(fib6(new)), |b| b.v6.clone()),
            next_hops: keep(old.next_hops == new.next_hops)
                .map_or_else(|| new.next_hops.clone().into(), |b| b.next_hops.clone()),
            neighbors: keep(old.neighbors == new.neighbors)
                .map_or_else(|| Arc::new(neighbors(new)), |b| b.neighbors.clone()),
        }
    }

    fn wanted_maps(
        &self,
        ns: NsId,
        compiled: &Compiled,
        far_ends: &[(PortId, IfIndex)],
    ) -> plan::State {
        let room = self.settings.memory.max_packet();
        let mut wanted = plan::State::default();
        for p in &compiled.ports {
            let Some(port) = self.ports.get(p.port.index()) else { continue };
            let tags = match &port.part {
                Use::Member(m) => m.how.tags().len() as u32,
                Use::Whole | Use::FarEnd(_) => 0,
            };
            let conf = PortConf {
                mac: p.mac.0,
                flags: flags(&compiled.kernel_routes, p) | self.member_flags(p.port),
                max_frame: max_frame(room, p.mtu.saturating_add(tags)),
                generation: port.generation.0,
            };
            wanted.ports.insert(p.port, conf);
        }
        for (far, _) in far_ends {
            // The program of a far end asks for nothing else.
            let Some(port) = self.ports.get(far.index()) else { continue };
            let generation = port.generation.0;
            let conf = PortConf { max_frame: room, generation, ..PortConf::default() };
            wanted.ports.insert(*far, conf);
        }
        wanted.locals = compiled.locals.iter().map(|a| (ns, *a)).collect();
        let owner = |r: &KernelRoute| if r.kernel { Owner::Kernel } else { Owner::Ours };
        wanted.routes = compiled.kernel_routes.iter().map(|r| ((ns, r.prefix), owner(r))).collect();
        wanted
    }

    fn apply_maps(&mut self, ns: NsId, wanted: plan::State) -> Result<(), Error> {
        let Some(state) = self.namespace(ns) else { return Ok(()) };
        let actions = plan::diff(&wanted, &state.maps);
        self.act(&actions)?;
        if let Some(state) = self.namespace_mut(ns) {
            state.maps = wanted;
        }
        Ok(())
    }

    fn act(&mut self, actions: &[Action]) -> Result<(), Error> {
        for action in actions {
            match *action {
                Action::SetPort(port, conf) => self.bpf.set_port(port, &conf),
                Action::ClearPort(port) => self.bpf.clear_port(port),
                Action::AddLocal(ns, addr) => self.bpf.add_local(ns, addr),
                Action::RemoveLocal(ns, addr) => self.bpf.remove_local(ns, addr),
                Action::SetRoute(ns, p, owner) => {
                    self.bpf.set_route(ns, (p.addr, p.len), owner == Owner::Kernel)
                }
                Action::RemoveRoute(ns, p) => self.bpf.remove_route(ns, (p.addr, p.len)),
            }
            .map_err(Error::Map)?;
        }
        Ok(())
    }

    /// Takes a port out of what the workers see.
    pub(super) fn withdraw(&mut self, port: PortId) {
        set(&mut self.world.ports, port, None);
        self.publish();
    }

    /// Takes a namespace out of what workers and program see.
    pub(super) fn forget_tables(&mut self, ns: NsId, maps: &plan::State) {
        if let Some(slot) = self.world.namespaces.get_mut(usize::from(ns.index)) {
            *slot = None;
        }
        self.publish();
        if let Err(e) = self.act(&plan::diff(&plan::State::default(), maps)) {
            warn!(error = told(&e), "removing a namespace from the program's maps");
        }
    }

    fn publish(&mut self) {
        self.publisher.publish(Arc::new(World {
            namespaces: self.world.namespaces.clone(),
            ports: self.world.ports.clone(),
        }));
    }
}

/// A far end as the workers see it: nothing is routed there, neither in nor out.
fn far_end_entry(port: &PortState, role: Role) -> Port {
    Port {
        ns: port.ns,
        generation: port.generation,
        ifindex: port.ifindex,
        mac: Mac::default(),
        mtu: 0,
        forward_v4: false,
        forward_v6: false,
        rp_filter: RpFilter::Off,
        up: false,
        queues: port.queues.len() as u16,
        role,
    }
}

fn set(ports: &mut Vec<Option<Port>>, port: PortId, entry: Option<Port>) {
    if ports.len() <= port.index() {
        ports.resize(port.index() + 1, None);
    }
    ports[port.index()] = entry;
}

fn fib4(c: &Compiled) -> Fib4 {
    Fib4::build(c.v4.iter().map(|&(a, len, hop)| (Ipv4Addr::from_bits(a), len, hop)))
}

fn fib6(c: &Compiled) -> Fib6 {
    Fib6::build(c.v6.iter().map(|&(a, len, hop)| (Ipv6Addr::from_bits(a), len, hop)))
}

fn neighbors(c: &Compiled) -> NeighTable {
    c.neighbors.iter().map(|&((port, addr), neigh)| (port, addr, neigh)).collect()
}

/// The longest frame of a port that is routed here; longer ones are the kernel's.
///
/// A device takes frames of its MTU and an Ethernet header (a VLAN's 4 bytes more
/// count for nothing here: tagged frames pass). What is longer is no packet of the
/// link but several in one (GSO, GRO), which generic XDP sees where a driver's does
/// not: only the kernel knows how to cut them apart again.
fn max_frame(room: u32, mtu: u32) -> u32 {
    room.min(mtu.saturating_add(ETH_LEN as u32))
}

/// The bits of a port's entry: what it routes, and which maps are to be asked.
fn flags(routes: &[KernelRoute], port: &PortSettings) -> u16 {
    let asks = |f: Family| routes.iter().any(|r| Family::of(r.prefix.addr) == f);
    [
        (port.forward_v4, PORT_ROUTE_V4),
        (port.forward_v6, PORT_ROUTE_V6),
        (asks(Family::V4), PORT_KERNEL_ROUTES_V4),
        (asks(Family::V6), PORT_KERNEL_ROUTES_V6),
    ]
    .into_iter()
    .fold(0, |sum, (on, bit)| if on { sum | bit } else { sum })
}
