//! What devices are because of members: parents, stand-ins, far ends.

use std::collections::BTreeSet;

use super::resolve::Known;
use super::wanted::{Device, Wanted};
use crate::control::Control;
use crate::control::devices::{passed_over, unfit};
use crate::control::ports::{PortState, Use};
use crate::id::{Generation, IfIndex, NsId, PortId};
use crate::netlink::Link;
use crate::tables;

impl Control {
    /// Which devices are stand-ins and far ends, and which links wait for their parents.
    pub(in crate::control) fn note_devices(&mut self, wanted: &[Wanted]) {
        let waits = |w: &&Wanted| !w.stated && self.is_expected(w.parent);
        self.book.promised = wanted.iter().filter(waits).filter_map(|w| w.link).collect();
        let still: BTreeSet<Device> = wanted.iter().filter_map(|w| w.link).collect();
        self.book.no_way_out.retain(|device| still.contains(device));
        let stated = || wanted.iter().filter(|w| w.stated);
        self.book.stand_ins = stated().filter_map(|w| w.link).collect();
        self.book.far_ends = stated().filter_map(|w| Some((w.far?, w.link?))).collect();
    }

    /// What a device of the namespace should be used as.
    pub(in crate::control) fn use_of(&self, device: Device) -> Use {
        match self.book.far_ends.get(&device) {
            Some(&stand_in) => Use::FarEnd(stand_in),
            None => Use::Whole,
        }
    }

    /// The devices of a namespace that are far ends.
    pub(in crate::control) fn far_ends_in(&self, ns: NsId) -> impl Iterator<Item = IfIndex> + '_ {
        self.book.far_ends.keys().filter(move |d| d.0 == ns).map(|d| d.1)
    }

    /// The device is a stand-in, or will be a member: it is no port itself.
    pub(in crate::control) fn is_spoken_for(&self, device: Device) -> bool {
        self.book.stand_ins.contains(&device) || self.book.promised.contains(&device)
    }

    /// The device is no port, but is to become one.
    pub(in crate::control) fn is_expected(&self, (ns, ifindex): Device) -> bool {
        let Some(n) = self.namespace(ns) else { return false };
        let wanted = |l: &Link| unfit(l).is_none() && passed_over(&n.rule, l).is_none() && l.up;
        !n.ports.contains_key(&ifindex)
            && !n.refused.contains_key(&ifindex)
            && n.mirror.links.get(&ifindex).is_some_and(wanted)
    }

    /// A device was refused: what would have been its members may become ports.
    pub(in crate::control) fn break_promises(&mut self) {
        self.members_stale = true;
        let promised = std::mem::take(&mut self.book.promised);
        self.book.unsettled.extend(promised.into_iter().map(|(ns, _)| ns));
    }

    /// Takes back programs on devices that lie above one that is to become a port: the
    /// kernel refuses a program below others (net/core/dev.c, `dev_xdp_attach`). True:
    /// there were some.
    pub(in crate::control) fn clear_above(&mut self, device: Device) -> bool {
        let mut known = Known::take(self);
        let above = |(i, p): (usize, &PortState)| {
            let link = self.namespace(p.ns)?.mirror.links.get(&p.ifindex)?;
            let lies = p.part == Use::Whole
                && link.part.is_some()
                && link.peer == Some(device.1)
                && known.other_end(self, p.ns, link) == Some(device.0);
            lies.then_some(PortId(i as u16))
        };
        let above: Vec<PortId> = self.ports.iter().filter_map(above).collect();
        known.give_back(self);
        self.remove_ports(&above);
        !above.is_empty()
    }

    /// The port that a device is, whole.
    pub(in crate::control) fn whole(&self, (ns, ifindex): Device) -> Option<(PortId, Generation)> {
        let id = *self.namespace(ns)?.ports.get(&ifindex)?;
        let state = self.ports.get(id.index())?;
        matches!(state.part, Use::Whole).then_some((id, state.generation))
    }

    /// What a port is in the workers' tables.
    pub(in crate::control) fn role(&self, port: &PortState) -> tables::Role {
        match &port.part {
            Use::Whole => tables::Role::Device,
            Use::Member(m) => tables::Role::Member(Box::new(tables::Member {
                parent: m.parent,
                parent_generation: m.parent_generation,
                tags: m.how.tags(),
            })),
            Use::FarEnd(stand_in) => {
                let is = |p: &&(usize, &PortState)| {
                    matches!(p.1.part, Use::Member(_)) && (p.1.ns, p.1.ifindex) == *stand_in
                };
                let member = self.ports.iter().find(|p| is(&p));
                tables::Role::Cross(member.map(|(i, p)| (PortId(i as u16), p.generation)))
            }
        }
    }

    /// Namespaces with a device that may become a port since a member went or came.
    pub(in crate::control) fn unsettled_by_members(&mut self) -> Vec<NsId> {
        std::mem::take(&mut self.book.unsettled).into_iter().collect()
    }

    /// For users: which part of which port a link is.
    pub(in crate::control) fn member_of(
        &self,
        port: &PortState,
    ) -> Option<(String, String, String)> {
        let (device, how): (Device, String) = match &port.part {
            Use::Whole => return None,
            Use::Member(m) => {
                let parent = self.ports.get(m.parent.index())?;
                ((parent.ns, parent.ifindex), m.how.to_string())
            }
            Use::FarEnd(stand_in) => (*stand_in, "far end".to_owned()),
        };
        let n = self.namespace(device.0)?;
        let name = n.mirror.links.get(&device.1).map(|l| l.name.clone())?;
        Some((n.netns.name().to_owned(), name, how))
    }
}
