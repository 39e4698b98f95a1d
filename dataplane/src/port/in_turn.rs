//! A queue that serves the namespaces one after the other: [`Lanes`] and whose turn it is.

use std::collections::VecDeque;

use super::{Account, Lanes};

/// Items of a turn. More than one, since turning to another namespace costs something.
const TURN: usize = 8;

/// The queue.
pub struct InTurn<T> {
    lanes: Lanes<T>,
    /// Who has something, in the order of their turns.
    robin: VecDeque<Account>,
    /// Items that the first has had of its turn.
    had: usize,
}

impl<T> InTurn<T> {
    /// An empty queue with so many places in all.
    #[must_use]
    pub fn new(places: usize) -> Self {
        Self { lanes: Lanes::new(places), robin: VecDeque::new(), had: 0 }
    }

    /// No place is left.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.lanes.is_full()
    }

    /// Puts an item behind the others of its account.
    ///
    /// # Errors
    /// The item, where no place is left.
    pub fn push(&mut self, account: Account, item: T) -> Result<(), T> {
        self.lanes.reserve(account.index() + 1);
        let first = self.lanes.lane_is_empty(account);
        self.lanes.push(account, item)?;
        if first {
            self.robin.push_back(account);
        }
        Ok(())
    }

    /// The next item.
    pub fn pop(&mut self) -> Option<T> {
        if self.had >= TURN {
            self.had = 0;
            self.robin.rotate_left(1.min(self.robin.len()));
        }
        let account = *self.robin.front()?;
        let item = self.lanes.pop_if(account, |_| true);
        self.had += 1;
        if self.lanes.lane_is_empty(account) {
            self.robin.pop_front();
            self.had = 0;
        }
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NsId;

    #[test]
    fn who_has_little_does_not_wait_for_who_has_much() {
        let account = |index| Account::of(NsId { index, generation: 0 });
        let mut queue = InTurn::new(1000);
        for n in 0..300 {
            for flooder in 0..3 {
                queue.push(account(flooder), (flooder, n)).unwrap();
            }
        }
        queue.push(account(7), (7, 0)).unwrap();
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order.iter().position(|&(who, _)| who == 7), Some(3 * TURN));
        let turns = order.chunks(TURN).take(3).map(|turn| turn[0]).collect::<Vec<_>>();
        assert_eq!(turns, [(0, 0), (1, 0), (2, 0)]);
        for flooder in 0..3 {
            let own = order.iter().filter(|(who, _)| *who == flooder).map(|&(_, n)| n);
            assert!(own.eq(0..300), "in order, and all of them");
        }
    }
}
