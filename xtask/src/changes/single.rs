//! One change at a time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::kernel::{Kernel, Route};
use super::{Lab, gateway, gateway_mac};

/// Between two packets: what times are known to.
pub(super) const PACE: Duration = Duration::from_micros(100);

/// Replaces a route so many times while packets go by it. Returns the times from the start
/// of the request to the first packet that takes the new way, sorted.
pub(super) fn measure(lab: &Lab, kernel: &mut Kernel, times: usize) -> Result<Vec<Duration>> {
    let route = |n| Route { dst: [9, 9, 9, 0].into(), len: 24, gateway: gateway(false, n) };
    kernel.set(&[route(0)])?;
    let to = Lab::under(&route(0))?;
    lab.asks(to)?;
    let packet = lab.packet(to);
    let done = AtomicBool::new(false);
    let mut took = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // Refused or not: the next one comes.
                let _ = lab.near.send(&packet);
                std::thread::sleep(PACE);
            }
        });
        let all = (1..=times).map(|n| {
            // Apart from each other, at no time that anything else has.
            std::thread::sleep(Duration::from_micros(20_000 + (n as u64 * 7919) % 10_000));
            let to = (n % 16) as u8;
            lab.far.clear();
            let began = Instant::now();
            kernel.set(&[route(to)])?;
            let new = |f: &[u8]| f.starts_with(&gateway_mac(to));
            let seen = lab.far.receive(Duration::from_secs(20), new);
            seen.context("no packet takes the new way")?;
            Ok(began.elapsed())
        });
        let took = all.collect::<Result<Vec<_>>>();
        done.store(true, Ordering::Relaxed);
        took
    })?;
    took.sort_unstable();
    Ok(took)
}

/// What was seen of both.
pub(super) fn lines(kernel: &[Duration], nsplane: &[Duration]) -> String {
    let of = |name: &str, all: &[Duration]| {
        let at = |share: f64| all[((all.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        format!(
            "a change to the first packet by it, {name:<8} p50 {:.2} ms, p99 {:.2} ms, at worst {:.2} ms",
            at(0.5),
            at(0.99),
            at(1.0)
        )
    };
    format!("{}\n{}", of("kernel", kernel), of("nsplane", nsplane))
}
