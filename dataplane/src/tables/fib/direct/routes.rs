//! The writer's side: all prefixes, by page and cell, and which cells readers do not have
//! as they are.

use std::collections::BTreeMap;

use super::block::Painter;
use super::cells::{Cells, cells_under, exact, is_inside};
use super::word::Word;
use super::{CELL_BITS, CELLS, Direct, INSIDE, PAGE_BITS, PAGES};
use crate::tables::fib::ranges::{NONE, Route};

/// Prefixes and their values.
#[derive(Clone, Debug)]
pub(in crate::tables::fib) struct Routes<W: Word> {
    pages: Vec<Cells<W>>,
    /// Prefixes of whole pages, by length and address.
    outer: BTreeMap<(u8, u32), u32>,
    len: usize,
    /// Pages that readers do not have as they are.
    dirty: Vec<u16>,
    outer_dirty: bool,
    table: Direct<W>,
    painter: Painter<W>,
}

/// There are more than one word can tell: more next hops, or more in a page.
#[derive(Debug)]
pub(in crate::tables::fib) struct TooMany;

/// Where a prefix is.
enum Place {
    Outer,
    /// Page, key in it.
    Wide(usize, u16),
    /// Page, cell, key in it.
    Inside(usize, usize, u16),
}

fn place(addr: u32, len: u8) -> Place {
    let page = (addr >> (32 - PAGE_BITS)) as usize;
    let cell = (addr >> INSIDE) as usize % CELLS;
    if len <= PAGE_BITS {
        return Place::Outer;
    }
    if len < CELL_BITS {
        return Place::Wide(page, ((CELLS | cell) >> (CELL_BITS - len)) as u16);
    }
    let inside = 1 << INSIDE | (addr & ((1 << INSIDE) - 1));
    Place::Inside(page, cell, (inside >> (32 - len)) as u16)
}

impl<W: Word> Routes<W> {
    /// From prefixes without host bits, in order, each once.
    pub(in crate::tables::fib) fn of(routes: &[Route<u32>]) -> Result<Self, TooMany> {
        let mut new = Self {
            pages: vec![Cells::default(); PAGES],
            outer: BTreeMap::new(),
            len: routes.len(),
            dirty: Vec::new(),
            outer_dirty: true,
            table: Direct::empty(),
            painter: Painter::default(),
        };
        for routes in routes.chunk_by(|a, b| a.0 >> (32 - PAGE_BITS) == b.0 >> (32 - PAGE_BITS)) {
            new.fill(routes)?;
        }
        Ok(new)
    }

    /// The routes that begin in one page.
    fn fill(&mut self, routes: &[Route<u32>]) -> Result<(), TooMany> {
        let page = routes[0].0 >> (32 - PAGE_BITS);
        self.dirty.push(page as u16);
        let cells = &mut self.pages[page as usize];
        let (mut keys, mut values) = (Vec::with_capacity(routes.len()), Vec::new());
        values.reserve(routes.len());
        for routes in routes.chunk_by(|a, b| a.0 >> INSIDE == b.0 >> INSIDE) {
            let begin = keys.len();
            for &(addr, len, value) in routes {
                let word = word::<W>(value)?;
                match place(addr, len) {
                    Place::Outer => drop(self.outer.insert((len, addr), value)),
                    Place::Wide(_, key) => cells.wide.push((key, word)),
                    Place::Inside(_, cell, key) => {
                        // Mostly in order already: those of a length follow each other.
                        let at = begin + keys[begin..].partition_point(|k| *k < key);
                        keys.insert(at, key);
                        values.insert(at, word);
                        cells.ends[cell] = W::of(keys.len() - begin);
                    }
                }
            }
        }
        let mut end = 0;
        for count in &mut cells.ends {
            end += count.number();
            *count = W::of(end);
        }
        if keys.len() > W::MOST {
            return Err(TooMany);
        }
        // As much as is needed: growing leaves more than that.
        (cells.keys, cells.values) = (exact(&keys), exact(&values));
        cells.wide.sort_unstable_by_key(|(key, _)| *key);
        cells.dirty = [u64::MAX; CELLS / 64];
        Ok(())
    }

    pub(in crate::tables::fib) fn len(&self) -> usize {
        self.len
    }

    pub(in crate::tables::fib) fn get(&self, addr: u32, len: u8) -> Option<u32> {
        let word = match place(addr, len) {
            Place::Outer => return self.outer.get(&(len, addr)).copied(),
            Place::Wide(page, key) => self.pages[page].wide_at(key).ok().map(|(_, value)| value),
            Place::Inside(page, cell, key) => {
                let cells = &self.pages[page];
                cells.find(cell, key).ok().map(|at| cells.values[at])
            }
        };
        word.map(|w| w.number() as u32)
    }

