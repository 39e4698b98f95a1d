//! Routes of all tables: which prefixes there are, and which set of routes each has.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::TABLE_LOCAL;
use super::alias::Alias;
use super::sets::{SetId, Sets};
use super::tables::Tables;
use crate::id::IfIndex;
use crate::netlink::{Family, Hop, Insert, Prefix, Route, RouteKind};

type Tables4 = Tables<u64>;
type Tables6 = Tables<(u64, u64, u8)>;

/// Routes of one namespace.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    v4: Tables4,
    v6: Tables6,
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
        self.v4.len() + self.v6.len()
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of a family's routes.
    #[must_use]
    pub fn count(&self, family: Family) -> usize {
        match family {
            Family::V4 => self.v4.len(),
            Family::V6 => self.v6.len(),
        }
    }

    /// All routes, by table, family, destination, and what tells them apart.
    pub fn iter(&self) -> impl Iterator<Item = Route> {
        let tables: BTreeSet<u32> = self.v4.ids().chain(self.v6.ids()).collect();
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
        let (v4, v6) = self.either(family);
        let v4 = v4.into_iter().flat_map(move |t| t.prefixes(table));
        v4.chain(v6.into_iter().flat_map(move |t| t.prefixes(table)))
    }

    /// Those of them that are longer than a prefix and inside of it.
    pub fn inside(&self, table: u32, dst: Prefix) -> impl Iterator<Item = Prefix> {
        let (v4, v6) = self.either(Family::of(dst.addr));
        let v4 = v4.into_iter().flat_map(move |t| t.inside(table, dst));
        v4.chain(v6.into_iter().flat_map(move |t| t.inside(table, dst)))
    }

    /// A shorter prefix of the table is around this one.
    #[must_use]
    pub fn is_inside(&self, table: u32, dst: Prefix) -> bool {
        match Family::of(dst.addr) {
            Family::V4 => self.v4.is_inside(table, dst),
            Family::V6 => self.v6.is_inside(table, dst),
        }
    }

    /// The set of routes of one destination in a table.
    #[must_use]
    pub fn id_at(&self, table: u32, dst: Prefix) -> Option<SetId> {
        match Family::of(dst.addr) {
            Family::V4 => self.v4.get(table, dst),
            Family::V6 => self.v6.get(table, dst),
        }
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
        self.sets_of(family).get(id)
    }

    /// What tells a set from every other that has or had the same number.
    #[must_use]
    pub fn stamp(&self, family: Family, id: SetId) -> u64 {
        self.sets_of(family).stamp(id)
    }

    /// All sets of a family that prefixes have.
    pub fn sets(&self, family: Family) -> impl Iterator<Item = (SetId, &[Alias])> {
        self.sets_of(family).iter()
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
        match family {
            Family::V4 => self.v4.take_silent(),
            Family::V6 => self.v6.take_silent(),
        }
    }

    /// Puts a route in, as the kernel did. False: it was there already.
    pub(super) fn insert(&mut self, route: Route, how: Insert) -> bool {
        let (table, dst, alias) = Alias::of(route);
        match Family::of(dst.addr) {
            Family::V4 => self.v4.insert(table, dst, alias, how),
            Family::V6 => self.v6.insert(table, dst, alias, how),
        }
    }

    /// Takes a route out, or next hops out of one. False: there was none.
    pub(super) fn remove(&mut self, route: Route) -> bool {
        let (table, dst, alias) = Alias::of(route);
        match Family::of(dst.addr) {
            Family::V4 => self.v4.remove(table, dst, alias),
            Family::V6 => self.v6.remove(table, dst, alias),
        }
    }

    /// Forgets all routes of a family.
    pub(super) fn clear(&mut self, family: Family) {
        match family {
            Family::V4 => self.v4 = Tables::default(),
            Family::V6 => self.v6 = Tables::default(),
        }
    }

    fn sets_of(&self, family: Family) -> &Sets {
        match family {
            Family::V4 => &self.v4.sets,
            Family::V6 => &self.v6.sets,
        }
    }

    fn either(&self, family: Family) -> (Option<&Tables4>, Option<&Tables6>) {
        match family {
            Family::V4 => (Some(&self.v4), None),
            Family::V6 => (None, Some(&self.v6)),
        }
    }

    /// Drops IPv4 routes out of `ifindex` all of whose devices are dead. `local`
    /// routes stay: an address is the host's, whatever becomes of its device.
    pub(super) fn drop_dead_v4(
        &mut self,
        ifindex: IfIndex,
        dead: impl Fn(IfIndex) -> bool,
    ) -> Dropped {
        let mut dropped = Dropped::default();
        self.v4.retain(|a| {
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
            let here = |h: &Hop| h.oif == Some(ifindex) && h.dead != dead;
            a.hops.len() > 1 && a.hops.iter().any(here)
        };
        self.v4.rewrite(|set| {
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
        self.v4.retain(|a| {
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
        let to_addr = self.v4.ids().filter(|t| self.at(*t, dst).iter().any(local));
        all > to_addr.count()
    }

    /// Drops what leads out of a device that is gone. IPv4 drops a route of several
    /// next hops whole when one's device goes (`fib_sync_down_dev`), IPv6 drops
    /// those next hops.
    pub(super) fn drop_device(&mut self, ifindex: IfIndex) -> bool {
        let v4 = self.v4.retain(|a| !a.leads_out_of(ifindex));
        let v6 = self.v6.rewrite(|set| {
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
        self.v4.retain(other) | self.v6.retain(other)
    }

    /// Drops the IPv4 routes that prefer `addr` as source.
    pub(super) fn drop_prefsrc_v4(&mut self, addr: IpAddr) -> bool {
        addr.is_ipv4() && self.v4.retain(|a| a.prefsrc != Some(addr))
    }

    /// The address is delivered locally.
    pub(super) fn is_local_v4(&self, addr: IpAddr) -> bool {
        let dst = Prefix { addr, len: 32 };
        self.at(TABLE_LOCAL, dst).iter().any(|a| a.kind == RouteKind::Local)
    }
}

impl PartialEq for Routes {
    /// The same routes, whatever their sets' numbers.
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Routes {}
