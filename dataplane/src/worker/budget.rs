//! How much each namespace may punt: token buckets.
//!
//! Namespacing: replicated, a bucket each, so that no namespace spends another's.

use crate::id::NsId;

/// Nanoseconds in a second; also the tokens that one packet costs, so that a rate
/// in packets a second is a rate in tokens a nanosecond.
const SECOND: u64 = 1_000_000_000;

#[derive(Clone, Copy)]
struct Bucket {
    ns: NsId,
    tokens: u64,
    at: u64,
}

/// How fast a bucket fills, and how far.
#[derive(Clone, Copy)]
struct Rate {
    rate: u64,
    full: u64,
}

impl Rate {
    fn new(rate: u32, burst: u32) -> Self {
        Self { rate: rate.into(), full: u64::from(burst) * SECOND }
    }
}

/// Packets at once that go with a rate: a tenth of a second's.
pub(super) fn burst(rate: u32) -> u32 {
    (rate / 10).clamp(64, 2000)
}

/// Buckets of one worker, by the namespace's index.
pub(super) struct Budget {
    /// Where a namespace has none of its own.
    usual: Rate,
    /// By the namespace's index.
    rates: Vec<Rate>,
    buckets: Vec<Option<Bucket>>,
}

impl Budget {
    /// `rate` packets a second a namespace, `burst` packets at once.
    pub(super) fn new(rate: u32, burst: u32) -> Self {
        Self { usual: Rate::new(rate, burst), rates: Vec::new(), buckets: Vec::new() }
    }

    /// Makes room for namespaces with an index below `namespaces`, which may punt at
    /// these rates; 0 is the usual one. The only place that allocates; called when the
    /// world has changed.
    pub(super) fn reserve(&mut self, namespaces: usize, rates: &[u32]) {
        let usual = self.usual;
        let rate = |&r: &u32| if r == 0 { usual } else { Rate::new(r, burst(r)) };
        self.rates.clear();
        self.rates.extend(rates.iter().map(rate));
        if namespaces > self.buckets.len() {
            self.buckets.resize(namespaces, None);
        }
    }

    /// One packet of `ns`, at `now` nanoseconds. False: over the limit.
    pub(super) fn take(&mut self, ns: NsId, now: u64) -> bool {
        self.take_above(ns, now, 0)
    }

    /// One packet that is only a sample: taken from the upper half of the bucket,
    /// so that packets that need the kernel find the lower one.
    pub(super) fn take_spare(&mut self, ns: NsId, now: u64) -> bool {
        let full = self.rate(ns).full;
        self.take_above(ns, now, full / 2)
    }

    fn rate(&self, ns: NsId) -> Rate {
        self.rates.get(usize::from(ns.index)).copied().unwrap_or(self.usual)
    }

    fn take_above(&mut self, ns: NsId, now: u64, keep: u64) -> bool {
        let Rate { rate, full } = self.rate(ns);
        let Some(slot) = self.buckets.get_mut(usize::from(ns.index)) else {
            return false;
        };
        // A new namespace in a used slot starts with a bucket of its own.
        let fresh = Bucket { ns, tokens: full, at: now };
        let bucket = slot.get_or_insert(fresh);
        if bucket.ns != ns {
            *bucket = fresh;
        }
        let earned = now.saturating_sub(bucket.at).saturating_mul(rate);
        bucket.tokens = bucket.tokens.saturating_add(earned).min(full);
        bucket.at = bucket.at.max(now);
        if bucket.tokens < keep + SECOND {
            return false;
        }
        bucket.tokens -= SECOND;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NsId = NsId { index: 0, generation: 0 };
    const B: NsId = NsId { index: 1, generation: 0 };

    fn taken(budget: &mut Budget, ns: NsId, now: u64, tries: usize) -> usize {
        (0..tries).filter(|_| budget.take(ns, now)).count()
    }

    #[test]
    fn burst_then_rate_for_each_namespace_alone() {
        let mut budget = Budget::new(100, 10);
        budget.reserve(2, &[]);
        assert_eq!(taken(&mut budget, A, 0, 50), 10);
        assert_eq!(taken(&mut budget, B, 0, 50), 10);
        assert_eq!(taken(&mut budget, A, SECOND / 20, 50), 5);
        assert_eq!(taken(&mut budget, A, SECOND * 60, 50), 10);
        // A clock that stands or steps back earns nothing.
        assert_eq!(taken(&mut budget, A, 0, 50), 0);
    }

    #[test]
    fn the_next_user_of_an_index_has_a_bucket_of_its_own() {
        let mut budget = Budget::new(1, 3);
        budget.reserve(1, &[]);
        assert_eq!(taken(&mut budget, A, 0, 9), 3);
        assert_eq!(taken(&mut budget, NsId { index: 0, generation: 1 }, 0, 9), 3);
        assert!(!budget.take(B, 0), "no room was made for it");
    }

    #[test]
    fn samples_leave_half() {
        let mut budget = Budget::new(1, 10);
        budget.reserve(1, &[]);
        assert_eq!((0..50).filter(|_| budget.take_spare(A, 0)).count(), 5);
        assert_eq!(taken(&mut budget, A, 0, 50), 5);
    }

    #[test]
    fn a_rate_of_its_own_counts_from_now_on() {
        let mut budget = Budget::new(100, 10);
        budget.reserve(2, &[0, 1000]);
        assert_eq!(taken(&mut budget, A, 0, 500), 10);
        assert_eq!(taken(&mut budget, B, 0, 500), 100);
        assert_eq!(taken(&mut budget, B, SECOND / 20, 500), 50);
        budget.reserve(2, &[0, 10]);
        assert_eq!(taken(&mut budget, B, SECOND, 500), 9);
    }
}
