//! Many IPv4 routes: a cell for each /18, and a cache line for each /18 with routes inside.
//!
//! ```text
//!  address  10 bits │ 8 bits │ 6 bits   │ 8 bits
//!           page    │ cell   │ slot     │ last byte
//!
//!  page:  cells ──► a next hop's number
//!               └─► node: 64 bits, one where the next slot's leaf is another than the slot's
//!                         before; leaves ──► a next hop's number
//!                                        └─► the /24's ranges: starts, numbers; or 256 numbers
//!  outside of all: the number for the page (prefixes of up to 10 bits)
//! ```
//!
//! Poptrie (Asai, Ohara, 2015) with the first stride chosen so that the second ends where most
//! prefixes do, and leaves beside the bits that they are counted by: one miss for a cell, one
//! for all the rest. A page holds all that is below it, and says where in lines from its
//! beginning: a page that nothing changed is shared between snapshots. Pages are found by two
//! short lists, which are what each change copies.

mod block;
mod cells;
pub(super) mod routes;
pub(super) mod word;

use std::hint::select_unpredictable;
use std::sync::Arc;

use super::lanes::Lanes;
use super::ranges::NONE;
use word::Word;

/// Bits of an address that name its page; these, and those that name its cell; and those
/// behind them.
const PAGE_BITS: u8 = 10;
const CELL_BITS: u8 = 18;
const INSIDE: u32 = 14;
/// Cells of a page.
const CELLS: usize = 256;
/// Pages of a group, and groups.
const SIDE: usize = 32;
const PAGES: usize = SIDE * SIDE;

/// What a link of a node says: which form the leaf of a /24 has, and behind how many
/// quarters of lines from the node it begins.
const KIND: u32 = 13;
const TINY: usize = 0;
const SMALL: usize = 1;
const FULL: usize = 2;

/// Cells first, then their nodes in the order of the cells, each with what is below it.
pub(super) type Page<W> = Arc<[<W as Word>::Line]>;

/// Many routes, as readers see them.
#[derive(Clone, Debug)]
pub(super) struct Direct<W: Word>(Arc<Root<W>>);

#[derive(Clone, Debug)]
struct Root<W: Word> {
    groups: [Arc<Group<W>>; SIDE],
    /// By page: the next hop of what nothing in it covers, or `NONE`.
    outside: Arc<[u32; PAGES]>,
}

#[derive(Clone, Debug)]
struct Group<W: Word>([Page<W>; SIDE]);

impl<W: Word> Direct<W> {
    fn empty() -> Self {
        let cells = vec![W::Line::default(); CELLS / W::PER_LINE];
        let mut page: Page<W> = cells.into();
        W::words_mut(Arc::make_mut(&mut page)).fill(W::NONE);
        let group = Arc::new(Group(std::array::from_fn(|_| page.clone())));
        let groups = std::array::from_fn(|_| group.clone());
        Self(Arc::new(Root { groups, outside: Arc::new([NONE; PAGES]) }))
    }

    fn page_mut(&mut self, number: usize) -> &mut Page<W> {
        let root = Arc::make_mut(&mut self.0);
        &mut Arc::make_mut(&mut root.groups[number / SIDE]).0[number % SIDE]
    }

    fn set_outside(&mut self, outside: [u32; PAGES]) {
        Arc::make_mut(&mut self.0).outside = Arc::new(outside);
    }

    #[inline]
    pub(super) fn lookup(&self, addr: u32) -> u32 {
        let page = self.0.page_of(addr);
        let cell = cell_of(page, addr);
        let (node, leaf) = leaf_of(page, cell, addr);
        let leaf = if leaf.is_link() { last(page, node, leaf, addr) } else { leaf };
        or_outside(&self.0.outside, leaf, addr)
    }

    pub(super) fn bytes(&self) -> usize {
        let groups = self.0.groups.iter();
        let pages: usize = groups.flat_map(|g| &g.0).map(|p| 64 + size_of_val(&**p)).sum();
        pages + SIDE * size_of::<Group<W>>() + size_of::<Root<W>>() + size_of::<[u32; PAGES]>()
    }
}

impl<W: Word> Lanes<u32> for Direct<W> {
    #[inline(always)]
    fn some<const N: usize>(&self, addrs: &[u32; N], out: &mut [u32; N]) {
        self.0.some(addrs, out);
    }
}

impl<W: Word> Root<W> {
    #[inline(always)]
    fn page_of(&self, addr: u32) -> &[W] {
        W::words(&self.groups[(addr >> 27) as usize].0[(addr >> 22) as usize % SIDE])
    }

    /// Each loop is one that the processor can be ahead in, waiting for the memory of many
    /// lookups at a time.
    #[inline(always)]
    fn some<const N: usize>(&self, addrs: &[u32; N], out: &mut [u32; N]) {
        let outside = &*self.outside;
        let mut cells = [W::NONE; N];
        for i in 0..N {
            cells[i] = cell_of(self.page_of(addrs[i]), addrs[i]);
        }
        let mut links = 0_u32;
        for i in 0..N {
            let (_, leaf) = leaf_of(self.page_of(addrs[i]), cells[i], addrs[i]);
            links |= u32::from(leaf.is_link()) << i;
            out[i] = or_outside(outside, leaf, addrs[i]);
        }
        while links != 0 {
            let i = links.trailing_zeros() as usize % N;
            links &= links - 1;
            let (page, addr) = (self.page_of(addrs[i]), addrs[i]);
            let (node, leaf) = leaf_of(page, cells[i], addr);
            out[i] = or_outside(outside, last(page, node, leaf, addr), addr);
        }
    }
}

#[inline(always)]
fn or_outside<W: Word>(outside: &[u32; PAGES], leaf: W, addr: u32) -> u32 {
    let outside = outside[(addr >> 22) as usize];
    select_unpredictable(leaf == W::NONE, outside, leaf.number() as u32)
}

#[inline(always)]
fn cell_of<W: Word>(page: &[W], addr: u32) -> W {
    page[(addr >> 14) as usize % CELLS]
}

/// The node of a cell, and its leaf for an address: the cell itself where it has no node. No
/// branch, as nobody could foretell it: then some line that is there already is read for
/// nothing.
#[inline(always)]
fn leaf_of<W: Word>(page: &[W], cell: W, addr: u32) -> (usize, W) {
    let node = (cell.number() & W::NONE.number()) * W::PER_LINE;
    let cells = ((addr >> 14) as usize % CELLS) & !(W::PER_LINE - 1);
    let node = select_unpredictable(cell.is_link(), node, cells);
    let slots = u64::MAX >> (63 - (addr >> 8 & 63));
    let slots = select_unpredictable(cell.is_link(), slots, 0);
    let leaves = (W::bitmap(&page[node..]) & slots).count_ones() as usize;
    let leaf = page[node + W::HEAD - 1 + leaves];
    (node, select_unpredictable(cell.is_link(), leaf, cell))
}

/// By the last byte.
#[inline(always)]
fn last<W: Word>(page: &[W], node: usize, link: W, addr: u32) -> W {
    let (kind, quarters) = (link.number() >> KIND & 3, link.number() & ((1 << KIND) - 1));
    let at = node + quarters * (W::PER_LINE / 4);
    let (starts, ranges) = match kind {
        FULL => return page[at + (addr & 255) as usize],
        SMALL => W::SMALL,
        _ => W::TINY,
    };
    let begun = |i: usize| page[at + i].bytes_up_to(addr as u8);
    let range = (0..starts).map(begun).sum::<usize>();
    page[at + starts + range.min(ranges - 1)]
}
