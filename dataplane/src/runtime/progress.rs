//! How far a long start has come, in the log.

use std::time::{Duration, Instant};

use tracing::info;

/// How often it is said.
const PAUSE: Duration = Duration::from_secs(2);

/// A start of so many namespaces.
pub(super) struct Progress {
    done: usize,
    of: usize,
    said: Instant,
}

impl Progress {
    pub(super) fn new(of: usize) -> Self {
        Self { done: 0, of, said: Instant::now() }
    }

    /// Says "120 of 1000 namespaces" from time to time; nothing where it is quick.
    pub(super) fn one_more(&mut self) {
        self.done += 1;
        if self.said.elapsed() >= PAUSE {
            self.said = Instant::now();
            info!("{} of {} namespaces", self.done, self.of);
        }
    }
}
