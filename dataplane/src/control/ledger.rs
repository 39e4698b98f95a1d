//! The ledger: what a namespace's kernel configuration uses that forwarding must obey,
//! and what becomes of it.
//!
//! One table, [`ITEMS`], lists everything of the kernel that changes what happens to a
//! forwarded packet, with the status that nsplane gives it:
//!
//! - *converted*: we do it exactly;
//! - *harmless*: it has no effect on packets that are forwarded;
//! - *kernel*: the family, the device, the routes or the packets concerned stay with
//!   the kernel, unless the operator overrides the item ([`Item::bypass`]).
//!
//! [`judge`] goes through the table with a namespace's mirror. What it finds is the
//! verdict that `compile` forwards by, and what `nsplane show ledger` prints: one
//! source for both, so that what is shown is what is done.
//!
//! Pure; each namespace has a ledger of its own (*replicated*). Not here: how the
//! mirror comes to know (`netlink`).
//!
//! ```
//! use nsplane::control::{ledger, mirror::Mirror};
//! use nsplane::netlink::Family;
//!
//! // No rules at all: the kernel would not route, and so we do not.
//! let ledger = ledger::judge(&Mirror::default(), &[]);
//! assert!(ledger.stays(Family::V4).is_some());
//! ```

mod find;
mod items;
mod show;
mod table;

use std::fmt;

use super::mirror::Mirror;
use crate::config::Bypass;
use crate::id::IfIndex;
use crate::netlink::Family;

pub(super) use find::default_rules;
pub use items::ITEMS;
pub use show::unused;
pub use table::{item, markdown};

/// What becomes of what an item asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// We do it exactly.
    Converted,
    /// It has no effect on forwarded packets.
    Harmless,
    /// The kernel does it.
    Kernel,
}

impl Status {
    /// The word for users.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Converted => "converted",
            Self::Harmless => "harmless",
            Self::Kernel => "kernel",
        }
    }
}

/// How large a part of the namespace an item is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All packets of a family.
    Family,
    /// Packets that arrive at a device, or leave by it.
    Device,
    /// Packets that take certain routes.
    Routes,
    /// Certain packets, whatever way they take.
    Packets,
}

impl Scope {
    /// The word for users.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Family => "family",
            Self::Device => "device",
            Self::Routes => "routes",
            Self::Packets => "packets",
        }
    }
}

/// How a change of an item is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// The kernel says so.
    Notice,
    /// Its notices, and a look once a second for what has none.
    NoticeAndLook,
    /// Its notices, and a look every four seconds for the settings.
    NoticeAndSettings,
    /// A look once a second.
    Look,
    /// A look within a second where a link or a new program came or went; every ten
    /// seconds for programs without a link.
    Programs,
    /// Nobody has to: each packet says it itself, or it does not matter.
    Never,
}

impl Watched {
    /// The words for users.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Notice => "notice",
            Self::NoticeAndLook => "notice; legacy and BPF: looked at, 1 s",
            Self::NoticeAndSettings => "notice; settings: looked at, 4 s",
            Self::Look => "looked at, 1 s",
            Self::Programs => "looked at, 1 s (10 s without a BPF link)",
            Self::Never => "no need",
        }
    }
}

/// Something of the kernel that can change what happens to a forwarded packet.
pub struct Item {
    /// Its name.
    pub name: &'static str,
    /// What it is, as the kernel's user knows it.
    pub what: &'static str,
    /// What becomes of it.
    pub status: Status,
    /// How much it is about.
    pub scope: Scope,
    /// Why it has that status.
    pub reason: &'static str,
    /// How it is noticed.
    pub watched: Watched,
    /// What the operator writes to have it passed by; None: it cannot be.
    pub bypass: Option<Bypass>,
    find: fn(&Mirror) -> Vec<Use>,
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Item {}

/// What exactly is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A family of the namespace; None: both.
    Family(Option<Family>),
    /// A device.
    Device(Device),
    /// So many routes of a family.
    Routes(Family, usize),
    /// Some packets.
    Packets(&'static str),
}

/// What of a device's packets is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The device.
    pub ifindex: IfIndex,
    /// Its name.
    pub name: String,
    /// Whose packets; None: both families'.
    pub family: Option<Family>,
    /// Those that arrive there.
    pub arrives: bool,
    /// Those that leave there.
    pub leaves: bool,
}

