//! Members: parts of a port that belong to another namespace than the port's device.
//!
//! ```text
//!  namespace P               namespace T1          namespace T2
//!   trunk0 (port) ───────────► macvlan m0            v100 (stand-in) ──veth── far end, in P
//!      │ by address 02:..:01 ────┘                      ▲
//!      └ by VLAN 100 ───────────────────────────────────┘
//! ```
//! A member has a number among the ports and is, in its namespace's tables, a port like
//! others: `wanted` says which there should be, what is here makes them so.
//!
//! # Order
//!
//! A member appears in the program's map of members last, when its namespace's tables,
//! its own entry and its target for punted packets are there; and leaves it first. In
//! between its frames are the kernel's, or, of a stated one, are dropped. Whoever holds
//! something of a member meanwhile holds its generation too: a frame that was tagged for
//! an earlier use of the number, or of the parent's, is dropped by the worker.
//!
//! When a macvlan or a VLAN leaves its namespace, the port below it keeps its sockets. The
//! program sees it all the same, since it asks the kernel for each frame where the device
//! is now; and what leaves by such a member leaves by sockets on the device itself
//! (`way_out`). So nothing waits for control to hear of it.
//!
//! A stated member's frames have an entry, even if only one that drops them, before its
//! port is published: to the program they look like the port's own.
//!
//! A member ends with its parent, with its link, and with anything that tells its frames
//! apart (a macvlan's address); it is not changed but made anew.

mod devices;
mod program;
mod resolve;
mod wanted;
mod way_out;

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashSet;
use nsplane_abi::member::{MEMBER_ABSENT, MEMBER_STATED, MemberEntry, MemberKey};
use tracing::{info, warn};

use super::Control;
use super::error::{Error, told};
use super::ports::{PortState, Use};
use super::targets::Target;
use crate::bpf::XdpMode;
use crate::config;
use crate::id::{Generation, NsId, PortId};
use crate::netlink::{Asker, Link};
use crate::xsk;

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
    /// Ports that are left to the kernel: the map did not take a stated member of theirs.
    off: BTreeSet<PortId>,
    /// Parts of ports that are no members, since it could not be seen that they move.
    left_unseen: usize,
    /// Links that no socket could be bound to.
    no_way_out: BTreeSet<Device>,
    /// It was said that there is no number left.
    told_full: bool,
    /// Everything is being given back: nothing is made any more.
    closed: bool,
}

fn kinds(entries: &BTreeMap<MemberKey, MemberEntry>) -> BTreeSet<(u32, u32)> {
    entries.keys().map(|k| (k.port, k.by)).collect()
}

fn to_vec(namespaces: &BTreeSet<NsId>) -> Vec<NsId> {
    namespaces.iter().copied().collect()
}

impl Control {
    /// Makes the members those that there should be, and publishes the namespaces that
    /// are concerned. Called whenever a link or a port may have changed.
    ///
    /// # Errors
    /// The kernel refuses a change of the program's maps.
    pub(super) fn follow_members(&mut self) -> Result<(), Error> {
        if self.book.closed || !std::mem::take(&mut self.members_stale) {
            return Ok(());
        }
        let wanted = match self.wanted_members() {
            Ok(wanted) => wanted,
            Err(e) => {
                self.members_stale = true;
                return Err(e);
            }
        };
        self.note_devices(&wanted);
        let before = kinds(&self.book.entries);
        let (mut touched, mut result) = self.reserve(&wanted);
        touched.append(&mut self.drop_unwanted(&wanted));
        self.free_for_members(&wanted);
        for w in &wanted {
            match self.add_wanted(w) {
                Ok(concerned) => touched.extend(concerned),
                Err(e) => result = result.and(Err(e)),
            }
        }
        touched.append(&mut self.book.stale);
        let published = self.refresh_with_members(&to_vec(&touched));
        let mut entries = self.entries(&wanted);
        if published.is_err() {
            self.hold_back(&mut entries);
        }
        result = result.and(published);
        let more = kinds(&entries) != before;
        result = result.and(self.set_entries(entries));
        if more {
            // Their ports' entries say whether to ask for members at all.
            let parents: BTreeSet<NsId> = wanted.iter().map(|w| w.parent.0).collect();
            result = result.and(self.refresh_with_members(&to_vec(&parents)));
            touched.extend(parents);
        }
        if result.is_err() {
            // All of it again, at the next change.
            self.book.stale.append(&mut touched);
            self.members_stale = true;
        }
        result
    }

    /// What is new waits until all that it needs is there.
    fn hold_back(&self, entries: &mut BTreeMap<MemberKey, MemberEntry>) {
        entries.retain(|key, entry| {
            let new = self.book.entries.get(key) != Some(entry);
            if new && entry.flags & MEMBER_STATED != 0 {
                entry.flags |= MEMBER_ABSENT;
            }
            !new || entry.flags & MEMBER_STATED != 0
        });
    }

    /// The configuration's members are these from now on.
    ///
    /// # Errors
    /// The kernel refuses a change of the program's maps.
    pub fn set_members(&mut self, members: Vec<config::Member>) -> Result<(), Error> {
        self.settings.members = members;
        self.members_stale = true;
        self.follow_members()
    }

