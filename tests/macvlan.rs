//! A macvlan is a port like any other. Its driver has no XDP, so the program runs in
//! generic mode: what is whole is forwarded by nsplane both ways, and what may be
//! unfinished, or several packets in one, by the kernel, which knows.
//!
//! ```text
//!   host A            wire             router                host B
//!   eth0 ──────── lower ◄── a0 (macvlan)      b0 ─────────── eth0
//! ```

use std::net::IpAddr;
use std::time::Duration;

use nsplane_tests::flow::{self, Transfer};
use nsplane_tests::frame::Udp;
use nsplane_tests::netns::{End, Netns, veth};
use nsplane_tests::process::Nsplane;
use nsplane_tests::raw::Raw;
use nsplane_tests::tenant::{Family, Host, Tenant, TenantSpec};

const FRAMES: u64 = 20;
const PINGS: u32 = 5;
const PATIENCE: Duration = Duration::from_secs(2);

/// A tenant whose router reaches host A by a macvlan, and the namespace in which the
/// macvlan's lower device lies.
fn tenant() -> (Tenant, Netns) {
    let tenant = Tenant::new("macvlan", &TenantSpec::default()).unwrap();
    let wire = Netns::new("macvlan-wire").unwrap();
    let (router, host) = (tenant.router(), tenant.host(Host::A));
    router.ip("link del a0").unwrap();
    veth(&End::new(&wire, "lower"), &End::new(host, Host::DEVICE)).unwrap();
    let name = router.name();
    wire.ip(&format!("link add a0 link lower netns {name} type macvlan mode bridge")).unwrap();
    router
        .ip_batch("link set a0 up\naddr add 10.0.0.1/24 dev a0\naddr add fd00::1/64 dev a0 nodad\n")
        .unwrap();
    host.ip_batch(
        "addr add 10.0.0.2/24 dev eth0\naddr add fd00::2/64 dev eth0 nodad\n\
         route add default via 10.0.0.1\nroute add default via fd00::1\n",
    )
    .unwrap();
    (tenant, wire)
}

/// Packets that nsplane forwarded itself, and those it could have, but let the kernel
/// send for once, to have a stale neighbour confirmed.
fn forwarded(nsplane: &Nsplane) -> u64 {
    let counters = nsplane.show("counters", &[]).unwrap();
    let userspace = &counters[0]["userspace"];
    let sampled = userspace["punts"]["stale_neighbor"].as_u64().unwrap_or(0);
    userspace["forwarded"]["packets"].as_u64().unwrap() + sampled
}

/// Sends whole frames from a host, and sees each come out at the other.
fn frames_pass(tenant: &Tenant, from: Host, family: Family) {
    let to = from.other();
    let router = tenant.router();
    let macs = |host: Host| {
        let router = router.mac(host.router_device()).unwrap();
        (router, tenant.host(host).mac(Host::DEVICE).unwrap())
    };
    let near = Raw::open(tenant.host(from), Host::DEVICE).unwrap();
    let far = Raw::open(tenant.host(to), Host::DEVICE).unwrap();
    let addresses: [IpAddr; 2] = [from, to].map(|host| host.address(family));
    for number in 0..FRAMES {
        let payload = format!("{family} from {from:?}, {number};");
        let sent = Udp::new(macs(from), addresses[0], addresses[1], payload.as_bytes());
        near.send(&sent.bytes()).unwrap();
        let (egress, neighbor) = macs(to);
        let expected = Udp { macs: (neighbor, egress), ttl: 63, ..sent }.bytes();
        assert!(far.receive(PATIENCE, |frame| frame == expected).is_some(), "{payload}");
    }
}

#[test]
#[ignore = "needs root"]
fn whole_packets_are_forwarded_both_ways() {
    let (tenant, _wire) = tenant();
    let nsplane = Nsplane::start(&[tenant.router()], &[]).unwrap();
    let ports = nsplane.show("ports", &[]).unwrap();
    let xdp = |device: &str| {
        let port = ports.as_array().unwrap().iter().find(|port| port["device"] == device);
        port.unwrap()["xdp"].as_str().unwrap().to_owned()
    };
    assert_eq!((xdp("a0").as_str(), xdp("b0").as_str()), ("generic", "native"), "{ports}");
    for family in Family::BOTH {
        for from in [Host::A, Host::B] {
            // Whose neighbours the kernel resolves on the way.
            let to = from.other().address(family);
            assert_eq!(flow::ping(tenant.host(from), to, 2).unwrap().received, 2);
            let before = forwarded(&nsplane);
            assert_eq!(flow::ping(tenant.host(from), to, PINGS).unwrap().received, PINGS);
            let pinged = forwarded(&nsplane) - before;
            assert!(pinged >= 2 * u64::from(PINGS), "{family} from {from:?}: {pinged} forwarded");
            frames_pass(&tenant, from, family);
            let sent = forwarded(&nsplane) - before - pinged;
            assert!(sent >= FRAMES, "{family} from {from:?}: {sent} forwarded of {FRAMES}");
        }
    }
}

#[test]
#[ignore = "needs root"]
fn what_a_local_sender_left_to_its_device_arrives_as_the_kernel_makes_it() {
    let (tenant, _wire) = tenant();
    let nsplane = Nsplane::start(&[tenant.router()], &[]).unwrap();
    for family in Family::BOTH {
        for from in [Host::A, Host::B] {
            let address = from.other().address(family);
            let (from, to) = (tenant.host(from), tenant.host(from.other()));
            Transfer { from, to, address, bytes: 8 << 20 }.run().unwrap();
            // Together shorter than one packet may be: nothing but the kernel's notes
            // tells them from one datagram.
            let payload: Vec<u8> = (0..=250).cycle().take(1000).collect();
            let arrived = flow::segmented(from, to, address, &payload, 300).unwrap();
            let expected: Vec<Vec<u8>> = payload.chunks(300).map(<[u8]>::to_vec).collect();
            assert_eq!(arrived, expected, "{family} to {address}");
        }
    }
    let counters = nsplane.show("counters", &[]).unwrap();
    let passed = &counters[0]["kernel"]["passed"]["checksum"];
    assert!(passed["packets"].as_u64() > Some(0), "{counters}");
}
