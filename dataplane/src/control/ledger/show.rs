//! A ledger as users see it.

use super::{Entry, ITEMS, Item, Ledger, Place, Status};
use crate::control::view;
use crate::netlink::Family;

impl Ledger {
    /// The lines of a namespace.
    pub fn rows<'a>(&'a self, netns: &'a str) -> impl Iterator<Item = view::LedgerRow> + 'a {
        self.iter().map(move |e| view::LedgerRow {
            scope: e.used.place.to_string(),
            status: e.status().to_owned(),
            tier: self.tier(e),
            reason: e.used.what.clone(),
            ..row(netns, e.item)
        })
    }

    /// Who forwards what the line is about, all lines considered.
    fn tier(&self, entry: &Entry) -> String {
        let stays = |f: &Family| self.stays(*f).is_some();
        let kernel = match &entry.used.place {
            _ if entry.item.name == "forwarding" => true,
            Place::Routes(..) | Place::Packets(_) => entry.item.status == Status::Kernel,
            Place::Device(d) => {
                let families = families(d.family);
                let arriving = |f: &Family| d.arrives && self.keeps_arriving(d.ifindex, *f);
                let leaving = d.leaves && self.keeps_leaving(d.ifindex);
                leaving || families.iter().all(|f| stays(f) || arriving(f))
            }
            Place::Family(None) if stays(&Family::V4) != stays(&Family::V6) => {
                let (v4, v6) = if stays(&Family::V4) {
                    ("kernel", "userspace")
                } else {
                    ("userspace", "kernel")
                };
                return format!("IPv4 {v4}, IPv6 {v6}");
            }
            Place::Family(family) => families(*family).iter().all(stays),
        };
        if kernel { "kernel" } else { "userspace" }.to_owned()
    }
}

fn families(family: Option<Family>) -> &'static [Family] {
    match family {
        None => &[Family::V4, Family::V6],
        Some(Family::V4) => &[Family::V4],
        Some(Family::V6) => &[Family::V6],
    }
}

/// The items that none of a namespace's `rows` is about.
pub fn unused<'a>(
    netns: &'a str,
    rows: &'a [view::LedgerRow],
) -> impl Iterator<Item = view::LedgerRow> + 'a {
    let used = move |i: &&Item| rows.iter().any(|r| r.netns == netns && r.item == i.name);
    ITEMS.iter().filter(move |i| !used(i)).map(move |i| row(netns, i))
}

/// A line of an item that is not in use.
fn row(netns: &str, item: &Item) -> view::LedgerRow {
    view::LedgerRow {
        netns: netns.to_owned(),
        item: item.name.to_owned(),
        scope: item.scope.name().to_owned(),
        status: item.status.name().to_owned(),
        tier: String::new(),
        reason: String::new(),
        why: item.reason.to_owned(),
        watched: item.watched.name().to_owned(),
        bypass: item.bypass.map(|b| b.name().to_owned()),
    }
}
