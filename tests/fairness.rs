//! What others do does not take from a tenant what is its own: it loses nothing while they
//! flood, neither what is forwarded nor what the kernel is to answer.
//!
//! How long its packets wait is proven on simulated ports (`worker/run/tests/fairness.rs`),
//! and measured by `cargo xtask bench fairness`: here the machine may be anyone's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nsplane_bench::fairness::Contest;
use nsplane_bench::{Frame, Generator, Load};
use nsplane_tests::flow;
use nsplane_tests::process::Nsplane;
use nsplane_tests::tenant::{Family, Host, Tenant, TenantSpec};
use nsplane_tests::wait::wait_until;

const SOON: Duration = Duration::from_secs(10);

#[test]
#[ignore = "needs root"]
fn a_quiet_tenant_loses_nothing_while_others_flood() {
    let contest = Contest::new(3).unwrap();
    let nsplane = Nsplane::start(&contest.routers(), &["--workers", "2"]).unwrap();
    contest.resolve().unwrap();
    let alone = contest.run(0, Duration::from_secs(1), false).unwrap();
    let beside = contest.run(0, Duration::from_secs(3), true).unwrap();
    println!("alone {alone:?}\nbeside {beside:?}");
    let counters = nsplane.show("counters", &["--netns", contest.quiet().router().name()]).unwrap();
    let drops = counters[0]["userspace"]["drops"].as_object().unwrap();
    assert!(drops.is_empty(), "{counters}");
    // What the generator's own processor may lose before nsplane has it is not ours.
    assert!(beside.arrived * 100 >= beside.sent * 99, "{beside:?}: {counters}");
    for (offered, arrived) in &beside.floods {
        assert!(*arrived > 1000 && arrived < offered, "it is no flood: {beside:?}");
    }
}

/// Punts of one tenant: how many packets a worker took, gave to the punt thread, and dropped.
fn punts(nsplane: &Nsplane, tenant: &Tenant) -> (u64, u64, u64) {
    let counters = nsplane.show("counters", &["--netns", tenant.router().name()]).unwrap();
    let sum = |of: &str| {
        let map = counters[0]["userspace"][of].as_object().unwrap();
        map.values().map(|n| n.as_u64().unwrap()).sum::<u64>()
    };
    let received = counters[0]["userspace"]["received"]["packets"].as_u64().unwrap();
    (received, sum("punts"), sum("drops"))
}

/// To the far host's network, but to nobody there: the kernel asks for it.
fn to_nobody(tenant: &Tenant) -> Frame {
    let frame = Frame::across(tenant, Host::A, Family::V4, 1).unwrap();
    Frame { destination: [10, 0, 1, 77].into(), ..frame }
}

/// Runs `body` while the tenants send more packets than may be punted.
fn while_they_punt(nsplane: &Nsplane, flooders: &[Tenant], body: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for tenant in flooders {
            let (frame, stop) = (to_nobody(tenant), &stop);
            scope.spawn(move || {
                let mut generator =
                    Generator::new(tenant.host(Host::A), Host::DEVICE, &frame).unwrap();
                let load = Load { cpu: Some(0), ..Load::paced(u64::MAX, 30_000) };
                generator.run(&load, stop).unwrap();
            });
        }
        let body = || {
            let many = || flooders.iter().all(|t| punts(nsplane, t).1 > 1000);
            wait_until(SOON, "punts of those who flood", many).unwrap();
            body();
        };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
    let over: u64 = flooders.iter().map(|t| punts(nsplane, t).2).sum();
    assert!(over > 0, "they punted no more than the kernel took");
}

fn tenants(label: &str) -> Vec<Tenant> {
    (0..7).map(|n| Tenant::new(&format!("{label}{n}"), &TenantSpec::default()).unwrap()).collect()
}

#[test]
#[ignore = "needs root"]
fn a_quiet_tenants_packets_reach_the_kernel_while_others_punt_all_they_may() {
    let tenants = tenants("punt");
    let routers: Vec<_> = tenants.iter().map(Tenant::router).collect();
    let args = ["--workers", "1", "--punt-rate", "60000"];
    let nsplane = Nsplane::start(&routers, &args).unwrap();
    let (quiet, flooders) = tenants.split_first().unwrap();
    while_they_punt(&nsplane, flooders, || {
        let frame = to_nobody(quiet);
        let mut generator = Generator::new(quiet.host(Host::A), Host::DEVICE, &frame).unwrap();
        let load = Load { cpu: Some(0), urgent: true, ..Load::paced(200, 100) };
        generator.run(&load, &AtomicBool::new(false)).unwrap();
    });
    let (received, punted, dropped) = punts(&nsplane, quiet);
    println!("quiet: received {received}, punted {punted}, dropped {dropped}");
    assert!(received >= 190, "{received}");
    assert_eq!((punted, dropped), (received, 0));
}

#[test]
#[ignore = "needs root"]
fn a_quiet_tenant_is_resolved_and_answered_while_others_punt_all_they_may() {
    let tenants = tenants("answer");
    let routers: Vec<_> = tenants.iter().map(Tenant::router).collect();
    let nsplane = Nsplane::start(&routers, &["--workers", "1", "--punt-rate", "60000"]).unwrap();
    let (quiet, flooders) = tenants.split_first().unwrap();
    let (near, far) = (quiet.host(Host::A), quiet.host(Host::B));
    let new: Vec<String> = (100..110).map(|n| format!("10.0.1.{n}")).collect();
    let lines: String = new.iter().map(|a| format!("addr add {a}/24 dev eth0\n")).collect();
    far.ip_batch(&lines).unwrap();
    while_they_punt(&nsplane, flooders, || {
        // One packet each, to somebody whom nobody has resolved; and to the router itself.
        for address in new.iter().map(String::as_str).chain(["10.0.0.1", "10.0.1.1", "fd00::1"]) {
            let seen = flow::ping(near, address.parse().unwrap(), 1).unwrap();
            assert_eq!(seen.received, 1, "{address}");
        }
        let script = "ping -n -c 1 -W 5 -t 1 10.0.1.2 2>&1 || true";
        let said = near.exec("sh", ["-c", script]).unwrap();
        assert!(said.contains("Time to live exceeded"), "{said}");
        let script = "ping -n -c 1 -W 5 198.51.100.1 2>&1 || true";
        let said = near.exec("sh", ["-c", script]).unwrap();
        assert!(said.contains("Unreachable"), "{said}");
    });
    let (_, punted, dropped) = punts(&nsplane, quiet);
    assert!(punted >= 10, "{punted}");
    assert_eq!(dropped, 0);
}
