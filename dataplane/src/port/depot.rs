//! Free frames that threads exchange.

use std::sync::atomic::{AtomicUsize, Ordering};

use arrayvec::ArrayVec;
use crossbeam::queue::ArrayQueue;

use super::BATCH;

/// Free frames that one thread has too many of and another may need, in magazines of
/// one batch. It has few places: give full magazines. It knows how many frames are
/// in it, so that all frames can be accounted for.
#[derive(Debug)]
pub struct Depot<F> {
    magazines: ArrayQueue<ArrayVec<F, BATCH>>,
    frames: AtomicUsize,
}

impl<F> Depot<F> {
    /// An empty depot with so many places.
    ///
    /// # Panics
    /// With no place: our bug.
    #[must_use]
    pub fn new(places: usize) -> Self {
        Self { magazines: ArrayQueue::new(places), frames: AtomicUsize::new(0) }
    }

    /// Gives a magazine.
    ///
    /// # Errors
    /// The magazine itself, where every place is taken.
    pub fn push(&self, magazine: ArrayVec<F, BATCH>) -> Result<(), ArrayVec<F, BATCH>> {
        // Counted first: whoever takes it at once must not count below zero.
        let frames = magazine.len();
        self.frames.fetch_add(frames, Ordering::Relaxed);
        self.magazines.push(magazine).inspect_err(|_| {
            self.frames.fetch_sub(frames, Ordering::Relaxed);
        })
    }

    /// Takes a magazine; None where there is none.
    pub fn pop(&self) -> Option<ArrayVec<F, BATCH>> {
        let magazine = self.magazines.pop()?;
        self.frames.fetch_sub(magazine.len(), Ordering::Relaxed);
        Some(magazine)
    }

    /// Magazines that are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.magazines.len()
    }

    /// No magazine is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.magazines.is_empty()
    }

    /// Frames that are in it, as of a moment ago.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.frames.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_in_and_out() {
        let depot = Depot::new(2);
        let magazine = |n: u32| (0..n).collect::<ArrayVec<u32, BATCH>>();
        assert!(depot.push(magazine(64)).is_ok());
        assert!(depot.push(magazine(3)).is_ok());
        assert_eq!(depot.push(magazine(5)).map_err(|m| m.len()), Err(5), "full");
        assert_eq!((depot.len(), depot.frames()), (2, 67));
        assert_eq!(depot.pop().map(|m| m.len()), Some(64));
        assert_eq!(depot.frames(), 3);
        assert!(depot.pop().is_some() && depot.pop().is_none() && depot.is_empty());
        assert_eq!(depot.frames(), 0);
    }
}
