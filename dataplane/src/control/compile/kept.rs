//! Routes that only the kernel can follow, counted for the ledger.

use std::collections::BTreeMap;

use crate::control::ledger::Ledger;
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

    pub(super) fn tell(self, ledger: &mut Ledger, family: Family) {
        for (item, (count, example)) in self.items {
            ledger.keep_routes(item, family, count, &example.to_string());
        }
    }
}

fn is_link_local(addr: std::net::IpAddr) -> bool {
    matches!(addr, std::net::IpAddr::V6(a) if a.is_unicast_link_local())
}
