//! Sorted keys and their values in one piece of memory.
//!
//! ```text
//!  number of keys, width of values │ keys │ values: two bytes each, or four where there are
//!                                           too many next hops
//! ```
//!
//! The search has no branch that depends on what is found: nobody could foretell it, and the
//! processor would not be ahead in the next lookup.

use std::fmt::Debug;
use std::hint::select_unpredictable;
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

/// The first word of a leaf.
#[derive(Clone, Copy)]
pub(super) struct Head {
    /// Number of keys, up to 511.
    pub(super) keys: usize,
    /// Values take four bytes.
    pub(super) long: bool,
    /// What the owner put there.
    pub(super) own: u32,
}

const COUNT: u32 = 0x1ff;
const LONG: u32 = 1 << 9;
const OWN: usize = 16;

impl Head {
    #[inline(always)]
    pub(super) fn of<K: Key>(word: K) -> Self {
        let head = word.bits_from(0);
        Self { keys: (head & COUNT) as usize, long: head & LONG != 0, own: head >> OWN }
    }
}

/// The first word of a leaf with these values, and the last ones.
pub(super) fn pack<K: Key>(values: &[u32], own: u32) -> (K, Vec<K>) {
    let long = values.iter().any(|v| *v != NONE && *v >= u32::from(u16::MAX));
    let width = if long { 32 } else { 16 };
    let mask = u32::MAX >> (32 - width);
    let packed = values.chunks(K::BITS / width).map(|some| {
        let put = |word: K, (i, v): (usize, &u32)| word.with(*v & mask, i * width);
        some.iter().enumerate().fold(K::of(0), put)
    });
    let head = values.len() as u32 | if long { LONG } else { 0 };
    (K::of(u64::from(head | own << OWN)), packed.collect())
}

/// One of the values of a leaf.
#[inline(always)]
pub(super) fn value<K: Key>(packed: &[K], at: usize, long: bool) -> u32 {
    let width = if long { 32 } else { 16 };
    let mask = u32::MAX >> (32 - width);
    let bit = at * width;
    let value = packed[bit / K::BITS].bits_from(bit % K::BITS) & mask;
    select_unpredictable(value == mask, NONE, value)
}

/// Keys and their values.
#[derive(Clone, Debug)]
pub(super) struct Leaf<K>(Arc<[K]>);

impl<K: Key> Leaf<K> {
    /// The first key is not above any that is looked for.
    pub(super) fn build(keys: &[K], values: &[u32]) -> Self {
        let (head, packed) = pack(values, 0);
        let mut words = Vec::with_capacity(1 + keys.len() + packed.len());
        words.push(head);
        words.extend_from_slice(keys);
        words.extend(packed);
        Self(words.into())
    }

    /// Value of the last key that is not above this.
    #[inline(always)]
    pub(super) fn find(&self, key: K) -> u32 {
        let head = Head::of(self.0[0]);
        let (keys, values) = self.0[1..].split_at(head.keys);
        value(values, last_up_to(keys, key), head.long)
    }

    pub(super) fn bytes(&self) -> usize {
        // With the two counts in front of them.
        16 + size_of_val(&*self.0)
    }
}

/// The last of the keys that is not above another; the first is not.
#[inline(always)]
pub(super) fn last_up_to<K: Key>(keys: &[K], key: K) -> usize {
    let (mut from, mut keys) = (0, keys);
    while keys.len() >= 256 {
        let half = keys.len() / 2;
        let begin = select_unpredictable(keys[half] <= key, half, 0);
        from += begin;
        keys = &keys[begin..][..keys.len() - half];
    }
    let at = match keys.len() {
        128.. => of_power::<K, 128>(keys, key),
        64.. => of_power::<K, 64>(keys, key),
        32.. => of_power::<K, 32>(keys, key),
        16.. => of_power::<K, 16>(keys, key),
        8.. => of_power::<K, 8>(keys, key),
        4.. => of_power::<K, 4>(keys, key),
        2.. => of_power::<K, 2>(keys, key),
        _ => 0,
    };
    from + at
}

/// Of `N` keys or more, but not twice as many; `N` is a power of two, so that each step is
/// known when this is compiled.
#[inline(always)]
fn of_power<K: Key, const N: usize>(keys: &[K], key: K) -> usize {
    let rest = keys.len() - N;
    let begin = select_unpredictable(keys[rest] <= key, rest, 0);
    let window = &keys[begin..][..N];
    let (mut last, mut half) = (0, N / 2);
    while half > 0 {
        let next = last | half;
        last = select_unpredictable(window[next % N] <= key, next, last);
        half /= 2;
    }
    begin + last
}
