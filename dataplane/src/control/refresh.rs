//! From a namespace's state to what workers and program see of it.
//!
//! Order matters where both change: the workers' tables are published before the
//! program's maps send them more traffic, and the maps stop sending before tables
//! are withdrawn. In between the kernel forwards, which is always right.

use std::sync::Arc;

use tracing::{info, warn};

use super::Control;
use super::compile::{Compiled, KernelRoute, PortSettings, Source, Which};
use super::error::{Error, told};
use super::ledger::{Entry, Ledger};
use super::lengths::max_frame;
use super::namespaces::Seed;
use super::plan::{self, Action, Owner};
use super::ports::Use;
use super::snapshot;
use crate::bpf;
use crate::id::{IfIndex, Mac, NsId, PortId};
use crate::netlink::Family;
use crate::tables::{Namespace, Port, RpFilter};
use nsplane_abi::{
    PORT_KERNEL_ROUTES_V4, PORT_KERNEL_ROUTES_V6, PORT_MEMBERS, PORT_ROUTE_V4, PORT_ROUTE_V6,
    PortConf,
};

/// Routes from which on a namespace is compiled apart from the others, which need not
/// wait for it: some ten milliseconds.
const LARGE: usize = 20_000;

impl Control {
    /// Publishes the namespaces as their states are now.
    pub fn refresh_all(&mut self, changed: &[NsId]) {
        if let Err(e) = self.follow_members() {
            warn!(error = told(&e), "members");
        }
        let large =
            |ns: &&NsId| self.namespace(**ns).is_some_and(|n| n.mirror.routes.len() > LARGE);
        let (large, small): (Vec<&NsId>, Vec<&NsId>) = changed.iter().partition(large);
        let apart = large.into_iter().map(|ns| vec![*ns]);
        let together: Vec<NsId> = small.into_iter().copied().collect();
        let batches: Vec<Vec<NsId>> = std::iter::once(together).chain(apart).collect();
        for batch in batches {
            if let Err(e) = self.refresh_batch(&batch) {
                warn!(error = told(&e), "applying a change");
            }
        }
    }

    /// Publishes the namespace as its state is now.
    ///
    /// # Errors
    /// The kernel refuses a change of the program's maps.
    pub fn refresh(&mut self, ns: NsId) -> Result<(), Error> {
        // What is not as it should be with members is not the namespace's fault.
        self.follow_members().and(self.refresh_batch(&[ns]))
    }

    /// Publishes namespaces of which members are new or gone.
    pub(super) fn refresh_with_members(&mut self, batch: &[NsId]) -> Result<(), Error> {
        for ns in batch {
            if let Some(n) = self.namespace_mut(*ns) {
                n.stale = Which::ALL;
            }
        }
        self.refresh_batch(batch)
    }

    /// Publishes several at once. All are tried; the first error is told.
    fn refresh_batch(&mut self, batch: &[NsId]) -> Result<(), Error> {
        let changed: Vec<(NsId, Which)> =
            batch.iter().map(|ns| (*ns, self.compile(*ns))).filter(|(_, w)| w.any()).collect();
        if changed.is_empty() {
            return Ok(());
        }
        self.publish();
        let mut result = Ok(());
        for (ns, what) in changed {
            // What the maps hold does not depend on neighbours.
            if what.v4 | what.v6 | what.ports {
                result = result.and(self.apply_maps(ns));
            }
        }
        result
    }

    /// Compiles what of a namespace is out of date, and puts it into the next world.
    fn compile(&mut self, ns: NsId) -> Which {
        let Some(state) = self.namespace_mut(ns) else { return Which::default() };
        let what = std::mem::take(&mut state.stale);
        let touched = std::mem::take(&mut state.touched);
        if !what.any() && touched.is_empty() {
            return what;
        }
        let ports = self.routed_ports(ns);
        let Some(state) = self.namespace_mut(ns) else { return Which::default() };
        let compiled = &mut state.compiled;
        let tiers = [&compiled.stays_with_kernel_v4, &compiled.stays_with_kernel_v6];
        let before = tiers.map(Clone::clone);
        let passed = |l: &Ledger| l.entries.iter().filter(|e| e.bypassed).cloned().collect();
        let bypassed: Vec<Entry> = passed(&compiled.ledger);
        let (mirror, bypass) = (&state.mirror, &*state.rule.bypass);
        let source = Source { mirror, bypass, ports: &ports };
        let changed = compiled.update_prefixes(source, what, touched);
        let news = compiled.ledger.entries.iter().filter(|e| e.bypassed && !bypassed.contains(e));
        for e in news {
            let (netns, item, what) = (state.netns.name(), e.item.name, &e.used.what);
            warn!(netns, item, what, "is bypassed, as the operator says: not obeyed");
        }
        // A port that is new has an entry to get, whatever its settings.
        let changed = changed.and(Which { ports: what.ports, ..Which::default() });
        self.tell_tiers(ns, &before);
        self.put_tables(ns, changed);
        changed
    }

