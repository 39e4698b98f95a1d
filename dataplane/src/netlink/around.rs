//! Looking at what there are no notices of, in all namespaces, one after the other.
//!
//! [`look_around`] looks at some of them at each call, and wakes who follows one in
//! which something is not as it was told. Who is woken looks by itself, so that what it
//! tells is in its place among what it tells else, and nothing is told during a dump.
//!
//! No timer and no wake-up of a task for each namespace: with a thousand of them both cost as
//! much as the looks, and each look by itself finds the processor's caches cold. Nor all
//! at once: that would keep the thread from everything else for milliseconds.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::event::Event;
use super::look::{FILES_PERIOD, Look};
use super::programs::{self, Programs};
use crate::netns::Netns;

/// How often [`look_around`] is to be called, so that each namespace is looked at once
/// in [`FILES_PERIOD`].
pub const LOOK_AROUND: Duration = Duration::from_millis(FILES_PERIOD.as_millis() as u64 / PARTS);
/// Parts of the period.
const PARTS: u64 = 8;
/// Most namespaces that one call looks at. A look takes some 15 us when it finds the caches
/// cold, as it does: so it is this that bounds what an idle host with thousands of
/// namespaces pays. From `MOST` x `PARTS` namespaces on each is looked at less often.
const MOST: usize = 64;

const _: () = assert!(PARTS as u128 * LOOK_AROUND.as_millis() == FILES_PERIOD.as_millis());

/// What is looked at by one thread.
#[derive(Default)]
struct Around {
    /// The next first.
    all: VecDeque<Weak<Looked>>,
    /// Looks that are due, in parts: each call makes as many as there are namespaces.
    due: usize,
}

thread_local! {
    static AROUND: RefCell<Around> = RefCell::default();
}

/// Looks at the next ones of the namespaces that the calling thread has monitors of.
pub fn look_around() {
    AROUND.with_borrow_mut(|around| {
        if around.all.is_empty() {
            return;
        }
        let looks = looks(&mut around.due, around.all.len());
        let (now, host) = (Instant::now(), programs::glance());
        for _ in 0..looks {
            let Some(next) = around.all.pop_front() else { return };
            let Some(looked) = next.upgrade() else { continue };
            if looked.is_other(now, &host) {
                looked.changed.notify_one();
            }
            around.all.push_back(next);
        }
    });
}

/// How many namespaces the next call looks at.
fn looks(due: &mut usize, namespaces: usize) -> usize {
    let parts = PARTS as usize;
    *due += namespaces;
    let looks = (*due / parts).min(MOST);
    *due %= parts;
    looks
}

/// What is looked at of one namespace.
#[derive(Debug)]
pub(super) struct Looked {
    ns: Arc<Netns>,
    parts: RefCell<(Look, Programs)>,
    changed: Notify,
}

impl Looked {
    /// From now on it is looked at.
    pub(super) fn new(ns: &Arc<Netns>) -> Rc<Self> {
        let parts = RefCell::default();
        let looked = Rc::new(Self { ns: ns.clone(), parts, changed: Notify::new() });
        AROUND.with_borrow_mut(|around| around.all.push_back(Rc::downgrade(&looked)));
        looked
    }

    /// Waits until [`Self::look`] may have something to tell. Safe to cancel.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What has changed since it was called last; at first, everything.
    pub(super) fn look(&self) -> Vec<Event> {
        let (files, programs) = &mut *self.parts.borrow_mut();
        let mut events = files.look(&self.ns);
        events.extend(programs.look(&self.ns));
        events
    }

    /// Tells everything at the next look.
    pub(super) fn forget(&self) {
        let (files, programs) = &mut *self.parts.borrow_mut();
        files.forget();
        programs.forget();
    }

    /// The namespace has another device: it may have brought programs along.
    pub(super) fn has_another_device(&self) {
        self.parts.borrow_mut().1.ask_again();
    }

    fn is_other(&self, now: Instant, host: &programs::Glance) -> bool {
        let (files, programs) = &mut *self.parts.borrow_mut();
        files.is_other(now) || programs.is_other(now, host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_once_a_period_until_there_are_too_many() {
        let period = |namespaces| -> usize {
            let mut due = 0;
            (0..PARTS).map(|_| looks(&mut due, namespaces)).sum()
        };
        assert_eq!([1, 3, 8, 100, 512].map(period), [1, 3, 8, 100, 512]);
        assert_eq!([513, 1000, 10_000].map(period), [512; 3]);
    }
}
