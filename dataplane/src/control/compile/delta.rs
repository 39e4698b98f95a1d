//! Single prefixes that may have changed, without a look at the others.
//!
//! What a prefix means depends on these things:
//!
//! | what | depends on | so |
//! |---|---|---|
//! | where it leads | its best routes, next-hop objects, devices, settings | where others than routes changed, sets of routes are looked at again ([`super::classes`]); the prefixes whose sets lead elsewhere are looked at one by one |
//! | whether it is seen | prefixes of earlier tables around it ([`super::effective`]) | they are looked for by their lengths |
//! | whether it hides others | prefixes of later tables inside of it | those are looked at too |
//! | what the XDP program must know | whether the prefix around it is the kernel's; what is inside, whether it is itself | a prefix that changes hands with others inside: all is made anew |
//! | lines of the ledger | itself | counted by prefix ([`super::kept`]) |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::HashSet;

use super::classes::Moved;
use super::effective::{Entry, is_local, passed_anyway};
use super::policy::{self, Rules};
use super::{Compiler, replace};
use crate::control::mirror::{Dirty, Mirror, SetId, TABLE_LOCAL};
use crate::netlink::{Event, Family, Prefix};
use crate::tables::fib::{Rib4, Rib6};

/// As many prefixes are looked at one by one, however few the table has.
const FEW: usize = 1024;

/// Prefixes whose routes changed.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    v4: Vec<(u32, Prefix)>,
    v6: Vec<(u32, Prefix)>,
}

impl Touched {
    /// Table and prefix of the route that an event is about.
    #[must_use]
    pub fn named_by(event: &Event) -> Option<(u32, Prefix)> {
        match event {
            Event::Route(route, _) | Event::RouteGone(route) => Some((route.table, route.dst)),
            _ => None,
        }
    }

    /// Notes the prefixes that an event changed: the one that it named, and those that the
    /// mirror names. Returns what changed beside them.
    pub fn note(
        &mut self,
        named: Option<(u32, Prefix)>,
        changed: Dirty,
        mirror: &mut Mirror,
    ) -> Dirty {
        let mut rest = changed;
        for family in [Family::V4, Family::V6] {
            if changed.has_routes(family)
                && let Some(silent) = mirror.routes.take_silent(family)
            {
                self.of_mut(family).extend(silent);
                rest = rest.without_routes(family);
            }
        }
        if let Some((table, prefix)) = named
            && changed.has_routes(Family::of(prefix.addr))
        {
            self.of_mut(Family::of(prefix.addr)).push((table, prefix));
        }
        rest
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Some are of the local table.
    pub(super) fn any_local(&self) -> bool {
        self.v4.iter().chain(&self.v6).any(|(table, _)| *table == TABLE_LOCAL)
    }

    /// Those of a family: table and prefix.
    pub(super) fn take(&mut self, family: Family) -> Vec<(u32, Prefix)> {
        std::mem::take(self.of_mut(family))
    }

    fn of_mut(&mut self, family: Family) -> &mut Vec<(u32, Prefix)> {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

/// A family's table.
pub(super) trait Table {
    fn len(&self) -> usize;
    fn get(&self, prefix: Prefix) -> Option<u32>;
    fn set(&mut self, prefix: Prefix, hop: Option<u32>);
    fn has_inside(&self, prefix: Prefix) -> bool;
}

macro_rules! table {
    ($rib:ty, $family:ident, $addr:ty) => {
        impl Table for $rib {
            fn len(&self) -> usize {
                <$rib>::len(self)
            }
            fn get(&self, prefix: Prefix) -> Option<u32> {
                <$rib>::get(self, addr(prefix), prefix.len)
            }
            fn set(&mut self, prefix: Prefix, hop: Option<u32>) {
                match hop {
                    Some(hop) => self.insert(addr(prefix), prefix.len, hop),
                    None => self.remove(addr(prefix), prefix.len),
                };
            }
            fn has_inside(&self, prefix: Prefix) -> bool {
                <$rib>::has_inside(self, addr(prefix), prefix.len)
            }
        }
        impl OfFamily for $addr {
            fn of(addr: IpAddr) -> Self {
                match addr {
                    IpAddr::$family(addr) => addr,
                    // A family's prefixes are asked for in its own table.
                    _ => Self::UNSPECIFIED,
                }
            }
        }
    };
}

trait OfFamily {
    fn of(addr: IpAddr) -> Self;
}

fn addr<A: OfFamily>(prefix: Prefix) -> A {
    A::of(prefix.addr)
}

table!(Rib4, V4, Ipv4Addr);
table!(Rib6, V6, Ipv6Addr);

/// What of a family may have changed, though not all of it.
pub(super) struct Change<'a> {
    pub(super) touched: Vec<(u32, Prefix)>,
    /// More than routes changed; sets of routes were looked at again.
    pub(super) ways: bool,
    pub(super) moved: &'a Moved,
}

impl Change<'_> {
    /// There is something to be looked at.
    pub(super) fn any(&self) -> bool {
        self.ways || !self.touched.is_empty()
    }
}

impl Compiler<'_> {
    /// Looks at single prefixes again. Something: whether any came out differently. None:
    /// all of the family has to be made anew.
    pub(super) fn delta<T: Table>(
        &mut self,
        family: Family,
        change: Change<'_>,
        routes: &mut T,
    ) -> Option<bool> {
        let stays = self.out.ledger.stays(family);
        let rules = policy::rules(self.mirror, family, |name| self.port_named(name));
        let Rules::Tables(tables) = rules else { return None };
        if tables != self.out.state(family).looked || stays != *self.out.stays_with_kernel(family) {
            return None;
        }
        let most = FEW.max(routes.len() / 4);
        let Change { mut touched, ways, moved } = change;
        self.add_moved(family, &tables, moved.of(family), most, &mut touched)?;
        let local = touched.iter().any(|(table, _)| *table == TABLE_LOCAL);
        let look = self.around_touched(&tables, &mut touched, most)?;
        if ways || local {
            let locals = self.locals(family);
            self.maps |= replace(&mut self.out.locals, locals);
        }
        self.keep_anew(family, &tables, &touched);
        let mut changed = false;
        for prefix in look {
            // What the kernel has whole is nobody's here.
            let found = if stays.is_some() { None } else { self.effective(&tables, prefix) };
            changed |= self.put(family, prefix, found, routes)?;
        }
        Some(changed)
    }

