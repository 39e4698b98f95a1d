//! Routes of all tables: which prefixes there are, and which set of routes each has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use hashbrown::HashMap;

use super::TABLE_LOCAL;
use super::alias::{self, Alias};
use super::sets::{SetId, Sets};
use crate::id::IfIndex;
use crate::netlink::{Family, Insert, Prefix, Route, RouteKind};

/// Prefixes that changed without a word are named up to so many.
const NAMED: usize = 1 << 17;

/// Routes of one namespace.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    v4: OfFamily,
    v6: OfFamily,
    /// How many they are in all: counting them goes through a million.
    len: usize,
}

#[derive(Clone, Debug, Default)]
struct OfFamily {
    sets: Sets,
    /// None is empty.
    tables: BTreeMap<u32, Table>,
    silent: Silent,
}

/// Prefixes whose routes changed though no message named them.
#[derive(Clone, Debug, Default)]
struct Silent {
    named: Vec<(u32, Prefix)>,
    /// They are too many to be named.
    many: bool,
}

/// One table's prefixes, in order: each before those inside of it.
#[derive(Clone, Debug, Default)]
struct Table {
    prefixes: BTreeMap<Prefix, SetId>,
    /// How many there are of each length.
    lens: Vec<u32>,
}

/// What [`Routes::drop_dead_v4`] did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Dropped {
    /// A route was dropped.
    pub(super) any: bool,
    /// One of them had several next hops.
    pub(super) several_hops: bool,
}

impl Routes {
    /// Number of routes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All routes, by table, family, destination, and what tells them apart.
    pub fn iter(&self) -> impl Iterator<Item = Route> {
        let tables: BTreeSet<u32> =
            self.v4.tables.keys().chain(self.v6.tables.keys()).copied().collect();
        let both = |t| self.of(t, Family::V4).chain(self.of(t, Family::V6));
        tables.into_iter().flat_map(both)
    }

    /// The routes of one table and family, in the same order.
    pub fn of(&self, table: u32, family: Family) -> impl Iterator<Item = Route> {
        let each = move |(dst, id)| self.set(family, id).iter().map(move |a| a.at(table, dst));
        self.prefixes(table, family).flat_map(each)
    }

    /// The prefixes of one table and family, in order, and which set of routes each has.
    pub fn prefixes(&self, table: u32, family: Family) -> impl Iterator<Item = (Prefix, SetId)> {
        let table = self.family(family).tables.get(&table);
        table.into_iter().flat_map(|t| &t.prefixes).map(|(dst, id)| (*dst, *id))
    }

    /// Those of them that are longer than a prefix and inside of it.
    pub fn inside(&self, table: u32, dst: Prefix) -> impl Iterator<Item = Prefix> {
        let table = self.family(Family::of(dst.addr)).tables.get(&table);
        let from = table.into_iter().flat_map(move |t| t.prefixes.range(dst..));
        from.map(|(p, _)| *p).skip_while(move |p| *p == dst).take_while(move |p| dst.contains(*p))
    }

    /// A shorter prefix of the table is around this one.
    #[must_use]
    pub fn is_inside(&self, table: u32, dst: Prefix) -> bool {
        let Some(table) = self.family(Family::of(dst.addr)).tables.get(&table) else {
            return false;
        };
        let shorter = (0..dst.len).zip(&table.lens).filter(|(_, n)| **n > 0);
        shorter.into_iter().any(|(len, _)| table.prefixes.contains_key(&dst.cut(len)))
    }

    /// The set of routes of one destination in a table.
    #[must_use]
    pub fn id_at(&self, table: u32, dst: Prefix) -> Option<SetId> {
        self.family(Family::of(dst.addr)).tables.get(&table)?.prefixes.get(&dst).copied()
    }

    /// The routes of one destination in a table, in the order of what tells them apart.
    #[must_use]
    pub fn at(&self, table: u32, dst: Prefix) -> &[Alias] {
        let id = self.id_at(table, dst);
        id.map_or(&[], |id| self.set(Family::of(dst.addr), id))
    }

    /// The routes of a set: one at least.
    #[must_use]
    pub fn set(&self, family: Family, id: SetId) -> &[Alias] {
        self.family(family).sets.get(id)
    }

    /// What tells a set from every other that has or had the same number.
    #[must_use]
    pub fn stamp(&self, family: Family, id: SetId) -> u64 {
        self.family(family).sets.stamp(id)
    }

    /// All sets of a family that prefixes have.
    pub fn sets(&self, family: Family) -> impl Iterator<Item = (SetId, &[Alias])> {
        self.family(family).sets.iter()
    }

    /// The route of a destination that wins over its others in the table: the one of the
    /// least metric, the first of several.
    #[must_use]
    pub fn first_of(&self, table: u32, dst: Prefix) -> Option<&Alias> {
        self.at(table, dst).iter().min_by_key(|a| a.priority)
    }

