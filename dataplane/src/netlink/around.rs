//! Looking at what there are no notices of, in all namespaces, one after the other.
//!
//! [`look_around`] looks at a share of them at each call, and wakes who follows one in
//! which something is not as it was told. Who is woken looks by itself, so that what it
//! tells is in its place among what it tells else, and nothing is told during a dump.
//!
//! No timer and no wake-up of a task for each namespace: with a thousand of them both cost as
//! much as the looks, and each look by itself finds the processor's caches cold. Nor all
//! at once: that would keep the thread from everything else for milliseconds.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::event::Event;
use super::look::{FILES_PERIOD, Look};
use super::programs::{self, Programs};
use crate::netns::Netns;

/// Parts of the period, and of the namespaces.
const SHARES: usize = 8;
/// How often [`look_around`] is to be called, so that each namespace is looked at once
/// in [`FILES_PERIOD`].
pub const LOOK_AROUND: Duration = Duration::from_millis(FILES_PERIOD.as_millis() as u64 / 8);

const _: () = assert!(SHARES as u128 * LOOK_AROUND.as_millis() == FILES_PERIOD.as_millis());

/// What is looked at by one thread.
#[derive(Default)]
struct Around {
    shares: [Vec<Weak<Looked>>; SHARES],
    turn: usize,
}

thread_local! {
    static AROUND: RefCell<Around> = RefCell::default();
}

/// Looks at the next share of the namespaces that the calling thread has monitors of.
pub fn look_around() {
    AROUND.with_borrow_mut(|around| {
        around.turn = (around.turn + 1) % SHARES;
        let share = &mut around.shares[around.turn];
        if share.is_empty() {
            return;
        }
        let (now, host) = (Instant::now(), programs::glance());
        share.retain(|looked| {
            let Some(looked) = looked.upgrade() else { return false };
            if looked.is_other(now, &host) {
                looked.changed.notify_one();
            }
            true
        });
    });
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
        AROUND.with_borrow_mut(|around| {
            let least = around.shares.iter_mut().min_by_key(|share| share.len());
            least.into_iter().for_each(|share| share.push(Rc::downgrade(&looked)));
        });
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
