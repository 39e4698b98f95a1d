//! More changes than the kernel can queue: what was lost is noticed, counted and read
//! again, and no route that is gone is used.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use nsplane_tests::frame::Udp;
use nsplane_tests::netns::Netns;
use nsplane_tests::process::Nsplane;
use nsplane_tests::raw::Raw;
use nsplane_tests::tenant::{Host, Tenant, TenantSpec};
use nsplane_tests::wait::wait_until;

const SOON: Duration = Duration::from_secs(30);
/// Longest that a deleted route may be used: some 0.1 s is what it takes, the rest is
/// for machines that stall.
const STALE: Duration = Duration::from_secs(5);
/// As long nothing must arrive for a route to count as no longer used.
const PROBE: Duration = Duration::from_millis(50);
/// So many times in a row: it must not come back either.
const SILENT: u32 = 6;

/// The routes that nsplane itself follows.
fn ours(nsplane: &Nsplane) -> BTreeSet<String> {
    let shown = nsplane.show("routes", &[]).unwrap();
    let routes = shown.as_array().unwrap().iter().filter(|r| r["tier"] == "userspace");
    let way = |r: &serde_json::Value| {
        let via = r["via"].as_str().unwrap_or("-");
        format!("{} {via} {}", r["dst"].as_str().unwrap(), r["dev"].as_str().unwrap())
    };
    routes.filter(|r| !r["dst"].as_str().unwrap().contains(':')).map(way).collect()
}

/// The routes that the kernel has.
fn kernels(router: &Netns) -> BTreeSet<String> {
    let shown = router.ip_json("-4 route show table main").unwrap();
    let way = |r: &serde_json::Value| {
        let dst = r["dst"].as_str().unwrap();
        let via = r["gateway"].as_str().unwrap_or("-");
        format!("{dst} {via} {}", r["dev"].as_str().unwrap())
    };
    shown.as_array().unwrap().iter().map(way).collect()
}

/// 100,000 changes: routes come, lead elsewhere, go, and some come back.
fn storm() -> String {
    let mut lines = String::new();
    let dst = |n: u32| format!("10.{}.{}.0/24", 64 + n / 256, n % 256);
    for n in 0..30_000 {
        writeln!(lines, "route add {} via {}", dst(n), Host::B.v4()).unwrap();
    }
    for n in 0..30_000 {
        writeln!(lines, "route replace {} via {}", dst(n), Host::A.v4()).unwrap();
    }
    for n in 0..30_000 {
        writeln!(lines, "route del {}", dst(n)).unwrap();
    }
    for n in 0..10_000 {
        writeln!(lines, "route add {} via {}", dst(3 * n), Host::B.v4()).unwrap();
    }
    lines
}

#[test]
#[ignore = "needs root"]
fn a_hundred_thousand_changes() {
    let tenant = Tenant::new("storm", &TenantSpec::default()).unwrap();
    let router = tenant.router();
    // Room for some hundred messages only.
    let env = [("NSPLANE_NETLINK_BUFFER", "65536")];
    let nsplane = Nsplane::start_with(&[router], &[], &env).unwrap();
    let namespace = || nsplane.show("namespaces", &[]).unwrap()[0].clone();
    assert_eq!(namespace()["resyncs"], 0);
    let near = Raw::open(tenant.host(Host::A), Host::DEVICE).unwrap();
    let far = Raw::open(tenant.host(Host::B), Host::DEVICE).unwrap();
    let macs = (router.mac("a0").unwrap(), tenant.host(Host::A).mac(Host::DEVICE).unwrap());
    let mark = b"by a route that is gone?";
    let probe = Udp::new(macs, Host::A.v4().into(), [10, 9, 0, 9].into(), mark).bytes();
    let arrives = |patience| {
        far.clear();
        near.send(&probe).unwrap();
        far.receive(patience, |f| f.windows(mark.len()).any(|w| w == mark)).is_some()
    };
    let lines = storm();
    // When the last packet arrived by a route that was deleted then.
    let used_for = |gone: Instant| {
        let (mut last, mut silent) = (Duration::ZERO, 0);
        while silent < SILENT {
            silent += 1;
            if arrives(PROBE) {
                (last, silent) = (gone.elapsed(), 0);
                assert!(last < STALE, "a route is used {last:?} after it was deleted");
            }
        }
        last
    };
    let mut slowest = Duration::ZERO;
    let mut gone = Instant::now();
    let mut rounds = 0;
    std::thread::scope(|scope| {
        let storm = scope.spawn(|| router.ip_batch(&lines));
        // All the while a route comes and goes, and is used only while it is there.
        while !storm.is_finished() {
            router.ip(&format!("route add 10.9.0.0/16 via {}", Host::B.v4())).unwrap();
            wait_until(SOON, "the route to be used", || arrives(PROBE)).unwrap();
            router.ip("route del 10.9.0.0/16").unwrap();
            gone = Instant::now();
            slowest = slowest.max(used_for(gone));
            rounds += 1;
        }
        storm.join().unwrap().unwrap();
    });
    let stormed = Instant::now();
    let settled = || namespace()["tier_v4"] == "userspace" && ours(&nsplane) == kernels(router);
    wait_until(SOON, "nsplane's routes to be the kernel's", settled).unwrap_or_else(|e| {
        let (ours, kernels) = (ours(&nsplane), kernels(router));
        let stale: Vec<_> = ours.difference(&kernels).take(5).collect();
        let missing: Vec<_> = kernels.difference(&ours).take(5).collect();
        panic!("{e}: {}; stale {stale:?}, missing {missing:?}", namespace());
    });
    let resyncs = namespace()["resyncs"].as_u64().unwrap();
    println!(
        "100,000 changes, {resyncs} times something was lost; settled {:?} after; \
         the last packet by a deleted route {slowest:?} after at most ({rounds} rounds)",
        stormed.elapsed()
    );
    std::thread::sleep(STALE.saturating_sub(gone.elapsed()));
    used_for(gone);
    assert!(resyncs > 0, "nothing was lost: the buffer is not small enough to test anything");
    assert!(kernels(router).len() > 10_000);
    assert!(nsplane.show("routes", &[]).unwrap().as_array().unwrap().len() > 10_000);
}