    fn put_tables(&mut self, ns: NsId, changed: Which) {
        let Some(tables) = self.tables(ns, changed) else { return };
        self.world.namespaces[usize::from(ns.index)] = Some(Arc::new(tables));
        self.put_shares(ns);
        if !changed.ports {
            return;
        }
        let Some(state) = self.namespace(ns) else { return };
        let entry = |p: &PortSettings| {
            let port = self.ports.get(p.port.index())?;
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
            Some((p.port, entry))
        };
        let entries: Vec<_> = state.compiled.ports.iter().filter_map(entry).collect();
        for (port, entry) in entries {
            set(&mut self.world.ports, port, Some(entry));
        }
        let far_ends: Vec<_> = self.far_ends(ns).collect();
        for (id, port) in far_ends {
            set(&mut self.world.ports, id, Some(port));
        }
    }

    /// The namespace's ports but for far ends, which are ports, but none of the namespace
    /// that they lie in.
    fn routed_ports(&self, ns: NsId) -> Vec<(PortId, IfIndex)> {
        let Some(state) = self.namespace(ns) else { return Vec::new() };
        let far_end = |p: &PortId| {
            self.ports.get(p.index()).is_some_and(|p| matches!(p.part, Use::FarEnd(_)))
        };
        state.ports.iter().filter(|(_, p)| !far_end(p)).map(|(i, p)| (*p, *i)).collect()
    }

