//! Whose turn it is: deficit round robin over namespaces, with the quiet ones first.
//!
//! ```text
//!            work is seen, credit is left
//!  idle ─────────────────────────────────► fresh ── a turn ──┐
//!   ▲                                                        ▼
//!   └── nothing left, at its turn ── round robin ◄───────────┘
//!                                        └─► credit: a quantum for each time round
//! ```
//!
//! Each time round a namespace gets credit for [`QUANTUM`] times its weight, and what it
//! does costs credit: a packet one, and likewise a system call that sends. Who has work
//! again and credit left is *fresh*, and served before the round robin goes on. So who needs
//! less than its share waits for no more than the turn of another ([`TURN`] packets) and
//! for the other fresh ones, and who needs more gets its share and waits its time. As
//! credit is given by the round robin alone, coming and going earns nothing.
//!
//! Pure: no clock and no queues. An idle namespace is on no list and costs nothing.

use std::collections::VecDeque;

use crate::port::Account;

/// Packets of credit for each time round and unit of weight.
const QUANTUM: i64 = 32;

/// Most packets of one turn: how long everybody else waits for it, at most.
pub(super) const TURN: usize = 32;

#[derive(Clone, Copy, Debug)]
struct Entry {
    weight: i64,
    credit: i64,
    /// It is known to have work.
    busy: bool,
    in_fresh: bool,
    in_robin: bool,
}

/// Who is served next.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    entries: Vec<Entry>,
    fresh: VecDeque<Account>,
    robin: VecDeque<Account>,
    /// The first of the round robin is not done with its turn.
    resumed: bool,
}

impl Schedule {
    /// Starts anew, with nobody busy, for accounts of these weights in their order.
    /// The only place that allocates.
    pub(super) fn reset(&mut self, weights: impl Iterator<Item = u16>) {
        let entry = |weight: u16| Entry {
            weight: i64::from(weight.max(1)),
            credit: 0,
            busy: false,
            in_fresh: false,
            in_robin: false,
        };
        self.entries.clear();
        self.entries.extend(weights.map(entry));
        for list in [&mut self.fresh, &mut self.robin] {
            list.clear();
            list.reserve(self.entries.len());
        }
        self.resumed = false;
    }

    /// It is known to have work: looking for more is not needed.
    #[inline]
    pub(super) fn is_busy(&self, account: Account) -> bool {
        self.entries[account.index()].busy
    }

    /// Nobody has a turn to come.
    pub(super) fn is_idle(&self) -> bool {
        self.fresh.is_empty() && self.robin.is_empty()
    }

    /// How many are fresh.
    pub(super) fn fresh(&self) -> usize {
        self.fresh.len()
    }

    /// There is work for it.
    pub(super) fn wake(&mut self, account: Account) {
        let entry = &mut self.entries[account.index()];
        if std::mem::replace(&mut entry.busy, true) {
            return;
        }
        if !entry.in_robin {
            entry.credit = entry.weight * QUANTUM;
        }
        if entry.credit > 0 && !entry.in_fresh {
            entry.in_fresh = true;
            self.fresh.push_back(account);
        }
    }

    /// The next of the fresh ones, and how many packets it may have now.
    pub(super) fn next_fresh(&mut self) -> Option<(Account, usize)> {
        while let Some(account) = self.fresh.pop_front() {
            let entry = &mut self.entries[account.index()];
            entry.in_fresh = false;
            if !std::mem::replace(&mut entry.in_robin, true) {
                self.robin.push_back(account);
            }
            // Else the round robin was faster.
            if entry.busy && entry.credit > 0 {
                return Some((account, turn(entry.credit)));
            }
        }
        None
    }

    /// The next of the round robin, and how many packets it may have now.
    pub(super) fn next_robin(&mut self) -> Option<(Account, usize)> {
        // Who owes more than a quantum is passed over, and owes less then.
        while let Some(&account) = self.robin.front() {
            let entry = &mut self.entries[account.index()];
            if !std::mem::replace(&mut self.resumed, true) {
                let quantum = entry.weight * QUANTUM;
                entry.credit = (entry.credit + quantum).min(quantum);
            }
            if !entry.busy {
                self.leave();
            } else if entry.credit > 0 {
                return Some((account, turn(entry.credit)));
            } else {
                self.rotate();
            }
        }
        None
    }

    /// What the turn of a fresh one came to.
    pub(super) fn done_fresh(&mut self, account: Account, cost: usize, busy: bool) {
        let entry = &mut self.entries[account.index()];
        entry.credit -= cost as i64;
        entry.busy = busy;
        if busy && entry.credit > 0 && !entry.in_fresh {
            entry.in_fresh = true;
            self.fresh.push_back(account);
        }
    }

    /// What the turn of the round robin's first came to.
    pub(super) fn done_robin(&mut self, account: Account, cost: usize, busy: bool) {
        let entry = &mut self.entries[account.index()];
        entry.credit -= cost as i64;
        entry.busy = busy;
        if cost == 0 && !busy {
            self.leave();
        } else if !busy || cost == 0 || entry.credit <= 0 {
            self.rotate();
        }
    }

