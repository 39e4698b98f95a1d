//! What is changed in the kernel is what nsplane forwards by, without a restart.

use std::time::Duration;

use nsplane_bench::Sink;
use nsplane_tests::lab::{Lab, SOON};
use nsplane_tests::netns::{End, Netns, show_mac, veth};
use nsplane_tests::raw::Raw;
use nsplane_tests::tenant::Host;
use nsplane_tests::wait::wait_until;

#[test]
#[ignore = "needs root"]
fn routes() {
    let lab = Lab::new("route");
    let router = lab.tenant.router();
    let far = Raw::open(lab.tenant.host(Host::B), Host::DEVICE).unwrap();
    for (dst, via) in [("203.0.113.9", "10.0.1.2"), ("2001:db8:9::1", "fd00:0:0:1::2")] {
        let prefix = if dst.contains(':') { "2001:db8:9::/48" } else { "203.0.113.0/24" };
        assert!(lab.probe(&far, dst).is_none());
        router.ip(&format!("route add {prefix} via {via}")).unwrap();
        lab.wait_forwarded(&far, dst);
        // A more specific route that only the kernel can follow takes its part away.
        let host = if dst.contains(':') { format!("{dst}/128") } else { format!("{dst}/32") };
        router.ip(&format!("route add blackhole {host}")).unwrap();
        lab.wait_silent(&far, dst);
        router.ip(&format!("route del blackhole {host}")).unwrap();
        lab.wait_forwarded(&far, dst);
        router.ip(&format!("route del {prefix} via {via}")).unwrap();
        lab.wait_silent(&far, dst);
    }
}

#[test]
#[ignore = "needs root"]
fn neighbours() {
    let lab = Lab::new("neigh");
    let host = lab.tenant.host(Host::B);
    let far = Raw::open(host, Host::DEVICE).unwrap();
    lab.wait_forwarded(&far, "10.0.1.2");
    // The host gets another MAC and says so.
    host.ip("link set eth0 address 02:00:00:00:be:ef").unwrap();
    lab.tenant.router().ip("neigh replace 10.0.1.2 lladdr 02:00:00:00:be:ef dev b0").unwrap();
    wait_until(SOON, "packets to the new MAC", || {
        lab.probe(&far, "10.0.1.2").is_some_and(|f| f[..6] == [2, 0, 0, 0, 0xbe, 0xef])
    })
    .unwrap();
    // Forgotten: the kernel resolves it again, on our punt.
    lab.tenant.router().ip("neigh del 10.0.1.2 dev b0").unwrap();
    lab.wait_forwarded(&far, "10.0.1.2");
}

/// A host that gets another MAC and tells nobody: the kernel finds out by asking the
/// stale neighbour when it sends to it. So must it when nsplane does the sending.
#[test]
#[ignore = "needs root"]
fn a_stale_neighbour_that_is_somebody_else_now() {
    let lab = Lab::new("stale");
    let (router, host) = (lab.tenant.router(), lab.tenant.host(Host::B));
    let far = Raw::open(host, Host::DEVICE).unwrap();
    lab.wait_forwarded(&far, "10.0.1.2");
    let old = host.mac(Host::DEVICE).unwrap();
    // Down and up, it says nothing of its own accord (arp_notify is off), and what
    // it would ask for itself it knows already.
    host.ip("link set eth0 address 02:00:00:00:be:ef").unwrap();
    let mac = router.mac("b0").unwrap();
    host.ip(&format!("neigh replace 10.0.1.1 lladdr {} dev eth0 nud permanent", show_mac(mac)))
        .unwrap();
    let stale = show_mac(old);
    router.ip(&format!("neigh replace 10.0.1.2 lladdr {stale} dev b0 nud stale")).unwrap();
    // The kernel waits 5 s (delay_first_probe_time) and asks three times, 1 s apart.
    wait_until(Duration::from_secs(20), "packets to the new MAC", || {
        lab.probe(&far, "10.0.1.2").is_some_and(|f| f[..6] == [2, 0, 0, 0, 0xbe, 0xef])
    })
    .unwrap_or_else(|e| {
        let counters = lab.nsplane.show("counters", &[]).unwrap();
        panic!("{e}: {counters} {}", router.ip("neigh").unwrap())
    });
    lab.wait_forwarded(&far, "10.0.1.2");
}

