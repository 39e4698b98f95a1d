//! The prefixes of one page, cell by cell, and the page that readers have of them.

use std::sync::Arc;

use super::block::Painter;
use super::routes::TooMany;
use super::word::Word;
use super::{CELL_BITS, CELLS, INSIDE, PAGE_BITS, Page};
use crate::tables::fib::ranges::Route;

/// The prefixes of a page. Keys are numbers as of a heap ([`super::block`]).
#[derive(Clone, Debug)]
pub(super) struct Cells<W> {
    /// Keys and values of prefixes inside of cells, cell by cell.
    pub(super) keys: Vec<u16>,
    pub(super) values: Vec<W>,
    /// How many of them are in a cell or before.
    pub(super) ends: [W; CELLS],
    /// Prefixes of several cells: keys in the page, in order.
    pub(super) wide: Vec<(u16, W)>,
    /// Cells that readers do not have as they are.
    pub(super) dirty: [u64; CELLS / 64],
}

/// The cells of a prefix of several.
pub(super) fn cells_under(key: u16) -> std::ops::RangeInclusive<usize> {
    let wide = CELLS.ilog2() - key.ilog2();
    let first = (usize::from(key) << wide) - CELLS;
    first..=first + (1 << wide) - 1
}

/// A longer prefix, inside of another.
pub(super) fn is_inside(key: u16, of: u16) -> bool {
    key > of && key >> (key.ilog2() - of.ilog2()) == of
}

pub(super) fn exact<T: Copy>(all: &[T]) -> Vec<T> {
    let mut out = Vec::with_capacity(all.len());
    out.extend_from_slice(all);
    out
}

impl<W: Word> Default for Cells<W> {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            values: Vec::new(),
            ends: [W::of(0); CELLS],
            wide: Vec::new(),
            dirty: [0; CELLS / 64],
        }
    }
}

impl<W: Word> Cells<W> {
    pub(super) fn begin(&self, cell: usize) -> usize {
        cell.checked_sub(1).map_or(0, |before| self.ends[before].number())
    }

    pub(super) fn of_cell(&self, cell: usize) -> std::ops::Range<usize> {
        self.begin(cell)..self.ends[cell].number()
    }

    pub(super) fn find(&self, cell: usize, key: u16) -> Result<usize, usize> {
        let range = self.of_cell(cell);
        let begin = range.start;
        let found = self.keys[range].binary_search(&key);
        found.map(|at| begin + at).map_err(|at| begin + at)
    }

    pub(super) fn insert(
        &mut self,
        cell: usize,
        key: u16,
        value: W,
    ) -> Result<Option<u32>, TooMany> {
        match self.find(cell, key) {
            Ok(at) => {
                let before = std::mem::replace(&mut self.values[at], value);
                Ok(Some(before.number() as u32))
            }
            Err(_) if self.keys.len() == W::MOST => Err(TooMany),
            Err(at) => {
                self.reserve();
                self.keys.insert(at, key);
                self.values.insert(at, value);
                self.ends[cell..].iter_mut().for_each(|end| *end = W::of(end.number() + 1));
                Ok(None)
            }
        }
    }

    pub(super) fn remove(&mut self, cell: usize, key: u16) -> Option<u32> {
        let at = self.find(cell, key).ok()?;
        self.keys.remove(at);
        self.ends[cell..].iter_mut().for_each(|end| *end = W::of(end.number() - 1));
        let value = self.values.remove(at);
        if self.keys.capacity() > 2 * self.keys.len() + 64 {
            self.keys.shrink_to_fit();
            self.values.shrink_to_fit();
        }
        Some(value.number() as u32)
    }

    /// A little more, not twice as much: there may be a million.
    fn reserve(&mut self) {
        if self.keys.len() == self.keys.capacity() {
            let more = (self.keys.len() / 16).max(8);
            self.keys.reserve_exact(more);
            self.values.reserve_exact(more);
        }
    }

    pub(super) fn wide_at(&self, key: u16) -> Result<(usize, W), usize> {
        let at = self.wide.binary_search_by_key(&key, |(k, _)| *k)?;
        Ok((at, self.wide[at].1))
    }

