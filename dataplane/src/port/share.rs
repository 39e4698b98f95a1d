//! What each namespace may have of something that all use: places in a queue.
//!
//! A namespace may take a place as long as it has no more than `FACTOR` times as many as
//! are free (the dynamic threshold of switches' shared buffers: Choudhury and Hahne, 1998).
//! So one alone gets two thirds of the places; several that want everything get the same
//! each in the end, and leave half such a part free. Before it comes to that, while the
//! first still have more than that, an eighth of all places is only for who has `FEW`.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::id::NsId;

/// A namespace holds at most so many times the free places.
const FACTOR: u64 = 2;

/// So many places are given as long as there is one.
const FEW: u32 = 16;

/// Namespaces that are counted apart. Two whose indices differ by a multiple of it share
/// what one may have: neither gets too much by that.
const SLOTS: usize = 4096;

/// On whose account a packet goes: a namespace's, or nobody's.
///
/// The generation is not in it: the next user of an index goes on with the account of the
/// last, which its packets leave within moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Account(u16);

impl Account {
    /// The account of a port that belongs to no namespace (any more).
    pub const NOBODY: Self = Self(0);

    /// A namespace's account.
    #[must_use]
    pub fn of(ns: NsId) -> Self {
        // The largest index is never given away.
        Self(ns.index.saturating_add(1))
    }

    /// The account of an index.
    ///
    /// # Panics
    /// If there are no so many namespaces: our bug.
    #[must_use]
    pub fn at(index: usize) -> Self {
        Self(u16::try_from(index).expect("a namespace's index is a u16"))
    }

    /// The account as an index; nobody's is 0.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// How many of `want` more places one may take that has `own` of `taken`, where there are
/// `room` in all.
#[must_use]
pub fn allowed(room: u32, taken: u32, own: u32, want: u32) -> u32 {
    let free = u64::from((room - room / 8).saturating_sub(taken));
    // The most x with own + x <= FACTOR * (free - x), rounded up: one place is one place.
    let may = (FACTOR * free).saturating_sub(u64::from(own)).div_ceil(FACTOR + 1);
    let few = FEW.saturating_sub(own).min(room.saturating_sub(taken));
    u64::from(want).min(may.max(few.into())) as u32
}

/// Places that several threads fill and empty.
#[derive(Debug)]
pub struct Share {
    room: AtomicU32,
    taken: AtomicU32,
    of: Box<[AtomicU32]>,
}

impl Share {
    /// So many places for all.
    #[must_use]
    pub fn new(room: u32) -> Self {
        Self {
            room: AtomicU32::new(room),
            taken: AtomicU32::new(0),
            of: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Changes how many places there are. Who has more than that now keeps it.
    pub fn set_room(&self, room: u32) {
        self.room.store(room, Ordering::Relaxed);
    }

    fn slot(&self, account: Account) -> &AtomicU32 {
        &self.of[account.index() % SLOTS]
    }

    /// Takes at most `want` places; returns how many. Threads that do so at the same
    /// moment may take a few too many.
    #[must_use]
    pub fn enter(&self, account: Account, want: u32) -> u32 {
        // Relaxed throughout: these are counts; what is counted goes through queues.
        let own = self.slot(account);
        let room = self.room.load(Ordering::Relaxed);
        let taken = self.taken.load(Ordering::Relaxed);
        let may = allowed(room, taken, own.load(Ordering::Relaxed), want);
        if may > 0 {
            self.taken.fetch_add(may, Ordering::Relaxed);
            own.fetch_add(may, Ordering::Relaxed);
        }
        may
    }

    /// Gives places back.
    pub fn leave(&self, account: Account, count: u32) {
        self.taken.fetch_sub(count, Ordering::Relaxed);
        self.slot(account).fetch_sub(count, Ordering::Relaxed);
    }

    /// All places are taken: it is not the share that one's wish fails for.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.taken() >= self.room.load(Ordering::Relaxed)
    }

    /// So many more places would be given.
    #[must_use]
    pub fn has_room(&self, account: Account, want: u32) -> bool {
        let own = self.slot(account).load(Ordering::Relaxed);
        let taken = self.taken.load(Ordering::Relaxed);
        allowed(self.room.load(Ordering::Relaxed), taken, own, want) == want
    }

    /// Places taken.
    #[must_use]
    pub fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ns(index: u16) -> Account {
        Account::of(NsId { index, generation: 0 })
    }

    #[test]
    fn one_alone_gets_two_thirds_and_a_second_one_still_finds_room() {
        let share = Share::new(240);
        let got: u32 = (0..50).map(|_| share.enter(ns(0), 64)).sum();
        assert_eq!(got, 140);
        assert!(share.enter(ns(1), 10) == 10 && !share.has_room(ns(0), 1));
        share.leave(ns(0), 100);
        assert_eq!(share.enter(ns(0), 10), 10);
        share.leave(ns(0), 50);
        share.leave(ns(1), 10);
        assert_eq!(share.taken(), 0);
    }

    #[test]
    fn many_that_want_everything_leave_some_for_one_more() {
        for flooders in [1_u16, 5, 20, 100] {
            let share = Share::new(6144);
            let all = (0..flooders).map(ns);
            let mut got = 0;
            for _ in 0..10_000 {
                // Each wants everything, and each has one served.
                for flooder in all.clone() {
                    let _ = share.enter(flooder, 64);
                }
                got = share.enter(ns(flooders), FEW);
                share.leave(ns(flooders), got);
                all.clone().for_each(|flooder| share.leave(flooder, 1));
            }
            assert_eq!(got, FEW, "beside {flooders} that flood");
            assert!(share.taken() <= 6144);
        }
    }

    #[test]
    fn who_has_few_finds_room_while_the_first_still_have_most() {
        let share = Share::new(6144);
        for flooder in 0..30 {
            while share.enter(ns(flooder), 64) > 0 {}
        }
        assert_eq!(share.enter(ns(30), 64), FEW);
    }

    #[test]
    fn the_smallest_room_has_room() {
        assert_eq!(allowed(1, 0, 0, 64), 1);
        assert_eq!(allowed(1, 1, 1, 64), 0);
        assert_eq!(allowed(0, 5, 5, 64), 0);
    }
}