    /// Adds the prefixes of sets that lead elsewhere now. None: they are too many.
    fn add_moved(
        &self,
        family: Family,
        tables: &[u32],
        moved: &HashSet<SetId>,
        most: usize,
        touched: &mut Vec<(u32, Prefix)>,
    ) -> Option<()> {
        if !moved.is_empty() {
            for table in tables {
                let all = self.mirror.routes.prefixes(*table, family);
                let here = all.filter(|(_, set)| moved.contains(set));
                touched.extend(here.take(most + 1).map(|(prefix, _)| (*table, prefix)));
            }
        }
        (touched.len() <= most).then_some(())
    }

    /// The prefixes to look at: those touched, and those of later tables inside of them; in
    /// order, each once. None: they are too many.
    fn around_touched(
        &self,
        tables: &[u32],
        touched: &mut Vec<(u32, Prefix)>,
        most: usize,
    ) -> Option<Vec<Prefix>> {
        touched.sort_unstable();
        touched.dedup();
        // No packet's way leads to other tables.
        touched.retain(|(table, _)| tables.contains(table));
        let mut look = Vec::with_capacity(touched.len());
        for (table, prefix) in touched.iter() {
            look.push(*prefix);
            for later in tables.iter().skip_while(|t| *t != table).skip(1) {
                let room = (most + 1).saturating_sub(look.len());
                look.extend(self.mirror.routes.inside(*later, *prefix).take(room));
            }
        }
        look.sort_unstable();
        look.dedup();
        (look.len() <= most).then_some(look)
    }

    /// Has the ledger's lines say what is true of prefixes now.
    fn keep_anew(&mut self, family: Family, tables: &[u32], touched: &[(u32, Prefix)]) {
        let mut kept = std::mem::take(&mut self.out.state_mut(family).kept);
        for (table, prefix) in touched {
            kept.forget(*table, *prefix);
            if let Some(set) = self.mirror.routes.id_at(*table, *prefix) {
                let class = self.class(family, *table, set);
                kept.count(class.item, *table, *prefix);
            }
        }
        debug_assert!(touched.iter().all(|(t, _)| tables.contains(t)), "nobody looks there");
        self.out.ledger.set_routes(family, kept.entries(family));
        self.out.state_mut(family).kept = kept;
    }

    /// A prefix of the first table that has it, unless an earlier one's is around it.
    fn effective(&self, tables: &[u32], prefix: Prefix) -> Option<Entry> {
        for (rank, &table) in tables.iter().enumerate() {
            if let Some(set) = self.mirror.routes.id_at(table, prefix) {
                return Some(Entry { prefix, rank, table, set });
            }
            if self.mirror.routes.is_inside(table, prefix) {
                return None;
            }
        }
        None
    }

    /// Puts a prefix where it belongs. True: it led elsewhere.
    fn put<T: Table>(
        &mut self,
        family: Family,
        prefix: Prefix,
        found: Option<Entry>,
        routes: &mut T,
    ) -> Option<bool> {
        let index = found.map(|e| self.class(family, e.table, e.set).index);
        if !passed_anyway(prefix) {
            let around = self.is_kernels_around(prefix);
            let was = self.out.kernel_routes.get(&prefix).copied().unwrap_or(around);
            let single = found.as_ref().is_some_and(is_local);
            let own = index.filter(|_| !single).map(|i| !self.hops.get(i).is_ours());
            let is = own.unwrap_or(around);
            if was != is && prefix.len != family.bits() && routes.has_inside(prefix) {
                return None;
            }
            self.list(prefix, own.filter(|own| *own != around));
        }
        let changed = index != routes.get(prefix);
        if changed {
            routes.set(prefix, index);
        }
        Some(changed)
    }

    /// Packets of the prefix would be the kernel's, were it not there itself.
    fn is_kernels_around(&self, prefix: Prefix) -> bool {
        let told = &self.out.kernel_routes;
        let mut outer = (0..prefix.len).rev().map(|len| prefix.cut(len));
        !told.is_empty() && outer.find_map(|p| told.get(&p)).copied().unwrap_or_default()
    }

    /// Has the program told whose a prefix is, or no more told.
    fn list(&mut self, prefix: Prefix, kernel: Option<bool>) {
        let before = match kernel {
            Some(kernel) => self.out.kernel_routes.insert(prefix, kernel),
            None => self.out.kernel_routes.remove(&prefix),
        };
        self.maps |= before != kernel;
    }
}
