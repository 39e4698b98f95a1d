//! Members in the program's maps.

use std::collections::BTreeMap;

use nsplane_abi::member::{
    BY_MAC, BY_QUEUE, BY_VLAN, MEMBER_ABSENT, MEMBER_STATED, MemberEntry, MemberKey,
};
use nsplane_abi::{PORT_MEMBER_MACS, PORT_MEMBER_QUEUES, PORT_MEMBER_VLANS};
use tracing::warn;

use super::wanted::Wanted;
use crate::control::Control;
use crate::control::error::{Error, told};
use crate::control::ports::Use;
use crate::id::PortId;

impl Control {
    /// What the program's map should hold.
    pub(in crate::control) fn entries(
        &self,
        wanted: &[Wanted],
    ) -> BTreeMap<MemberKey, MemberEntry> {
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

    pub(in crate::control) fn set_entries(
        &mut self,
        wanted: BTreeMap<MemberKey, MemberEntry>,
    ) -> Result<(), Error> {
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
    pub(in crate::control) fn detach_members(&mut self, ports: &[PortId]) -> Vec<PortId> {
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
        let of_member =
            |e: &MemberEntry| e.flags & MEMBER_ABSENT == 0 && all.iter().any(|p| p.0 == e.member);
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
        self.book.entries.remove(key);
        if let Err(e) = self.bpf.remove_member(key) {
            warn!(error = told(&e), "taking a member out of the program's map");
        }
    }

    pub(in crate::control) fn make_absent(&mut self, key: MemberKey) {
        let Some(entry) = self.book.entries.get_mut(&key) else { return };
        entry.flags |= MEMBER_ABSENT;
        let entry = *entry;
        if let Err(e) = self.bpf.set_member(&key, &entry) {
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
