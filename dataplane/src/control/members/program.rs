//! Members in the program's maps.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashSet;
use nsplane_abi::member::{
    BY_MAC, BY_QUEUE, BY_VLAN, MEMBER_ABSENT, MEMBER_STATED, MemberEntry, MemberKey,
};
use nsplane_abi::{PORT_MEMBER_MACS, PORT_MEMBER_QUEUES, PORT_MEMBER_VLANS};
use tracing::warn;

use super::wanted::{How, Wanted};
use crate::control::Control;
use crate::control::error::{Error, told};
use crate::control::ports::Use;
use crate::id::{Generation, NsId, PortId};

/// Stated to be somebody's who is not there: dropped.
fn absent(parent: Generation) -> MemberEntry {
    let flags = MEMBER_STATED | MEMBER_ABSENT;
    MemberEntry { flags, parent: parent.0, ..MemberEntry::default() }
}

impl Control {
    /// What the program's map should hold.
    pub(in crate::control) fn entries(
        &self,
        wanted: &[Wanted],
    ) -> BTreeMap<MemberKey, MemberEntry> {
        let mut entries = BTreeMap::new();
        for w in wanted.iter().filter(|w| w.stated) {
            if let Some((parent, generation)) = self.whole(w.parent) {
                entries.insert(w.how.key(parent), absent(generation));
            }
        }
        for (i, port) in self.ports.iter() {
            if let Use::Member(m) = &port.part {
                // Of a stated one no device of the kernel is asked for.
                let here = self.namespace(port.ns).filter(|_| !m.stated);
                let bucket = match m.how {
                    How::Mac(mac) => self.bpf.bucket(mac),
                    How::Vlan(_) | How::Queue(_) => 0,
                };
                let entry = MemberEntry {
                    cookie: here.map_or(0, |n| n.netns.cookie().0),
                    ifindex: port.ifindex.0,
                    bucket,
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

    pub(in crate::control) fn set_entries(
        &mut self,
        wanted: BTreeMap<MemberKey, MemberEntry>,
    ) -> Result<(), Error> {
        let gone = self.book.entries.keys().filter(|k| !wanted.contains_key(k));
        let gone: Vec<MemberKey> = gone.copied().collect();
        let mut result = Ok(());
        for key in gone {
            result = result.and(self.remove_entry(&key));
        }
        for (key, entry) in wanted {
            result = result.and(self.set_entry(key, entry));
        }
        result
    }

    /// What is remembered of the map changes only when the map did.
    fn set_entry(&mut self, key: MemberKey, entry: MemberEntry) -> Result<(), Error> {
        if self.book.entries.get(&key) == Some(&entry) {
            return Ok(());
        }
        self.bpf.set_member(&key, &entry).map_err(Error::Map)?;
        self.book.entries.insert(key, entry);
        Ok(())
    }

    fn remove_entry(&mut self, key: &MemberKey) -> Result<(), Error> {
        self.bpf.remove_member(key).map_err(Error::Map)?;
        self.book.entries.remove(key);
        Ok(())
    }

    /// Before anything is published: no port is live while frames that were stated to be
    /// another's would look like its own. One whose entry the kernel refuses is off.
    /// Returns the namespaces of the ports that changed in that.
    pub(in crate::control) fn reserve(
        &mut self,
        wanted: &[Wanted],
    ) -> (BTreeSet<NsId>, Result<(), Error>) {
        let (mut off, mut result) = (BTreeSet::new(), Ok(()));
        for w in wanted.iter().filter(|w| w.stated) {
            let Some((parent, generation)) = self.whole(w.parent) else { continue };
            let key = w.how.key(parent);
            if self.book.entries.get(&key).is_some_and(|e| e.parent == generation.0) {
                continue;
            }
            let done = self.set_entry(key, absent(generation));
            if done.is_err() {
                off.insert(parent);
            }
            result = result.and(done);
        }
        let before = std::mem::replace(&mut self.book.off, off);
        let changed = before.symmetric_difference(&self.book.off);
        let changed = changed.filter_map(|p| Some(self.ports.get(p.index())?.ns)).collect();
        (changed, result)
    }

    /// The port would take frames for its own that were stated to be another's.
    pub(in crate::control) fn is_unsafe(&self, port: PortId) -> bool {
        self.book.off.contains(&port)
    }

    /// Before ports go: takes what leads to them or to their members out of the program's
    /// map, and returns them with their members, which go with them.
    pub(in crate::control) fn detach_members(&mut self, ports: &[PortId]) -> Vec<PortId> {
        let mut all = ports.to_vec();
        let ports: HashSet<PortId> = ports.iter().copied().collect();
        for (i, port) in self.ports.iter() {
            let id = PortId(i as u16);
            if let Use::Member(m) = &port.part
                && ports.contains(&m.parent)
                && !ports.contains(&id)
            {
                all.push(id);
                self.book.stale.insert(port.ns);
                self.book.unsettled.insert(port.ns);
            }
        }
        let gone: HashSet<PortId> = all.iter().copied().collect();
        let of_port = |k: &MemberKey| ports.contains(&PortId(k.port as u16));
        let of_member =
            |e: &MemberEntry| e.flags & MEMBER_ABSENT == 0 && gone.contains(&PortId(e.member));
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

    pub(in crate::control) fn forget_key(&mut self, key: &MemberKey) {
        if let Err(e) = self.remove_entry(key) {
            warn!(error = told(&e), "taking a member out of the program's map");
        }
    }

    pub(in crate::control) fn make_absent(&mut self, key: MemberKey) {
        let Some(mut entry) = self.book.entries.get(&key).copied() else { return };
        entry.flags |= MEMBER_ABSENT;
        if let Err(e) = self.set_entry(key, entry) {
            warn!(error = told(&e), "taking a member out of the program's map");
        }
    }

    /// The bits of a port's entry that say which members to ask for.
    pub(in crate::control) fn member_flags(&self, port: PortId) -> u16 {
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
}