    /// Tables and prefixes whose routes changed since this was asked last, and that no
    /// message named. None: they are too many to be named.
    pub fn take_silent(&mut self, family: Family) -> Option<Vec<(u32, Prefix)>> {
        let Silent { named, many } = std::mem::take(&mut self.family_mut(family).silent);
        (!many).then_some(named)
    }

    /// Puts a route in, as the kernel did. False: it was there already.
    pub(super) fn insert(&mut self, route: Route, how: Insert) -> bool {
        let (table, dst, alias) = Alias::of(route);
        let family = Family::of(dst.addr);
        let OfFamily { sets, tables, .. } = match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        };
        let table = tables.entry(table).or_default();
        let Some(id) = table.prefixes.get_mut(&dst) else {
            let id = sets.take(&[alias]);
            table.prefixes.insert(dst, id);
            table.count(dst.len, 1);
            self.len += 1;
            return true;
        };
        let old = *id;
        match sets.get(old) {
            [only] if *only == alias => return false,
            [only] if how == Insert::Replace && only.key() == alias.key() => {
                *id = sets.take(&[alias]);
            }
            set => {
                let mut list = set.to_vec();
                let before = list.len();
                alias::insert(family, &mut list, alias, how);
                self.len = self.len + list.len() - before;
                *id = sets.take(&list);
            }
        }
        let changed = *id != old;
        sets.drop(old);
        changed
    }

    /// Takes a route out, or next hops out of one. False: there was none.
    pub(super) fn remove(&mut self, route: Route) -> bool {
        let (number, dst, alias) = Alias::of(route);
        let family = Family::of(dst.addr);
        let of_family = self.family_mut(family);
        let Some(table) = of_family.tables.get_mut(&number) else { return false };
        let Some(id) = table.prefixes.get_mut(&dst) else { return false };
        let old = *id;
        let mut list = of_family.sets.get(old).to_vec();
        let before = list.len();
        if !alias::remove(family, &mut list, alias) {
            return false;
        }
        if list.is_empty() {
            table.prefixes.remove(&dst);
            table.count(dst.len, -1);
            if table.prefixes.is_empty() {
                of_family.tables.remove(&number);
            }
        } else {
            *id = of_family.sets.take(&list);
        }
        of_family.sets.drop(old);
        self.len = self.len + list.len() - before;
        true
    }

    /// Forgets all routes of a family.
    pub(super) fn clear(&mut self, family: Family) {
        *self.family_mut(family) = OfFamily::default();
        let other = [Family::V4, Family::V6].into_iter().find(|f| *f != family);
        self.len = other.map_or(0, |f| self.count(f));
    }

    /// Number of a family's routes.
    #[must_use]
    pub fn count(&self, family: Family) -> usize {
        let of_family = self.family(family);
        let each = of_family.sets.iter();
        each.map(|(id, set)| set.len() * of_family.sets.users(id) as usize).sum()
    }

    /// Drops IPv4 routes out of `ifindex` all of whose devices are dead. `local`
    /// routes stay: an address is the host's, whatever becomes of its device.
    pub(super) fn drop_dead_v4(
        &mut self,
        ifindex: IfIndex,
        dead: impl Fn(IfIndex) -> bool,
    ) -> Dropped {
        let mut dropped = Dropped::default();
        self.retain(Family::V4, |a| {
            let goes = a.kind != RouteKind::Local
                && a.leads_out_of(ifindex)
                && a.hops.iter().all(|h| h.dead || h.oif.is_none_or(&dead));
            dropped.any |= goes;
            dropped.several_hops |= goes && a.hops.len() > 1;
            !goes
        });
        dropped
    }

    /// Marks the next hops out of `ifindex` of IPv4 routes with several. True: news.
    pub(super) fn mark_dead_v4(&mut self, ifindex: IfIndex, dead: bool) -> bool {
        let news = |a: &Alias| {
            let here = |h: &crate::netlink::Hop| h.oif == Some(ifindex) && h.dead != dead;
            a.hops.len() > 1 && a.hops.iter().any(here)
        };
        self.rewrite(Family::V4, |set| {
            set.iter().any(news).then(|| {
                let mut list = set.to_vec();
                for a in list.iter_mut().filter(|a| a.hops.len() > 1) {
                    let here = a.hops.iter_mut().filter(|h| h.oif == Some(ifindex));
                    here.for_each(|h| h.dead = dead);
                }
                list
            })
        })
    }

    /// Drops IPv4 routes out of a device without IPv4: those of one next hop, and those
    /// of several that are all dead. `local` ones stay: the kernel tells their end.
    pub(super) fn drop_without_address_v4(&mut self, ifindex: IfIndex) -> bool {
        self.retain(Family::V4, |a| {
            !(a.kind != RouteKind::Local
                && a.leads_out_of(ifindex)
                && a.hops.iter().all(|h| h.dead || h.oif == Some(ifindex)))
        })
    }

    /// There is a `local` IPv4 route out of the device other than to `addr`.
    pub(super) fn has_other_local_v4(&self, ifindex: IfIndex, addr: IpAddr) -> bool {
        let local = |a: &Alias| a.kind == RouteKind::Local && a.leads_out_of(ifindex);
        let sets = self.v4.sets.iter().filter(|(_, set)| set.iter().any(local));
        let all: usize = sets.map(|(id, _)| self.v4.sets.users(id) as usize).sum();
        let dst = Prefix { addr, len: 32 };
        let to_addr = self.v4.tables.keys().filter(|t| self.at(**t, dst).iter().any(local));
        all > to_addr.count()
    }

    /// Drops what leads out of a device that is gone. IPv4 drops a route of several
    /// next hops whole when one's device goes (`fib_sync_down_dev`), IPv6 drops
    /// those next hops.
    pub(super) fn drop_device(&mut self, ifindex: IfIndex) -> bool {
        let v4 = self.retain(Family::V4, |a| !a.leads_out_of(ifindex));
        let v6 = self.rewrite(Family::V6, |set| {
            set.iter().any(|a| a.leads_out_of(ifindex)).then(|| {
                let mut list = set.to_vec();
                list.retain_mut(|a| {
                    let before = a.hops.len();
                    a.hops.retain(|h| h.oif != Some(ifindex));
                    before == 0 || !a.hops.is_empty()
                });
                list
            })
        });
        v4 | v6
    }

    /// Drops the routes that lead to a next-hop object.
    pub(super) fn drop_nexthop(&mut self, id: u32) -> bool {
        let other = |a: &Alias| a.nexthop != Some(id);
        self.retain(Family::V4, other) | self.retain(Family::V6, other)
    }

    /// Drops the IPv4 routes that prefer `addr` as source.
    pub(super) fn drop_prefsrc_v4(&mut self, addr: IpAddr) -> bool {
        addr.is_ipv4() && self.retain(Family::V4, |a| a.prefsrc != Some(addr))
    }

    /// The address is delivered locally.
    pub(super) fn is_local_v4(&self, addr: IpAddr) -> bool {
        let dst = Prefix { addr, len: 32 };
        self.at(TABLE_LOCAL, dst).iter().any(|a| a.kind == RouteKind::Local)
    }

    /// Keeps what `keep` says. True: something went.
    fn retain(&mut self, family: Family, mut keep: impl FnMut(&Alias) -> bool) -> bool {
        self.rewrite(family, |set| {
            let kept: Vec<Alias> = set.iter().filter(|a| keep(a)).cloned().collect();
            (kept.len() != set.len()).then_some(kept)
        })
    }

    /// Puts other routes in place of sets of them: `change` says which, an empty list for
    /// none. Each set is asked about once, and the prefixes are gone through only if one
    /// changes. True: one did.
    fn rewrite(
        &mut self,
        family: Family,
        mut change: impl FnMut(&[Alias]) -> Option<Vec<Alias>>,
    ) -> bool {
        let of_family = self.family_mut(family);
        let changed = of_family.sets.iter().filter_map(|(id, set)| Some((id, change(set)?)));
        let changed: Vec<(SetId, Vec<Alias>)> = changed.collect();
        if changed.is_empty() {
            return false;
        }
        let mut instead = HashMap::new();
        for (id, list) in changed {
            let new = (!list.is_empty()).then(|| of_family.sets.take(&list));
            instead.insert(id, new);
        }
        let OfFamily { sets, tables, silent } = of_family;
        for (number, table) in tables.iter_mut() {
            let lens = &mut table.lens;
            table.prefixes.retain(|dst, id| {
                let Some(new) = instead.get(id) else { return true };
                silent.note(*number, *dst);
                let old = *id;
                match new {
                    Some(new) => {
                        sets.take_again(*new);
                        *id = *new;
                    }
                    None => lens[usize::from(dst.len)] -= 1,
                }
                sets.drop(old);
                new.is_some()
            });
        }
        tables.retain(|_, table| !table.prefixes.is_empty());
        for new in instead.into_values().flatten() {
            sets.drop(new);
        }
        self.len = self.count(Family::V4) + self.count(Family::V6);
        true
    }

    fn family(&self, family: Family) -> &OfFamily {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    fn family_mut(&mut self, family: Family) -> &mut OfFamily {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

impl PartialEq for Routes {
    /// The same routes, whatever their sets' numbers.
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl Eq for Routes {}

impl Table {
    fn count(&mut self, len: u8, more: i32) {
        let len = usize::from(len);
        if self.lens.len() <= len {
            self.lens.resize(len + 1, 0);
        }
        self.lens[len] = self.lens[len].wrapping_add_signed(more);
    }
}

impl Silent {
    fn note(&mut self, table: u32, dst: Prefix) {
        if self.named.len() < NAMED {
            self.named.push((table, dst));
        } else {
            self.many = true;
        }
    }
}
