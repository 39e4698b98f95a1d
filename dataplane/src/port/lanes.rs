//! Waiting packets, a lane for each namespace, over a bounded number of places.
//!
//! The places are one array that is made at the start; a lane is a list through it. So a
//! lane costs nothing while it is empty, and whoever serves the lanes may take from each in
//! turn, whatever the others hold. How many places one lane may take is not decided here
//! but before, by a [`super::Share`].

use super::Account;

const NONE: u32 = u32::MAX;

struct Place<T> {
    item: Option<T>,
    next: u32,
}

#[derive(Clone, Copy)]
struct Lane {
    first: u32,
    last: u32,
    len: u32,
}

const EMPTY: Lane = Lane { first: NONE, last: NONE, len: 0 };

/// The lanes.
pub struct Lanes<T> {
    places: Box<[Place<T>]>,
    free: u32,
    lanes: Vec<Lane>,
    len: usize,
}

impl<T> Lanes<T> {
    /// Empty lanes with so many places in all.
    ///
    /// # Panics
    /// With 2^32 - 1 places or more: our bug.
    #[must_use]
    pub fn new(places: usize) -> Self {
        assert!(u32::try_from(places).is_ok_and(|n| n < NONE), "a place's number is a u32");
        let next = |n: usize| if n + 1 < places { n as u32 + 1 } else { NONE };
        Self {
            places: (0..places).map(|n| Place { item: None, next: next(n) }).collect(),
            free: if places > 0 { 0 } else { NONE },
            lanes: Vec::new(),
            len: 0,
        }
    }

    /// Makes lanes for accounts below `accounts`. The only place that allocates.
    pub fn reserve(&mut self, accounts: usize) {
        if accounts > self.lanes.len() {
            self.lanes.resize(accounts, EMPTY);
        }
    }

    /// No place is left.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.free == NONE
    }

    /// Items in all lanes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Nothing of this account waits.
    #[must_use]
    pub fn lane_is_empty(&self, account: Account) -> bool {
        self.lanes.get(account.index()).is_none_or(|lane| lane.len == 0)
    }

    /// Puts an item at a lane's end; back where no place is left, or no lane was made.
    ///
    /// # Errors
    /// The item.
    pub fn push(&mut self, account: Account, item: T) -> Result<(), T> {
        let at = self.free;
        let (Some(lane), false) = (self.lanes.get_mut(account.index()), at == NONE) else {
            return Err(item);
        };
        let place = &mut self.places[at as usize];
        self.free = place.next;
        *place = Place { item: Some(item), next: NONE };
        if lane.len == 0 {
            lane.first = at;
        } else {
            self.places[lane.last as usize].next = at;
        }
        lane.last = at;
        lane.len += 1;
        self.len += 1;
        Ok(())
    }

    /// The first item of a lane, if `which` holds for it.
    pub fn pop_if(&mut self, account: Account, which: impl FnOnce(&T) -> bool) -> Option<T> {
        let lane = self.lanes.get_mut(account.index()).filter(|lane| lane.len > 0)?;
        let at = lane.first;
        let place = &mut self.places[at as usize];
        let item = place.item.take_if(|item| which(item))?;
        lane.first = place.next;
        lane.len -= 1;
        self.len -= 1;
        place.next = self.free;
        self.free = at;
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::id::NsId;

    fn account(n: u16) -> Account {
        Account::of(NsId { index: n, generation: 0 })
    }

    proptest! {
        /// As a queue each, that together have a limit.
        #[test]
        fn lanes_are_queues(
            places in 0..20_usize,
            steps in prop::collection::vec((0..4_u16, any::<bool>(), any::<u8>()), 0..200),
        ) {
            let mut lanes = Lanes::new(places);
            lanes.reserve(4);
            let mut model = vec![VecDeque::new(); 4];
            for (n, push, value) in steps {
                let total: usize = model.iter().map(VecDeque::len).sum();
                prop_assert_eq!((lanes.len(), lanes.is_full()), (total, total == places));
                let there = n < 3;
                let queue = &mut model[usize::from(n)];
                prop_assert_eq!(lanes.lane_is_empty(account(n)), queue.is_empty());
                if push {
                    let fits = there && total < places;
                    prop_assert_eq!(lanes.push(account(n), value).is_ok(), fits);
                    if fits {
                        queue.push_back(value);
                    }
                } else {
                    let even = |v: &u8| v.is_multiple_of(2);
                        let first = if value % 3 == 0 { queue.front().copied().filter(even) } else { queue.front().copied() };
                    let got = lanes.pop_if(account(n), |v| value % 3 != 0 || even(v));
                        prop_assert_eq!(got, first);
                    if first.is_some() {
                        queue.pop_front();
                    }
                }
            }
        }
    }
}
