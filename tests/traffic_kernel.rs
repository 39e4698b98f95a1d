//! Promise: what the generator sends is what arrives, through a router that is
//! the kernel's own: counted by mark, in order, with right checksums.

use std::net::{Ipv6Addr, UdpSocket};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use nsplane_abi::traffic;
use nsplane_bench::{Frame, Generator, Load, Sink};
use nsplane_tests::flow::ping;
use nsplane_tests::tenant::{Family, Host, Tenant, TenantSpec};
use nsplane_tests::wait::wait_until;

static GO: AtomicBool = AtomicBool::new(false);
const SOON: Duration = Duration::from_secs(2);

/// A tenant whose neighbours know each other, and whose router polls.
fn tenant(label: &str) -> Tenant {
    let tenant = Tenant::new(label, &TenantSpec::default()).unwrap();
    tenant.set_gro(Host::A, true).unwrap();
    for family in Family::BOTH {
        let seen = ping(tenant.host(Host::A), Host::B.address(family), 1).unwrap();
        assert_eq!(seen.received, 1, "{family}");
    }
    tenant
}

#[test]
#[ignore = "needs root"]
fn paced_packets_all_arrive_in_order() {
    let tenant = tenant("paced");
    let (a, b) = (tenant.host(Host::A), tenant.host(Host::B));
    for (family, mark) in [(Family::V4, 0x1001), (Family::V6, 0x1002)] {
        let sink = Sink::attach_with_latency(b, Host::DEVICE, mark).unwrap();
        let frame = Frame::across(&tenant, Host::A, family, mark).unwrap();
        let mut generator = Generator::new(a, Host::DEVICE, &frame).unwrap();
        let sent = generator.run(&Load::paced(1_000, 2_000), &GO).unwrap();
        assert_eq!(sent.packets, 1_000);
        assert!(sent.elapsed >= Duration::from_millis(450), "{:?}", sent.elapsed);
        wait_until(SOON, "all packets", || sink.counts().unwrap().own == 1_000).unwrap();
        let counts = sink.counts().unwrap();
        assert_eq!((counts.foreign, counts.late, counts.next), (0, 0, 1_000), "{family}");
        assert_eq!(counts.own_bytes, 1_000 * frame.length as u64);
        assert_eq!(counts.latency.iter().sum::<u64>(), 1_000);
    }
}

#[test]
#[ignore = "needs root"]
fn at_full_rate_much_arrives_and_nothing_leaks() {
    let tenants = [(tenant("one"), 1), (tenant("two"), 2)];
    let sinks = tenants
        .each_ref()
        .map(|(tenant, mark)| Sink::attach(tenant.host(Host::B), Host::DEVICE, *mark).unwrap());
    for (tenant, mark) in &tenants {
        let frame = Frame::across(tenant, Host::A, Family::V4, *mark).unwrap();
        let host = tenant.host(Host::A);
        let mut generator = Generator::new(host, Host::DEVICE, &frame).unwrap();
        let sent = generator.run(&Load::full(Duration::from_millis(300)), &GO).unwrap();
        assert!(sent.packets > 10_000, "{sent:?}");
        assert!(sent.elapsed < Duration::from_millis(600), "{sent:?}");
        println!("tenant {mark}: sent {sent:?}");
    }
    for sink in &sinks {
        let counts = sink.counts().unwrap();
        println!("{counts:?}");
        assert!(counts.own > 10_000);
        assert_eq!(counts.foreign, 0);
    }
}

#[test]
#[ignore = "needs root"]
fn a_foreign_mark_is_seen() {
    let tenant = tenant("leak");
    let sink = Sink::attach(tenant.host(Host::B), Host::DEVICE, 1).unwrap();
    let frame = Frame::across(&tenant, Host::A, Family::V4, 2).unwrap();
    let mut generator = Generator::new(tenant.host(Host::A), Host::DEVICE, &frame).unwrap();
    generator.run(&Load::paced(100, 2_000), &GO).unwrap();
    wait_until(SOON, "foreign packets", || sink.counts().unwrap().foreign == 100).unwrap();
    let counts = sink.counts().unwrap();
    assert_eq!((counts.own, counts.foreign_mark), (0, 2));
}

#[test]
#[ignore = "needs root"]
fn the_receivers_stack_finds_the_checksums_right() {
    let tenant = tenant("sums");
    let host = tenant.host(Host::B);
    let socket =
        host.inside(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, traffic::PORT))).unwrap().unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let mut datagram = [0; 2048];
    for (family, length) in
        [(Family::V4, 64), (Family::V4, 1001), (Family::V6, 88), (Family::V6, 901)]
    {
        let frame = Frame::across(&tenant, Host::A, family, 5).unwrap();
        let frame = Frame { length, ..frame };
        let mut generator = Generator::new(tenant.host(Host::A), Host::DEVICE, &frame).unwrap();
        generator.run(&Load::paced(20, 2_000), &GO).unwrap();
        for sequence in 0..20_u64 {
            let got = socket.recv(&mut datagram).unwrap();
            let headers = if family == Family::V4 { 42 } else { 62 };
            assert_eq!(got, length - headers, "{family}");
            assert_eq!(datagram[..2], traffic::MAGIC);
            assert_eq!(datagram[2..6], 5_u32.to_ne_bytes());
            assert_eq!(datagram[6..14], sequence.to_ne_bytes());
        }
    }
}
