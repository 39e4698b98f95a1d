//! Sorted, disjoint ranges over a block of addresses.
//!
//! ```text
//!  10.0.0.0/8 -> 1, 10.1.0.0/16 -> 2      starts  0.0.0.0 10.0.0.0 10.1.0.0 10.2.0.0 11.0.0.0
//!                                         values  none    1        2        1        none
//! ```
//!
//! Where there are many, an index over the first bits behind the block's own narrows
//! the search (the idea of DXR: Zec, Rizzo, Mikuc, 2012).

use super::address::Address;

/// Value of a range that no route covers.
pub(super) const NONE: u32 = u32::MAX;

/// A block of addresses: a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block<A> {
    pub(super) first: A,
    pub(super) len: u8,
}

impl<A: Address> Block<A> {
    /// All addresses.
    pub(super) const ALL: Self = Self { first: A::ZERO, len: 0 };

    pub(super) fn last(self) -> A {
        self.first.or(A::host_bits(u32::from(self.len)))
    }

    /// It has more than one address.
    pub(super) fn halves(self) -> [Self; 2] {
        let high = self.first.or(A::bit(u32::from(self.len)));
        [self.first, high].map(|first| Self { first, len: self.len + 1 })
    }

    pub(super) fn contains(self, addr: A) -> bool {
        addr.and_not(A::host_bits(u32::from(self.len))) == self.first
    }
}

/// A prefix and its value.
pub(super) type Route<A> = (A, u8, u32);

/// Ranges of one block. Empty, or the first range starts where the block does.
#[derive(Clone, Debug)]
pub(super) struct Ranges<A> {
    starts: Box<[A]>,
    values: Box<[u32]>,
    /// For each value of the bits looked at, and one more: the range that holds its
    /// first address. Empty where there are few ranges, or too many to number.
    index: Box<[u16]>,
    /// The lowest of these bits.
    shift: u32,
}

impl<A> Default for Ranges<A> {
    fn default() -> Self {
        Self { starts: Box::default(), values: Box::default(), index: Box::default(), shift: 0 }
    }
}

impl<A: Address> Ranges<A> {
    /// From the prefixes inside of a block: sorted, each once, without host bits.
    /// `index_from`: with how many ranges there is an index.
    pub(super) fn build(
        block: Block<A>,
        routes: impl ExactSizeIterator<Item = Route<A>>,
        index_from: usize,
    ) -> Self {
        let mut flat = Flat::new(block, routes.len());
        // The prefixes that contain the current one, outermost first: last address, value.
        let mut around: Vec<(A, u32)> = Vec::new();
        for (addr, len, value) in routes {
            flat.close(&mut around, |last| last < addr);
            flat.push(addr, value);
            around.push((addr.or(A::host_bits(u32::from(len))), value));
        }
        flat.close(&mut around, |_| true);
        Self::indexed(block, flat.starts, flat.values, index_from)
    }

    /// Over all addresses, from where values begin. The first start is address zero.
    pub(super) fn of_starts(starts: impl ExactSizeIterator<Item = (A, u32)>) -> Self {
        let (starts, values) = starts.unzip();
        Self::indexed(Block::ALL, starts, values, 0)
    }

    fn indexed(block: Block<A>, starts: Vec<A>, values: Vec<u32>, index_from: usize) -> Self {
        let ranges = starts.len();
        let (mut index, mut shift) = (Vec::new(), 0);
        if ranges > 2 && ranges >= index_from && ranges <= usize::from(u16::MAX) {
            let bits = ranges.ilog2().min(A::BITS - u32::from(block.len));
            shift = A::BITS - u32::from(block.len) - bits;
            index.reserve_exact((1 << bits) + 1);
            let mut range = 0_u16;
            let first = block.first.above(shift);
            for slot in 0..1_u32 << bits {
                // The first range that starts behind the slot's first address ends the search.
                while let Some(next) = starts.get(usize::from(range) + 1) {
                    let at = next.above(shift).wrapping_sub(first);
                    let aligned = *next == next.and_not(A::host_bits(A::BITS - shift));
                    if at < slot || (at == slot && aligned) {
                        range += 1;
                    } else {
                        break;
                    }
                }
                index.push(range);
            }
            index.push(ranges as u16 - 1);
        }
        Self { starts: starts.into(), values: values.into(), index: index.into(), shift }
    }

    /// Value of an address of the block.
    #[inline]
    pub(super) fn value(&self, addr: A) -> u32 {
        self.within(self.narrow(addr), addr)
    }

    /// The ranges to search.
    #[inline]
    pub(super) fn narrow(&self, addr: A) -> (usize, usize) {
        if self.index.is_empty() {
            return (0, self.starts.len());
        }
        let slots = self.index.len() - 1;
        // As many slots as a power of two: the bits above are the block's.
        let slot = addr.above(self.shift) as usize & (slots - 1);
        (usize::from(self.index[slot]), usize::from(self.index[slot + 1]) + 1)
    }

    #[inline]
    pub(super) fn within(&self, (from, to): (usize, usize), addr: A) -> u32 {
        // The first of the ranges looked at starts at or before the address.
        let after = self.starts[from..to].partition_point(|&start| start <= addr);
        let range = (from + after).wrapping_sub(1);
        self.values.get(range).copied().unwrap_or(NONE)
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.starts) + size_of_val(&*self.values) + size_of_val(&*self.index)
    }

    #[cfg(test)]
    pub(super) fn is_indexed(&self) -> bool {
        !self.index.is_empty()
    }
}

/// Ranges while they are laid down from left to right.
struct Flat<A> {
    block: Block<A>,
    starts: Vec<A>,
    values: Vec<u32>,
}

impl<A: Address> Flat<A> {
    fn new(block: Block<A>, routes: usize) -> Self {
        let room = routes + routes / 4 + 1;
        let (starts, values) = (Vec::with_capacity(room), Vec::with_capacity(room));
        let mut flat = Self { block, starts, values };
        if routes > 0 {
            flat.push(block.first, NONE);
        }
        flat
    }

    /// From `start` on it is `value`; what was said of the same start before does not count.
    fn push(&mut self, start: A, value: u32) {
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.values.pop();
        }
        if self.values.last() != Some(&value) {
            self.starts.push(start);
            self.values.push(value);
        }
    }

    /// Ends the inner prefixes whose last address `ended` says so of: after each,
    /// it is the next outer one's value again.
    fn close(&mut self, around: &mut Vec<(A, u32)>, ended: impl Fn(A) -> bool) {
        while let Some(&(last, _)) = around.last()
            && ended(last)
        {
            around.pop();
            if let Some(next) = last.next()
                && self.block.contains(next)
            {
                self.push(next, around.last().map_or(NONE, |&(_, value)| value));
            }
        }
    }
}
