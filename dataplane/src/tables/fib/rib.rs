//! The writer's side: all prefixes, in buckets, and which of them readers do not
//! have yet.
//!
//! The buckets are blocks of addresses that together are all of them. A bucket has
//! the prefixes inside of its block; those around it ([`Rib::wide`]) are looked for
//! where none inside matches. So each prefix is in one place, and a change makes one
//! bucket's ranges anew; one of a wide prefix, numbers only.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::address::{Address, Ranges};
use super::ranges::{Block, NONE, Route, ranges};
use super::routes::Routes;
use super::table::{self, Blocks, Many, PAGE, Page, Table};

/// Most prefixes of a bucket: as many as have not more than 256 ranges.
pub(super) const MOST: usize = 127;

/// Prefixes and their values.
#[derive(Clone, Debug)]
pub(super) struct Rib<A: Address> {
    /// By number.
    buckets: Vec<Bucket<A>>,
    /// Numbers that are not in use.
    free: Vec<u32>,
    /// Where blocks begin, in order, and the buckets' numbers.
    starts: Vec<(A, u32)>,
    /// Prefixes that are larger than the blocks inside of them.
    wide: BTreeMap<(A, u8), u32>,
    len: usize,
    /// Buckets that readers do not have as they are.
    dirty: Vec<u32>,
    /// There are other blocks than readers know.
    moved: bool,
    table: Table<A>,
    most: usize,
}

#[derive(Clone, Debug)]
struct Bucket<A> {
    block: Block<A>,
    routes: Routes<A>,
    /// The longest prefix around the block: its length and value.
    around: Option<(u8, u32)>,
    /// It is among the dirty ones.
    dirty: bool,
    /// For other reasons than what is around it.
    stale: bool,
}

impl<A: Address> Bucket<A> {
    fn new(block: Block<A>, routes: Routes<A>, around: Option<(u8, u32)>) -> Self {
        Self { block, routes, around, dirty: false, stale: true }
    }

    fn around(&self) -> u32 {
        self.around.map_or(NONE, |(_, value)| value)
    }

    fn ranges(&self) -> A::Ranges {
        let (starts, values) = ranges(self.block, self.routes.iter());
        A::Ranges::of(self.block, &starts, &values)
    }
}

impl<A: Address> Default for Rib<A> {
    fn default() -> Self {
        Self::of(Vec::new(), MOST)
    }
}

/// Puts prefixes in order, each before those inside of it; of equal ones the last is left.
pub(super) fn sort<A: Address>(routes: &mut Vec<Route<A>>) {
    // Stable, and quick where they are in order already.
    routes.sort_by_key(|&(addr, len, _)| (addr, len));
    routes.reverse();
    routes.dedup_by_key(|&mut (addr, len, _)| (addr, len));
    routes.reverse();
}

impl<A: Address> Rib<A> {
    /// From prefixes without host bits; of equal ones the last counts.
    pub(super) fn of(mut routes: Vec<Route<A>>, most: usize) -> Self {
        sort(&mut routes);
        Self::of_sorted(&routes, most)
    }

    /// The same of prefixes in order, each once.
    pub(super) fn of_sorted(routes: &[Route<A>], most: usize) -> Self {
        let mut rib = Self {
            buckets: Vec::new(),
            free: Vec::new(),
            starts: Vec::new(),
            wide: BTreeMap::new(),
            len: routes.len(),
            dirty: Vec::new(),
            moved: true,
            table: Table::Empty,
            most,
        };
        rib.fill(Block::ALL, routes, None);
        rib
    }

    /// Makes the buckets of a block, from left to right.
    fn fill(&mut self, block: Block<A>, mut routes: &[Route<A>], around: Option<(u8, u32)>) {
        if routes.len() <= self.most || u32::from(block.len) == A::BITS {
            let routes = routes.iter().copied().collect();
            let number = self.put(Bucket::new(block, routes, around));
            self.starts.push((block.first, number));
            return;
        }
        let mut around = around;
        if let [(addr, len, value), rest @ ..] = routes
            && (*addr, *len) == (block.first, block.len)
        {
            self.wide.insert((*addr, *len), *value);
            around = Some((*len, *value));
            routes = rest;
        }
        let [low, high] = block.halves();
        let (left, right) = routes.split_at(routes.partition_point(|r| r.0 < high.first));
        self.fill(low, left, around);
        self.fill(high, right, around);
    }

