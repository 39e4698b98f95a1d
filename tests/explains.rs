//! `nsplane explain` says what becomes of a packet, and so it is; and what the kernel says.

use nsplane_tests::command;
use nsplane_tests::lab::{Lab, SOON};
use nsplane_tests::netns::show_mac;
use nsplane_tests::raw::Raw;
use nsplane_tests::tenant::Host;
use nsplane_tests::wait::wait_until;
use serde_json::Value;

/// Exit status where nsplane and the kernel differ.
const DIFFERS: i32 = 3;

/// Asks about a packet that comes in at `a0`: exit status, and answer.
fn ask(lab: &Lab, words: &str) -> (i32, Value) {
    let netns = lab.tenant.router().name();
    let mut all = vec!["explain", "--json", "--netns", netns];
    if !words.contains("--iif") {
        all.extend(["--iif", "a0"]);
    }
    all.extend(words.split_whitespace());
    let said = lab.nsplane.tell(&all).unwrap();
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    let answer = serde_json::from_str(&out).unwrap_or_else(|_| Value::String(err.into_owned()));
    (said.status.code().unwrap(), answer)
}

/// Waits until nsplane has a packet in `tier` for `reason`; it must agree with the kernel.
fn wait_for(lab: &Lab, words: &str, tier: &str, reason: &str) -> Value {
    let mut last = Value::Null;
    wait_until(SOON, &format!("{words}: {tier}, {reason}"), || {
        let (code, answer) = ask(lab, words);
        let fits = code == 0 && answer["tier"] == tier && answer["reason"] == reason;
        last = answer;
        fits
    })
    .unwrap_or_else(|e| panic!("{e}: {last:#}"));
    last
}

fn found(answer: &Value, step: &str) -> String {
    let steps = answer["steps"].as_array().unwrap();
    let found = steps.iter().find(|s| s["step"] == step);
    found.map_or_else(String::new, |s| s["found"].as_str().unwrap().to_owned())
}

#[test]
#[ignore = "needs root"]
fn a_packet_that_nsplane_forwards() {
    let lab = Lab::new("explain");
    let router = lab.tenant.router();
    let mac = show_mac(lab.tenant.host(Host::B).mac(Host::DEVICE).unwrap());
    for (dst, prefix) in [("10.0.1.2", "10.0.1.0/24"), ("fd00:0:0:1::2", "fd00:0:0:1::/64")] {
        let answer = wait_for(&lab, &format!("--dst {dst}"), "userspace", "forwarded");
        assert_eq!(answer["egress"]["dev"], "b0", "{answer:#}");
        assert_eq!(answer["egress"]["lladdr"], *mac, "{answer:#}");
        assert_eq!(answer["egress"], answer["kernel"]["way"], "{answer:#}");
        assert_eq!(answer["kernel"]["kind"], "unicast", "{answer:#}");
        assert_eq!(
            (&answer["kernel"]["prefix"], &answer["kernel"]["table"]),
            (&prefix.into(), &254.into())
        );
        assert_eq!(answer["differences"], serde_json::json!([]));
        for step in ["packet", "member", "namespace", "ledger", "program", "prefix", "next hop"] {
            assert!(!found(&answer, step).is_empty(), "no {step}: {answer:#}");
        }
        assert!(found(&answer, "prefix").contains(prefix), "{answer:#}");
    }
    // A route to a router, and the packet in all its particulars.
    router.ip("route add 203.0.113.0/24 via 10.0.1.2 metric 20").unwrap();
    let words = "--dst 203.0.113.9 --src 10.0.0.2 --proto tcp --sport 4000 --dport 80 --tos 16";
    wait_until(SOON, "the route", || ask(&lab, words).1["egress"]["via"] == "10.0.1.2").unwrap();
    let answer = wait_for(&lab, words, "userspace", "forwarded");
    assert_eq!((&answer["kernel"]["metric"], &answer["packet"]["proto"]), (&20.into(), &6.into()));
    // It is what happens to such packets.
    let far = Raw::open(lab.tenant.host(Host::B), Host::DEVICE).unwrap();
    lab.wait_forwarded(&far, "203.0.113.9");
    // For people.
    let netns = router.name();
    let said = lab.nsplane.tell(&["explain", "--netns", netns, "--iif", "a0", "--dst", "10.0.1.2"]);
    let text = String::from_utf8(said.unwrap().stdout).unwrap();
    assert!(text.contains("\ntier       userspace: forwarded\n"), "{text}");
    assert!(text.contains("\nsame       nsplane does what the kernel would\n"), "{text}");
}

