//! Where sets of routes lead. A million prefixes have some ten sets, and what becomes of
//! a prefix is what becomes of its set: that is found out once for each.
//!
//! Where something else than routes changed, the sets are looked at again. If all that
//! lead to one next hop now lead to one other, that takes the first one's number, and no
//! prefix is touched.

use hashbrown::{HashMap, HashSet};

use super::Compiler;
use super::ways::Way;
use crate::control::mirror::{Alias, SetId, TABLE_LOCAL};
use crate::netlink::Family;
use crate::tables::NextHop;

/// What became of a set of routes in the one table that all tables amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class {
    /// The set's stamp.
    stamp: u64,
    /// The next hop's number.
    pub(super) index: u32,
    /// The item of the ledger that its prefixes are of.
    pub(super) item: Option<&'static str>,
}

/// Of one family: by the set's number, for the local table and all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Classes {
    local: Vec<Option<Class>>,
    others: Vec<Option<Class>>,
}

impl Classes {
    fn of(&self, local: bool) -> &[Option<Class>] {
        if local { &self.local } else { &self.others }
    }

    fn get(&self, local: bool, id: SetId, stamp: u64) -> Option<Class> {
        let class = self.of(local).get(id.index()).copied().flatten();
        class.filter(|c| c.stamp == stamp)
    }

    fn put(&mut self, local: bool, id: SetId, class: Class) {
        let all = if local { &mut self.local } else { &mut self.others };
        if all.len() <= id.index() {
            all.resize(id.index() + 1, None);
        }
        all[id.index()] = Some(class);
    }
}

/// Where a set leads, and the item of the ledger that it is of.
pub(super) type Led = (NextHop, Option<&'static str>);

/// Sets whose prefixes have another next hop's number now.
#[derive(Clone, Debug, Default)]
pub(super) struct Moved {
    v4: HashSet<SetId>,
    v6: HashSet<SetId>,
}

impl Moved {
    pub(super) fn of(&self, family: Family) -> &HashSet<SetId> {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

/// A set that was looked at again.
struct Seen {
    family: Family,
    local: bool,
    id: SetId,
    class: Class,
    now: Led,
    differs: bool,
}

impl Compiler<'_> {
    /// What becomes of a set of routes in a table.
    pub(super) fn class(&mut self, family: Family, table: u32, id: SetId) -> Class {
        let local = table == TABLE_LOCAL;
        let stamp = self.mirror.routes.stamp(family, id);
        if let Some(class) = self.out.state(family).classes.get(local, id, stamp) {
            return class;
        }
        let (next_hop, item) = self.led_in_one(family, local, self.mirror.routes.set(family, id));
        let class = Class { stamp, index: self.hops.index(next_hop, 0), item };
        self.out.state_mut(family).classes.put(local, id, class);
        class
    }

    /// Where routes lead.
    pub(super) fn led(&mut self, family: Family, local: bool, set: &[Alias]) -> Led {
        match self.way(family, local, set) {
            Way::One(next_hop) => (next_hop, None),
            Way::Several(group) => (self.hops.group(group), Some("balanced")),
            Way::Kernel(why, next_hop) => (next_hop, Some(why)),
        }
    }

    /// Where they lead in the one table that all amount to.
    fn led_in_one(&mut self, family: Family, local: bool, set: &[Alias]) -> Led {
        match self.led(family, local, set) {
            // The next table is none of its own any more.
            (NextHop::Throw, _) => (NextHop::Kernel, Some("refusing")),
            led => led,
        }
    }

    /// Looks again where the sets lead, of which prefixes may have got a number. True: a
    /// number has another meaning.
    pub(super) fn look_again(&mut self, moved: &mut Moved) -> bool {
        let seen = self.seen_again();
        // What a number would have to mean for all sets that have it.
        let mut meant: HashMap<u32, Option<NextHop>> = HashMap::new();
        for Seen { class, now: (next_hop, item), .. } in &seen {
            let ours = self.hops.get(class.index).is_ours() && next_hop.is_ours();
            let new = Some(*next_hop).filter(|_| ours && *item == class.item);
            let meant = meant.entry(class.index).or_insert(new);
            if *meant != new {
                *meant = None;
            }
        }
        let mut any = false;
        for (index, next_hop) in &meant {
            any |= next_hop.is_some_and(|next_hop| self.hops.mean(*index, next_hop));
        }
        for Seen { family, local, id, class, now: (next_hop, item), differs } in seen {
            if !differs || meant[&class.index].is_some() {
                continue;
            }
            let index = self.hops.index(next_hop, 0);
            self.out.state_mut(family).classes.put(local, id, Class { index, item, ..class });
            match family {
                Family::V4 => moved.v4.insert(id),
                Family::V6 => moved.v6.insert(id),
            };
        }
        any
    }

    fn seen_again(&mut self) -> Vec<Seen> {
        let mut seen = Vec::new();
        let mirror = self.mirror;
        for family in [Family::V4, Family::V6] {
            for (id, set) in mirror.routes.sets(family) {
                let stamp = mirror.routes.stamp(family, id);
                for local in [false, true] {
                    let Some(class) = self.out.state(family).classes.get(local, id, stamp) else {
                        continue;
                    };
                    let now = self.led_in_one(family, local, set);
                    let differs = now != (self.hops.get(class.index), class.item);
                    seen.push(Seen { family, local, id, class, now, differs });
                }
            }
        }
        seen
    }
}
