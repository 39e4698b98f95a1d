//! Routes that only the kernel can follow, counted for the ledger.

use std::collections::BTreeMap;

use crate::control::ledger::Entry;
use crate::control::mirror::TABLE_LOCAL;
use crate::netlink::{Family, Prefix, Route};

/// By the item that keeps them: how many prefixes, and the first of them.
#[derive(Default)]
pub(super) struct Kept {
    items: BTreeMap<&'static str, (usize, Prefix)>,
}

impl Kept {
    /// A prefix is kept. Those of the local table are what every namespace has.
    pub(super) fn count(&mut self, item: &'static str, routes: &[&Route]) {
        let Some(route) = routes.first().filter(|r| r.table != TABLE_LOCAL) else { return };
        // So has every device its link-local and multicast routes, which nobody crosses.
        let Prefix { addr, len } = route.dst;
        if addr.is_multicast() || (addr.is_ipv6() && is_link_local(addr) && len >= 10) {
            return;
        }
        self.items.entry(item).or_insert((0, route.dst)).0 += 1;
    }

    /// The lines of the ledger.
    pub(super) fn entries(self, family: Family) -> Vec<Entry> {
        let line = |(item, (count, example)): (&str, (usize, Prefix))| {
            Entry::of_routes(item, family, count, &example.to_string())
        };
        self.items.into_iter().filter_map(line).collect()
    }
}

fn is_link_local(addr: std::net::IpAddr) -> bool {
    matches!(addr, std::net::IpAddr::V6(a) if a.is_unicast_link_local())
}