    /// Something was done for it outside of its turn.
    pub(super) fn charge(&mut self, account: Account, cost: usize) {
        self.entries[account.index()].credit -= cost as i64;
    }

    /// The first has its next turn when all others had one.
    fn rotate(&mut self) {
        self.resumed = false;
        self.robin.rotate_left(1);
    }

    /// The first has no work.
    fn leave(&mut self) {
        self.resumed = false;
        if let Some(account) = self.robin.pop_front() {
            let entry = &mut self.entries[account.index()];
            (entry.in_robin, entry.credit) = (false, 0);
        }
    }
}

fn turn(credit: i64) -> usize {
    (credit.max(0) as usize).min(TURN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NsId;

    fn account(index: u16) -> Account {
        Account::of(NsId { index, generation: 0 })
    }

    fn schedule(weights: &[u16]) -> Schedule {
        let mut schedule = Schedule::default();
        // Nobody's account comes first.
        schedule.reset([1].into_iter().chain(weights.iter().copied()));
        schedule
    }

    /// One round robin turn, all of it used, with more to come. Returns whose.
    fn flooded_turn(schedule: &mut Schedule, cost_of: impl Fn(usize) -> usize) -> (Account, usize) {
        let (account, most) = schedule.next_robin().unwrap();
        schedule.done_robin(account, cost_of(most), true);
        (account, most)
    }

    fn start(schedule: &mut Schedule, accounts: std::ops::Range<u16>) {
        accounts.clone().for_each(|n| schedule.wake(account(n)));
        for _ in accounts {
            let (first, most) = schedule.next_fresh().unwrap();
            schedule.done_fresh(first, most, true);
        }
    }

    #[test]
    fn who_wants_everything_gets_it_by_weight() {
        let mut schedule = schedule(&[1, 1, 4]);
        start(&mut schedule, 0..3);
        while let Some((fresh, most)) = schedule.next_fresh() {
            schedule.done_fresh(fresh, most, true);
        }
        let mut got = [0; 3];
        for _ in 0..6000 {
            let (whose, most) = flooded_turn(&mut schedule, |most| most);
            got[whose.index() - 1] += most;
        }
        assert_eq!(got, [32_000, 32_000, 128_000]);
    }

    #[test]
    fn who_costs_more_gets_fewer_packets() {
        let mut schedule = schedule(&[1, 1]);
        start(&mut schedule, 0..2);
        let mut got = [0_u32; 2];
        for _ in 0..3000 {
            let (whose, most) = schedule.next_robin().unwrap();
            // A system call for each packet.
            let dear = whose == account(0);
            schedule.done_robin(whose, most * if dear { 2 } else { 1 }, true);
            got[whose.index() - 1] += most as u32;
        }
        let ratio = f64::from(got[1]) / f64::from(got[0]);
        assert!((1.9..2.1).contains(&ratio), "{got:?}");
    }

    #[test]
    fn a_quiet_one_is_served_at_once_again_and_again() {
        let mut schedule = schedule(&[1; 101]);
        start(&mut schedule, 0..100);
        for _ in 0..1000 {
            flooded_turn(&mut schedule, |most| most);
            schedule.wake(account(100));
            assert_eq!(schedule.next_fresh().map(|(whose, _)| whose), Some(account(100)));
            schedule.done_fresh(account(100), 1, false);
            // Five turns of a hundred before its next packet.
            for _ in 0..5 {
                flooded_turn(&mut schedule, |most| most);
            }
        }
    }

    #[test]
    fn coming_and_going_earns_nothing() {
        let mut schedule = schedule(&[1, 1, 1]);
        start(&mut schedule, 0..2);
        let mut got = [0; 3];
        for _ in 0..3000 {
            // Never busy when it is looked at, and back at once.
            schedule.wake(account(2));
            while let Some((whose, most)) = schedule.next_fresh() {
                schedule.done_fresh(whose, most, false);
                got[whose.index() - 1] += most;
                schedule.wake(whose);
            }
            if let Some((whose, most)) = schedule.next_robin() {
                schedule.done_robin(whose, most, whose != account(2));
                got[whose.index() - 1] += most;
            }
        }
        let most = f64::from(u32::try_from(got[2]).unwrap());
        let other = f64::from(u32::try_from(got[0]).unwrap());
        assert!(most < other * 1.1, "{got:?}");
    }

    #[test]
    fn who_has_nothing_leaves() {
        let mut schedule = schedule(&[1, 1]);
        start(&mut schedule, 0..2);
        for n in 0..2 {
            let (whose, _) = schedule.next_robin().unwrap();
            assert_eq!(whose, account(n));
            schedule.done_robin(whose, 0, false);
        }
        assert!(schedule.is_idle() && schedule.next_robin().is_none());
    }
}
