//! What the kernel answers, it still answers with nsplane in front of it: unknown
//! neighbours are resolved, errors come back, nothing loops.

use std::time::Duration;

use nsplane_tests::flow;
use nsplane_tests::netns::Netns;
use nsplane_tests::process::Nsplane;
use nsplane_tests::tenant::{Family, Host, Tenant, TenantSpec};

/// What a `ping` with options prints, also when nothing answers.
fn ping_output(from: &Netns, args: &str) -> String {
    let script = format!("ping -n {args} 2>&1 || true");
    from.exec("sh", ["-c", &script]).unwrap()
}

fn answers(xdp: &str) {
    let tenant = Tenant::new("answer", &TenantSpec::default()).unwrap();
    let nsplane = Nsplane::start(&[tenant.router()], &["--xdp", xdp]).unwrap();
    let host = tenant.host(Host::A);

    // First contact: nobody knows anybody's MAC yet, and the first packet arrives.
    for family in Family::BOTH {
        let seen = flow::ping(host, Host::B.address(family), 3).unwrap();
        assert_eq!(seen.received, 3, "first contact over {family}");
    }
    // The router itself.
    for address in ["10.0.0.1", "10.0.1.1", "fd00::1", "fd00:0:0:1::1"] {
        let seen = flow::ping(host, address.parse().unwrap(), 2).unwrap();
        assert_eq!(seen.received, 2, "the router's own {address}");
    }
    // TTL runs out at the router.
    let out = ping_output(host, "-c 1 -W 2 -t 1 10.0.1.2");
    assert!(out.contains("From 10.0.0.1") && out.contains("Time to live exceeded"), "{out}");
    let out = ping_output(host, "-c 1 -W 2 -t 1 fd00:0:0:1::2");
    assert!(out.contains("From fd00::1") && out.contains("exceeded"), "{out}");
    // No route.
    let out = ping_output(host, "-c 1 -W 2 198.51.100.1");
    assert!(out.contains("From 10.0.0.1") && out.contains("Unreachable"), "{out}");
    let out = ping_output(host, "-c 1 -W 2 2001:db8::1");
    assert!(out.contains("From fd00::1") && out.contains("nreachable"), "{out}");
    // Nobody there: the kernel gives up resolving and says so.
    let out = ping_output(host, "-c 1 -W 5 10.0.1.77");
    assert!(out.contains("From 10.0.0.1") && out.contains("Unreachable"), "{out}");

    // Too big for the second link: "frag needed" and "packet too big" come back.
    tenant.router().ip("link set b0 mtu 1300").unwrap();
    tenant.host(Host::B).ip("link set eth0 mtu 1300").unwrap();
    let out = ping_output(host, "-c 1 -W 2 -M do -s 1400 10.0.1.2");
    assert!(out.contains("mtu = 1300") || out.contains("mtu=1300"), "{out}");
    let out = ping_output(host, "-c 1 -W 2 -M do -s 1400 fd00:0:0:1::2");
    assert!(out.contains("mtu = 1300") || out.contains("mtu=1300"), "{out}");
    // Without "don't fragment" the kernel fragments, and the answer comes whole.
    host.ip("route flush cache").unwrap();
    let out = ping_output(host, "-c 3 -W 2 -M dont -s 1400 10.0.1.2");
    assert!(out.contains("3 received"), "{out}");

    let counters = nsplane.show("counters", &[]).unwrap();
    let userspace = &counters[0]["userspace"];
    for reason in ["no_neighbor", "no_route", "too_big"] {
        assert!(userspace["punts"][reason].as_u64() > Some(0), "{reason}: {counters}");
    }
    // Each punt reached the stack once and did not come back as a packet to route:
    // few packets in, few punts.
    let punts: u64 = userspace["punts"]
        .as_object()
        .unwrap()
        .values()
        .filter_map(serde_json::Value::as_u64)
        .sum();
    assert!(punts < 200, "punted packets came back: {counters}");
    assert_eq!(userspace["punts_failed"], 0, "{counters}");
}

#[test]
#[ignore = "needs root"]
fn native() {
    answers("native");
}

#[test]
#[ignore = "needs root"]
fn generic() {
    answers("generic");
}

#[test]
#[ignore = "needs root"]
fn forwarding_off_is_off() {
    let tenant = Tenant::new("off", &TenantSpec::default()).unwrap();
    let nsplane = Nsplane::start(&[tenant.router()], &[]).unwrap();
    let host = tenant.host(Host::A);
    let forwards = |family| flow::ping(host, Host::B.address(family), 1).unwrap().received > 0;
    assert!(forwards(Family::V4) && forwards(Family::V6));
    tenant.router().sysctl("net/ipv4/ip_forward", "0").unwrap();
    tenant.router().sysctl("net/ipv6/conf/all/forwarding", "0").unwrap();
    let heard = || {
        let ports = nsplane.show("ports", &[]).unwrap();
        let ports = ports.as_array().unwrap().clone();
        ports.iter().all(|p| p["forward_v4"] == false && p["forward_v6"] == false)
    };
    nsplane_tests::wait::wait_until(Duration::from_secs(3), "the switch to be heard", heard)
        .unwrap();
    assert!(!forwards(Family::V4) && !forwards(Family::V6));
    let shown = nsplane.show("namespaces", &[]).unwrap();
    assert_eq!(shown[0]["tier_v4"], "kernel: no port forwards", "{shown}");
    tenant.router().sysctl("net/ipv4/ip_forward", "1").unwrap();
    tenant.router().sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
    let again = || forwards(Family::V4) && forwards(Family::V6);
    nsplane_tests::wait::wait_until(Duration::from_secs(5), "forwarding again", again).unwrap();
}