    /// Sets a prefix's value; returns the one before.
    pub(in crate::tables::fib) fn insert(
        &mut self,
        addr: u32,
        len: u8,
        value: u32,
    ) -> Result<Option<u32>, TooMany> {
        let word = word::<W>(value)?;
        let before = match place(addr, len) {
            Place::Outer => {
                self.outer_dirty = true;
                self.outer.insert((len, addr), value)
            }
            Place::Wide(page, key) => {
                self.mark_wide(page, key);
                self.pages[page].insert_wide(key, word)
            }
            Place::Inside(page, cell, key) => {
                let before = self.pages[page].insert(cell, key, word)?;
                if before != Some(value) {
                    self.mark(page, cell);
                }
                before
            }
        };
        self.len += usize::from(before.is_none());
        Ok(before)
    }

    /// Takes a prefix out; returns its value.
    pub(in crate::tables::fib) fn remove(&mut self, addr: u32, len: u8) -> Option<u32> {
        let before = match place(addr, len) {
            Place::Outer => {
                self.outer_dirty = true;
                self.outer.remove(&(len, addr))
            }
            Place::Wide(page, key) => {
                let cells = &mut self.pages[page];
                let (at, before) = cells.wide_at(key).ok()?;
                cells.wide.remove(at);
                self.mark_wide(page, key);
                Some(before.number() as u32)
            }
            Place::Inside(page, cell, key) => {
                let before = self.pages[page].remove(cell, key);
                if before.is_some() {
                    self.mark(page, cell);
                }
                before
            }
        }?;
        self.len -= 1;
        Some(before)
    }

    /// A longer prefix is inside of this one.
    pub(in crate::tables::fib) fn has_inside(&self, addr: u32, len: u8) -> bool {
        match place(addr, len) {
            Place::Outer => {
                let last = addr | u32::MAX.checked_shr(len.into()).unwrap_or(0);
                let pages =
                    (addr >> (32 - PAGE_BITS)) as usize..=(last >> (32 - PAGE_BITS)) as usize;
                let within = |(&(l, a), _): (&(u8, u32), _)| l > len && (addr..=last).contains(&a);
                self.outer.range((len + 1, 0)..).any(within)
                    || self.pages[pages].iter().any(|p| !p.keys.is_empty() || !p.wide.is_empty())
            }
            Place::Wide(page, key) => {
                let cells = &self.pages[page];
                let under = cells_under(key);
                let (first, last) = (*under.start(), *under.end());
                let begin = cells.begin(first);
                let wide = cells.wide.iter();
                cells.ends[last].number() > begin || wide.clone().any(|(k, _)| is_inside(*k, key))
            }
            Place::Inside(page, cell, key) => {
                let cells = &self.pages[page];
                cells.keys[cells.of_cell(cell)].iter().any(|k| is_inside(*k, key))
            }
        }
    }

    /// All of them, in no order.
    pub(in crate::tables::fib) fn iter(&self) -> impl Iterator<Item = Route<u32>> {
        let outer = self.outer.iter().map(|(&(len, addr), &value)| (addr, len, value));
        outer.chain(self.pages.iter().enumerate().flat_map(|(n, page)| page.iter(n)))
    }

    fn mark(&mut self, page: usize, cell: usize) {
        let dirty = &mut self.pages[page].dirty;
        if dirty.iter().all(|bits| *bits == 0) {
            self.dirty.push(page as u16);
        }
        dirty[cell / 64] |= 1 << (cell % 64);
    }

    fn mark_wide(&mut self, page: usize, key: u16) {
        cells_under(key).for_each(|cell| self.mark(page, cell));
    }

    /// What readers are to have from here on. It costs what changed since the last time.
    pub(in crate::tables::fib) fn snapshot(&mut self) -> Result<Direct<W>, TooMany> {
        if std::mem::take(&mut self.outer_dirty) {
            let mut outside = [NONE; PAGES];
            for (&(len, addr), &value) in &self.outer {
                let first = (addr >> (32 - PAGE_BITS)) as usize;
                outside[first..][..1 << (PAGE_BITS - len)].fill(value);
            }
            self.table.set_outside(outside);
        }
        for number in std::mem::take(&mut self.dirty).into_iter().map(usize::from) {
            let cells = &mut self.pages[number];
            let page = self.table.page_mut(number);
            if cells.dirty.iter().map(|b| b.count_ones()).sum::<u32>() > CELLS as u32 / 4 {
                *page = cells.page(&mut self.painter);
            } else {
                cells.patch(page, &mut self.painter);
            }
            if page.len() > W::MOST {
                return Err(TooMany);
            }
            cells.dirty = Default::default();
        }
        Ok(self.table.clone())
    }
}

fn word<W: Word>(value: u32) -> Result<W, TooMany> {
    let fits = (value as usize) < W::NONE.number();
    fits.then(|| W::of(value as usize)).ok_or(TooMany)
}
