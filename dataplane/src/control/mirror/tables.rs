//! The tables of one family: which prefixes there are, and which set of routes each has.
//!
//! There may be a million prefixes: a prefix is a number here, and what is changed at
//! once for many is changed by their sets.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::HashMap;

use super::alias::{self, Alias};
use super::sets::{SetId, Sets};
use crate::netlink::{Family, Insert, Prefix};

/// Prefixes that changed without a word are named up to so many.
const NAMED: usize = 1 << 17;

/// A prefix as a number, in the order of prefixes.
pub(super) trait Net: Copy + Ord + std::fmt::Debug {
    /// Whose prefixes they are.
    const FAMILY: Family;
    fn of(prefix: Prefix) -> Self;
    fn prefix(self) -> Prefix;
}

/// The address, and in the last byte the length.
impl Net for u64 {
    const FAMILY: Family = Family::V4;
    fn of(Prefix { addr, len }: Prefix) -> Self {
        match addr {
            IpAddr::V4(a) => u64::from(a.to_bits()) << 8 | u64::from(len),
            // It is asked for in its own family's tables.
            IpAddr::V6(_) => u64::MAX,
        }
    }
    fn prefix(self) -> Prefix {
        Prefix { addr: Ipv4Addr::from_bits((self >> 8) as u32).into(), len: self as u8 }
    }
}

/// The halves of the address, and the length.
impl Net for (u64, u64, u8) {
    const FAMILY: Family = Family::V6;
    fn of(Prefix { addr, len }: Prefix) -> Self {
        match addr {
            IpAddr::V4(_) => (u64::MAX, u64::MAX, u8::MAX),
            IpAddr::V6(a) => ((a.to_bits() >> 64) as u64, a.to_bits() as u64, len),
        }
    }
    fn prefix(self) -> Prefix {
        let bits = u128::from(self.0) << 64 | u128::from(self.1);
        Prefix { addr: Ipv6Addr::from_bits(bits).into(), len: self.2 }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Tables<N> {
    pub(super) sets: Sets,
    /// None is empty.
    tables: BTreeMap<u32, Table<N>>,
    /// Prefixes whose routes changed though no message named them.
    named: Vec<(u32, Prefix)>,
    /// They are too many to be named.
    many: bool,
    /// How many routes there are: counting them goes through a million.
    len: usize,
}

/// One table's prefixes, each before those inside of it.
#[derive(Clone, Debug)]
struct Table<N> {
    prefixes: BTreeMap<N, SetId>,
    /// How many there are of each length.
    lens: Vec<u32>,
}

impl<N> Default for Tables<N> {
    fn default() -> Self {
        let (sets, tables) = (Sets::default(), BTreeMap::new());
        Self { sets, tables, named: Vec::new(), many: false, len: 0 }
    }
}

impl<N: Net> Tables<N> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = u32> {
        self.tables.keys().copied()
    }

    pub(super) fn prefixes(&self, table: u32) -> impl Iterator<Item = (Prefix, SetId)> {
        let table = self.tables.get(&table);
        table.into_iter().flat_map(|t| &t.prefixes).map(|(dst, id)| (dst.prefix(), *id))
    }

    pub(super) fn inside(&self, table: u32, dst: Prefix) -> impl Iterator<Item = Prefix> {
        let table = self.tables.get(&table);
        let from = table.into_iter().flat_map(move |t| t.prefixes.range(N::of(dst)..));
        let from = from.map(|(p, _)| p.prefix());
        from.skip_while(move |p| *p == dst).take_while(move |p| dst.contains(*p))
    }

    pub(super) fn is_inside(&self, table: u32, dst: Prefix) -> bool {
        let Some(table) = self.tables.get(&table) else { return false };
        let mut shorter = (0..dst.len).zip(&table.lens).filter(|(_, n)| **n > 0);
        shorter.any(|(len, _)| table.prefixes.contains_key(&N::of(dst.cut(len))))
    }

    pub(super) fn get(&self, table: u32, dst: Prefix) -> Option<SetId> {
        self.tables.get(&table)?.prefixes.get(&N::of(dst)).copied()
    }

    pub(super) fn take_silent(&mut self) -> Option<Vec<(u32, Prefix)>> {
        let named = std::mem::take(&mut self.named);
        let many = std::mem::take(&mut self.many);
        (!many).then_some(named)
    }

    pub(super) fn insert(&mut self, number: u32, dst: Prefix, new: Alias, how: Insert) -> bool {
        let table = self.tables.entry(number).or_default();
        let sets = &mut self.sets;
        let id = match table.prefixes.entry(N::of(dst)) {
            Entry::Vacant(vacant) => {
                vacant.insert(sets.take(&[new]));
                table.count(dst.len, 1);
                self.len += 1;
                return true;
            }
            Entry::Occupied(here) => here.into_mut(),
        };
        let old = *id;
        match sets.get(old) {
            [only] if *only == new => return false,
            [only] if how == Insert::Replace && only.key() == new.key() => {
                *id = sets.take(&[new]);
            }
            set => {
                let mut list = set.to_vec();
                let before = list.len();
                alias::insert(N::FAMILY, &mut list, new, how);
                self.len = self.len + list.len() - before;
                *id = sets.take(&list);
            }
        }
        let changed = *id != old;
        sets.drop(old);
        changed
    }

    pub(super) fn remove(&mut self, number: u32, dst: Prefix, gone: Alias) -> bool {
        let Some(table) = self.tables.get_mut(&number) else { return false };
        let Some(id) = table.prefixes.get_mut(&N::of(dst)) else { return false };
        let old = *id;
        let mut list = self.sets.get(old).to_vec();
        let before = list.len();
        if !alias::remove(N::FAMILY, &mut list, gone) {
            return false;
        }
        if list.is_empty() {
            table.prefixes.remove(&N::of(dst));
            table.count(dst.len, -1);
            if table.prefixes.is_empty() {
                self.tables.remove(&number);
            }
        } else {
            *id = self.sets.take(&list);
        }
        self.sets.drop(old);
        self.len = self.len + list.len() - before;
        true
    }

    /// Keeps what `keep` says. True: something went.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Alias) -> bool) -> bool {
        self.rewrite(|set| {
            let kept: Vec<Alias> = set.iter().filter(|a| keep(a)).cloned().collect();
            (kept.len() != set.len()).then_some(kept)
        })
    }

