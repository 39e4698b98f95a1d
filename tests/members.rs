//! Members that the kernel shows: macvlans in tenants' namespaces, of one device that lies
//! in another. What arrives on the device for a macvlan is its tenant's, and forwarded by
//! its tenant's tables; what leaves by a macvlan leaves by the device, from its address.

use std::net::IpAddr;
use std::time::Duration;

use nsplane_tests::frame::Udp;
use nsplane_tests::macvlans::{
    Lab, OUTSIDE, OUTSIDE_MAC, SHORT, SOON, mac_of, set_up, set_up_neighbor,
};
use nsplane_tests::netns::{Netns, show_mac};
use nsplane_tests::raw::Raw;
use nsplane_tests::tenant::Host;
use nsplane_tests::wait::wait_until;

#[test]
#[ignore = "needs root"]
fn macvlans_are_members_of_their_device() {
    for mode in ["bridge", "private", "vepa"] {
        let lab = Lab::new(mode);
        for tenant in 0..2 {
            lab.assert_forwards(tenant, mac_of(tenant), mode);
            let port = lab.port(tenant, "a0");
            assert_eq!(port["member"]["by"], format!("address {}", show_mac(mac_of(tenant))));
            assert_eq!(port["xdp"], "", "no program of its own");
        }
    }
}

#[test]
#[ignore = "needs root"]
fn what_the_program_passes_reaches_the_macvlan() {
    let lab = Lab::new("bridge");
    // TTL exceeded is the kernel's of the tenant to say, and comes from the macvlan.
    for tenant in 0..2 {
        let addresses: [IpAddr; 2] = [OUTSIDE.parse().unwrap(), Host::B.v4().into()];
        let sent = Udp::new((mac_of(tenant), OUTSIDE_MAC), addresses[0], addresses[1], b"short");
        lab.outside.send(&Udp { ttl: 1, ..sent }.bytes()).unwrap();
        let icmp = |f: &[u8]| f[12..14] == [8, 0] && f[23] == 1 && f[34] == 11;
        let answer = lab.outside.receive(SOON, icmp).expect("an answer");
        assert_eq!((&answer[..6], &answer[6..12]), (&OUTSIDE_MAC[..], &mac_of(tenant)[..]));
    }
}

#[test]
#[ignore = "needs root"]
fn a_macvlan_that_changes_is_followed() {
    let lab = Lab::new("bridge");
    lab.assert_forwards(0, mac_of(0), "before");
    // Another address.
    let other = [2, 0, 0, 0, 0x0f, 9];
    lab.router(0).ip(&format!("link set a0 address {}", show_mac(other))).unwrap();
    // The kernel forgets a device's neighbours with its address.
    set_up_neighbor(lab.router(0));
    lab.assert_forwards(0, other, "another address");
    assert!(!lab.inwards(mac_of(0), 0, "to the address before"));
    // Down and up.
    lab.router(0).ip("link set a0 down").unwrap();
    wait_until(SOON, "no member", || !lab.is_member(0)).unwrap();
    assert!(!lab.inwards(other, 0, "to a macvlan that is down"));
    set_up(lab.router(0));
    lab.assert_forwards(0, other, "up again");
    // Gone.
    lab.router(0).ip("link del a0").unwrap();
    wait_until(SOON, "no member", || lab.port(0, "a0").is_null()).unwrap();
    assert!(!lab.inwards(other, 0, "to a macvlan that is gone"));
    lab.assert_forwards(1, mac_of(1), "the other tenant's");
}

