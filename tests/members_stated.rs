//! Members that the configuration states: VLANs of a trunk, and receive queues, that
//! belong to tenants.

use std::net::IpAddr;
use std::time::Duration;

use nsplane_tests::frame::Udp;
use nsplane_tests::netns::Netns;
use nsplane_tests::raw::Raw;
use nsplane_tests::tenant::Host;
use nsplane_tests::trunk::{
    AD100, Lab, NO_TAG, OUTSIDE, OUTSIDE_MAC, Q100, Q200, QINQ, ROUTER, SHORT, SOON, STAND_IN_MAC,
    Vlan, arp,
};
use nsplane_tests::wait::wait_until;

/// An ICMP echo request to the router.
fn echo(mark: &[u8]) -> Vec<u8> {
    let macs = (STAND_IN_MAC, OUTSIDE_MAC);
    let router: IpAddr = ROUTER.into();
    let mut frame = Udp::new(macs, OUTSIDE.into(), router, mark).bytes();
    // UDP's 8 bytes of header become ICMP's.
    frame[23] = 1;
    frame[34..42].copy_from_slice(&[8, 0, 0, 0, 0, 7, 0, 1]);
    let sum = nsplane_tests::frame::sum(&frame[34..], 0);
    frame[36..38].copy_from_slice(&(!sum).to_be_bytes());
    frame[24..26].fill(0);
    let sum = nsplane_tests::frame::sum(&frame[14..34], 0);
    frame[24..26].copy_from_slice(&(!sum).to_be_bytes());
    frame
}

fn all_that_a_vlan_needs(vlans: [Vlan; 2]) {
    let lab = Lab::new(vlans);
    for (tenant, vlan) in vlans.iter().enumerate() {
        let shown = lab.port(lab.router(tenant), "stand");
        assert_eq!(shown["member"]["by"], vlan.shown);
        // What the kernel of the tenant says: it resolves, is resolved, answers.
        lab.asks(tenant);
        let mark = format!("ping of {tenant}");
        lab.send(tenant, &echo(mark.as_bytes()));
        let is_reply = |f: &[u8]| f[23] == 1 && f[34] == 0 && f.ends_with(mark.as_bytes());
        let reply = lab.receive(tenant, SOON, is_reply).expect("an echo reply in the VLAN");
        assert_eq!((&reply[..6], &reply[6..12]), (&OUTSIDE_MAC[..], &STAND_IN_MAC[..]));
        lab.assert_forwards(tenant, vlan.shown);
        let macs = (STAND_IN_MAC, OUTSIDE_MAC);
        let short = Udp::new(macs, OUTSIDE.into(), Host::B.v4().into(), b"short");
        lab.send(tenant, &Udp { ttl: 1, ..short }.bytes());
        let exceeded = |f: &[u8]| f[12..14] == [8, 0] && f[23] == 1 && f[34] == 11;
        assert!(lab.receive(tenant, SOON, exceeded).is_some(), "TTL exceeded in the VLAN");
        // The longest packet there is.
        let payload = [b'x'; 1500 - 28];
        let long = Udp::new(macs, OUTSIDE.into(), Host::B.v4().into(), &payload);
        lab.send(tenant, &long.bytes());
        let whole = |f: &[u8]| f.len() == 1514 && f.ends_with(&payload);
        assert!(lab.far[tenant].receive(SOON, whole).is_some(), "a packet as long as the MTU");
    }
}

#[test]
#[ignore = "needs root"]
fn two_vlans_with_equal_addresses() {
    all_that_a_vlan_needs([Q100, Q200]);
}

#[test]
#[ignore = "needs root"]
fn tags_of_two_kinds_with_one_number() {
    all_that_a_vlan_needs([Q100, AD100]);
}

#[test]
#[ignore = "needs root"]
fn a_vlan_in_a_vlan_beside_the_outer_one() {
    all_that_a_vlan_needs([AD100, QINQ]);
}

#[test]
#[ignore = "needs root"]
fn other_vlans_and_untagged_frames_are_nobodys() {
    let lab = Lab::new([Q100, Q200]);
    (0..2).for_each(|t| lab.assert_forwards(t, "before"));
    let macs = (STAND_IN_MAC, OUTSIDE_MAC);
    let sent = Udp::new(macs, OUTSIDE.into(), Host::B.v4().into(), b"for nobody").bytes();
    for tags in [&[][..], &[0x81, 0, 0, 101], AD100.bytes, QINQ.bytes] {
        lab.outside.send(&[&sent[..12], tags, &sent[12..]].concat()).unwrap();
    }
    for far in &lab.far {
        let marked = |f: &[u8]| f.ends_with(b"for nobody");
        assert!(far.receive(SHORT, marked).is_none());
    }
}

#[test]
#[ignore = "needs root"]
fn a_tenant_that_goes_leaves_its_vlan_to_nobody() {
    let lab = Lab::new([Q100, Q200]);
    (0..2).for_each(|t| lab.assert_forwards(t, "before"));
    lab.router(0).ip("link set stand down").unwrap();
    wait_until(SOON, "no member", || lab.port(lab.router(0), "stand")["member"].is_null()).unwrap();
    assert!(!lab.inwards(0, "to a stand-in that is down"));
    lab.assert_forwards(1, "the other");
    lab.router(0).ip_batch("link set stand up\naddr replace 10.0.0.1/24 dev stand\n").unwrap();
    lab.wait_member(0);
    lab.assert_forwards(0, "up again");
}