    /// Puts other routes in place of sets of them: `change` says which, an empty list for
    /// none. Each set is asked about once, and the prefixes are gone through only if one
    /// changes. True: one did.
    pub(super) fn rewrite(
        &mut self,
        mut change: impl FnMut(&[Alias]) -> Option<Vec<Alias>>,
    ) -> bool {
        let changed = self.sets.iter().filter_map(|(id, set)| Some((id, change(set)?)));
        let changed: Vec<(SetId, Vec<Alias>)> = changed.collect();
        if changed.is_empty() {
            return false;
        }
        for (id, list) in &changed {
            let fewer = self.sets.get(*id).len() - list.len();
            self.len -= fewer * self.sets.users(*id) as usize;
        }
        let mut take = |list: &[Alias]| (!list.is_empty()).then(|| self.sets.take(list));
        let instead: HashMap<_, _> = changed.iter().map(|(id, list)| (*id, take(list))).collect();
        let Self { sets, tables, named, many, .. } = self;
        for (number, Table { prefixes, lens }) in tables.iter_mut() {
            prefixes.retain(|dst, id| {
                let Some(new) = instead.get(id) else { return true };
                let dst = dst.prefix();
                match named.len() < NAMED {
                    true => named.push((*number, dst)),
                    false => *many = true,
                }
                sets.drop(std::mem::replace(id, new.unwrap_or(*id)));
                match new {
                    Some(new) => sets.take_again(*new),
                    None => lens[usize::from(dst.len)] -= 1,
                }
                new.is_some()
            });
        }
        tables.retain(|_, table| !table.prefixes.is_empty());
        for new in instead.into_values().flatten() {
            sets.drop(new);
        }
        true
    }
}

impl<N> Default for Table<N> {
    fn default() -> Self {
        Self { prefixes: BTreeMap::new(), lens: Vec::new() }
    }
}

impl<N> Table<N> {
    fn count(&mut self, len: u8, more: i32) {
        let len = usize::from(len);
        if self.lens.len() <= len {
            self.lens.resize(len + 1, 0);
        }
        self.lens[len] = self.lens[len].wrapping_add_signed(more);
    }
}
