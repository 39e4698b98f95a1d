//! A VLAN tag that travels beside a packet, as a veth hands it over when its other end's
//! sender left the tag to the device, counts as one that is in it.

use std::os::fd::OwnedFd;

use nsplane_tests::frame::Udp;
use nsplane_tests::netns::{End, Netns, show_mac, veth};
use nsplane_tests::programs::tag_beside;
use nsplane_tests::raw::Raw;
use nsplane_tests::tenant::Host;
use nsplane_tests::trunk::{
    Lab, OUTSIDE, OUTSIDE_MAC, Q100, Q200, QINQ, ROUTER, SHORT, SOON, STAND_IN_MAC, arp,
};
use nsplane_tests::wait::wait_until;

const DOT1Q: u16 = 0x8100;
const DOT1AD: u16 = 0x88a8;

/// From now on all that is sent from outside gets this tag, until the result is closed.
fn tag(lab: &Lab, tag: (u16, u16)) -> OwnedFd {
    let index = lab.wire.ifindex("o0").unwrap();
    lab.wire.inside(|| tag_beside(index, tag)).unwrap().unwrap()
}

fn marked(mark: &str) -> impl Fn(&[u8]) -> bool {
    let mark = mark.as_bytes().to_vec();
    move |f: &[u8]| f.windows(mark.len()).any(|w| w == mark)
}

/// Frames from outside with `inner` in their bytes are the first tenant's, and what it
/// sends is tagged.
fn is_the_members(lab: &Lab, inner: &[u8]) {
    let send = |frame: &[u8]| {
        lab.outside.send(&[&frame[..12], inner, &frame[12..]].concat()).unwrap();
    };
    let before = lab.forwarded(0);
    for n in 0..5 {
        let mark = format!("beside {n};");
        let macs = (STAND_IN_MAC, OUTSIDE_MAC);
        let sent = Udp::new(macs, OUTSIDE.into(), Host::B.v4().into(), mark.as_bytes());
        send(&sent.bytes());
        let got = lab.far[0].receive(SOON, marked(&mark)).expect("a packet at B");
        assert_eq!(got.len(), sent.bytes().len(), "not a byte of the tags is left");
        assert!(lab.far[1].receive(SHORT, marked(&mark)).is_none(), "{mark} leaked");
        assert!(lab.outwards(0, &format!("back {n};")));
    }
    assert!(lab.forwarded(0) >= before + 10, "by a worker");
    // What is the kernel's of the tenant: it resolves, and says what became of a packet.
    send(&arp([0xff; 6], OUTSIDE_MAC, 1, (OUTSIDE_MAC, OUTSIDE), ([0; 6], ROUTER)));
    let answer = lab.receive(0, SOON, |f| f[12..14] == [8, 6] && f[21] == 2);
    let expected =
        arp(OUTSIDE_MAC, STAND_IN_MAC, 2, (STAND_IN_MAC, ROUTER), (OUTSIDE_MAC, OUTSIDE));
    assert_eq!(answer.expect("an answer in the VLAN")[..42], expected);
    let macs = (STAND_IN_MAC, OUTSIDE_MAC);
    let short = Udp::new(macs, OUTSIDE.into(), Host::B.v4().into(), b"short");
    send(&Udp { ttl: 1, ..short }.bytes());
    let exceeded = |f: &[u8]| f[12..14] == [8, 0] && f[23] == 1 && f[34] == 11;
    assert!(lab.receive(0, SOON, exceeded).is_some(), "TTL exceeded in the VLAN");
}

#[test]
#[ignore = "needs root"]
fn a_packet_with_its_tag_beside_is_the_members() {
    let lab = Lab::new([Q100, Q200]);
    (0..2).for_each(|t| lab.assert_forwards(t, "tags in the packets"));
    // Its priority says nothing of whose it is.
    let _tagger = tag(&lab, (DOT1Q, 0x6064));
    is_the_members(&lab, &[]);
}

#[test]
#[ignore = "needs root"]
fn so_is_one_with_the_outer_tag_beside_and_the_inner_one_in_it() {
    let lab = Lab::new([QINQ, Q200]);
    (0..2).for_each(|t| lab.assert_forwards(t, "tags in the packets"));
    let _tagger = tag(&lab, (DOT1AD, 100));
    is_the_members(&lab, &[0x81, 0, 0, 100]);
}

#[test]
#[ignore = "needs root"]
fn with_no_member_it_is_not_the_ports_own() {
    let lab = Lab::new([Q100, Q200]);
    // The trunk's namespace forwards, and would forward it.
    let host = Netns::new("of-infra").unwrap();
    veth(&End::new(&lab.infra, "c0"), &End::new(&host, Host::DEVICE)).unwrap();
    lab.infra.sysctl("net/ipv4/ip_forward", "1").unwrap();
    let mac = show_mac(host.mac(Host::DEVICE).unwrap());
    lab.infra
        .ip_batch(&format!(
            "addr add 10.0.0.9/24 dev trunk0\naddr add 10.0.9.1/24 dev c0\n\
             neigh replace 10.0.9.2 lladdr {mac} dev c0 nud permanent\n"
        ))
        .unwrap();
    let seen = Raw::open(&host, Host::DEVICE).unwrap();
    let send = |mark: &str| {
        let macs = (lab.infra.mac("trunk0").unwrap(), OUTSIDE_MAC);
        let sent = Udp::new(macs, OUTSIDE.into(), [10, 0, 9, 2].into(), mark.as_bytes());
        lab.outside.send(&sent.bytes()).unwrap();
        seen.receive(SHORT, marked(mark)).is_some()
    };
    let counted = |what: &str, reason: &str| {
        let counters = lab.nsplane.show("counters", &["--netns", lab.infra.name()]).unwrap();
        counters[0][what][reason]["packets"].as_u64().unwrap_or(0)
    };
    let forwarded = || counted("userspace", "forwarded");
    let mut n = 0;
    wait_until(SOON, "untagged packets by a worker", || {
        n += 1;
        let before = forwarded();
        send(&format!("untagged {n};")) && forwarded() > before
    })
    .unwrap();
    let passed = || {
        let counters = lab.nsplane.show("counters", &["--netns", lab.infra.name()]).unwrap();
        counters[0]["kernel"]["passed"]["vlan"]["packets"].as_u64().unwrap_or(0)
    };
    let (before, passed_before) = (forwarded(), passed());
    {
        let _tagger = tag(&lab, (DOT1Q, 300));
        for n in 0..5 {
            let mark = format!("in VLAN 300, {n};");
            assert!(!send(&mark), "{mark} came out untagged");
        }
    }
    assert_eq!(forwarded(), before);
    // The program saw it: these were tags beside packets, and no others.
    assert!(passed() >= passed_before + 5, "{}", lab.nsplane.show("counters", &[]).unwrap());
    assert!(send("untagged again"));
}