/// What is the kernel's, each for its reason; and what the kernel says then.
#[test]
#[ignore = "needs root"]
fn packets_that_the_kernel_has() {
    let lab = Lab::new("explain");
    let router = lab.tenant.router();
    lab.nsplane.show("routes", &[]).unwrap();
    for (setup, words, reason, kernel) in [
        ("", "--dst 10.0.1.1", "local", "local"),
        ("", "--dst fd00:0:0:1::1", "local", "local"),
        ("", "--dst 10.0.1.255", "local", "refused"),
        ("", "--dst 224.0.0.5", "multicast", ""),
        ("", "--dst 198.51.100.1", "no_route", "refused"),
        ("", "--dst 10.0.1.77", "no_neighbor", "unicast"),
        ("route add blackhole 203.0.113.0/24", "--dst 203.0.113.1", "kernel_route", "refused"),
        ("route add unreachable 2001:db8::/32", "--dst 2001:db8::1", "kernel_route", "refused"),
        ("link add none0 type bridge", "", "", ""),
        ("link set none0 up", "", "", ""),
        ("addr add 10.0.7.1/24 dev none0", "--dst 10.0.7.2", "kernel_route", "unicast"),
    ] {
        if !setup.is_empty() {
            router.ip(setup).unwrap();
        }
        if words.is_empty() {
            continue;
        }
        let answer = wait_for(&lab, words, "kernel", reason);
        if !kernel.is_empty() && words != "--dst 10.0.1.255" {
            assert_eq!(answer["kernel"]["kind"], kernel, "{answer:#}");
        }
        assert_eq!(answer["egress"], Value::Null, "{answer:#}");
    }
    // A source that is not believed.
    router.sysctl("net/ipv4/conf/a0/rp_filter", "1").unwrap();
    let words = "--dst 10.0.1.2 --src 10.0.1.9";
    let answer = wait_for(&lab, words, "kernel", "source_check");
    assert!(found(&answer, "source").contains("strict"), "{answer:#}");
    assert_eq!(answer["kernel"]["kind"], "refused", "{answer:#}");
    // A device that does not forward.
    router.sysctl("net/ipv4/conf/a0/forwarding", "0").unwrap();
    wait_for(&lab, "--dst 10.0.1.2", "kernel", "not_routed");
    wait_for(&lab, "--dst fd00:0:0:1::2", "userspace", "forwarded");
}

/// Several next hops: nsplane takes one of the kernel's, or leaves it to the kernel.
#[test]
#[ignore = "needs root"]
fn several_next_hops() {
    let lab = Lab::new("explain");
    let router = lab.tenant.router();
    router.ip("addr add 10.0.1.3/32 dev lo").unwrap();
    router.ip("neigh replace 10.0.1.4 lladdr 02:00:00:00:00:04 dev b0").unwrap();
    router
        .ip("route add 203.0.113.0/24 nexthop via 10.0.1.2 dev b0 nexthop via 10.0.1.4 dev b0")
        .unwrap();
    let words = |n: u8| format!("--dst 203.0.113.{n} --src 10.0.0.2");
    wait_until(SOON, "the route", || ask(&lab, &words(1)).1["reason"] != "no_route").unwrap();
    for n in 1..20 {
        let (code, answer) = ask(&lab, &words(n));
        assert_eq!(code, 0, "{answer:#}");
        assert!(answer["kernel"]["way"]["via"].is_string(), "{answer:#}");
    }
}

#[test]
#[ignore = "needs root"]
fn the_ledger_says_why() {
    let lab = Lab::new("explain");
    let router = lab.tenant.router();
    wait_for(&lab, "--dst 10.0.1.2", "userspace", "forwarded");
    let nft = |words: &str| {
        let all = ["netns", "exec", router.name(), "nft"].into_iter().chain(words.split(' '));
        command::run("ip", all).unwrap();
    };
    nft("add table ip t");
    nft("add chain ip t f { type filter hook forward priority 0 ; }");
    let answer = wait_for(&lab, "--dst 10.0.1.2", "kernel", "not_routed");
    assert!(found(&answer, "ledger").contains("netfilter"), "{answer:#}");
    wait_for(&lab, "--dst fd00:0:0:1::2", "userspace", "forwarded");
    nft("delete table ip t");
    wait_for(&lab, "--dst 10.0.1.2", "userspace", "forwarded");
}

/// A rule that the operator has nsplane pass by: the one way to differ on purpose.
#[test]
#[ignore = "needs root"]
fn where_they_differ_it_is_said() {
    let lab = Lab::with("explain", &["--bypass", "rules"]);
    wait_for(&lab, "--dst 10.0.1.2", "userspace", "forwarded");
    lab.tenant.router().ip("rule add uidrange 0-4000000000 blackhole").unwrap();
    let (code, answer) = ask(&lab, "--dst 10.0.1.2");
    assert_eq!((code, &answer["tier"]), (DIFFERS, &"userspace".into()), "{answer:#}");
    let said = answer["differences"][0].as_str().unwrap();
    assert!(said.contains("b0") && said.contains("refused"), "{said}");
}

#[test]
#[ignore = "needs root"]
fn questions_that_make_no_sense() {
    let lab = Lab::new("explain");
    let router = lab.tenant.router();
    router.ip("link add br0 type bridge").unwrap();
    wait_until(SOON, "the bridge", || {
        ask(&lab, "--iif br0 --dst 10.0.1.2").1.as_str().is_some_and(|e| e.contains("br0 of"))
    })
    .unwrap();
    for (words, wanted) in [
        ("--iif br0 --dst 10.0.1.2", "is no port"),
        ("--iif br0 --dst 10.0.1.2", "ports: a0, b0"),
        ("--iif lo --dst 10.0.1.2", "is no port"),
        ("--iif eth9 --dst 10.0.1.2", "no device \"eth9\""),
        ("--dst 10.0.1.2 --src fd00::2", "not of one family"),
        ("--dst 10.0.1.2 --proto nonsense", "icmpv6"),
    ] {
        let (code, answer) = ask(&lab, words);
        let said = answer.as_str().unwrap_or_else(|| panic!("{words}: {answer:#}"));
        assert!(code != 0 && code != DIFFERS && said.contains(wanted), "{words}: {code} {said}");
    }
    let said = lab.nsplane.tell(&["explain", "--netns", "nowhere", "--iif", "a0", "--dst", "::1"]);
    let said = said.unwrap();
    let text = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(1));
    assert!(text.contains("no namespace \"nowhere\"") && text.contains(router.name()), "{text}");
}
