//! Sorted 64-bit keys under every eighth of them, and so on: one search looks into as many
//! lines of memory as there are levels.
//!
//! ```text
//!  8 at most     ┌ every 8th of those below ... ┌ every 8th key
//!                └ each level filled up to a multiple of eight with the highest key
//! ```
//!
//! Eight keys are compared at a time: one line, one instruction where the processor has it.

use std::sync::Arc;

use super::sorted::{Head, pack, value};

/// Keys that are compared at a time.
const FAN: usize = 8;

/// The last of a level's keys that is not above `key`, of the eight below key `above` of the
/// level above.
#[inline(always)]
fn down(words: &[u64], (at, n): (usize, usize), above: usize, key: u64) -> usize {
    let window = &words[at + above * FAN..][..FAN];
    // As a subtraction's borrow: comparisons would be counted one by one.
    let above_it = |k: u64| ((!key & k) | ((!key | k) & key.wrapping_sub(k))) >> 63;
    let count = FAN - window.iter().map(|k| above_it(*k)).sum::<u64>() as usize;
    // The filling is not above the highest key.
    (above * FAN + count).min(n).wrapping_sub(1)
}

/// Levels of these keys, the smallest first, each where it begins and its length; behind
/// what `words` has.
fn lay(keys: &[u64], words: &mut Vec<u64>, levels: usize) -> Vec<(u32, u32)> {
    let mut all = vec![keys.to_vec()];
    while all.len() < levels || all[all.len() - 1].len() > FAN {
        all.push(all[all.len() - 1].iter().copied().step_by(FAN).collect());
    }
    let mut places = Vec::new();
    for level in all.iter().rev() {
        let begin = words.len();
        places.push((begin as u32, level.len() as u32));
        words.extend_from_slice(level);
        words.resize(begin + level.len().next_multiple_of(FAN), u64::MAX);
    }
    places
}

/// Up to 512 keys and their values.
#[derive(Clone, Debug)]
pub(super) struct FanLeaf(Arc<[u64]>);

impl FanLeaf {
    /// The first key is not above any that is looked for.
    pub(super) fn build(keys: &[u64], values: &[u32], own: u32) -> Self {
        let (head, packed) = pack::<u64>(values, own);
        let mut words = vec![head];
        lay(keys, &mut words, 3);
        words.extend(packed);
        Self(words.into())
    }

    /// Value of the last key that is not above one, which may depend on what the owner put
    /// there.
    #[inline(always)]
    pub(super) fn find(&self, key: impl FnOnce(u32) -> u64) -> u32 {
        let words = &*self.0;
        let head = Head::of(words[0]);
        let key = key(head.own);
        let n = head.keys;
        let (n1, n2) = (n.div_ceil(FAN), n.div_ceil(FAN * FAN));
        let second = 1 + FAN;
        let third = second + n1.next_multiple_of(FAN);
        let at = down(words, (1, n2), 0, key);
        let at = down(words, (second, n1), at, key);
        let at = down(words, (third, n), at, key);
        value(&words[third + n.next_multiple_of(FAN)..], at, head.long)
    }

    pub(super) fn bytes(&self) -> usize {
        16 + size_of_val(&*self.0)
    }
}

/// Any number of keys, and their places.
#[derive(Clone, Debug)]
pub(super) struct FanKeys {
    words: Box<[u64]>,
    levels: Box<[(u32, u32)]>,
}

impl FanKeys {
    /// The first key is not above any that is looked for.
    pub(super) fn build(keys: &[u64]) -> Self {
        let mut words = Vec::new();
        let levels = lay(keys, &mut words, 1).into();
        Self { words: words.into(), levels }
    }

    /// The last that is not above this.
    #[inline(always)]
    pub(super) fn find(&self, key: u64) -> usize {
        let mut at = 0;
        for (begin, n) in &self.levels {
            at = down(&self.words, (*begin as usize, *n as usize), at, key);
        }
        at
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.words) + size_of_val(&*self.levels)
    }
}
