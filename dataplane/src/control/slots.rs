//! Dense numbers for things that come and go, with a generation for each use.

use std::collections::BTreeSet;

/// Entries by index; an index that is used again has another generation.
#[derive(Debug)]
pub struct Slots<T> {
    entries: Vec<(u32, Option<T>)>,
    /// Indexes below `entries.len()` that are free; the least is given away first.
    free: BTreeSet<usize>,
    limit: usize,
    used: usize,
}

impl<T> Slots<T> {
    /// Room for `limit` entries.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { entries: Vec::new(), free: BTreeSet::new(), limit, used: 0 }
    }

    /// The index and generation that the next [`Self::put`] will use, or None when full.
    #[must_use]
    pub fn next(&self) -> Option<(usize, u32)> {
        match self.free.first() {
            Some(&i) => Some((i, self.entries[i].0)),
            None if self.entries.len() < self.limit => Some((self.entries.len(), 1)),
            None => None,
        }
    }

    /// Puts an entry where [`Self::next`] said.
    ///
    /// # Panics
    /// If all slots are taken: the caller asked [`Self::next`] before.
    pub fn put(&mut self, entry: T) {
        let (i, generation) = self.next().expect("next() was asked before");
        if i == self.entries.len() {
            self.entries.push((generation, None));
        }
        self.free.remove(&i);
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
        *generation = generation.checked_add(1).unwrap_or(1);
        self.free.insert(index);
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
        let mut slots = Slots::new(2);
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
        let mut slots = Slots::new(1);
        slots.put("a");
        assert_eq!(slots.hold(0), Some("a"));
        assert_eq!((slots.get(0), slots.count(), slots.next()), (None, 0, None));
        slots.release(0);
        assert_eq!(slots.next(), Some((0, 2)));
    }
}
