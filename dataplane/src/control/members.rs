//! Members: parts of a port that belong to another namespace than the port's device.
//!
//! ```text
//!  namespace P               namespace T1          namespace T2
//!   trunk0 (port) ───────────► macvlan m0            v100 (stand-in) ──veth── far end, in P
//!      │ by address 02:..:01 ────┘                      ▲
//!      └ by VLAN 100 ───────────────────────────────────┘
//! ```
//! A member has a number among the ports and is, in its namespace's tables, a port like
//! others: [`wanted`] says which there should be, what is here makes them so.
//!
//! # Order
//!
//! A member appears in the program's map of members last, when its namespace's tables,
//! its own entry and its target for punted packets are there; and leaves it first. In
//! between its frames are the kernel's, or, of a stated one, are dropped. Whoever holds
//! something of a member meanwhile holds its generation too: a frame that was tagged for
//! an earlier use of the number, or of the parent's, is dropped by the worker.
//!
//! A member ends with its parent, with its link, and with anything that tells its frames
//! apart (a macvlan's address); it is not changed but made anew.
//!
//! # What the kernel does and we do not
//!
//! Macvlans of one device in mode `bridge` reach each other without the wire. The kernel
//! lists their addresses, those of namespaces that we do not drive among them, in the
//! lower device's filter; what is for one of those is left to the kernel.

mod resolve;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nsplane_abi::member::{
    BY_MAC, BY_QUEUE, BY_VLAN, MEMBER_ABSENT, MEMBER_STATED, MemberEntry, MemberKey,
};
use nsplane_abi::{PORT_MEMBER_MACS, PORT_MEMBER_QUEUES, PORT_MEMBER_VLANS};
use tracing::{info, warn};

use super::Control;
use super::devices::{passed_over, unfit};
use super::error::{Error, told};
use super::ports::{PortState, Use};
use super::targets::Target;
use crate::config;
use crate::id::{Generation, IfIndex, Mac, NsId, PortId};
use crate::netlink::{Asker, Link};
use crate::tables;

pub(super) use resolve::Known;
pub use wanted::How;
use wanted::{Device, Seen, Wanted, wanted};

/// A member, as control holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberState {
    /// The port that its frames come in on and go out of.
    pub parent: PortId,
    /// Which use of the parent's number is meant.
    pub parent_generation: Generation,
    /// Which of the port's frames are its own.
    pub how: How,
    /// By the configuration: no device of the kernel brings its frames to its link.
    pub stated: bool,
    /// A macvlan that hands frames to others of the same device itself.
    pub bridge: bool,
    /// Addresses of those others.
    pub local: Arc<[Mac]>,
}

/// What control remembers of members besides.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// What the program's map holds.
    entries: BTreeMap<MemberKey, MemberEntry>,
    /// Far ends of stand-ins, and whose.
    far_ends: BTreeMap<Device, Device>,
    /// Stand-ins: no ports of their own.
    stand_ins: BTreeSet<Device>,
    /// Links that will be members as soon as their parents are ports: none by themselves.
    promised: BTreeSet<Device>,
    /// Namespaces that are to be compiled again, for a member of theirs is gone.
    stale: BTreeSet<NsId>,
    /// Namespaces with a device that may become a port again.
    unsettled: BTreeSet<NsId>,
    /// Everything is being given back: nothing is made any more.
    closed: bool,
}

impl Control {
    /// Makes the members those that there should be, and publishes the namespaces that
    /// are concerned. Called whenever a link or a port may have changed.
    ///
    /// # Errors
    /// The kernel refuses a change of the program's maps.
    pub(super) fn follow_members(&mut self) -> Result<(), Error> {
        if self.book.closed {
            return Ok(());
        }
        let wanted = self.wanted_members();
        self.note_devices(&wanted);
        let mut touched = self.drop_unwanted(&wanted)?;
        self.free_for_members(&wanted);
        for w in &wanted {
            touched.extend(self.add_wanted(w)?);
        }
        touched.append(&mut self.book.stale);
        let touched: Vec<NsId> = touched.into_iter().collect();
        self.refresh_with_members(&touched)?;
        let entries = self.entries(&wanted);
        let kinds = |e: &BTreeMap<MemberKey, _>| -> BTreeSet<(u32, u32)> {
            e.keys().map(|k| (k.port, k.by)).collect()
        };
        let more = kinds(&entries) != kinds(&self.book.entries);
        self.set_entries(entries)?;
        if more {
            // Their ports' entries say whether to ask for members at all.
            let parents: BTreeSet<NsId> = wanted.iter().map(|w| w.parent.0).collect();
            let parents: Vec<NsId> = parents.into_iter().collect();
            self.refresh_with_members(&parents)?;
        }
        Ok(())
    }

