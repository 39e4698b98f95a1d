//! Macvlans of one device that reach each other without the wire.
//!
//! Who they are is asked when a member comes, when one gets a neighbour that it did not
//! have, and some times a second: that a macvlan comes or goes in a namespace that we do
//! not drive is not announced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tracing::warn;

use super::wanted::Device;
use crate::control::Control;
use crate::control::error::{Error, told};
use crate::control::ports::{PortState, Use};
use crate::id::{Mac, NsId, PortId};
use crate::netlink::Asker;

impl Control {
    /// Looks again for macvlans beside ours; those who come and go in namespaces that we
    /// do not drive are not announced.
    pub(in crate::control) fn look_beside(&mut self) -> Result<(), Error> {
        let bridged: Vec<(PortId, NsId, PortId)> = self
            .ports
            .iter()
            .filter_map(|(i, p)| match &p.part {
                Use::Member(m) if m.bridge => Some((PortId(i as u16), p.ns, m.parent)),
                _ => None,
            })
            .collect();
        let mut seen: BTreeMap<PortId, Arc<[Mac]>> = BTreeMap::new();
        let mut changed = BTreeSet::new();
        for (id, ns, parent) in bridged {
            let Some(device) = self.ports.get(parent.index()).map(|p| (p.ns, p.ifindex)) else {
                continue;
            };
            let local = seen.entry(parent).or_insert_with(|| self.beside(device)).clone();
            if let Some(PortState { part: Use::Member(m), .. }) = self.ports.get_mut(id.index())
                && m.local != local
            {
                m.local = local;
                changed.insert(ns);
            }
        }
        if changed.is_empty() {
            return Ok(());
        }
        let changed: Vec<NsId> = changed.into_iter().collect();
        // One of them may have a port by now whose members are not told apart yet.
        self.follow_members().and(self.refresh_with_members(&changed))
    }

    /// The neighbours of those of the namespace's members that have others beside them.
    pub(in crate::control) fn neighbors_beside(&self, ns: NsId) -> BTreeSet<(PortId, Mac)> {
        let Some(state) = self.namespace(ns) else { return BTreeSet::new() };
        let bridged = |id: PortId| {
            let port = self.ports.get(id.index());
            port.is_some_and(|p| matches!(&p.part, Use::Member(m) if m.bridge))
        };
        if !state.ports.values().any(|id| bridged(*id)) {
            return BTreeSet::new();
        }
        let neighbors = state.compiled.neighbors.iter();
        let of_ours = neighbors.filter(|((port, _), _)| bridged(*port));
        of_ours.map(|((port, _), n)| (*port, n.mac)).collect()
    }

    /// Looks beside the namespace's members that have neighbours which they did not have
    /// `before`: each may be a macvlan that has just come. True: one was.
    pub(in crate::control) fn look_beside_for(
        &mut self,
        ns: NsId,
        before: &BTreeSet<(PortId, Mac)>,
    ) -> bool {
        let now = self.neighbors_beside(ns);
        let new: BTreeSet<PortId> = now.difference(before).map(|(port, _)| *port).collect();
        let mut changed = false;
        for id in new {
            let parent = self.ports.get(id.index()).and_then(|p| match &p.part {
                Use::Member(m) => self.ports.get(m.parent.index()),
                Use::Whole | Use::FarEnd(_) => None,
            });
            let Some(device) = parent.map(|p| (p.ns, p.ifindex)) else { continue };
            let local = self.beside(device);
            if let Some(PortState { part: Use::Member(m), .. }) = self.ports.get_mut(id.index()) {
                changed |= m.local != local;
                m.local = local;
            }
        }
        changed
    }

    /// Addresses of all macvlans of a device. Where the kernel does not tell, none: then
    /// those of namespaces that we drive are still not sent to by the wire's tables.
    pub(in crate::control) fn beside(&self, (ns, ifindex): Device) -> Arc<[Mac]> {
        let Some(netns) = self.netns(ns) else { return Arc::default() };
        let asked = Asker::open(&netns).and_then(|mut a| a.addresses_beside(ifindex));
        match asked {
            Ok(macs) => macs.into(),
            Err(e) => {
                warn!(netns = netns.name(), error = told(&e), "macvlans beside each other");
                Arc::default()
            }
        }
    }
}
