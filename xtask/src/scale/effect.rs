//! How long a change takes to have an effect on packets.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nsplane_tests::frame::Udp;
use nsplane_tests::raw::Raw;
use nsplane_tests::tenant::{Host, Tenant};
use nsplane_tests::wait::wait_until;

/// Between two packets: the measure's resolution.
const PACE: Duration = Duration::from_millis(1);
/// Nothing arrived for this long: nothing will.
const SILENCE: Duration = Duration::from_millis(300);
const MARK: &[u8] = b"as long as there is a way";

/// What was measured.
pub(super) struct Effect {
    pub(super) median: Duration,
    pub(super) worst: Duration,
}

/// Deletes a route under traffic so many times, and measures from the start of
/// `ip route del` to the arrival of the last packet.
pub(super) fn measure(tenant: &Tenant, times: usize) -> Result<Effect> {
    let router = tenant.router();
    let near = Raw::open(tenant.host(Host::A), Host::DEVICE)?;
    let far = Raw::open(tenant.host(Host::B), Host::DEVICE)?;
    let macs = (router.mac("a0")?, tenant.host(Host::A).mac(Host::DEVICE)?);
    let packet = Udp::new(macs, Host::A.v4().into(), [10, 9, 0, 9].into(), MARK).bytes();
    let is_ours = |f: &[u8]| f.windows(MARK.len()).any(|w| w == MARK);
    let mut took = Vec::new();
    for _ in 0..times {
        router.ip(&format!("route add 10.9.0.0/16 via {}", Host::B.v4()))?;
        wait_until(Duration::from_secs(10), "packets by the new route", || {
            near.send(&packet).is_ok() && far.receive(PACE * 20, is_ours).is_some()
        })?;
        let done = AtomicBool::new(false);
        let last = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // Refused or not: the next one comes.
                    let _ = near.send(&packet);
                    std::thread::sleep(PACE);
                }
            });
            let begin = Instant::now();
            let deleted = router.ip("route del 10.9.0.0/16");
            let mut last = begin;
            while far.receive(SILENCE, is_ours).is_some() {
                last = Instant::now();
                if begin.elapsed() > Duration::from_secs(10) {
                    break;
                }
            }
            done.store(true, Ordering::Relaxed);
            deleted.map(|_| last - begin)
        })?;
        ensure!(last < Duration::from_secs(10), "a deleted route is used for good");
        took.push(last);
    }
    took.sort_unstable();
    let median = *took.get(took.len() / 2).context("nothing measured")?;
    Ok(Effect { median, worst: took.last().copied().unwrap_or_default() })
}