    /// The configuration's members are these from now on.
    ///
    /// # Errors
    /// The kernel refuses a change of the program's maps.
    pub fn set_members(&mut self, members: Vec<config::Member>) -> Result<(), Error> {
        self.settings.members = members;
        self.follow_members()
    }

    fn wanted_members(&mut self) -> Vec<Wanted> {
        let any = !self.settings.members.is_empty()
            || !self.book.entries.is_empty()
            || self.namespaces.iter().any(|(_, n)| n.mirror.links.values().any(|l| l.part.is_some()));
        if !any {
            return Vec::new();
        }
        let mut known = resolve::Known::take(self);
        let seen: Vec<Seen<'_>> = self
            .namespaces
            .iter()
            .map(|(i, n)| {
                let (name, mirror, rule) = (n.netns.name(), &n.mirror, &*n.rule);
                Seen { ns: self.ns_id(i), name, mirror, rule }
            })
            .collect();
        let found = wanted(&seen, &self.settings.members, &mut |ns, link| {
            known.other_end(self, ns, link)
        });
        known.give_back(self);
        found
    }

    /// Which devices are stand-ins and far ends, and which links wait for their parents.
    fn note_devices(&mut self, wanted: &[Wanted]) {
        let waits = |w: &&Wanted| !w.stated && self.is_expected(w.parent);
        self.book.promised = wanted.iter().filter(waits).filter_map(|w| w.link).collect();
        let stated = || wanted.iter().filter(|w| w.stated);
        self.book.stand_ins = stated().filter_map(|w| w.link).collect();
        self.book.far_ends =
            stated().filter_map(|w| Some((w.far?, w.link?))).collect();
    }

    /// What a device of the namespace should be used as.
    pub(super) fn use_of(&self, device: Device) -> Use {
        match self.book.far_ends.get(&device) {
            Some(&stand_in) => Use::FarEnd(stand_in),
            None => Use::Whole,
        }
    }