    pub(super) fn insert_wide(&mut self, key: u16, value: W) -> Option<u32> {
        match self.wide_at(key) {
            Ok((at, before)) => {
                self.wide[at].1 = value;
                Some(before.number() as u32)
            }
            Err(at) => {
                self.wide.insert(at, (key, value));
                None
            }
        }
    }

    /// The value around a cell, of those that the page knows.
    fn around(&self, cell: usize) -> W {
        if self.wide.is_empty() {
            return W::NONE;
        }
        let mut wide = (1..8).map(|up| ((CELLS | cell) >> up) as u16);
        wide.find_map(|key| self.wide_at(key).ok()).map_or(W::NONE, |(_, value)| value)
    }

    pub(super) fn iter(&self, page: usize) -> impl Iterator<Item = Route<u32>> {
        let first = (page as u32) << (32 - PAGE_BITS);
        let wide = self.wide.iter().map(move |&(key, value)| {
            let len = key.ilog2();
            let addr = (u32::from(key) - (1 << len)) << (32 - u32::from(PAGE_BITS) - len);
            (first | addr, PAGE_BITS + len as u8, value.number() as u32)
        });
        let inside = (0..CELLS).flat_map(move |cell| {
            let of_cell = self.of_cell(cell);
            let routes = self.keys[of_cell.clone()].iter().zip(&self.values[of_cell]);
            routes.map(move |(&key, &value)| {
                let len = key.ilog2();
                let addr = (u32::from(key) - (1 << len)) << (INSIDE - len);
                let addr = first | (cell as u32) << INSIDE | addr;
                (addr, CELL_BITS + len as u8, value.number() as u32)
            })
        });
        wide.chain(inside)
    }

    fn lay(&self, cell: usize, painter: &mut Painter<W>, out: &mut Vec<W::Line>, from: usize) -> W {
        let of_cell = self.of_cell(cell);
        let keys = self.keys[of_cell.clone()].iter().copied();
        let routes = keys.zip(self.values[of_cell].iter().copied());
        painter.cell(self.around(cell), routes, out, from)
    }

    /// All of the page.
    pub(super) fn page(&self, painter: &mut Painter<W>) -> Page<W> {
        let mut lines = vec![W::Line::default(); CELLS / W::PER_LINE];
        for cell in 0..CELLS {
            let word = self.lay(cell, painter, &mut lines, 0);
            set_cell::<W>(&mut lines, cell, word);
        }
        lines.into()
    }

    /// The cells that changed.
    pub(super) fn patch(&self, page: &mut Page<W>, painter: &mut Painter<W>) {
        let mut lines = Vec::new();
        for cell in (0..CELLS).filter(|c| self.dirty[c / 64] >> (c % 64) & 1 == 1) {
            let old = nodes::<W>(page, cell);
            lines.clear();
            let word = self.lay(cell, painter, &mut lines, old.start);
            if lines.len() == old.len() {
                let page = Arc::make_mut(page);
                set_cell::<W>(page, cell, word);
                page[old].copy_from_slice(&lines);
                continue;
            }
            let shift = lines.len() as isize - old.len() as isize;
            let mut all = Vec::with_capacity(page.len().saturating_add_signed(shift));
            all.extend_from_slice(&page[..old.start]);
            all.append(&mut lines);
            all.extend_from_slice(&page[old.end..]);
            for behind in cell + 1..CELLS {
                let word = W::words(&all)[behind];
                if word.is_link() {
                    let moved = word.number().wrapping_add_signed(shift);
                    set_cell::<W>(&mut all, behind, W::of(moved));
                }
            }
            set_cell::<W>(&mut all, cell, word);
            *page = all.into();
        }
    }
}

fn set_cell<W: Word>(lines: &mut [W::Line], cell: usize, word: W) {
    W::words_mut(lines)[cell] = word;
}

/// The lines of a cell's node and of what is below, or where they would be.
fn nodes<W: Word>(page: &[W::Line], cell: usize) -> std::ops::Range<usize> {
    let mut links = (cell..CELLS).filter_map(|cell| {
        let word = W::words(page)[cell];
        word.is_link().then_some((cell, word.number() & W::NONE.number()))
    });
    match links.next() {
        Some((c, start)) if c == cell => start..links.next().map_or(page.len(), |(_, next)| next),
        Some((_, next)) => next..next,
        None => page.len()..page.len(),
    }
}
