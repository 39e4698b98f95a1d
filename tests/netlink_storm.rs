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

/// Packets to see which routes are used.
struct Probes {
    near: Raw,
    far: Raw,
    macs: ([u8; 6], [u8; 6]),
}

impl Probes {
    const MARK: &[u8] = b"by a route that is gone?";

    fn new(tenant: &Tenant) -> Self {
        let open = |host| Raw::open(tenant.host(host), Host::DEVICE).unwrap();
        let router = tenant.router().mac("a0").unwrap();
        let macs = (router, tenant.host(Host::A).mac(Host::DEVICE).unwrap());
        Self { near: open(Host::A), far: open(Host::B), macs }
    }

    fn arrives(&self, to: [u8; 4], patience: Duration) -> bool {
        self.far.clear();
        let probe = Udp::new(self.macs, Host::A.v4().into(), to.into(), Self::MARK).bytes();
        self.near.send(&probe).unwrap();
        let is_ours = |f: &[u8]| f.windows(Self::MARK.len()).any(|w| w == Self::MARK);
        self.far.receive(patience, is_ours).is_some()
    }

    /// When the last packet arrived by a route that was deleted then.
    fn used_for(&self, to: [u8; 4], gone: Instant) -> Duration {
        let (mut last, mut silent) = (Duration::ZERO, 0);
        while silent < SILENT {
            silent += 1;
            if self.arrives(to, PROBE) {
                (last, silent) = (gone.elapsed(), 0);
                assert!(last < STALE, "a route is used {last:?} after it was deleted");
            }
        }
        last
    }
}

fn namespace(nsplane: &Nsplane) -> serde_json::Value {
    nsplane.show("namespaces", &[]).unwrap()[0].clone()
}

fn resyncs(nsplane: &Nsplane) -> u64 {
    namespace(nsplane)["resyncs"].as_u64().unwrap()
}

/// nsplane forwards by exactly the routes that the kernel has.
fn wait_settled(nsplane: &Nsplane, router: &Netns) {
    let settled =
        || namespace(nsplane)["tier_v4"] == "userspace" && ours(nsplane) == kernels(router);
    wait_until(SOON, "nsplane's routes to be the kernel's", settled).unwrap_or_else(|e| {
        let (ours, kernels) = (ours(nsplane), kernels(router));
        let stale: Vec<_> = ours.difference(&kernels).take(5).collect();
        let missing: Vec<_> = kernels.difference(&ours).take(5).collect();
        panic!("{e}: {}; stale {stale:?}, missing {missing:?}", namespace(nsplane));
    });
}

#[test]
#[ignore = "needs root"]
fn a_hundred_thousand_changes() {
    let tenant = Tenant::new("storm", &TenantSpec::default()).unwrap();
    let router = tenant.router();
    // Room for some hundred messages only.
    let env = [("NSPLANE_NETLINK_BUFFER", "65536")];
    let nsplane = Nsplane::start_with(&[router], &[], &env).unwrap();
    assert_eq!(resyncs(&nsplane), 0);
    let probes = Probes::new(&tenant);
    let to = [10, 9, 0, 9];
    let lines = storm();
    let mut slowest = Duration::ZERO;
    let mut gone = Instant::now();
    let mut rounds = 0;
    std::thread::scope(|scope| {
        let storm = scope.spawn(|| router.ip_batch(&lines));
        // All the while a route comes and goes, and is used only while it is there.
        while !storm.is_finished() {
            router.ip(&format!("route add 10.9.0.0/16 via {}", Host::B.v4())).unwrap();
            wait_until(SOON, "the route to be used", || probes.arrives(to, PROBE)).unwrap();
            router.ip("route del 10.9.0.0/16").unwrap();
            gone = Instant::now();
            slowest = slowest.max(probes.used_for(to, gone));
            rounds += 1;
        }
        storm.join().unwrap().unwrap();
    });
    let stormed = Instant::now();
    wait_settled(&nsplane, router);
    let resyncs = resyncs(&nsplane);
    println!(
        "100,000 changes, {resyncs} times something was lost; settled {:?} after; \
         the last packet by a deleted route {slowest:?} after at most ({rounds} rounds)",
        stormed.elapsed()
    );
    std::thread::sleep(STALE.saturating_sub(gone.elapsed()));
    probes.used_for(to, gone);
    assert!(resyncs > 0, "nothing was lost: the buffer is not small enough to test anything");
    assert!(kernels(router).len() > 10_000);
    assert!(nsplane.show("routes", &[]).unwrap().as_array().unwrap().len() > 10_000);
}

