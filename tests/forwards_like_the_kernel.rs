//! The same frame, sent through the kernel of a namespace and through nsplane on the
//! same set-up, comes out the same: every byte, or not at all.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use nsplane_tests::flow;
use nsplane_tests::frame::Udp;
use nsplane_tests::process::Nsplane;
use nsplane_tests::raw::Raw;
use nsplane_tests::tenant::{Family, Host, Tenant, TenantSpec};

/// How long a frame may take; also what each frame that is dropped costs.
const PATIENCE: Duration = Duration::from_millis(150);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Frames by name; the payload starts with the name, by which the frame is found again.
fn cases(macs: ([u8; 6], [u8; 6])) -> BTreeMap<String, Vec<u8>> {
    let mut cases = BTreeMap::new();
    let mut add = |family: Family, name: &str, change: &dyn Fn(&mut Udp)| {
        let name = format!("{family} {name};");
        let (src, dst) = (Host::A.address(family), Host::B.address(family));
        let mut udp = Udp::new(macs, src, dst, name.as_bytes());
        change(&mut udp);
        cases.insert(name, udp.bytes());
    };
    for family in Family::BOTH {
        add(family, "plain", &|_| {});
        add(family, "odd length", &|u| u.payload.push(b'x'));
        add(family, "full MTU", &|u| {
            u.payload.resize(if family == Family::V4 { 1472 } else { 1452 }, 7);
        });
        add(family, "ttl 2", &|u| u.ttl = 2);
        add(family, "ttl 1", &|u| u.ttl = 1);
        add(family, "ttl 0", &|u| u.ttl = 0);
        add(family, "ttl 255", &|u| u.ttl = 255);
        add(family, "tos and ecn", &|u| u.tos = 0xb9);
        add(family, "padding", &|u| u.padding = 9);
        add(family, "zero checksum", &|u| u.zero_checksum = true);
        add(family, "no route", &|u| {
            u.dst = if family == Family::V4 { ip("198.51.100.1") } else { ip("2001:db8::1") };
        });
        add(family, "from the router's own address", &|u| {
            u.src = if family == Family::V4 { ip("10.0.0.1") } else { ip("fd00::1") };
        });
        add(family, "from the router's other address", &|u| {
            u.src = if family == Family::V4 { ip("10.0.1.1") } else { ip("fd00:0:0:1::1") };
        });
        add(family, "from loopback", &|u| {
            u.src = if family == Family::V4 { ip("127.0.0.1") } else { ip("::1") };
        });
        add(family, "from multicast", &|u| {
            u.src = if family == Family::V4 { ip("224.0.0.5") } else { ip("ff02::5") };
        });
        add(family, "from nowhere", &|u| {
            u.src = if family == Family::V4 { ip("0.0.0.0") } else { ip("::") };
        });
        add(family, "from link-local", &|u| {
            u.src = if family == Family::V4 { ip("169.254.3.4") } else { ip("fe80::77") };
        });
        add(family, "to multicast", &|u| {
            u.dst = if family == Family::V4 { ip("239.1.2.3") } else { ip("ff0e::1") };
        });
        add(family, "to another's MAC", &|u| u.macs.0 = [2, 9, 9, 9, 9, 9]);
    }
    let v4 = Family::V4;
    add(v4, "don't fragment", &|u| u.fragment = 0x4000);
    add(v4, "first fragment", &|u| u.fragment = 0x2000);
    add(v4, "later fragment", &|u| u.fragment = 0x0003);
    add(v4, "no-operation options", &|u| u.options = vec![1, 1, 1, 0]);
    add(v4, "record route", &|u| u.options = vec![7, 7, 4, 0, 0, 0, 0, 0]);
    add(v4, "to class E", &|u| u.dst = ip("240.0.0.1"));
    add(v4, "to this network", &|u| u.dst = ip("0.0.0.7"));
    add(v4, "to directed broadcast", &|u| u.dst = ip("10.0.1.255"));
    add(v4, "to limited broadcast", &|u| u.dst = ip("255.255.255.255"));
    let v6 = Family::V6;
    let udp = nsplane_tests::frame::UDP;
    add(v6, "hop-by-hop padding", &|u| u.extension = Some((0, vec![udp, 0, 1, 4, 0, 0, 0, 0])));
    add(v6, "destination options", &|u| u.extension = Some((60, vec![udp, 0, 1, 4, 0, 0, 0, 0])));
    add(v6, "fragment", &|u| u.extension = Some((44, vec![udp, 0, 0, 1, 0, 0, 0, 9])));
    for (name, family, at, value) in [
        ("wrong version", v4, 14, 0x55),
        ("short header", v4, 14, 0x44),
        ("wrong header checksum", v4, 24, 0xff),
        ("length beyond the frame", v4, 16, 0x05),
        ("wrong version", v6, 14, 0x51),
        ("length beyond the frame", v6, 18, 0x05),
    ] {
        let name = format!("{family} {name};");
        let (src, dst) = (Host::A.address(family), Host::B.address(family));
        let mut frame = Udp::new(macs, src, dst, name.as_bytes()).bytes();
        frame[at] = value;
        cases.insert(name, frame);
    }
    let name = "IPv4 length shorter than the frame;";
    let mut frame = Udp::new(macs, ip("10.0.0.2"), ip("10.0.1.2"), name.as_bytes());
    frame.padding = 40;
    cases.insert(name.to_owned(), frame.bytes());
    cases
}

