//! No packet crosses into a namespace it does not belong to: tenants with the same
//! addresses, routes and MACs, under full load, at once; each packet carries its
//! tenant's mark, and each sink counts marks that are not its own.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use nsplane_bench::{Frame, Generator, Load, Sink};
use nsplane_tests::flow;
use nsplane_tests::process::Nsplane;
use nsplane_tests::tenant::{Family, Host, Tenant, TenantSpec};

static GO: AtomicBool = AtomicBool::new(false);
const LOAD: Duration = Duration::from_millis(700);

fn twins(queues: u32) -> [Tenant; 2] {
    let spec = TenantSpec { mac_seed: Some(7), queues, ..TenantSpec::default() };
    ["one", "two"].map(|label| Tenant::new(label, &spec).unwrap())
}

fn resolve(tenant: &Tenant) {
    for family in Family::BOTH {
        let seen = flow::ping(tenant.host(Host::A), Host::B.address(family), 2).unwrap();
        assert!(seen.received > 0, "no {family} through the router");
    }
}

/// Loads all tenants at once, from A to B, and checks the sinks at both ends.
fn load(tenants: &[Tenant], family: Family) {
    let mark = |t: usize, from: Host| 0x100 * (t as u32 + 1) + u32::from(from == Host::B);
    // A sink at every host: what arrives at B comes from A of the same tenant.
    let sinks: Vec<(usize, Host, Sink)> = (0..tenants.len())
        .flat_map(|t| [Host::A, Host::B].map(|at| (t, at)))
        .map(|(t, at)| {
            let own = mark(t, at.other());
            (t, at, Sink::attach(tenants[t].host(at), Host::DEVICE, own).unwrap())
        })
        .collect();
    std::thread::scope(|scope| {
        for (t, tenant) in tenants.iter().enumerate() {
            for from in [Host::A, Host::B] {
                scope.spawn(move || {
                    let frame = Frame::across(tenant, from, family, mark(t, from)).unwrap();
                    let host = tenant.host(from);
                    let mut generator = Generator::new(host, Host::DEVICE, &frame).unwrap();
                    let load = Load { cpu: Some(0), ..Load::full(LOAD) };
                    let sent = generator.run(&load, &GO).unwrap();
                    assert!(sent.packets > 1000, "{sent:?}");
                });
            }
        }
    });
    for (t, at, sink) in &sinks {
        let counts = sink.counts().unwrap();
        println!("{family} tenant {t} at {at:?}: {} own, {} foreign", counts.own, counts.foreign);
        assert_eq!(counts.foreign, 0, "leaked into tenant {t} at {at:?}: {counts:?}");
        assert!(counts.own > 1000, "tenant {t} at {at:?} got only {counts:?}");
    }
}

fn isolated(tenants: &[Tenant; 2], args: &[&str]) {
    let routers = tenants.each_ref().map(Tenant::router);
    let nsplane = Nsplane::start(&routers, args).unwrap();
    tenants.iter().for_each(resolve);
    for family in Family::BOTH {
        load(tenants, family);
    }
    let counters = nsplane.show("counters", &[]).unwrap();
    for tenant in counters.as_array().unwrap() {
        let forwarded = tenant["userspace"]["forwarded"]["packets"].as_u64().unwrap();
        assert!(forwarded > 1000, "not forwarded by nsplane: {tenant}");
        assert!(tenant["userspace"]["drops"]["stale"].is_null(), "{tenant}");
    }
}

#[test]
#[ignore = "needs root"]
fn one_worker() {
    isolated(&twins(1), &["--workers", "1"]);
}

#[test]
#[ignore = "needs root"]
fn two_workers_and_devices_with_one_queue() {
    isolated(&twins(1), &["--workers", "2"]);
}

#[test]
#[ignore = "needs root"]
fn two_workers_and_devices_with_two_queues() {
    isolated(&twins(2), &["--workers", "2"]);
}

#[test]
#[ignore = "needs root"]
fn generic_mode() {
    let tenants = twins(1);
    // The generator redirects its frames into the hosts' veths. Without a native
    // program the router's ends take them only if they poll.
    for tenant in &tenants {
        tenant.set_gro(Host::A, true).unwrap();
        tenant.set_gro(Host::B, true).unwrap();
    }
    isolated(&tenants, &["--xdp", "generic"]);
}