    fn wanted_members(&mut self) -> Result<Vec<Wanted>, Error> {
        let any = !self.settings.members.is_empty()
            || !self.book.entries.is_empty()
            || self
                .namespaces
                .iter()
                .any(|(_, n)| n.mirror.links.values().any(|l| l.part.is_some()));
        if !any {
            return Ok(Vec::new());
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
        let mut found =
            wanted(&seen, &self.settings.members, &mut |ns, link| known.other_end(self, ns, link));
        known.give_back(self);
        self.leave_unseen(&mut found)?;
        Ok(found)
    }

    /// Leaves those to the kernel of which could not be seen that they moved: by the
    /// program, for what comes in, and by sockets, for what goes out.
    fn leave_unseen(&mut self, found: &mut Vec<Wanted>) -> Result<(), Error> {
        let mut macvlan = self.bpf.no_macvlan().map_err(Error::Map)?.map(str::to_owned);
        let mut vlan = self.bpf.no_vlan().map(str::to_owned);
        if self.settings.memory.mode == xsk::Mode::ZeroCopy {
            // No such device sends without a copy, and one memory has one mode.
            let why = || Some("it cannot send in zero-copy mode".to_owned());
            (macvlan, vlan) = (why(), why());
        }
        let before = found.len();
        let mut why = None;
        found.retain(|w| {
            let unseen = match w.how {
                _ if w.stated => &None,
                How::Mac(_) => &macvlan,
                How::Vlan(_) | How::Queue(_) => &vlan,
            };
            why = why.take().or(unseen.as_deref());
            unseen.is_none()
        });
        if let Some(why) = why
            && self.book.left_unseen != before - found.len()
        {
            let devices = before - found.len();
            warn!(devices, why, "macvlans or VLANs are left to the kernel");
        }
        self.book.left_unseen = before - found.len();
        Ok(())
    }

    fn drop_unwanted(&mut self, wanted: &[Wanted]) -> BTreeSet<NsId> {
        let parent = |w: &Wanted| Some((w.link?, self.whole(w.parent)?));
        let as_they_should_be: HashSet<_> =
            wanted.iter().filter_map(|w| Some((parent(w)?, (w.how, w.stated)))).collect();
        let is_wanted = |p: &PortState, m: &MemberState| {
            let parent = ((p.ns, p.ifindex), (m.parent, m.parent_generation));
            as_they_should_be.contains(&(parent, (m.how, m.stated)))
        };
        let gone: Vec<(PortId, NsId)> = self
            .ports
            .iter()
            .filter(|(_, p)| match &p.part {
                Use::Member(m) => !is_wanted(p, m),
                Use::Whole | Use::FarEnd(_) => false,
            })
            .map(|(i, p)| (PortId(i as u16), p.ns))
            .collect();
        let ids: Vec<PortId> = gone.iter().map(|(id, _)| *id).collect();
        self.remove_ports(&ids);
        self.book.unsettled.extend(gone.iter().map(|(_, ns)| *ns));
        gone.into_iter().map(|(_, ns)| ns).collect()
    }

    /// Ports that stand in the way: a macvlan that was one by itself, a stand-in, or a
    /// far end that was driven as a device like others.
    fn free_for_members(&mut self, wanted: &[Wanted]) {
        let ours = |w: &&Wanted| w.stated || self.whole(w.parent).is_some();
        let members = wanted.iter().filter(ours).filter_map(|w| w.link);
        let mut in_the_way: BTreeSet<Device> =
            members.filter(|device| self.whole(*device).is_some()).collect();
        for (_, port) in self.ports.iter() {
            let device = (port.ns, port.ifindex);
            let is = match &port.part {
                Use::Member(_) => continue,
                Use::Whole => Use::Whole,
                Use::FarEnd(of) => Use::FarEnd(*of),
            };
            if is != self.use_of(device) {
                in_the_way.insert(device);
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
            self.members_stale = true;
            return Ok(Vec::new());
        }
        let Some((index, generation)) = self.ports.next() else {
            // Others are not to suffer: those that are not stated are the kernel's, and
            // those that are, are nobody's.
            if !std::mem::replace(&mut self.book.told_full, true) {
                let full = Error::PortsFull(usize::from(self.settings.max_ports));
                let (netns, link) = (netns.name(), link.name);
                warn!(netns, link, error = told(&full), "not a member, nor will others be");
            }
            return Ok(Vec::new());
        };
        self.book.told_full = false;
        let bound = if w.stated {
            Vec::new()
        } else {
            match self.open_way_out((ns, ifindex), &netns, &link) {
                Some(bound) => bound,
                None => return Ok(Vec::new()),
            }
        };
        let (id, generation) = (PortId(index as u16), Generation(generation));
        let counted = self.bpf.clear_counters(id).map_err(Error::Map);
        let base = match counted.and_then(|()| self.totals_of(id)) {
            Ok(base) => base,
            Err(e) => {
                self.close(bound, None);
                return Err(e);
            }
        };
        info!(
            netns = netns.name(), link = link.name, member = id.0, port = parent.0, by = %w.how,
            "member"
        );
        self.targets.set(id, Target { generation, netns, ifindex, mode: XdpMode::Native });
        let queues = self.hand_out((id, generation), bound);
        self.ports.put(PortState {
            generation,
            ns,
            ifindex,
            name: link.name,
            queues,
            attached: None,
            base,
            part: Use::Member(MemberState {
                parent,
                parent_generation,
                how: w.how,
                stated: w.stated,
            }),
        });
        if let Some(n) = self.namespace_mut(ns) {
            n.refused.remove(&ifindex);
            n.ports.insert(ifindex, id);
        }
        let far = self.book.far_ends.iter().filter(|(_, of)| **of == (ns, ifindex));
        Ok(far.map(|((ns, _), _)| *ns).chain([ns]).collect())
    }

    /// From here on no member is made, and no namespace published because of one.
    pub(super) fn close_members(&mut self) {
        self.book.closed = true;
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
}
