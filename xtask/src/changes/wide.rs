//! Changes that may concern all routes: what waits behind them.
//!
//! After each a single route is replaced. nsplane hears of one after the other, so that the
//! first packet by that route comes when the tables say both.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::kernel::{Kernel, Route};
use super::single::PACE;
use super::{Lab, gateway, gateway_mac};

/// Each is made and taken back so many times.
const ROUNDS: usize = 3;

/// A change, and how it is taken back: words of `ip`.
struct Change {
    what: &'static str,
    make: &'static str,
    undo: &'static str,
}

const CHANGES: [Change; 8] = [
    Change {
        what: "nothing but the route itself",
        make: "link show dev b0",
        undo: "link show dev b0",
    },
    Change {
        what: "an address added, removed",
        make: "address add 10.77.0.1/24 dev b0",
        undo: "address del 10.77.0.1/24 dev b0",
    },
    Change { what: "a device made, deleted", make: "link add w0 type bridge", undo: "link del w0" },
    Change { what: "a device up, down", make: "link set w1 up", undo: "link set w1 down" },
    Change {
        what: "the MTU of the device that all routes lead to",
        make: "link set b0 mtu 1400",
        undo: "link set b0 mtu 1500",
    },
    Change {
        what: "a next-hop object made another",
        make: "nexthop replace id 7 via 10.0.1.101 dev b0",
        undo: "nexthop replace id 7 via 10.0.1.102 dev b0",
    },
    Change {
        what: "a prefix refused, 65,536 of ours inside of it",
        make: "route add blackhole 16.0.0.0/8",
        undo: "route del blackhole 16.0.0.0/8",
    },
    Change {
        what: "a rule added, removed",
        make: "rule add from 10.99.0.0/16 lookup 99",
        undo: "rule del from 10.99.0.0/16 lookup 99",
    },
];

/// What waited behind a change: each time, sorted.
pub(super) struct Wait {
    what: &'static str,
    made: Vec<Duration>,
    undone: Vec<Duration>,
}

pub(super) fn measure(lab: &Lab, kernel: &mut Kernel) -> Result<Vec<Wait>> {
    let router = lab.tenant.router();
    for words in [
        "link add w1 type bridge",
        "nexthop add id 7 via 10.0.1.102 dev b0",
        "route add 9.9.7.0/24 nhid 7",
    ] {
        router.ip(words)?;
    }
    let route = |n| Route { dst: [9, 9, 6, 0].into(), len: 24, gateway: gateway(false, n) };
    kernel.set(&[route(0)])?;
    let to = Lab::under(&route(0))?;
    lab.asks(to)?;
    let packet = lab.packet(to);
    let done = AtomicBool::new(false);
    let mut last = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // Refused or not: the next one comes.
                let _ = lab.near.send(&packet);
                std::thread::sleep(PACE);
            }
        });
        let mut after = |words: &str| -> Result<Duration> {
            last = (last + 1) % super::GATEWAYS;
            std::thread::sleep(Duration::from_millis(200));
            lab.far.clear();
            router.ip(words)?;
            let began = Instant::now();
            kernel.set(&[route(last)])?;
            let new = |f: &[u8]| f.starts_with(&gateway_mac(last));
            let seen = lab.far.receive(Duration::from_secs(60), new);
            seen.with_context(|| format!("no packet takes the new way after ip {words}"))?;
            Ok(began.elapsed())
        };
        let waits = CHANGES.iter().map(|Change { what, make, undo }| {
            let (mut made, mut undone) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                made.push(after(make)?);
                undone.push(after(undo)?);
            }
            made.sort_unstable();
            undone.sort_unstable();
            Ok(Wait { what, made, undone })
        });
        let waits = waits.collect();
        done.store(true, Ordering::Relaxed);
        waits
    })
}

/// The median of each, and the worst.
pub(super) fn lines(waits: &[Wait]) -> String {
    let of = |times: &[Duration]| {
        let at = |n: usize| times.get(n).map_or(0.0, |t| t.as_secs_f64() * 1e3);
        format!("{:.1} ({:.1})", at(times.len() / 2), at(times.len().saturating_sub(1)))
    };
    let line = |w: &Wait| format!("  {:<48} {} ms, {} ms", w.what, of(&w.made), of(&w.undone));
    let head = "what a change waits behind another: median (worst), of made, taken back";
    std::iter::once(head.to_owned()).chain(waits.iter().map(line)).collect::<Vec<_>>().join("\n")
}
