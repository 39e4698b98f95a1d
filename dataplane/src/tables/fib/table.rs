//! What is looked up: never changed once it is given out, shared between versions.
//!
//! ```text
//!  few routes    One:  ranges over all addresses
//!
//!  many          Many: starts ──► which bucket ──► page of 64 buckets ──► bucket's ranges ──► value
//!                      (ranges, whose values        (pages are shared       (blocks of addresses with
//!                       are buckets' numbers)        between versions)       up to `MOST` routes each)
//! ```

use std::sync::Arc;

use super::address::Address;
use super::lanes::Lanes;
use super::ranges::{NONE, Ranges};

/// Buckets of a page: what a change copies.
pub(super) const PAGE: usize = 64;

/// A table as readers see it.
#[derive(Clone, Debug, Default)]
pub(super) enum Table<A> {
    #[default]
    Empty,
    One(Arc<Ranges<A>>),
    Many(Arc<Many<A>>),
}

/// A table in buckets.
#[derive(Clone, Debug)]
pub(super) struct Many<A> {
    /// The number of the bucket that an address is of.
    pub(super) starts: Arc<Ranges<A>>,
    pub(super) pages: Vec<Arc<Page<A>>>,
}

/// Buckets by number.
#[derive(Clone, Debug)]
pub(super) struct Page<A>(pub(super) [Bucket<A>; PAGE]);

/// The routes inside of a block of addresses, and what is around it.
#[derive(Clone, Debug)]
pub(super) struct Bucket<A> {
    pub(super) ranges: Arc<Ranges<A>>,
    /// Value of what no route inside covers.
    pub(super) around: u32,
}

impl<A: Address> Table<A> {
    #[inline]
    pub(super) fn lookup(&self, addr: A) -> u32 {
        match self {
            Self::Empty => NONE,
            Self::One(ranges) => ranges.value(addr),
            Self::Many(many) => {
                let bucket = many.bucket(addr);
                bucket.or_around(bucket.ranges.value(addr))
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::One(ranges) => size_of::<Ranges<A>>() + ranges.bytes(),
            Self::Many(many) => {
                let buckets = many.pages.iter().flat_map(|page| &page.0);
                let ranges = buckets.map(|b| size_of::<Ranges<A>>() + b.ranges.bytes());
                let pages = many.pages.len() * (size_of::<Page<A>>() + size_of::<usize>());
                ranges.sum::<usize>() + pages + many.starts.bytes()
            }
        }
    }
}

impl<A: Address> Lanes<A> for Table<A> {
    #[inline(always)]
    fn some<const N: usize>(&self, addrs: &[A; N], out: &mut [u32; N]) {
        match self {
            Self::Empty => out.fill(NONE),
            Self::One(ranges) => in_one(ranges, addrs, out),
            Self::Many(many) => many.in_buckets(addrs, out),
        }
    }
}

#[inline(always)]
fn in_one<A: Address, const N: usize>(ranges: &Ranges<A>, lanes: &[A; N], out: &mut [u32; N]) {
    let mut searched = [(0, 0); N];
    for (s, addr) in searched.iter_mut().zip(lanes) {
        *s = ranges.narrow(*addr);
    }
    for ((out, s), addr) in out.iter_mut().zip(searched).zip(lanes) {
        *out = ranges.within(s, *addr);
    }
}

impl<A: Address> Many<A> {
    #[inline]
    fn bucket(&self, addr: A) -> &Bucket<A> {
        let number = self.starts.value(addr) as usize;
        &self.pages[number / PAGE].0[number % PAGE]
    }

    #[inline(always)]
    fn in_buckets<const N: usize>(&self, lanes: &[A; N], out: &mut [u32; N]) {
        let mut numbers = [0; N];
        in_one(&self.starts, lanes, &mut numbers);
        let buckets = numbers.map(|n| &self.pages[n as usize / PAGE].0[n as usize % PAGE]);
        let mut searched = [(0, 0); N];
        for ((s, bucket), addr) in searched.iter_mut().zip(buckets).zip(lanes) {
            *s = bucket.ranges.narrow(*addr);
        }
        for (((out, s), bucket), addr) in out.iter_mut().zip(searched).zip(buckets).zip(lanes) {
            *out = bucket.or_around(bucket.ranges.within(s, *addr));
        }
    }
}

impl<A> Bucket<A> {
    #[inline]
    fn or_around(&self, value: u32) -> u32 {
        if value == NONE { self.around } else { value }
    }
}