fn family_name(family: Option<Family>) -> &'static str {
    match family {
        None => "IPv4, IPv6",
        Some(Family::V4) => "IPv4",
        Some(Family::V6) => "IPv6",
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Family(family) => f.write_str(family_name(*family)),
            Self::Device(d) => {
                let way = match (d.arrives, d.leaves) {
                    (true, false) => ", arriving",
                    (false, true) => ", leaving",
                    _ => "",
                };
                let family =
                    d.family.map_or(String::new(), |_| format!(" {}", family_name(d.family)));
                write!(f, "{}{family}{way}", d.name)
            }
            Self::Routes(family, 1) => write!(f, "1 {} route", family_name(Some(*family))),
            Self::Routes(family, n) => write!(f, "{n} {} routes", family_name(Some(*family))),
            Self::Packets(which) => f.write_str(which),
        }
    }
}

/// An item that a namespace uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// What exactly is there.
    pub what: String,
    /// What it concerns.
    pub place: Place,
}

/// A line of a namespace's ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The item.
    pub item: &'static Item,
    /// What of it there is, and where.
    pub used: Use,
    /// The operator said to pass it by.
    pub bypassed: bool,
}

impl Entry {
    /// The kernel has the packets concerned because of it.
    #[must_use]
    pub fn binds(&self) -> bool {
        self.item.status == Status::Kernel && !self.bypassed
    }

    /// A line about routes: `item` keeps `count` of a family, such as `example`.
    #[must_use]
    pub fn of_routes(item: &str, family: Family, count: usize, example: &str) -> Option<Self> {
        let what = format!("such as {example}");
        let used = Use { what, place: Place::Routes(family, count) };
        Some(Self { item: table::item(item)?, used, bypassed: false })
    }

    /// What becomes of it, for users.
    #[must_use]
    pub fn status(&self) -> &'static str {
        if self.bypassed { "bypassed" } else { self.item.status.name() }
    }
}

/// What one namespace uses, item by item in the table's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Its lines, but for those about routes.
    pub entries: Vec<Entry>,
    routes_v4: Vec<Entry>,
    routes_v6: Vec<Entry>,
}

impl Ledger {
    /// Why the whole family stays with the kernel, if it does.
    #[must_use]
    pub fn stays(&self, family: Family) -> Option<String> {
        let concerns = |e: &&Entry| match e.used.place {
            Place::Family(f) => e.binds() && f.is_none_or(|f| f == family),
            _ => false,
        };
        self.entries.iter().find(concerns).map(|e| e.used.what.clone())
    }

    /// What arrives at the device stays with the kernel.
    #[must_use]
    pub fn keeps_arriving(&self, ifindex: IfIndex, family: Family) -> bool {
        let meets = |d: &Device| d.arrives && d.family.is_none_or(|f| f == family);
        self.at(ifindex).any(|(e, d)| e.binds() && meets(d))
    }

    /// What leaves by the device stays with the kernel.
    #[must_use]
    pub fn keeps_leaving(&self, ifindex: IfIndex) -> bool {
        self.at(ifindex).any(|(e, d)| e.binds() && d.leaves)
    }

    /// The lines about a device.
    pub fn at(&self, ifindex: IfIndex) -> impl Iterator<Item = (&Entry, &Device)> {
        self.entries.iter().filter_map(move |e| match &e.used.place {
            Place::Device(d) if d.ifindex == ifindex => Some((e, d)),
            _ => None,
        })
    }

    /// All lines, those about routes last.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().chain(&self.routes_v4).chain(&self.routes_v6)
    }

    /// The lines about a family's routes.
    pub fn set_routes(&mut self, family: Family, entries: Vec<Entry>) {
        match family {
            Family::V4 => self.routes_v4 = entries,
            Family::V6 => self.routes_v6 = entries,
        }
    }
}

/// What the namespace uses, but for routes, which `compile` looks at one by one. What
/// the operator said to pass by keeps nothing with the kernel.
#[must_use]
pub fn judge(mirror: &Mirror, bypass: &[Bypass]) -> Ledger {
    let passed =
        |item: &Item| item.bypass.is_some_and(|b| bypass.iter().any(|given| given.covers(b)));
    let entries = ITEMS.iter().flat_map(|item| {
        let bypassed = passed(item);
        (item.find)(mirror).into_iter().map(move |used| Entry { item, used, bypassed })
    });
    Ledger { entries: entries.collect(), ..Ledger::default() }
}

#[cfg(test)]
mod tests;
