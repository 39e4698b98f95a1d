//! Sorted keys and their values in one piece of memory.
//!
//! ```text
//!  number of keys, width of values │ keys │ values: two bytes each, or four where there are
//!                                           too many next hops
//! ```
//!
//! The search is the standard library's, which has no branch that depends on what is found:
//! nobody could foretell it, and the processor would not be ahead in the next lookup.

use std::fmt::Debug;
use std::sync::Arc;

use super::ranges::NONE;

/// What is sorted: a number, and a word of a table's memory.
pub(super) trait Key: Copy + Ord + Debug + Send + Sync + 'static {
    const BITS: usize;
    /// The lowest bits.
    fn of(number: u64) -> Self;
    /// The lowest 32 bits of what is left when so many are cut off.
    fn bits_from(self, shift: usize) -> u32;
    /// With a number's bits set from there on.
    fn with(self, number: u32, shift: usize) -> Self;
}

macro_rules! key {
    ($t:ty) => {
        impl Key for $t {
            const BITS: usize = <$t>::BITS as usize;
            #[inline(always)]
            fn of(number: u64) -> Self {
                number as $t
            }
            #[inline(always)]
            fn bits_from(self, shift: usize) -> u32 {
                (self >> shift) as u32
            }
            fn with(self, number: u32, shift: usize) -> Self {
                self | <$t>::from(number) << shift
            }
        }
    };
}
key!(u32);
key!(u64);
key!(u128);

/// Up to [`COUNT`] keys and their values.
#[derive(Clone, Debug)]
pub(super) struct Leaf<K>(Arc<[K]>);

/// Bits of the first word: number of keys, values take four bytes, and what is left is the
/// owner's.
const COUNT: u32 = 0x1ff;
const LONG: u32 = 1 << 9;
const OWN: usize = 16;

impl<K: Key> Leaf<K> {
    /// The first key is not above any that is looked for.
    pub(super) fn build(keys: &[K], values: &[u32], own: u32) -> Self {
        let long = values.iter().any(|v| *v != NONE && *v >= u32::from(u16::MAX));
        let width = if long { 32 } else { 16 };
        let head = keys.len() as u32 | if long { LONG } else { 0 };
        let packed = values.chunks(K::BITS / width).map(|some| {
            let put = |word: K, (i, v): (usize, &u32)| {
                word.with(*v & (u32::MAX >> (32 - width)), i * width)
            };
            some.iter().enumerate().fold(K::of(0), put)
        });
        let words = [K::of(u64::from(head)).with(own, OWN)].into_iter();
        let words = words.chain(keys.iter().copied()).chain(packed);
        Self(words.collect::<Vec<K>>().into())
    }

    #[inline(always)]
    pub(super) fn own(&self) -> u32 {
        self.0[0].bits_from(OWN)
    }

    /// Value of the last key that is not above this.
    #[inline(always)]
    pub(super) fn find(&self, key: K) -> u32 {
        let words = &*self.0;
        let head = words[0].bits_from(0);
        let n = (head & COUNT) as usize;
        let (keys, values) = words[1..].split_at(n);
        let at = keys.partition_point(|k| *k <= key).wrapping_sub(1);
        let width = if head & LONG == 0 { 16 } else { 32 };
        let bit = at * width;
        let word = values[bit / K::BITS];
        let value = word.bits_from(bit % K::BITS) & (u32::MAX >> (32 - width));
        if value == u32::MAX >> (32 - width) { NONE } else { value }
    }

    pub(super) fn bytes(&self) -> usize {
        // With the two counts in front of them.
        16 + size_of_val(&*self.0)
    }
}