/// Bytes that wait in the namespace for readers of route notices.
fn waiting(router: &Netns) -> u64 {
    let table = router.exec("cat", ["/proc/net/netlink"]).unwrap();
    let rows = table.lines().skip(1).map(|l| l.split_whitespace().collect::<Vec<_>>());
    // Of family 0, NETLINK_ROUTE: sk, Eth, Pid, Groups, Rmem.
    rows.filter(|row| row[1] == "0").map(|row| row[4].parse::<u64>().unwrap()).sum()
}

/// Nearly all changes are followed one by one, so that it is by nsplane's own tables that
/// packets go; once it does not keep up. Just then two routes are deleted: of one the
/// notice is among those that are still queued, of the other among those that are lost.
#[test]
#[ignore = "needs root"]
fn a_loss_amid_changes_that_are_followed() {
    /// Changes of a batch: fewer than half of what the buffer holds.
    const BATCH: usize = 500;
    let tenant = Tenant::new("amid", &TenantSpec::default()).unwrap();
    let router = tenant.router();
    // Room for some 3,000 changes.
    let env = [("NSPLANE_NETLINK_BUFFER", "2097152")];
    let mut nsplane = Nsplane::start_with(&[router], &[], &env).unwrap();
    let probes = Probes::new(&tenant);
    let (queued, lost) = ([10, 8, 0, 9], [10, 9, 0, 9]);
    for net in ["10.8.0.0/16", "10.9.0.0/16"] {
        router.ip(&format!("route add {net} via {}", Host::B.v4())).unwrap();
    }
    let forwarded = |nsplane: &Nsplane| {
        let counters = nsplane.show("counters", &[]).unwrap();
        counters[0]["userspace"]["forwarded"]["packets"].as_u64().unwrap()
    };
    let by_us = |nsplane: &Nsplane, to| {
        let before = forwarded(nsplane);
        probes.arrives(to, PROBE) && forwarded(nsplane) > before
    };
    for to in [queued, lost] {
        wait_until(SOON, "nsplane to forward by both routes", || by_us(&nsplane, to)).unwrap();
    }

    let storm = storm();
    let lines: Vec<&str> = storm.lines().collect();
    let batches: Vec<String> = lines.chunks(BATCH).map(|b| b.join("\n") + "\n").collect();
    let follow = |batches: &[String]| {
        for batch in batches {
            router.ip_batch(batch).unwrap();
            wait_until(SOON, "nsplane to read all changes", || waiting(router) == 0).unwrap();
        }
    };
    let (before, rest) = batches.split_at(batches.len() * 3 / 5);
    let (amid, after) = rest.split_at(20);
    follow(before);
    assert_eq!(resyncs(&nsplane), 0, "{} changes, none lost", before.len() * BATCH);
    assert!(by_us(&nsplane, lost));

    nsplane.signal(libc::SIGSTOP).unwrap();
    router.ip("route del 10.8.0.0/16").unwrap();
    amid.iter().for_each(|batch| router.ip_batch(batch).unwrap());
    router.ip("route del 10.9.0.0/16").unwrap();
    nsplane.signal(libc::SIGCONT).unwrap();
    let gone = Instant::now();
    let used = [queued, lost].map(|to| probes.used_for(to, gone));
    follow(after);
    wait_settled(&nsplane, router);
    println!("the last packet by a deleted route {used:?} after the loss");
    assert!(resyncs(&nsplane) > 0, "nothing was lost");
    // Nor is one used later, by nsplane again.
    std::thread::sleep(STALE.saturating_sub(gone.elapsed()));
    for to in [queued, lost] {
        assert_eq!(probes.used_for(to, gone), Duration::ZERO);
    }
}
