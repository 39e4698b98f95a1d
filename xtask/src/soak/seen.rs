//! What is seen behind the moving device: whose packets leave by it, and when.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nsplane_bench::{Counts, Sink};

/// Marks of what each tenant's A sends.
pub(super) const FROM_A: [u32; 2] = [1, 2];
/// Marks of what is sent into each tenant from behind the device.
pub(super) const INTO: [u32; 2] = [0x11, 0x12];

/// How often is looked.
const LOOK: Duration = Duration::from_micros(200);

/// The other of two.
pub(super) fn other(tenant: usize) -> usize {
    1 - tenant
}

/// The sink behind the device, looked at all the time.
pub(super) struct Seen {
    sink: Sink,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Packets of each tenant as of the last look.
    counts: [u64; 2],
    /// When packets of each came last.
    last: [Option<Instant>; 2],
    /// Whose first packet is waited for, and when it came.
    expected: usize,
    first: Option<Instant>,
    /// Counts when the last stay ended.
    settled: [u64; 2],
}

impl Seen {
    /// A sink whose own packets are the first tenant's; all others are the second's.
    pub(super) fn new(sink: Sink) -> Self {
        Self { sink, state: Mutex::default() }
    }

    /// Looks again and again while `work` runs.
    pub(super) fn watch<T>(&self, work: impl FnOnce() -> T) -> T {
        let on = AtomicBool::new(true);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while on.load(Ordering::Relaxed) {
                    // Unreadable once, unreadable always: `settle` says so.
                    let _ = self.look();
                    std::thread::sleep(LOOK);
                }
            });
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            on.store(false, Ordering::Relaxed);
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn look(&self) -> Result<[u64; 2]> {
        let Counts { own, foreign, foreign_mark, .. } = self.sink.counts()?;
        if foreign > 0 && foreign_mark != u64::from(FROM_A[1]) {
            bail!("a packet with mark {foreign_mark:#x} left by the device, which nobody sends");
        }
        let now = Instant::now();
        let counts = [own, foreign];
        let mut state = self.lock();
        for (tenant, &count) in counts.iter().enumerate() {
            if count > state.counts[tenant] {
                state.last[tenant] = Some(now);
                if tenant == state.expected && state.first.is_none() {
                    state.first = Some(now);
                }
            }
        }
        state.counts = counts;
        Ok(counts)
    }

    /// From now on the first packet of this tenant is waited for.
    pub(super) fn expect(&self, tenant: usize) {
        let mut state = self.lock();
        state.expected = tenant;
        state.first = None;
    }

    /// When the first packet of the tenant expected came.
    pub(super) fn first(&self) -> Option<Instant> {
        self.lock().first
    }

    /// When the other tenant's last packet came.
    pub(super) fn last(&self) -> Option<Instant> {
        let state = self.lock();
        state.last[other(state.expected)]
    }

    /// All packets that were seen.
    pub(super) fn total(&self) -> u64 {
        self.lock().counts.iter().sum()
    }

    /// Waits until no packet comes any more; the device is down.
    pub(super) fn settle(&self) -> Result<()> {
        let mut before = self.look()?;
        loop {
            std::thread::sleep(Duration::from_millis(1));
            let now = self.look()?;
            if now == before {
                return Ok(());
            }
            before = now;
        }
    }

    /// Ends the stay with a tenant: how many packets of the other came in it.
    pub(super) fn end_of_stay(&self, tenant: usize) -> Result<u64> {
        let counts = self.look()?;
        let mut state = self.lock();
        let strays = counts[other(tenant)] - state.settled[other(tenant)];
        state.settled = counts;
        Ok(strays)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
