//! An address as a number, and what a block of them is looked up in.

use std::fmt::Debug;

use super::fan::{FanKeys, FanLeaf};
use super::ranges::Block;
use super::sorted::{Leaf, last_up_to};

/// What prefixes and ranges are made of.
pub(super) trait Address: Copy + Ord + Debug + Send + Sync + 'static {
    const BITS: u32;
    const ZERO: Self;
    /// The host bits of a prefix of `len` bits, all set.
    fn host_bits(len: u32) -> Self;
    /// The bit after the first `before`, alone.
    fn bit(before: u32) -> Self;
    fn and_not(self, other: Self) -> Self;
    fn or(self, other: Self) -> Self;
    fn xor(self, other: Self) -> Self;
    /// The next address; None after the last.
    fn next(self) -> Option<Self>;
    /// Ranges of a block.
    type Ranges: Ranges<Self>;
    /// Where blocks start.
    type Starts: Starts<Self>;
}

macro_rules! address {
    ($t:ty, $ranges:ty, $starts:ty) => {
        impl Address for $t {
            const BITS: u32 = <$t>::BITS;
            const ZERO: Self = 0;
            fn host_bits(len: u32) -> Self {
                <$t>::MAX.checked_shr(len).unwrap_or(0)
            }
            fn bit(before: u32) -> Self {
                1 << (<$t>::BITS - 1 - before)
            }
            #[inline]
            fn and_not(self, other: Self) -> Self {
                self & !other
            }
            fn or(self, other: Self) -> Self {
                self | other
            }
            fn xor(self, other: Self) -> Self {
                self ^ other
            }
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
            type Ranges = $ranges;
            type Starts = $starts;
        }
    };
}
address!(u32, Leaf<u32>, Box<[u32]>);
address!(u128, Ranges6, Starts6);

/// Ranges as they are looked up.
pub(super) trait Ranges<A>: Clone + Debug + Send + Sync {
    /// The first starts where the block does.
    fn of(block: Block<A>, starts: &[A], values: &[u32]) -> Self;
    /// Value of an address of the block.
    fn value(&self, addr: A) -> u32;
    fn bytes(&self) -> usize;
}

/// Starts as they are looked up; the first is zero.
pub(super) trait Starts<A>: Clone + Debug + Send + Sync {
    fn of(starts: impl ExactSizeIterator<Item = A> + Clone) -> Self;
    /// The last that is not above the address.
    fn find(&self, addr: A) -> usize;
    fn bytes(&self) -> usize;
}

impl Ranges<u32> for Leaf<u32> {
    fn of(_: Block<u32>, starts: &[u32], values: &[u32]) -> Self {
        Self::build(starts, values)
    }
    #[inline(always)]
    fn value(&self, addr: u32) -> u32 {
        self.find(addr)
    }
    fn bytes(&self) -> usize {
        Self::bytes(self)
    }
}

impl Starts<u32> for Box<[u32]> {
    fn of(starts: impl ExactSizeIterator<Item = u32> + Clone) -> Self {
        starts.collect()
    }
    #[inline(always)]
    fn find(&self, addr: u32) -> usize {
        last_up_to(self, addr)
    }
    fn bytes(&self) -> usize {
        size_of_val(&**self)
    }
}

/// Of a block's addresses the 64 bits behind its own tell ranges apart, if there is no
/// longer prefix in it than that: then ranges are half as large, and sooner compared.
#[derive(Clone, Debug)]
pub(super) enum Ranges6 {
    Short(FanLeaf),
    Long(Leaf<u128>),
}

impl Ranges<u128> for Ranges6 {
    fn of(block: Block<u128>, starts: &[u128], values: &[u32]) -> Self {
        let shift = 64_u32.saturating_sub(block.len.into());
        if starts.iter().any(|s| s.trailing_zeros() < shift) {
            return Self::Long(Leaf::build(starts, values));
        }
        let keys: Vec<u64> = starts.iter().map(|s| (s >> shift) as u64).collect();
        Self::Short(FanLeaf::build(&keys, values, shift))
    }
    #[inline(always)]
    fn value(&self, addr: u128) -> u32 {
        match self {
            Self::Short(leaf) => leaf.find(|shift| (addr >> (shift % 128)) as u64),
            Self::Long(leaf) => leaf.find(addr),
        }
    }
    fn bytes(&self) -> usize {
        match self {
            Self::Short(leaf) => leaf.bytes(),
            Self::Long(leaf) => leaf.bytes(),
        }
    }
}

/// Likewise, where no block is longer than 64 bits.
#[derive(Clone, Debug)]
pub(super) enum Starts6 {
    Short(FanKeys),
    Long(Box<[u128]>),
}

impl Starts<u128> for Starts6 {
    fn of(starts: impl ExactSizeIterator<Item = u128> + Clone) -> Self {
        if starts.clone().any(|s| s.trailing_zeros() < 64) {
            return Self::Long(starts.collect());
        }
        let keys: Vec<u64> = starts.map(|s| (s >> 64) as u64).collect();
        Self::Short(FanKeys::build(&keys))
    }
    #[inline(always)]
    fn find(&self, addr: u128) -> usize {
        match self {
            Self::Short(keys) => keys.find((addr >> 64) as u64),
            Self::Long(keys) => last_up_to(keys, addr),
        }
    }
    fn bytes(&self) -> usize {
        match self {
            Self::Short(keys) => keys.bytes(),
            Self::Long(keys) => size_of_val(&**keys),
        }
    }
}
