//! Dense numbers for things that come and go, with a generation for each use.

use std::collections::VecDeque;

/// Entries by index; an index that is used again has another generation.
///
/// Where generations are told apart by fewer than 32 bits, they begin anew after so many uses
/// of one index. So that this takes as long as it can, the index that has been free
/// for the longest time is given away first, and some are left to rest: the present
/// use of an index, and the one before, are never of the same generation, and between
/// two that are lie at least `REST` times as many uses as there are generations.
#[derive(Debug)]
pub struct Slots<T> {
    entries: Vec<(u32, Option<T>)>,
    /// Indexes below `entries.len()` that are free, the longest free first.
    free: VecDeque<usize>,
    limit: usize,
    last_generation: u32,
    used: usize,
}

/// Free indexes that are left to rest while there is room for more entries.
const REST: usize = 16;

impl<T> Slots<T> {
    /// Room for `limit` entries, with generations from 1 to `last_generation`.
    #[must_use]
    pub fn new(limit: usize, last_generation: u32) -> Self {
        Self { entries: Vec::new(), free: VecDeque::new(), limit, last_generation, used: 0 }
    }

    /// The index and generation that the next [`Self::put`] will use, or None when full.
    #[must_use]
    pub fn next(&self) -> Option<(usize, u32)> {
        if self.free.len() < REST && self.entries.len() < self.limit {
            return Some((self.entries.len(), 1));
        }
        self.free.front().map(|&i| (i, self.entries[i].0))
    }

    /// Puts an entry where [`Self::next`] said.
    ///
    /// # Panics
    /// If all slots are taken: the caller asked [`Self::next`] before.
    pub fn put(&mut self, entry: T) {
        let (i, generation) = self.next().expect("next() was asked before");
        if i == self.entries.len() {
            self.entries.push((generation, None));
        } else {
            self.free.pop_front();
        }
        self.entries[i].1 = Some(entry);
        self.used += 1;
    }

    /// Takes an entry out; its index gets the next generation.
    pub fn take(&mut self, index: usize) -> Option<T> {
        let taken = self.hold(index)?;
        self.release(index);
        Some(taken)
    }

    /// Takes an entry out, but leaves its index taken, until [`Self::release`].
    pub fn hold(&mut self, index: usize) -> Option<T> {
        let taken = self.entries.get_mut(index)?.1.take()?;
        self.used -= 1;
        Some(taken)
    }

    /// Frees an index whose entry was taken out by [`Self::hold`].
    pub fn release(&mut self, index: usize) {
        let (generation, entry) = &mut self.entries[index];
        debug_assert!(entry.is_none(), "it is in use");
        // 0 is what an empty map entry holds: never a generation.
        *generation = if *generation < self.last_generation { *generation + 1 } else { 1 };
        self.free.push_back(index);
    }

    /// The generation of an index's present use, or of its next.
    #[must_use]
    pub fn generation(&self, index: usize) -> u32 {
        self.entries.get(index).map_or(1, |(g, _)| *g)
    }

    /// An entry.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&T> {
        self.entries.get(index)?.1.as_ref()
    }

    /// An entry, to be changed.
    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.entries.get_mut(index)?.1.as_mut()
    }

    /// All entries with their indexes.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.entries.iter().enumerate().filter_map(|(i, (_, e))| Some((i, e.as_ref()?)))
    }

    /// Number of entries.
    #[must_use]
    pub fn count(&self) -> usize {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_used_again_has_another_generation() {
        let mut slots = Slots::new(2, u32::MAX);
        assert_eq!(slots.next(), Some((0, 1)));
        slots.put("a");
        assert_eq!(slots.next(), Some((1, 1)));
        slots.put("b");
        assert_eq!(slots.next(), None);
        assert_eq!(slots.take(0), Some("a"));
        assert_eq!(slots.take(0), None);
        assert_eq!(slots.next(), Some((0, 2)));
        assert_eq!(slots.count(), 1);
    }

    #[test]
    fn a_held_index_is_nobodys() {
        let mut slots = Slots::new(1, u32::MAX);
        slots.put("a");
        assert_eq!(slots.hold(0), Some("a"));
        assert_eq!((slots.get(0), slots.count(), slots.next()), (None, 0, None));
        slots.release(0);
        assert_eq!(slots.next(), Some((0, 2)));
    }

    #[test]
    fn a_generation_comes_again_late_and_is_never_zero() {
        let mut slots = Slots::new(100, 3);
        let mut seen = Vec::new();
        for _ in 0..4 * REST {
            let (index, generation) = slots.next().unwrap();
            assert!((1..=3).contains(&generation));
            seen.push((index, generation));
            slots.put(());
            slots.take(index);
        }
        let again = seen.iter().skip(1).position(|use_| *use_ == seen[0]);
        assert_eq!(again, Some(3 * REST - 1));
    }
}
