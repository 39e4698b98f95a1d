//! Dense numbers for things that come and go, with a generation for each use.

/// Entries by index; an index that is used again has another generation.
#[derive(Debug)]
pub struct Slots<T> {
    entries: Vec<(u32, Option<T>)>,
    limit: usize,
}

impl<T> Slots<T> {
    /// Room for `limit` entries.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { entries: Vec::new(), limit }
    }

    /// The index and generation that the next [`Self::put`] will use, or None when full.
    #[must_use]
    pub fn next(&self) -> Option<(usize, u32)> {
        match self.entries.iter().position(|(_, e)| e.is_none()) {
            Some(i) => Some((i, self.entries[i].0)),
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
        self.entries[i].1 = Some(entry);
    }

    /// Takes an entry out; its index gets the next generation.
    pub fn take(&mut self, index: usize) -> Option<T> {
        let (generation, entry) = self.entries.get_mut(index)?;
        let taken = entry.take()?;
        // 0 is what an empty map entry holds: never a generation.
        *generation = generation.checked_add(1).unwrap_or(1);
        Some(taken)
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
        self.iter().count()
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
}
