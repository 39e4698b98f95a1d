//! Changes under load: traffic that a change is not about loses nothing by it, and
//! traffic that it is about goes on when the change lets it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nsplane_bench::{Frame, Generator, Load, Sink};
use nsplane_tests::flow;
use nsplane_tests::process::Nsplane;
use nsplane_tests::tenant::{Family, Host, Tenant, TenantSpec};
use nsplane_tests::wait::wait_until;

const SOON: Duration = Duration::from_secs(5);
/// Packets a second. The smallest queue on the way is a veth's, of 256 packets: at this
/// rate it lasts a stall of 100 ms.
const RATE: u64 = 2_000;
const MARK: u32 = 0x77;

/// Runs `body` while packets flow from host A to host B; returns how many were sent.
fn while_loaded(tenant: &Tenant, family: Family, body: impl FnOnce()) -> u64 {
    let stop = AtomicBool::new(false);
    let frame = Frame::across(tenant, Host::A, family, MARK).unwrap();
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut generator = Generator::new(tenant.host(Host::A), Host::DEVICE, &frame).unwrap();
            let load = Load { cpu: Some(0), ..Load::paced(u64::MAX, RATE) };
            generator.run(&load, &stop).unwrap()
        });
        // Whatever happens in there, the sender must end, or the scope never does.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        stop.store(true, Ordering::Relaxed);
        let sent = sender.join().unwrap();
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
        sent.packets
    })
}

fn start(label: &str) -> (Tenant, Nsplane) {
    let tenant = Tenant::new(label, &TenantSpec::default()).unwrap();
    let nsplane = Nsplane::start(&[tenant.router()], &["--workers", "2"]).unwrap();
    for family in Family::BOTH {
        let seen = flow::ping(tenant.host(Host::A), Host::B.address(family), 2).unwrap();
        assert!(seen.received > 0, "no {family} through the router");
    }
    (tenant, nsplane)
}

#[test]
#[ignore = "needs root"]
fn traffic_that_a_change_is_not_about_loses_nothing() {
    let (tenant, nsplane) = start("apart");
    let router = tenant.router();
    for family in Family::BOTH {
        let sink = Sink::attach(tenant.host(Host::B), Host::DEVICE, MARK).unwrap();
        let sent = while_loaded(&tenant, family, || {
            wait_until(SOON, "the load", || sink.counts().unwrap().own > 100).unwrap();
            for n in 0..40 {
                let lines = format!(
                    "route add 203.0.{n}.0/24 via 10.0.1.2\nroute add 2001:db8:{n}::/48 via fd00:0:0:1::2\n\
                     neigh replace 10.0.1.{host} lladdr 02:00:00:00:01:{n:02x} dev b0\n\
                     neigh replace fd00::{host} lladdr 02:00:00:00:02:{n:02x} dev a0\n",
                    host = n + 100
                );
                router.ip_batch(&lines).unwrap();
            }
            router.ip("route add blackhole 203.0.113.0/24").unwrap();
            router.ip("neigh flush 10.0.1.128/25 dev b0").unwrap();
            for n in 0..40 {
                let lines = format!("route del 203.0.{n}.0/24\nroute del 2001:db8:{n}::/48\n");
                router.ip_batch(&lines).unwrap();
            }
            router.ip("route del blackhole 203.0.113.0/24").unwrap();
        });
        let all = || sink.counts().unwrap().own >= sent;
        let arrived = wait_until(SOON, "all packets", all);
        let counts = sink.counts().unwrap();
        println!("{family}: sent {sent}, arrived {}, late {}", counts.own, counts.late);
        arrived.unwrap_or_else(|e| panic!("{e}: {}", nsplane.show("counters", &[]).unwrap()));
        assert_eq!((counts.own, counts.foreign), (sent, 0));
    }
}

#[test]
#[ignore = "needs root"]
fn traffic_goes_on_when_its_link_is_up_again_and_its_neighbour_has_moved() {
    let (tenant, nsplane) = start("about");
    let (router, host) = (tenant.router(), tenant.host(Host::B));
    let sink = Sink::attach(host, Host::DEVICE, MARK).unwrap();
    let forwarded = || {
        let counters = nsplane.show("counters", &[]).unwrap();
        counters[0]["userspace"]["forwarded"]["packets"].as_u64().unwrap()
    };
    let flows = |what: &str| {
        let (before, by_us) = (sink.counts().unwrap().own, forwarded());
        let grown = || sink.counts().unwrap().own > before + 100 && forwarded() > by_us + 100;
        wait_until(SOON, what, grown)
            .unwrap_or_else(|e| panic!("{e}: {}", nsplane.show("counters", &[]).unwrap()));
    };
    while_loaded(&tenant, Family::V4, || {
        flows("the load");
        router.ip("link set b0 down").unwrap();
        router.ip("link set b0 up").unwrap();
        flows("the load after its egress link was down");
        router.ip("link set a0 down").unwrap();
        router.ip("link set a0 up").unwrap();
        flows("the load after its ingress link was down");
        router.ip("neigh del 10.0.1.2 dev b0").unwrap();
        flows("the load after its neighbour was forgotten");
        router.ip("route del 10.0.1.0/24 dev b0").unwrap();
        router.ip("route add 10.0.1.0/24 dev b0").unwrap();
        flows("the load after its route was made anew");
    });
    assert_eq!(sink.counts().unwrap().foreign, 0);
}