    /// The devices of a namespace that are far ends.
    pub(super) fn far_ends_in(&self, ns: NsId) -> impl Iterator<Item = IfIndex> + '_ {
        self.book.far_ends.keys().filter(move |d| d.0 == ns).map(|d| d.1)
    }

    /// The device is a stand-in, or will be a member: it is no port itself.
    pub(super) fn is_spoken_for(&self, device: Device) -> bool {
        self.book.stand_ins.contains(&device) || self.book.promised.contains(&device)
    }

    /// The device is no port, but is to become one.
    fn is_expected(&self, (ns, ifindex): Device) -> bool {
        let Some(n) = self.namespace(ns) else { return false };
        let wanted = |l: &Link| unfit(l).is_none() && passed_over(&n.rule, l).is_none() && l.up;
        !n.ports.contains_key(&ifindex)
            && !n.refused.contains_key(&ifindex)
            && n.mirror.links.get(&ifindex).is_some_and(wanted)
    }

    /// A device was refused: what would have been its members may become ports.
    pub(super) fn break_promises(&mut self) {
        let promised = std::mem::take(&mut self.book.promised);
        self.book.unsettled.extend(promised.into_iter().map(|(ns, _)| ns));
    }

    /// Takes back programs on devices that lie above one that is to become a port: the
    /// kernel refuses a program below others (net/core/dev.c, `dev_xdp_attach`). True:
    /// there were some.
    pub(super) fn clear_above(&mut self, device: Device) -> bool {
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
    fn whole(&self, (ns, ifindex): Device) -> Option<(PortId, Generation)> {
        let id = *self.namespace(ns)?.ports.get(&ifindex)?;
        let state = self.ports.get(id.index())?;
        matches!(state.part, Use::Whole).then_some((id, state.generation))
    }

    fn is_wanted(&self, port: &PortState, m: &MemberState, wanted: &[Wanted]) -> bool {
        wanted.iter().any(|w| {
            w.link == Some((port.ns, port.ifindex))
                && self.whole(w.parent) == Some((m.parent, m.parent_generation))
                && (w.how, w.stated, w.bridge) == (m.how, m.stated, m.bridge)
        })
    }

    fn drop_unwanted(&mut self, wanted: &[Wanted]) -> Result<BTreeSet<NsId>, Error> {
        let gone: Vec<(PortId, NsId)> = self
            .ports
            .iter()
            .filter(|(_, p)| match &p.part {
                Use::Member(m) => !self.is_wanted(p, m, wanted),
                Use::Whole | Use::FarEnd(_) => false,
            })
            .map(|(i, p)| (PortId(i as u16), p.ns))
            .collect();
        let ids: Vec<PortId> = gone.iter().map(|(id, _)| *id).collect();
        self.remove_ports(&ids);
        self.book.unsettled.extend(gone.iter().map(|(_, ns)| *ns));
        Ok(gone.into_iter().map(|(_, ns)| ns).collect())
    }

    /// Ports that stand in the way: a macvlan that was one by itself, a stand-in, or a
    /// far end that was driven as a device like others.
    fn free_for_members(&mut self, wanted: &[Wanted]) {
        let ours = |w: &&Wanted| w.stated || self.whole(w.parent).is_some();
        let members = wanted.iter().filter(ours).filter_map(|w| w.link);
        let mut in_the_way: Vec<Device> =
            members.filter(|device| self.whole(*device).is_some()).collect();
        for (_, port) in self.ports.iter() {
            let device = (port.ns, port.ifindex);
            let is = match &port.part {
                Use::Member(_) => continue,
                Use::Whole => Use::Whole,
                Use::FarEnd(of) => Use::FarEnd(*of),
            };
            if is != self.use_of(device) && !in_the_way.contains(&device) {
                in_the_way.push(device);
            }
        }
        for (ns, ifindex) in in_the_way {
            let Some(id) = self.namespace(ns).and_then(|n| n.ports.get(&ifindex).copied()) else {
                continue;
            };
            self.remove_ports(&[id]);
            self.book.stale.insert(ns);
            self.book.unsettled.insert(ns);
        }
    }

    /// Adds a member if it is not there. Returns the namespaces whose tables are concerned.
    fn add_wanted(&mut self, w: &Wanted) -> Result<Vec<NsId>, Error> {
        let (Some((ns, ifindex)), Some((parent, parent_generation))) =
            (w.link, self.whole(w.parent))
        else {
            return Ok(Vec::new());
        };
        let Some(state) = self.namespace(ns) else { return Ok(Vec::new()) };
        if state.ports.contains_key(&ifindex) {
            return Ok(Vec::new());
        }
        let netns = state.netns.clone();
        let Some(link) = state.mirror.links.get(&ifindex).cloned() else { return Ok(Vec::new()) };
        if !w.stated && !self.still_lies(ns, &link) {
            return Ok(Vec::new());
        }
        let full = Error::PortsFull(usize::from(self.settings.max_ports));
        let (index, generation) = self.ports.next().ok_or(full)?;
        let (id, generation) = (PortId(index as u16), Generation(generation));
        self.bpf.clear_counters(id).map_err(Error::Map)?;
        let base = self.totals_of(id)?;
        info!(
            netns = netns.name(), link = link.name, member = id.0, port = parent.0, by = %w.how,
            "member"
        );
        self.targets.set(id, Target { generation, netns, ifindex });
        let local = if w.bridge { self.beside(w.parent) } else { Arc::default() };
        self.ports.put(PortState {
            generation,
            ns,
            ifindex,
            name: link.name,
            queues: Vec::new(),
            attached: None,
            base,
            part: Use::Member(MemberState {
                parent,
                parent_generation,
                how: w.how,
                stated: w.stated,
                bridge: w.bridge,
                local,
            }),
        });
        if let Some(n) = self.namespace_mut(ns) {
            n.refused.remove(&ifindex);
            n.ports.insert(ifindex, id);
        }
        let far = self.book.far_ends.iter().filter(|(_, of)| **of == (ns, ifindex));
        Ok(far.map(|((ns, _), _)| *ns).chain([ns]).collect())
    }

    /// What the program's map should hold.
    fn entries(&self, wanted: &[Wanted]) -> BTreeMap<MemberKey, MemberEntry> {
        let mut entries = BTreeMap::new();
        for w in wanted.iter().filter(|w| w.stated) {
            if let Some((parent, generation)) = self.whole(w.parent) {
                let flags = MEMBER_STATED | MEMBER_ABSENT;
                let absent = MemberEntry { flags, parent: generation.0, ..MemberEntry::default() };
                entries.insert(w.how.key(parent), absent);
            }
        }
        for (i, port) in self.ports.iter() {
            if let Use::Member(m) = &port.part {
                let entry = MemberEntry {
                    ns: port.ns.packed(),
                    member: i as u16,
                    flags: if m.stated { MEMBER_STATED } else { 0 },
                    generation: port.generation.0,
                    parent: m.parent_generation.0,
                };
                entries.insert(m.how.key(m.parent), entry);
            }
        }
        entries
    }

    fn set_entries(&mut self, wanted: BTreeMap<MemberKey, MemberEntry>) -> Result<(), Error> {
        let old = std::mem::take(&mut self.book.entries);
        for key in old.keys().filter(|k| !wanted.contains_key(k)) {
            self.bpf.remove_member(key).map_err(Error::Map)?;
        }
        for (key, entry) in wanted.iter().filter(|(k, e)| old.get(k) != Some(e)) {
            self.bpf.set_member(key, entry).map_err(Error::Map)?;
        }
        self.book.entries = wanted;
        Ok(())
    }

    /// Before ports go: takes what leads to them or to their members out of the program's
    /// map, and returns them with their members, which go with them.
    pub(super) fn detach_members(&mut self, ports: &[PortId]) -> Vec<PortId> {
        let mut all = ports.to_vec();
        for (i, port) in self.ports.iter() {
            let id = PortId(i as u16);
            if let Use::Member(m) = &port.part
                && ports.contains(&m.parent)
                && !all.contains(&id)
            {
                all.push(id);
                self.book.stale.insert(port.ns);
                self.book.unsettled.insert(port.ns);
            }
        }
        let of_port = |k: &MemberKey| ports.iter().any(|p| u32::from(p.0) == k.port);
        let of_member = |e: &MemberEntry| {
            e.flags & MEMBER_ABSENT == 0 && all.iter().any(|p| p.0 == e.member)
        };
        let keys: Vec<(MemberKey, bool)> = self
            .book
            .entries
            .iter()
            .filter(|(k, e)| of_port(k) || of_member(e))
            .map(|(k, e)| (*k, e.flags & MEMBER_STATED != 0 && !of_port(k)))
            .collect();
        for (key, stated) in keys {
            if stated { self.make_absent(key) } else { self.forget_key(&key) }
        }
        all
    }

    fn forget_key(&mut self, key: &MemberKey) {
        self.book.entries.remove(key);
        if let Err(e) = self.bpf.remove_member(key) {
            warn!(error = told(&e), "taking a member out of the program's map");
        }
    }

    fn make_absent(&mut self, key: MemberKey) {
        let Some(entry) = self.book.entries.get_mut(&key) else { return };
        entry.flags |= MEMBER_ABSENT;
        let entry = *entry;
        if let Err(e) = self.bpf.set_member(&key, &entry) {
            warn!(error = told(&e), "taking a member out of the program's map");
        }
    }

    /// The bits of a port's entry that say which members to ask for.
    pub(super) fn member_flags(&self, port: PortId) -> u16 {
        let keys = self.book.entries.keys().filter(|k| k.port == u32::from(port.0));
        let of_ports = self.ports.iter().filter_map(|(_, p)| match &p.part {
            Use::Member(m) if m.parent == port => Some(m.how.key(port).by),
            _ => None,
        });
        keys.map(|k| k.by).chain(of_ports).fold(0, |flags, by| {
            flags
                | match by {
                    BY_MAC => PORT_MEMBER_MACS,
                    BY_VLAN => PORT_MEMBER_VLANS,
                    BY_QUEUE => PORT_MEMBER_QUEUES,
                    _ => 0,
                }
        })
    }

    /// What a port is in the workers' tables.
    pub(super) fn role(&self, port: &PortState) -> tables::Role {
        match &port.part {
            Use::Whole => tables::Role::Device,
            Use::Member(m) => tables::Role::Member(Box::new(tables::Member {
                parent: m.parent,
                parent_generation: m.parent_generation,
                tags: m.how.tags(),
                local: m.local.clone(),
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

    /// From here on no member is made, and no namespace published because of one.
    pub(super) fn close_members(&mut self) {
        self.book.closed = true;
    }

    /// Namespaces with a device that may become a port since a member went or came.
    pub(super) fn unsettled_by_members(&mut self) -> Vec<NsId> {
        std::mem::take(&mut self.book.unsettled).into_iter().collect()
    }

    /// Looks again for macvlans beside ours; those who come and go in namespaces that we
    /// do not drive are not announced.
    pub(super) fn look_beside(&mut self) -> Result<(), Error> {
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
        let changed: Vec<NsId> = changed.into_iter().collect();
        self.refresh_with_members(&changed)
    }

    /// The neighbours of those of the namespace's members that have others beside them.
    pub(super) fn neighbors_beside(&self, ns: NsId) -> BTreeSet<(PortId, Mac)> {
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
    pub(super) fn look_beside_for(&mut self, ns: NsId, before: &BTreeSet<(PortId, Mac)>) -> bool {
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
    fn beside(&self, (ns, ifindex): Device) -> Arc<[Mac]> {
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

    /// The kernel's own word, now, that the link lies above what the mirror says: an
    /// event about a device below that moved may be yet to come.
    fn still_lies(&self, ns: NsId, link: &Link) -> bool {
        let Some(netns) = self.netns(ns) else { return false };
        let asked = Asker::open(&netns).and_then(|mut a| a.link(link.ifindex));
        match asked {
            Ok(Some(now)) => {
                (now.peer, now.peer_nsid, now.mac, now.part)
                    == (link.peer, link.peer_nsid, link.mac, link.part)
            }
            Ok(None) => false,
            Err(e) => {
                warn!(netns = netns.name(), link = link.name, error = told(&e), "not a member");
                false
            }
        }
    }

    /// For users: which part of which port a link is.
    pub(super) fn member_of(&self, port: &PortState) -> Option<(String, String, String)> {
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