    #[cfg(test)]
    pub(super) fn most(&self) -> usize {
        self.most
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, addr: A, len: u8) -> Option<u32> {
        let bucket = &self.buckets[self.number(addr).1];
        if len < bucket.block.len {
            return self.wide.get(&(addr, len)).copied();
        }
        bucket.routes.get(addr, len)
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Route<A>> {
        let wide = self.wide.iter().map(|(&(addr, len), &value)| (addr, len, value));
        wide.chain(self.buckets.iter().flat_map(|b| b.routes.iter()))
    }

    /// A longer prefix is inside of this one.
    pub(super) fn has_inside(&self, addr: A, len: u8) -> bool {
        let (at, number) = self.number(addr);
        let bucket = &self.buckets[number];
        let last = Block { first: addr, len }.last();
        if len >= bucket.block.len {
            return bucket.routes.has_inside(addr, len, last);
        }
        let inside = self.starts[at..].iter().take_while(|(start, _)| *start <= last);
        let mut inside = inside.map(|(_, n)| &self.buckets[*n as usize]);
        let mut wide = self.wide.range((addr, len + 1)..=(last, A::BITS as u8));
        wide.any(|(k, _)| k.1 > len) || inside.any(|b| b.routes.len() > 0)
    }

    /// Sets a prefix's value; returns the one before.
    pub(super) fn insert(&mut self, addr: A, len: u8, value: u32) -> Option<u32> {
        let (at, number) = self.number(addr);
        let bucket = &mut self.buckets[number];
        let before = if len < bucket.block.len {
            let before = self.wide.insert((addr, len), value);
            self.put_around(at, Block { first: addr, len }, |around| {
                around.is_none_or(|(l, _)| l <= len).then_some(Some((len, value)))
            });
            before
        } else {
            let before = bucket.routes.insert(addr, len, value);
            bucket.stale |= before != Some(value);
            let full = bucket.routes.len() > self.most;
            if before != Some(value) {
                self.mark(number);
            }
            if full {
                self.split(at, number);
            }
            before
        };
        self.len += usize::from(before.is_none());
        before
    }

    /// Takes a prefix out; returns its value.
    pub(super) fn remove(&mut self, addr: A, len: u8) -> Option<u32> {
        let (at, number) = self.number(addr);
        let bucket = &mut self.buckets[number];
        let value = if len < bucket.block.len {
            let value = self.wide.remove(&(addr, len))?;
            let outer = self.enclosing(addr, len);
            self.put_around(at, Block { first: addr, len }, |around| {
                (around.map(|(l, _)| l) == Some(len)).then_some(outer)
            });
            value
        } else {
            let value = bucket.routes.remove(addr, len)?;
            bucket.stale = true;
            self.mark(number);
            self.merge(at);
            value
        };
        self.len -= 1;
        Some(value)
    }

    /// What readers are to have from here on. It costs what changed since the last time.
    pub(super) fn snapshot(&mut self) -> Table<A> {
        if self.dirty.is_empty() && !self.moved {
            return self.table.clone();
        }
        let dirty = std::mem::take(&mut self.dirty);
        if let &[(_, only)] = self.starts.as_slice() {
            let bucket = &mut self.buckets[only as usize];
            (bucket.dirty, bucket.stale) = (false, false);
            let ranges = bucket.ranges();
            self.table = if bucket.routes.len() == 0 { Table::Empty } else { Table::One(ranges) };
        } else {
            if !matches!(self.table, Table::Many(_)) {
                // The first time, or after one that had all in one.
                self.buckets.iter_mut().for_each(|b| b.stale = true);
                self.moved = true;
            }
            let all = if matches!(self.table, Table::Many(_)) { dirty } else { self.numbers() };
            self.put_buckets(&all);
        }
        self.moved = false;
        self.table.clone()
    }

    /// Number of each bucket, in use or not.
    fn numbers(&self) -> Vec<u32> {
        (0..self.buckets.len() as u32).collect()
    }

    fn put_buckets(&mut self, numbers: &[u32]) {
        if !matches!(self.table, Table::Many(_)) {
            let many = Many { starts: Arc::new(Blocks::of(&[])), pages: Vec::new() };
            self.table = Table::Many(Arc::new(many));
        }
        let Table::Many(many) = &mut self.table else { return };
        let many = Arc::make_mut(many);
        if self.moved {
            many.starts = Arc::new(Blocks::of(&self.starts));
        }
        let empty = Bucket::<A>::new(Block::ALL, Routes::default(), None).ranges();
        while many.pages.len() * PAGE < self.buckets.len() {
            let none = || table::Bucket { ranges: empty.clone(), around: NONE };
            many.pages.push(Arc::new(Page(std::array::from_fn(|_| none()))));
        }
        for number in numbers.iter().map(|n| *n as usize) {
            let bucket = &mut self.buckets[number];
            let page = Arc::make_mut(&mut many.pages[number / PAGE]);
            let seen = &mut page.0[number % PAGE];
            seen.around = bucket.around();
            if bucket.stale {
                seen.ranges = bucket.ranges();
            }
            (bucket.dirty, bucket.stale) = (false, false);
        }
    }

    /// The bucket that an address is of: its place in `starts`, and its number.
    fn number(&self, addr: A) -> (usize, usize) {
        // The first starts at zero.
        let at = self.starts.partition_point(|(start, _)| *start <= addr) - 1;
        (at, self.starts[at].1 as usize)
    }

    fn put(&mut self, bucket: Bucket<A>) -> u32 {
        let number = match self.free.pop() {
            Some(number) => {
                self.buckets[number as usize] = bucket;
                number
            }
            None => {
                self.buckets.push(bucket);
                self.buckets.len() as u32 - 1
            }
        };
        self.mark(number as usize);
        number
    }

    fn mark(&mut self, number: usize) {
        if !std::mem::replace(&mut self.buckets[number].dirty, true) {
            self.dirty.push(number as u32);
        }
    }

    /// Has the buckets inside of a wide prefix, the first of them at `at`, told what is
    /// around them, where `tell` says something.
    fn put_around(
        &mut self,
        at: usize,
        wide: Block<A>,
        tell: impl Fn(Option<(u8, u32)>) -> Option<Option<(u8, u32)>>,
    ) {
        let last = wide.last();
        for at in at..self.starts.len() {
            let (start, number) = self.starts[at];
            if start > last {
                break;
            }
            let bucket = &mut self.buckets[number as usize];
            if let Some(around) = tell(bucket.around) {
                bucket.around = around;
                self.mark(number as usize);
            }
        }
    }

    /// The longest wide prefix around another.
    fn enclosing(&self, addr: A, len: u8) -> Option<(u8, u32)> {
        let at = |l: u8| (addr.and_not(A::host_bits(u32::from(l))), l);
        (0..len).rev().find_map(|l| Some((l, *self.wide.get(&at(l))?)))
    }

    /// Cuts a bucket in two until none is too full.
    fn split(&mut self, at: usize, number: usize) {
        let Bucket { block, around, .. } = self.buckets[number];
        if u32::from(block.len) == A::BITS {
            return;
        }
        self.moved = true;
        let mut routes = std::mem::take(&mut self.buckets[number].routes);
        let own = routes.remove(block.first, block.len);
        let around = own.map(|value| (block.len, value)).or(around);
        self.wide.extend(own.map(|value| ((block.first, block.len), value)));
        let [low, high] = block.halves();
        let right = routes.split_off(high.first);
        let full = [routes.len(), right.len()].map(|n| n > self.most);
        self.mark(number);
        self.buckets[number] = Bucket { dirty: true, ..Bucket::new(low, routes, around) };
        let other = self.put(Bucket::new(high, right, around));
        self.starts.insert(at + 1, (high.first, other));
        if full[1] {
            self.split(at + 1, other as usize);
        }
        if full[0] {
            self.split(at, number);
        }
    }

    /// Puts a bucket and the other half of its block together, while both have little.
    fn merge(&mut self, at: usize) {
        let mut at = at;
        loop {
            let (start, number) = self.starts[at];
            let Bucket { block, routes, .. } = &self.buckets[number as usize];
            if block.len == 0 || routes.len() > self.most / 4 {
                return;
            }
            let buddy = start.xor(A::bit(u32::from(block.len) - 1));
            let low = if buddy < start { at.checked_sub(1) } else { Some(at) };
            let Some(low) = low.filter(|low| low + 1 < self.starts.len()) else { return };
            let [(first, left), (_, right)] = [self.starts[low], self.starts[low + 1]];
            let [a, b] = [left, right].map(|n| &self.buckets[n as usize]);
            let few = a.routes.len() + b.routes.len() <= self.most / 2;
            if a.block.len != b.block.len || a.block.first != start.min(buddy) || !few {
                return;
            }
            let block = Block { first, len: block.len - 1 };
            self.join(low, block, [left, right]);
            at = low;
        }
    }

    fn join(&mut self, low: usize, block: Block<A>, [left, right]: [u32; 2]) {
        self.moved = true;
        let own = self.wide.remove(&(block.first, block.len));
        let around = match own {
            Some(_) => self.enclosing(block.first, block.len),
            None => self.buckets[left as usize].around,
        };
        let mut routes = std::mem::take(&mut self.buckets[left as usize].routes);
        routes.append(std::mem::take(&mut self.buckets[right as usize].routes));
        if let Some(value) = own {
            routes.insert(block.first, block.len, value);
        }
        for number in [left, right] {
            self.mark(number as usize);
        }
        let bucket = Bucket { dirty: true, ..Bucket::new(block, routes, around) };
        self.buckets[left as usize] = bucket;
        // What is left there has no routes, and no address leads to it.
        self.buckets[right as usize].stale = true;
        self.starts.remove(low + 1);
        self.free.push(right);
    }
}
