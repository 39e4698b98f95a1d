//! Namespaces: taken in, kept in step with their kernel state, let go.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::{info, warn};

use super::Control;
use super::compile::Compiled;
use super::devices::{unfit, wanted};
use super::error::Error;
use super::mirror::{Dirty, Mirror};
use super::plan;
use super::totals::Totals;
use crate::id::{IfIndex, NsId, PortId};
use crate::netlink::{Event, Link};
use crate::netns::Netns;

/// A namespace that nsplane drives.
pub struct NamespaceState {
    /// The namespace, held open.
    pub netns: Arc<Netns>,
    /// Its kernel state as last heard.
    pub mirror: Mirror,
    /// Its ports by device.
    pub ports: BTreeMap<IfIndex, PortId>,
    /// Devices that could not become ports, and why. Tried again when the device changes.
    pub refused: BTreeMap<IfIndex, (Link, String)>,
    /// Counters of ports that are gone.
    pub retired: Totals,
    /// What was made of the state last.
    pub compiled: Compiled,
    /// What the program's maps hold of the namespace.
    pub maps: plan::State,
}

impl Control {
    /// Takes a namespace in, with its state as dumped. Its devices become ports at
    /// the next [`Self::settle`].
    ///
    /// # Errors
    /// The namespace is there already under another name, or there are too many.
    pub fn add_namespace(&mut self, netns: Arc<Netns>, mirror: Mirror) -> Result<NsId, Error> {
        if let Some((_, n)) =
            self.namespaces.iter().find(|(_, n)| n.netns.cookie() == netns.cookie())
        {
            return Err(Error::SameNamespace {
                first: n.netns.name().to_owned(),
                second: netns.name().to_owned(),
            });
        }
        let full = Error::NamespacesFull(usize::from(u16::MAX));
        let (index, generation) = self.namespaces.next().ok_or(full)?;
        let id = NsId { index: index as u16, generation: generation as u16 };
        info!(netns = netns.name(), cookie = netns.cookie().0, "namespace");
        self.namespaces.put(NamespaceState {
            netns,
            mirror,
            ports: BTreeMap::new(),
            refused: BTreeMap::new(),
            retired: Totals::default(),
            compiled: Compiled::default(),
            maps: plan::State::default(),
        });
        Ok(id)
    }

    /// Lets a namespace go, with its ports and all that the maps hold of it.
    pub fn remove_namespace(&mut self, ns: NsId) {
        let Some(state) = self.namespace(ns) else { return };
        let ports: Vec<PortId> = state.ports.values().copied().collect();
        for port in ports {
            if let Err(e) = self.remove_port(port) {
                warn!(port = port.0, error = %e, "removing a port");
            }
        }
        if let Some(state) = self.namespaces.take(usize::from(ns.index)) {
            info!(netns = state.netns.name(), "namespace let go");
            self.forget_tables(ns, &state.maps);
        }
    }

    /// The namespace's state was lost or is new: takes it over whole.
    pub fn replace_state(&mut self, ns: NsId, mirror: Mirror) {
        if let Some(n) = self.namespace_mut(ns) {
            n.mirror = mirror;
        }
    }

    /// Changes of a namespace's state. They take effect at the next [`Self::settle`].
    /// Returns what kinds of state changed, and whether some was lost.
    pub fn apply_events(&mut self, ns: NsId, events: Vec<Event>) -> Dirty {
        let Some(n) = self.namespace_mut(ns) else { return Dirty::default() };
        events.into_iter().fold(Dirty::default(), |sum, event| sum.and(n.mirror.apply(event)))
    }

    /// Brings ports, tables and maps in step with the namespace's state.
    ///
    /// # Errors
    /// In strict mode, the first device that cannot become a port.
    pub fn settle(&mut self, ns: NsId, strict: bool) -> Result<(), Error> {
        self.drop_lost_ports(ns);
        let wanted = self.wanted(ns);
        for link in wanted {
            let Some(state) = self.namespace(ns) else { return Ok(()) };
            if state.ports.contains_key(&link.ifindex) || state.was_refused(&link) {
                continue;
            }
            match self.add_port(ns, &link) {
                Ok(port) => {
                    let state = self.namespace_mut(ns).expect("there a moment ago");
                    state.refused.remove(&link.ifindex);
                    state.ports.insert(link.ifindex, port);
                }
                Err(e) if strict => return Err(e),
                Err(e) => self.refuse(ns, link, &e),
            }
        }
        self.refresh(ns)
    }

    /// Devices of the namespace that should be ports now.
    fn wanted(&self, ns: NsId) -> Vec<Link> {
        let Some(state) = self.namespace(ns) else { return Vec::new() };
        wanted(&self.settings, &state.mirror).cloned().collect()
    }

    fn drop_lost_ports(&mut self, ns: NsId) {
        let Some(state) = self.namespace(ns) else { return };
        let links = &state.mirror.links;
        let there = |i: &IfIndex| links.get(i).is_some_and(|l| unfit(l).is_none());
        let lost: Vec<PortId> =
            state.ports.iter().filter(|(i, _)| !there(i)).map(|(_, p)| *p).collect();
        for port in lost {
            if let Err(e) = self.remove_port(port) {
                warn!(port = port.0, error = %e, "removing a port");
            }
        }
    }

    fn refuse(&mut self, ns: NsId, link: Link, why: &Error) {
        let mut reason = why.to_string();
        let mut cause = std::error::Error::source(why);
        while let Some(c) = cause {
            reason = format!("{reason}: {c}");
            cause = c.source();
        }
        warn!(device = link.name, reason, "not a port");
        if let Some(n) = self.namespace_mut(ns) {
            n.refused.insert(link.ifindex, (link, reason));
        }
    }
}

impl NamespaceState {
    /// The device was refused as it is now: trying again would end the same.
    fn was_refused(&self, link: &Link) -> bool {
        self.refused.get(&link.ifindex).is_some_and(|(before, _)| before == link)
    }
}