#[test]
#[ignore = "needs root"]
fn two_queues_of_a_trunk_with_equal_addresses() {
    let lab = Lab::with([NO_TAG, NO_TAG], ["queue = 0", "queue = 1"], 2);
    let marked = |mark: &str| {
        let mark = mark.as_bytes().to_vec();
        move |f: &[u8]| f.windows(mark.len()).any(|w| w == mark)
    };
    for tenant in 0..2 {
        let shown = lab.port(lab.router(tenant), "stand");
        assert_eq!(shown["member"]["by"], format!("queue {tenant}"));
        lab.set_neighbor(tenant);
        // Broadcast too is the queue's owner's.
        let question = arp([0xff; 6], OUTSIDE_MAC, 1, (OUTSIDE_MAC, OUTSIDE), ([0; 6], ROUTER));
        lab.outside.send_by(tenant, &question).unwrap();
        let answer = lab.outside.receive(SOON, |f| f[12..14] == [8, 6] && f[21] == 2);
        let expected =
            arp(OUTSIDE_MAC, STAND_IN_MAC, 2, (STAND_IN_MAC, ROUTER), (OUTSIDE_MAC, OUTSIDE));
        assert_eq!(answer.expect("an answer")[..42], expected);
        let before = lab.forwarded(tenant);
        let mut n = 0;
        wait_until(SOON, "packets both ways", || {
            n += 1;
            let mark = format!("to {tenant}, {n};");
            let macs = (STAND_IN_MAC, OUTSIDE_MAC);
            let sent = Udp::new(macs, OUTSIDE.into(), Host::B.v4().into(), mark.as_bytes());
            lab.outside.send_by(tenant, &sent.bytes()).unwrap();
            let got = lab.far[tenant].receive(SHORT, marked(&mark)).is_some();
            let other = lab.far[1 - tenant].receive(Duration::from_millis(1), marked(&mark));
            assert!(other.is_none(), "{mark} leaked");
            got && lab.outwards(tenant, &format!("from {tenant}, {n};"))
                && lab.forwarded(tenant) >= before + 2
        })
        .unwrap_or_else(|e| panic!("{e}: {}", lab.nsplane.show("counters", &[]).unwrap()));
    }
    // Whose owner is not there takes nothing, nor does anybody else.
    lab.router(1).ip("link set stand down").unwrap();
    wait_until(SOON, "no member", || lab.port(lab.router(1), "stand")["member"].is_null()).unwrap();
    let in_infra = Raw::open(&lab.infra, "trunk0").unwrap();
    let macs = (STAND_IN_MAC, OUTSIDE_MAC);
    let sent = Udp::new(macs, OUTSIDE.into(), Host::B.v4().into(), b"for nobody").bytes();
    lab.outside.send_by(1, &sent).unwrap();
    assert!(in_infra.receive(SHORT, marked("for nobody")).is_none(), "it is not the trunk's");
    for far in &lab.far {
        assert!(far.receive(Duration::from_millis(1), marked("for nobody")).is_none());
    }
}
/// Packets of several frames: their tags come off and go on as those of short ones do, also
/// where the first frame is full.
#[test]
#[ignore = "needs root"]
fn two_tags_on_long_frames() {
    let lab = Lab::new([QINQ, Q100]);
    let set = |netns: &Netns, device: &str, mtu: u32| {
        netns.ip(&format!("link set {device} mtu {mtu}")).unwrap();
    };
    set(&lab.infra, "trunk0", 9008);
    set(&lab.wire, "o0", 9008);
    for (t, tenant) in lab.tenants.iter().enumerate() {
        set(&lab.infra, &format!("f{t}"), 9000);
        set(tenant.router(), "stand", 9000);
        set(tenant.router(), "b0", 9000);
        set(tenant.host(Host::B), Host::DEVICE, 9000);
    }
    // Of a frame's 1,792 bytes the addresses and headers take 42.
    let lens = (1730..1760).chain([3000, 3541, 3542, 5000, 8957, 8958]);
    for tenant in 0..2 {
        lab.assert_forwards(tenant, "before the long ones");
        let before = lab.forwarded(tenant);
        let mut sent = 0;
        for len in lens.clone() {
            let payload = |way: &str| {
                let noise = (0..len).map(|i| char::from(b'a' + (i * 7 + i / 256) as u8 % 26));
                let mark = format!("{way} {len} of {tenant};");
                let rest: String = noise.skip(mark.len()).collect();
                mark + &rest
            };
            wait_until(SOON, &format!("{len} bytes inwards"), || {
                lab.inwards(tenant, &payload("in"))
            })
            .unwrap_or_else(|e| panic!("{e}: {}", lab.nsplane.show("counters", &[]).unwrap()));
            wait_until(SOON, &format!("{len} bytes outwards"), || {
                lab.outwards(tenant, &payload("out"))
            })
            .unwrap_or_else(|e| panic!("{e}: {}", lab.nsplane.show("counters", &[]).unwrap()));
            sent += 2;
        }
        assert!(lab.forwarded(tenant) >= before + sent, "not by the worker");
        // By the kernel of the tenant, in and out.
        let request = echo(&vec![b'p'; 8000]);
        lab.send(tenant, &request);
        let is_reply = |f: &[u8]| f[23] == 1 && f[34] == 0 && f[42..] == request[42..];
        assert!(lab.receive(tenant, SOON, is_reply).is_some(), "a long echo reply in the VLAN");
    }
}