#[test]
#[ignore = "needs root"]
fn link_down_and_up() {
    let lab = Lab::new("link");
    let router = lab.tenant.router();
    let far = Raw::open(lab.tenant.host(Host::B), Host::DEVICE).unwrap();
    lab.wait_forwarded(&far, "10.0.1.2");
    router.ip("link set b0 down").unwrap();
    lab.wait_silent(&far, "10.0.1.2");
    router.ip("link set b0 up").unwrap();
    lab.wait_forwarded(&far, "10.0.1.2");
    // The same for the device that packets come in on.
    router.ip("link set a0 down").unwrap();
    router.ip("link set a0 up").unwrap();
    lab.wait_forwarded(&far, "10.0.1.2");
}

#[test]
#[ignore = "needs root"]
fn devices() {
    let lab = Lab::new("device");
    let router = lab.tenant.router();
    let third = Netns::new("third").unwrap();
    veth(&End::new(router, "c0"), &End::new(&third, "eth0")).unwrap();
    router.ip("addr add 10.0.2.1/24 dev c0").unwrap();
    third.ip("addr add 10.0.2.2/24 dev eth0").unwrap();
    third.ip("route add default via 10.0.2.1").unwrap();
    let far = Raw::open(&third, "eth0").unwrap();
    lab.wait_forwarded(&far, "10.0.2.2");
    router.ip("link set c0 mtu 1400").unwrap();
    lab.wait_forwarded(&far, "10.0.2.2");
    router.ip("link del c0").unwrap();
    let gone = || {
        let ports = lab.nsplane.show("ports", &[]).unwrap();
        ports.as_array().unwrap().iter().all(|p| p["device"] != "c0")
    };
    wait_until(SOON, "the port to be gone", gone).unwrap();
    // Made anew under the same name.
    let fourth = Netns::new("fourth").unwrap();
    veth(&End::new(router, "c0"), &End::new(&fourth, "eth0")).unwrap();
    router.ip("addr add 10.0.2.1/24 dev c0").unwrap();
    fourth.ip("addr add 10.0.2.2/24 dev eth0").unwrap();
    fourth.ip("route add default via 10.0.2.1").unwrap();
    let far = Raw::open(&fourth, "eth0").unwrap();
    lab.wait_forwarded(&far, "10.0.2.2");
    // The others were not disturbed.
    let far = Raw::open(lab.tenant.host(Host::B), Host::DEVICE).unwrap();
    lab.wait_forwarded(&far, "10.0.1.2");
}

#[test]
#[ignore = "needs root"]
fn a_device_that_somebody_held() {
    let lab = Lab::new("held");
    let router = lab.tenant.router();
    let third = Netns::new("third").unwrap();
    router.ip("link add c0 type veth peer name eth0").unwrap();
    router.ip(&format!("link set eth0 netns {}", third.name())).unwrap();
    third.ip("link set eth0 up").unwrap();
    let holder = Sink::attach(router, "c0", 1).unwrap();
    router.ip("link set c0 up").unwrap();
    let c0 = || {
        let ports = lab.nsplane.show("ports", &[]).unwrap();
        ports.as_array().unwrap().iter().find(|p| p["device"] == "c0").cloned()
    };
    let refused = || c0().is_some_and(|p| p["reason"].as_str().unwrap().contains("another XDP"));
    wait_until(SOON, "the device to be refused", refused).unwrap();
    drop(holder);
    wait_until(SOON, "the device to be a port", || c0().is_some_and(|p| p["port"] != "")).unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_policy_rule_that_refuses_is_followed() {
    let lab = Lab::new("rule");
    let router = lab.tenant.router();
    let far = Raw::open(lab.tenant.host(Host::B), Host::DEVICE).unwrap();
    lab.wait_forwarded(&far, "10.0.1.2");
    router.ip("rule add from 10.0.0.2 blackhole").unwrap();
    lab.wait_silent(&far, "10.0.1.2");
    let shown = lab.nsplane.show("namespaces", &[]).unwrap();
    assert_eq!(shown[0]["tier_v4"], "userspace", "{shown}");
    router.ip("rule del from 10.0.0.2 blackhole").unwrap();
    lab.wait_forwarded(&far, "10.0.1.2");
    router.ip("rule add from 10.0.0.2 uidrange 1-2 lookup 7").unwrap();
    lab.wait_kernel(&far, "10.0.1.2");
    let shown = lab.nsplane.show("namespaces", &[]).unwrap();
    let tier = shown[0]["tier_v4"].as_str().unwrap().to_owned();
    assert!(tier.starts_with("kernel") && tier.contains("rule"), "{shown}");
    router.ip("rule del from 10.0.0.2 uidrange 1-2 lookup 7").unwrap();
    lab.wait_forwarded(&far, "10.0.1.2");
}
