//! Routes that the ledger has lines of: those that only the kernel can follow, and those
//! that are balanced.

use std::collections::{BTreeMap, BTreeSet};

use crate::control::ledger::Entry;
use crate::control::mirror::TABLE_LOCAL;
use crate::netlink::{Family, Prefix};

/// By the item that they are of: which prefixes, and of which table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    items: BTreeMap<&'static str, BTreeSet<(Prefix, u32)>>,
}

impl Kept {
    /// A prefix is of an item. Those of the local table are what every namespace has.
    pub(super) fn count(&mut self, item: Option<&'static str>, table: u32, dst: Prefix) {
        let Some(item) = item.filter(|_| table != TABLE_LOCAL) else { return };
        // So has every device its link-local and multicast routes, which nobody crosses.
        let Prefix { addr, len } = dst;
        if addr.is_multicast() || (addr.is_ipv6() && is_link_local(addr) && len >= 10) {
            return;
        }
        self.items.entry(item).or_default().insert((dst, table));
    }

    /// Whatever kept the prefix: it is to be looked at again.
    pub(super) fn forget(&mut self, table: u32, prefix: Prefix) {
        self.items.retain(|_, prefixes| {
            prefixes.remove(&(prefix, table));
            !prefixes.is_empty()
        });
    }

    /// The lines of the ledger.
    pub(super) fn entries(&self, family: Family) -> Vec<Entry> {
        let line = |(item, prefixes): (&&str, &BTreeSet<(Prefix, u32)>)| {
            let (example, _) = prefixes.first()?;
            Entry::of_routes(item, family, prefixes.len(), &example.to_string())
        };
        self.items.iter().filter_map(line).collect()
    }
}

fn is_link_local(addr: std::net::IpAddr) -> bool {
    matches!(addr, std::net::IpAddr::V6(a) if a.is_unicast_link_local())
}
