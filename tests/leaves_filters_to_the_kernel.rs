//! What the kernel would filter, encrypt or shape is not forwarded past it.

use std::path::Path;
use std::time::{Duration, Instant};

use nsplane_tests::lab::{Lab, SOON};
use nsplane_tests::netns::Netns;
use nsplane_tests::process::Nsplane;
use nsplane_tests::raw::Raw;
use nsplane_tests::tenant::{Host, Tenant, TenantSpec};
use nsplane_tests::wait::wait_until;

const V4: &str = "10.0.1.2";
const V6: &str = "fd00:0:0:1::2";
const DROP_ALL: &str = "{ type filter hook forward priority 0; policy drop; }";

fn far(lab: &Lab) -> Raw {
    Raw::open(lab.tenant.host(Host::B), Host::DEVICE).unwrap()
}

fn nft(netns: &Netns, words: &str) {
    netns.exec("nft", [words]).unwrap();
}

/// Who forwards, as `nsplane show namespaces` says.
fn tiers(nsplane: &Nsplane) -> [String; 2] {
    let shown = nsplane.show("namespaces", &[]).unwrap();
    ["tier_v4", "tier_v6"].map(|tier| shown[0][tier].as_str().unwrap().to_owned())
}

#[test]
#[ignore = "needs root"]
fn nftables() {
    let lab = Lab::new("nft");
    let (router, far) = (lab.tenant.router(), far(&lab));
    lab.wait_forwarded(&far, V4);
    lab.wait_forwarded(&far, V6);
    for (family, stops, goes_on) in
        [("inet", &[V4, V6][..], None), ("ip", &[V4], Some(V6)), ("ip6", &[V6], Some(V4))]
    {
        nft(router, &format!("add table {family} t"));
        nft(router, &format!("add chain {family} t f {DROP_ALL}"));
        for dst in stops {
            lab.wait_silent(&far, dst);
        }
        let chain = format!("kernel: nftables chain {family} t/f");
        let named = tiers(&lab.nsplane).iter().filter(|t| **t == chain).count();
        assert_eq!(named, stops.len(), "{:?}", tiers(&lab.nsplane));
        if let Some(dst) = goes_on {
            lab.wait_forwarded(&far, dst);
        }
        nft(router, &format!("delete table {family} t"));
        lab.wait_forwarded(&far, V4);
        lab.wait_forwarded(&far, V6);
    }
}

/// From the end of the command that makes a filter to the last packet that gets past it.
#[test]
#[ignore = "needs root"]
fn a_filter_counts_at_once() {
    let lab = Lab::new("fast");
    let (router, far) = (lab.tenant.router(), far(&lab));
    nft(router, "add table inet t");
    let mut past = Vec::new();
    for _ in 0..5 {
        lab.wait_forwarded(&far, V4);
        nft(router, &format!("add chain inet t f {DROP_ALL}"));
        let start = Instant::now();
        let mut last = Duration::ZERO;
        while start.elapsed() < Duration::from_millis(300) {
            if lab.probe_for(&far, V4, Duration::from_millis(2)).is_some() {
                last = start.elapsed();
            }
        }
        past.push(last);
        nft(router, "delete chain inet t f");
    }
    println!("last packet past the filter, after the command ended: {past:?}");
    assert!(past.iter().all(|t| *t < Duration::from_millis(200)), "{past:?}");
}

#[test]
#[ignore = "needs root"]
fn filters_from_before() {
    let tenant = Tenant::new("before", &TenantSpec::default()).unwrap();
    tenant.router().exec("iptables-nft", ["-A", "FORWARD", "-j", "ACCEPT"]).unwrap();
    // Kernels come without it by now.
    let legacy = Path::new("/proc/net/ip_tables_names").exists();
    if legacy {
        tenant.router().exec("iptables-legacy", ["-A", "FORWARD", "-j", "DROP"]).unwrap();
    }
    let nsplane = Nsplane::start(&[tenant.router()], &[]).unwrap();
    let [v4, v6] = tiers(&nsplane);
    assert_eq!(
        (v4.as_str(), v6.as_str()),
        ("kernel: nftables chain ip filter/FORWARD", "userspace")
    );
    // Without the one there still is the other.
    nft(tenant.router(), "flush ruleset");
    let left = if legacy { "kernel: iptables (legacy) table filter" } else { "userspace" };
    wait_until(SOON, left, || tiers(&nsplane)[0] == left).unwrap();
}

#[test]
#[ignore = "needs root"]
fn xfrm_policies() {
    let lab = Lab::new("xfrm");
    let (router, far) = (lab.tenant.router(), far(&lab));
    lab.wait_forwarded(&far, V4);
    let selector = "dir fwd src 10.0.0.0/24 dst 10.0.1.0/24";
    router.ip(&format!("xfrm policy add {selector} action block")).unwrap();
    lab.wait_silent(&far, V4);
    assert_eq!(tiers(&lab.nsplane), [&format!("kernel: xfrm policy {selector}"), "userspace"]);
    lab.wait_forwarded(&far, V6);
    router.ip(&format!("xfrm policy delete {selector}")).unwrap();
    lab.wait_forwarded(&far, V4);
}

#[test]
#[ignore = "needs root"]
fn traffic_control() {
    let lab = Lab::new("tc");
    let (router, far) = (lab.tenant.router(), far(&lab));
    let shaper = "root tbf rate 100mbit burst 100k latency 10ms";
    for (device, place) in [("a0", "clsact"), ("a0", "ingress"), ("b0", "clsact"), ("b0", shaper)] {
        lab.wait_forwarded(&far, V4);
        lab.wait_forwarded(&far, V6);
        let tc = |act| {
            let words = format!("qdisc {act} dev {device} {place}");
            router.exec("tc", words.split(' ')).unwrap();
        };
        tc("add");
        lab.wait_kernel(&far, V4);
        lab.wait_kernel(&far, V6);
        let ports = lab.nsplane.show("ports", &[]).unwrap();
        let port = ports.as_array().unwrap().iter().find(|p| p["device"] == device).unwrap();
        let kind = place.split(' ').find(|w| *w != "root").unwrap();
        assert!(port["reason"].as_str().unwrap().starts_with(&format!("tc {kind}: ")), "{ports}");
        assert_eq!(port["forward_v4"], kind == "tbf", "{ports}");
        assert_eq!(tiers(&lab.nsplane), ["userspace", "userspace"]);
        tc("del");
    }
    lab.wait_forwarded(&far, V4);
}
