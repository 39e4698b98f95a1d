//! Many changes, while packets go by a route that does not change.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nsplane_tests::process::Nsplane;
use nsplane_tests::wait::wait_until;

use super::kernel::{Kernel, Route};
use super::{Args, Lab, gateway};

/// Between two packets.
const PACE: Duration = Duration::from_millis(1);
/// Changes of one send; the rate is kept by waiting between them.
const TOGETHER: u32 = 200;
/// Of the changed routes so many are looked at in the end.
const LOOKED_AT: usize = 300;

/// What a storm did.
pub(super) struct Storm {
    changes: u64,
    took: Duration,
    sent: u64,
    arrived: u64,
    /// From its end until all routes looked at lead where the kernel's do.
    settled: Duration,
    /// How often nsplane had to read all anew.
    resyncs: u64,
}

pub(super) fn run(
    lab: &Lab,
    kernel: &mut Kernel,
    nsplane: &Nsplane,
    routes: &[Route],
    args: &Args,
) -> Result<Storm> {
    let calm = Route { dst: [9, 9, 8, 0].into(), len: 24, gateway: gateway(false, 3) };
    kernel.set(&[calm])?;
    let to = Lab::under(&calm)?;
    lab.asks(to)?;
    std::thread::sleep(Duration::from_millis(300));
    lab.far.clear();
    let packet = lab.packet(to);
    let (done, sent, arrived) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let mut now = routes.to_vec();
    let mut last = vec![0_u8; now.len()];
    let (mut changes, mut random) = (0_u64, 1_u64);
    let took = std::thread::scope(|scope| -> Result<Duration> {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                sent.fetch_add(u64::from(lab.near.send(&packet).is_ok()), Ordering::Relaxed);
                std::thread::sleep(PACE);
            }
        });
        scope.spawn(|| {
            let ours = |f: &[u8]| f.len() > 34 && f[30..34] == to.octets();
            while lab.far.receive(Duration::from_millis(500), ours).is_some() {
                arrived.fetch_add(1, Ordering::Relaxed);
            }
        });
        let began = Instant::now();
        let all = u64::from(args.rate) * args.seconds;
        let mut batch = Vec::new();
        let result = loop {
            if changes >= all {
                break Ok(());
            }
            batch.clear();
            for _ in 0..TOGETHER {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (random >> 33) as usize % now.len();
                last[at] = last[at].wrapping_add(1) % 16;
                now[at].gateway = gateway(false, last[at]);
                batch.push(now[at]);
            }
            if let Err(e) = kernel.set(&batch) {
                break Err(e);
            }
            changes += u64::from(TOGETHER);
            let due = Duration::from_secs_f64(changes as f64 / f64::from(args.rate));
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        };
        let took = began.elapsed();
        done.store(true, Ordering::Relaxed);
        result.map(|()| took)
    })?;
    let began = Instant::now();
    settle(lab, &now, &last)?;
    let settled = began.elapsed();
    let shown = nsplane.ask("namespaces", None)?;
    let resyncs = shown[0]["resyncs"].as_u64().context("no count of resyncs")?;
    let (sent, arrived) = (sent.into_inner(), arrived.into_inner());
    Ok(Storm { changes, took, sent, arrived, settled, resyncs })
}

/// Waits until routes that were changed lead where they were led last.
fn settle(lab: &Lab, now: &[Route], last: &[u8]) -> Result<()> {
    let changed: Vec<usize> = (0..now.len()).filter(|at| last[*at] != 0).collect();
    ensure!(!changed.is_empty(), "nothing was changed");
    let step = (changed.len() / LOOKED_AT).max(1);
    for at in changed.into_iter().step_by(step) {
        // Of a /20 the first /24 is another's only if it has a route of its own: none has.
        let to = Lab::under(&now[at])?;
        wait_until(Duration::from_secs(60), "a route's last change", || {
            lab.asks(to).is_ok_and(|router| router == last[at])
        })?;
    }
    Ok(())
}

impl Storm {
    pub(super) fn lines(&self, own_kib: f64) -> String {
        format!(
            "changes in the storm                 {} in {:.1} s: {:.0} a second\n\
             packets meanwhile                    {} sent, {} lost\n\
             the last changes in effect after     {:.0} ms (300 routes asked for, one by one)\n\
             all read anew                        {} times\n\
             nsplane's own memory after it        {:.1} MB",
            self.changes,
            self.took.as_secs_f64(),
            self.changes as f64 / self.took.as_secs_f64(),
            self.sent,
            self.sent.saturating_sub(self.arrived),
            self.settled.as_secs_f64() * 1e3,
            self.resyncs,
            own_kib / 1024.0
        )
    }
}
