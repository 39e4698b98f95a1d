//! What is looked up: never changed once it is given out, shared between versions.
//!
//! ```text
//!  few routes    One:  ranges over all addresses
//!
//!  many          Many: starts ──► which bucket ──► page of 64 buckets ──► bucket's ranges ──► value
//!                                                  (pages are shared       (blocks of addresses with
//!                                                   between versions)       up to `MOST` routes each)
//! ```

use std::hint::select_unpredictable;
use std::sync::Arc;

use super::address::Address;
use super::address::{Ranges, Starts};
use super::lanes::Lanes;
use super::ranges::NONE;

/// Buckets of a page: what a change copies.
pub(super) const PAGE: usize = 64;

/// A table as readers see it.
#[derive(Clone, Debug, Default)]
pub(super) enum Table<A: Address> {
    #[default]
    Empty,
    One(A::Ranges),
    Many(Arc<Many<A>>),
}

/// A table in buckets.
#[derive(Clone, Debug)]
pub(super) struct Many<A: Address> {
    pub(super) starts: Arc<Blocks<A>>,
    pub(super) pages: Vec<Arc<Page<A>>>,
}

/// Where blocks start, and the numbers of their buckets.
#[derive(Clone, Debug)]
pub(super) struct Blocks<A: Address> {
    starts: A::Starts,
    numbers: Box<[u32]>,
}

/// Buckets by number.
#[derive(Clone, Debug)]
pub(super) struct Page<A: Address>(pub(super) [Bucket<A>; PAGE]);

/// The routes inside of a block of addresses, and what is around it.
#[derive(Clone, Debug)]
pub(super) struct Bucket<A: Address> {
    pub(super) ranges: A::Ranges,
    /// Value of what no route inside covers.
    pub(super) around: u32,
}

impl<A: Address> Blocks<A> {
    pub(super) fn of(blocks: &[(A, u32)]) -> Self {
        let starts = A::Starts::of(blocks.iter().map(|(start, _)| *start));
        Self { starts, numbers: blocks.iter().map(|(_, number)| *number).collect() }
    }
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
            Self::One(ranges) => ranges.bytes(),
            Self::Many(many) => {
                let buckets = many.pages.iter().flat_map(|page| &page.0);
                let ranges = buckets.map(|b| b.ranges.bytes());
                let starts = many.starts.starts.bytes() + size_of_val(&*many.starts.numbers);
                let pages = many.pages.len() * (size_of::<Page<A>>() + size_of::<usize>());
                ranges.sum::<usize>() + pages + starts
            }
        }
    }
}

impl<A: Address> Lanes<A> for Table<A> {
    #[inline(always)]
    fn some<const N: usize>(&self, addrs: &[A; N], out: &mut [u32; N]) {
        match self {
            Self::Empty => out.fill(NONE),
            Self::One(ranges) => {
                for i in 0..N {
                    out[i] = ranges.value(addrs[i]);
                }
            }
            Self::Many(many) => {
                let mut numbers = [0; N];
                for (number, addr) in numbers.iter_mut().zip(addrs) {
                    *number = many.starts.starts.find(*addr);
                }
                for number in &mut numbers {
                    *number = many.starts.numbers[*number] as usize;
                }
                for i in 0..N {
                    let bucket = many.by_number(numbers[i]);
                    out[i] = bucket.or_around(bucket.ranges.value(addrs[i]));
                }
            }
        }
    }
}

impl<A: Address> Many<A> {
    #[inline]
    fn bucket(&self, addr: A) -> &Bucket<A> {
        self.by_number(self.starts.numbers[self.starts.starts.find(addr)] as usize)
    }

    #[inline(always)]
    fn by_number(&self, number: usize) -> &Bucket<A> {
        &self.pages[number / PAGE].0[number % PAGE]
    }
}

impl<A: Address> Bucket<A> {
    #[inline(always)]
    fn or_around(&self, value: u32) -> u32 {
        select_unpredictable(value == NONE, self.around, value)
    }
}
