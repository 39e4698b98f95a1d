//! Sorted, disjoint ranges over a block of addresses.
//!
//! ```text
//!  10.0.0.0/8 -> 1, 10.1.0.0/16 -> 2      starts  0.0.0.0 10.0.0.0 10.1.0.0 10.2.0.0 11.0.0.0
//!                                         values  none    1        2        1        none
//! ```

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

/// The ranges of one block, from the prefixes inside of it: sorted, each once, without host
/// bits. The first starts where the block does.
pub(super) fn ranges<A: Address>(
    block: Block<A>,
    routes: impl ExactSizeIterator<Item = Route<A>>,
) -> (Vec<A>, Vec<u32>) {
    let mut flat = Flat::new(block, routes.len());
    // The prefixes that contain the current one, outermost first: last address, value.
    let mut around: Vec<(A, u32)> = Vec::new();
    for (addr, len, value) in routes {
        flat.close(&mut around, |last| last < addr);
        flat.push(addr, value);
        around.push((addr.or(A::host_bits(u32::from(len))), value));
    }
    flat.close(&mut around, |_| true);
    (flat.starts, flat.values)
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
        flat.push(block.first, NONE);
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
