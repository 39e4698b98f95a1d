//! One writer's value, whole, to many readers.
//!
//! ```text
//!  Publisher ── publish ──► current (behind a lock) ── version + 1
//!      │ keeps what it replaced                         │ one load a batch
//!      └── collect: frees what only it still holds      └► Reader: own Arc, refreshed
//!                                                           only when the version moved
//! ```

use super::prim::{Arc, AtomicU64, Mutex, Ordering, PoisonError};

/// What writer and readers share. The version changes under the lock only.
struct Shared<T> {
    version: AtomicU64,
    current: Mutex<Arc<T>>,
}

/// The writer's end. There is one; drop it after its readers are gone, else the
/// last reader frees the last value.
pub struct Publisher<T> {
    shared: Arc<Shared<T>>,
    retired: Vec<Arc<T>>,
}

impl<T> Publisher<T> {
    /// A publisher whose readers start with `value`.
    #[must_use]
    pub fn new(value: Arc<T>) -> Self {
        let shared = Arc::new(Shared { version: AtomicU64::new(0), current: Mutex::new(value) });
        Self { shared, retired: Vec::new() }
    }

    /// A reader's end, for one thread.
    #[must_use]
    pub fn reader(&self) -> Reader<T> {
        let current = self.shared.current.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = self.shared.version.load(Ordering::Relaxed);
        Reader { cached: Arc::clone(&current), seen, shared: Arc::clone(&self.shared) }
    }

    /// Makes `value` what readers find at their next refresh, and frees what no
    /// reader holds any more.
    pub fn publish(&mut self, value: Arc<T>) {
        let old = {
            let mut current = self.shared.current.lock().unwrap_or_else(PoisonError::into_inner);
            let version = self.shared.version.load(Ordering::Relaxed);
            let old = std::mem::replace(&mut *current, value);
            self.shared.version.store(version + 1, Ordering::Release);
            old
        };
        self.retired.push(old);
        self.collect();
    }

    /// Frees replaced values that no reader holds any more.
    ///
    /// A value that was replaced gets no new holders, so a count of one stays one.
    pub fn collect(&mut self) {
        self.retired.retain(|value| Arc::strong_count(value) > 1);
    }

    /// Replaced values that a reader may still hold.
    #[must_use]
    pub fn retired(&self) -> usize {
        self.retired.len()
    }
}

/// A reader's end: one thread's own hold on the value.
pub struct Reader<T> {
    cached: Arc<T>,
    seen: u64,
    shared: Arc<Shared<T>>,
}

impl<T> Reader<T> {
    /// Takes the newest value; true if it is another than before. One atomic load
    /// when nothing was published since. What was held before is given up, but
    /// not freed: the publisher does that.
    #[inline]
    pub fn refresh(&mut self) -> bool {
        if self.shared.version.load(Ordering::Acquire) == self.seen {
            return false;
        }
        self.take();
        true
    }

    #[cold]
    fn take(&mut self) {
        let current = self.shared.current.lock().unwrap_or_else(PoisonError::into_inner);
        self.cached = Arc::clone(&current);
        self.seen = self.shared.version.load(Ordering::Relaxed);
    }

    /// The value as of the last refresh.
    #[must_use]
    #[inline]
    pub fn get(&self) -> &T {
        &self.cached
    }
}
