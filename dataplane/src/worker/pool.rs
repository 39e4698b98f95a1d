//! A worker's free frames.

use std::sync::Arc;

use arrayvec::ArrayVec;

use super::io::BATCH;
use crate::port::Depot;

/// Free frames, kept between two marks by exchanging magazines with the depot
/// that all threads share.
pub(super) struct Pool<F> {
    free: Vec<F>,
    low: usize,
    high: usize,
    depot: Arc<Depot<F>>,
}

impl<F> Pool<F> {
    /// An empty pool. `frames` is how many there are in all: with room for them
    /// the pool never grows.
    pub(super) fn new(frames: usize, low: usize, high: usize, depot: Arc<Depot<F>>) -> Self {
        // Below this a magazine given away would be fetched back at once.
        let high = high.max(low + 2 * BATCH);
        Self { free: Vec::with_capacity(frames), low, high, depot }
    }

    pub(super) fn len(&self) -> usize {
        self.free.len()
    }

    pub(super) fn free(&mut self) -> &mut Vec<F> {
        &mut self.free
    }

    pub(super) fn put(&mut self, frame: F) {
        self.free.push(frame);
    }

    /// A free frame, from the depot where the pool is empty.
    pub(super) fn take(&mut self) -> Option<F> {
        if self.free.is_empty() {
            self.fetch();
        }
        self.free.pop()
    }

    /// Fetches magazines below the low mark, gives some away above the high one.
    pub(super) fn balance(&mut self) {
        while self.free.len() < self.low && self.fetch() {}
        while self.free.len() > self.high && self.give_magazine() {}
    }

    /// Fetches a magazine from the depot; false where it has none.
    pub(super) fn fetch(&mut self) -> bool {
        let Some(magazine) = self.depot.pop() else {
            return false;
        };
        self.free.extend(magazine);
        true
    }

    /// Gives everything to the depot, as far as there is room.
    pub(super) fn give_all(&mut self) {
        while !self.free.is_empty() && self.give_magazine() {}
    }

    /// False, with the frames back in the pool, where the depot is full.
    fn give_magazine(&mut self) -> bool {
        let from = self.free.len().saturating_sub(BATCH);
        let magazine: ArrayVec<F, BATCH> = self.free.drain(from..).collect();
        match self.depot.push(magazine) {
            Ok(()) => true,
            Err(magazine) => {
                self.free.extend(magazine);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_between_its_marks_while_the_depot_can_help() {
        let depot = Arc::new(Depot::new(3));
        let mut a = Pool::new(1000, 100, 300, Arc::clone(&depot));
        let mut b = Pool::new(1000, 100, 300, Arc::clone(&depot));
        (0..420).for_each(|n| a.put(n));
        a.balance();
        assert_eq!((a.len(), depot.len()), (292, 2));
        b.balance();
        assert_eq!((b.len(), depot.len()), (128, 0));
        (0..400).for_each(|n| a.put(n));
        a.balance();
        assert_eq!((a.len(), depot.len()), (692 - 3 * 64, 3), "a full depot takes no more");
        depot.pop();
        b.give_all();
        assert_eq!((b.len(), depot.len()), (64, 3));
    }
}
