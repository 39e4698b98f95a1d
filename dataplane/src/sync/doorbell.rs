//! Wakes a thread that may be asleep.
//!
//! ```text
//!  producer: push ─ fence ─ sleeping? ── yes ──► wake (a system call)
//!  sleeper:  sleeping = true ─ fence ─ anything there? ── no ──► wait
//! ```
//! Of the two fences one is first; so the producer sees the sleeper, or the
//! sleeper sees what was pushed.

use super::prim::{AtomicBool, Ordering, fence};

/// A sleeping thread's bell.
pub struct Doorbell {
    sleeping: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Doorbell {
    /// A bell that calls `wake` when it is rung while armed. A wake-up must not be
    /// lost if it comes before the thread really waits: an eventfd, an unpark.
    #[must_use]
    pub fn new(wake: Box<dyn Fn() + Send + Sync>) -> Self {
        Self { sleeping: AtomicBool::new(false), wake }
    }

    /// Producer, after its pushes: wakes the thread if it sleeps or is about to.
    #[inline]
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) {
            // The first of several producers makes the call.
            if self.sleeping.swap(false, Ordering::Relaxed) {
                (self.wake)();
            }
        }
    }

    /// Sleeper, before it looks a last time for work and then waits.
    pub fn arm(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Sleeper, when it is awake again or did not wait after all.
    pub fn disarm(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }
}