/// What comes out at host B for each case; None where nothing does.
fn outcomes(
    tenant: &Tenant,
    cases: &BTreeMap<String, Vec<u8>>,
) -> BTreeMap<String, Option<Vec<u8>>> {
    let near = Raw::open(tenant.host(Host::A), Host::DEVICE).unwrap();
    let far = Raw::open(tenant.host(Host::B), Host::DEVICE).unwrap();
    let mut outcomes = BTreeMap::new();
    for (name, frame) in cases {
        near.send(frame).unwrap();
        let found = |f: &[u8]| f.windows(name.len()).any(|w| w == name.as_bytes());
        outcomes.insert(name.clone(), far.receive(PATIENCE, found));
    }
    outcomes
}

fn resolve_neighbors(tenant: &Tenant) {
    for family in Family::BOTH {
        let seen = flow::ping(tenant.host(Host::A), Host::B.address(family), 2).unwrap();
        assert!(seen.received > 0, "no {family} through the router");
    }
}

fn compare(nsplane_args: &[&str], rp_filter: &str) {
    let tenant = Tenant::new("like", &TenantSpec::default()).unwrap();
    for device in ["all", "a0", "b0"] {
        tenant.router().sysctl(&format!("net/ipv4/conf/{device}/rp_filter"), rp_filter).unwrap();
    }
    resolve_neighbors(&tenant);
    let router = tenant.router().mac(Host::A.router_device()).unwrap();
    let host = tenant.host(Host::A).mac(Host::DEVICE).unwrap();
    let cases = cases((router, host));
    let kernel = outcomes(&tenant, &cases);

    let nsplane = Nsplane::start(&[tenant.router()], nsplane_args).unwrap();
    resolve_neighbors(&tenant);
    let ours = outcomes(&tenant, &cases);
    let different: Vec<_> = cases.keys().filter(|name| kernel[*name] != ours[*name]).collect();
    for name in &different {
        println!("{name}\n  kernel:  {:02x?}\n  nsplane: {:02x?}", kernel[*name], ours[*name]);
    }
    assert!(different.is_empty(), "not as the kernel: {different:?}");
    // Not true because everything was left to the kernel.
    let counters = nsplane.show("counters", &[]).unwrap();
    let forwarded = counters[0]["userspace"]["forwarded"]["packets"].as_u64().unwrap();
    let through = kernel.values().filter(|o| o.is_some()).count() as u64;
    assert!(through > 20, "the kernel itself forwarded only {through} of the cases");
    assert!(
        forwarded >= through / 2,
        "nsplane forwarded only {forwarded} of {through}: {counters}"
    );
}

#[test]
#[ignore = "needs root"]
fn native() {
    compare(&[], "0");
}

#[test]
#[ignore = "needs root"]
fn generic() {
    compare(&["--xdp", "generic"], "0");
}

#[test]
#[ignore = "needs root"]
fn native_with_strict_reverse_path_filter() {
    compare(&[], "1");
}