#[test]
#[ignore = "needs root"]
fn a_macvlan_that_moves_takes_its_packets_along() {
    let lab = Lab::new("bridge");
    lab.router(1).ip("link del a0").unwrap();
    let mac = mac_of(0);
    for round in 0..4 {
        let (from, to) = (round % 2, 1 - round % 2);
        lab.assert_forwards(from, mac, &format!("round {round}"));
        // Traffic goes on while it moves; `inwards` fails on what comes out at the wrong one.
        let (from_name, to_name) = (lab.router(from).name(), lab.router(to).name());
        std::thread::scope(|scope| {
            let moved = scope.spawn(|| {
                lab.router(from).ip(&format!("link set a0 netns {to_name}")).unwrap();
            });
            let mut n = 0;
            while !moved.is_finished() {
                n += 1;
                let _ = lab.inwards(
                    mac,
                    from,
                    &format!("{round}: {n} while it moves from {from_name}"),
                );
            }
        });
        // It is down until its new owner sets it up: nobody's packets.
        for n in 0..5 {
            assert!(!lab.inwards(mac, to, &format!("{round}: {n} before it is up;")));
        }
        set_up(lab.router(to));
    }
    lab.assert_forwards(0, mac, "in the end");
}

#[test]
#[ignore = "needs root"]
fn macvlans_of_one_device_reach_each_other_without_the_wire() {
    let lab = Lab::new("bridge");
    // A third, in a namespace that is not driven: its address is in no mirror of ours.
    let stranger = Netns::new("stranger").unwrap();
    let mac = [2, 0, 0, 0, 0x0f, 0x33];
    let name = stranger.name();
    let words = format!("link add a0 link trunk0 netns {name} address {}", show_mac(mac));
    lab.infra.ip(&format!("{words} type macvlan mode bridge")).unwrap();
    stranger.ip_batch("link set a0 up\naddr add 10.0.0.3/24 dev a0\n").unwrap();
    let seen = Raw::open(&stranger, "a0").unwrap();
    let words = format!("neigh replace 10.0.0.3 lladdr {} dev a0 nud permanent", show_mac(mac));
    lab.router(0).ip(&words).unwrap();
    let (router, b) = (lab.router(0), lab.tenants[0].host(Host::B));
    let macs = (router.mac("b0").unwrap(), b.mac(Host::DEVICE).unwrap());
    let mut n = 0;
    wait_until(SOON, "a packet at the other macvlan", || {
        n += 1;
        let mark = format!("beside {n};");
        let dst = "10.0.0.3".parse().unwrap();
        let sent = Udp::new(macs, Host::B.v4().into(), dst, mark.as_bytes()).bytes();
        lab.far[0].send(&sent).unwrap();
        let marked = |f: &[u8]| f.windows(mark.len()).any(|w| w == mark.as_bytes());
        let got = seen.receive(SHORT, marked).is_some();
        let out = lab.outside.receive(Duration::from_millis(1), marked);
        assert!(out.is_none(), "{mark} went to the wire");
        got
    })
    .unwrap();
    lab.assert_forwards(0, mac_of(0), "to the wire");
}

#[test]
#[ignore = "needs root"]
fn a_member_goes_with_its_parent_and_comes_back() {
    let lab = Lab::new("bridge");
    lab.assert_forwards(0, mac_of(0), "before");
    lab.infra.ip("link set trunk0 down").unwrap();
    assert!(!lab.inwards(mac_of(0), 0, "through a device that is down"));
    lab.infra.ip("link set trunk0 up").unwrap();
    for tenant in 0..2 {
        wait_until(SOON, "carrier", || lab.port(tenant, "a0")["up"] == true).unwrap();
        lab.assert_forwards(tenant, mac_of(tenant), "up again");
    }
    // It goes to a namespace that is not driven: then the macvlans are the kernel's, or
    // ports of their own, but no members.
    let away = Netns::new("away").unwrap();
    lab.infra.ip(&format!("link set trunk0 netns {}", away.name())).unwrap();
    wait_until(SOON, "no members", || (0..2).all(|t| lab.port(t, "a0")["member"].is_null()))
        .unwrap();
    away.ip(&format!("link set trunk0 netns {}", lab.infra.name())).unwrap();
    lab.infra.ip("link set trunk0 up").unwrap();
    for tenant in 0..2 {
        lab.wait_member(tenant);
        lab.assert_forwards(tenant, mac_of(tenant), "back again");
    }
}