    /// The far ends in a namespace, as the workers see them: nothing is routed there,
    /// neither in nor out.
    fn far_ends(&self, ns: NsId) -> impl Iterator<Item = (PortId, Port)> + '_ {
        let ids = self.namespace(ns).into_iter().flat_map(|n| n.ports.values());
        ids.filter_map(move |id| {
            let port = self.ports.get(id.index())?;
            let Use::FarEnd(_) = &port.part else { return None };
            let seen = Port {
                ns,
                generation: port.generation,
                ifindex: port.ifindex,
                mac: Mac::default(),
                mtu: 0,
                forward_v4: false,
                forward_v6: false,
                rp_filter: RpFilter::Off,
                up: false,
                queues: port.queues.len() as u16,
                role: self.role(port),
            };
            Some((*id, seen))
        })
    }

    /// What the namespace's rule gives it of the workers.
    fn put_shares(&mut self, ns: NsId) {
        let Some(rule) = self.namespace(ns).map(|n| n.rule.clone()) else { return };
        let workers = u32::from(self.workers.count());
        let index = usize::from(ns.index);
        let world = &mut self.world;
        if world.weights.len() <= index {
            world.weights.resize(index + 1, 1);
            world.punt_rates.resize(index + 1, 0);
        }
        world.weights[index] = u16::try_from(rule.weight).unwrap_or(u16::MAX);
        world.punt_rates[index] = rule.punt_rate.map_or(0, |rate| (rate / workers).max(1));
    }

    /// Logs it where a family of the namespace changed hands.
    fn tell_tiers(&self, ns: NsId, before: &[Option<String>; 2]) {
        let Some(state) = self.namespace(ns) else { return };
        let (new, netns) = (&state.compiled, state.netns.name());
        let after = [&new.stays_with_kernel_v4, &new.stays_with_kernel_v6];
        for ((family, old), new) in ["IPv4", "IPv6"].into_iter().zip(before).zip(after) {
            match new {
                same if same == old => {}
                Some(reason) => info!(netns, family, reason, "stays with the kernel"),
                None => info!(netns, family, "is forwarded by nsplane"),
            }
        }
    }

    /// The namespace's tables; what did not change is shared with those before.
    fn tables(&mut self, ns: NsId, changed: Which) -> Option<Namespace> {
        let before = self.world.namespaces.get(usize::from(ns.index)).cloned().flatten();
        let new = &mut self.namespace_mut(ns)?.compiled;
        Some(snapshot::of(ns, new, before.as_deref().filter(|b| b.id == Some(ns)), changed))
    }

    fn wanted_maps(&self, ns: NsId, compiled: &Compiled) -> plan::State {
        let mut wanted = plan::State::default();
        for p in compiled.ports.iter().filter(|p| !self.is_unsafe(p.port)) {
            let Some(port) = self.ports.get(p.port.index()) else { continue };
            let tags = match &port.part {
                Use::Member(m) => m.how.tags().len() as u32,
                Use::Whole | Use::FarEnd(_) => 0,
            };
            let conf = PortConf {
                mac: p.mac.0,
                flags: flags(&compiled.kernel_routes, p) | self.member_flags(p.port),
                max_frame: max_frame(self.longest(port), p.mtu.saturating_add(tags)),
                generation: port.generation.0,
            };
            wanted.ports.insert(p.port, conf);
        }
        for (far, port) in self.far_ends(ns) {
            // The program of a far end asks for nothing else.
            let generation = port.generation.0;
            let room = self.settings.memory.longest_packet();
            let conf = PortConf { max_frame: room, generation, ..PortConf::default() };
            wanted.ports.insert(far, conf);
        }
        wanted.locals = compiled.locals.iter().map(|a| (ns, *a)).collect();
        let owner = |r: &KernelRoute| if r.kernel { Owner::Kernel } else { Owner::Ours };
        wanted.routes = compiled.kernel_routes.iter().map(|r| ((ns, r.prefix), owner(r))).collect();
        wanted
    }

    fn apply_maps(&mut self, ns: NsId) -> Result<(), Error> {
        let Some(state) = self.namespace(ns) else { return Ok(()) };
        let wanted = self.wanted_maps(ns, &state.compiled);
        let actions = plan::diff(&wanted, &state.maps);
        let done = self.act(&actions);
        if let Some(state) = self.namespace_mut(ns) {
            match &done {
                Ok(()) => state.maps = wanted,
                // The whole difference again, at the next change.
                Err(_) => state.stale.ports = true,
            }
        }
        done
    }

    fn act(&mut self, actions: &[Action]) -> Result<(), Error> {
        for action in actions {
            match *action {
                Action::SetPort(port, conf) => self.set_port(port, &conf),
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

    fn set_port(&mut self, port: PortId, conf: &PortConf) -> Result<(), bpf::Error> {
        if conf.flags & PORT_MEMBERS != 0
            && let Some(attached) =
                self.ports.get_mut(port.index()).and_then(|p| p.attached.as_mut())
        {
            self.bpf.loader().add_members(attached)?;
        }
        self.bpf.set_port(port, conf)
    }

    /// Part `tables`: none yet.
    pub(super) fn init_tables(&mut self, ns: NsId, _: &mut Seed) -> Result<(), Error> {
        let index = usize::from(ns.index);
        if self.world.namespaces.len() <= index {
            self.world.namespaces.resize(index + 1, None);
        }
        self.world.namespaces[index] =
            Some(Arc::new(Namespace { id: Some(ns), ..Namespace::default() }));
        Ok(())
    }

    /// Part `tables`: takes them out of what the workers see.
    pub(super) fn withdraw_tables(&mut self, ns: NsId) {
        if let Some(slot) = self.world.namespaces.get_mut(usize::from(ns.index)) {
            *slot = None;
        }
        self.publish();
    }

    /// Part `map entries`: takes them out of the program's maps.
    pub(super) fn clear_maps(&mut self, ns: NsId) {
        let Some(state) = self.namespace_mut(ns) else { return };
        let maps = std::mem::take(&mut state.maps);
        // Each by itself: what one of them meets keeps no other.
        for action in plan::diff(&plan::State::default(), &maps) {
            if let Err(e) = self.act(&[action]) {
                warn!(error = told(&e), "removing a namespace from the program's maps");
            }
        }
    }

    /// Takes ports out of what the workers see.
    pub(super) fn withdraw(&mut self, ports: impl Iterator<Item = PortId>) {
        for port in ports {
            set(&mut self.world.ports, port, None);
        }
        self.publish();
    }

    fn publish(&mut self) {
        self.publisher.publish(Arc::new(self.world.clone()));
    }
}

fn set(ports: &mut Vec<Option<Port>>, port: PortId, entry: Option<Port>) {
    if ports.len() <= port.index() {
        ports.resize(port.index() + 1, None);
    }
    ports[port.index()] = entry;
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
