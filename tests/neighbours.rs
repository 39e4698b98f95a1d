//! Neighbours are as alive to the kernel as if it forwarded by itself: a first contact
//! loses what it would lose, one in use stays known, and one that goes is found gone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[path = "neighbours/first_contact.rs"]
mod first_contact;

#[path = "neighbours/garbage.rs"]
mod garbage;

#[path = "neighbours/traffic.rs"]
mod traffic;

use nsplane_tests::frame::Udp;
use nsplane_tests::netns::show_mac;
use nsplane_tests::process::Nsplane;
use nsplane_tests::raw::Raw;
use nsplane_tests::tenant::{Family, Host, Tenant, TenantSpec};
use nsplane_tests::wait::wait_until;
use nsplane_tests::who_is::{answer, answered, question};

const SOON: Duration = Duration::from_secs(5);
/// New destinations.
const CONTACTS: u8 = 50;

/// A tenant whose ends are ready to send and see frames.
struct Ends {
    tenant: Tenant,
    a: Raw,
    b: Raw,
}

impl Ends {
    fn new() -> Self {
        let tenant = Tenant::new("neigh", &TenantSpec::default()).unwrap();
        let open = |host| Raw::open(tenant.host(host), Host::DEVICE).unwrap();
        let (a, b) = (open(Host::A), open(Host::B));
        b.make_room(8 << 20).unwrap();
        Self { tenant, a, b }
    }

    fn macs(&self) -> ([u8; 6], [u8; 6]) {
        let (router, host) = (self.tenant.router(), self.tenant.host(Host::A));
        (router.mac("a0").unwrap(), host.mac(Host::DEVICE).unwrap())
    }

    /// Says to the router that one on host B's side is at an Ethernet address.
    fn say(&self, of: IpAddr, mac: [u8; 6]) {
        let family = if of.is_ipv4() { Family::V4 } else { Family::V6 };
        let router: IpAddr = match family {
            Family::V4 => Host::B.router_v4().into(),
            Family::V6 => Host::B.router_v6().into(),
        };
        let to = (self.tenant.router().mac("b0").unwrap(), router);
        self.b.send(&answer(of, mac, to)).unwrap();
    }
}

/// The `n`th of the destinations, at host B's side, where nobody answers by itself.
fn contact(family: Family, n: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 0, 1, 100 + n).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 0x100 + u16::from(n)).into(),
    }
}

/// Where UDP's payload begins in a frame.
fn payload_at(family: Family) -> usize {
    if family == Family::V4 { 42 } else { 62 }
}

fn is_ours(family: Family, f: &[u8]) -> bool {
    let at = payload_at(family);
    f.len() >= at + 4 && f[at..at + 2] == *b"ns"
}

fn is_unreachable(family: Family, f: &[u8]) -> bool {
    match family {
        Family::V4 => f[12..14] == [0x08, 0x00] && f[23] == 1 && f[34] == 3,
        Family::V6 => f[12..14] == [0x86, 0xdd] && f[20] == 58 && f[54] == 1,
    }
}

fn family_name(family: Family) -> &'static str {
    if family == Family::V4 { "ipv4" } else { "ipv6" }
}

/// Packets that went to the kernel since their neighbour was not known.
fn punted(nsplane: &Nsplane) -> u64 {
    let counters = nsplane.show("counters", &[]).unwrap();
    counters[0]["userspace"]["punts"]["no_neighbor"].as_u64().unwrap_or(0)
}

/// Neighbours that the workers know.
fn known(nsplane: &Nsplane) -> u64 {
    nsplane.show("namespaces", &[]).unwrap()[0]["neighbors"].as_u64().unwrap()
}

/// Neighbours of the router are reachable for about a second, and probed quickly.
fn be_quick(tenant: &Tenant, family: Family) {
    let name = family_name(family);
    for device in ["a0", "b0"] {
        for (what, value) in [
            ("base_reachable_time_ms", "1000"),
            ("delay_first_probe_time", "1"),
            ("retrans_time_ms", "200"),
            // A machine that stands still for a moment is not to make it fail.
            ("ucast_solicit", "10"),
        ] {
            tenant.router().sysctl(&format!("net/{name}/neigh/{device}/{what}"), value).unwrap();
        }
    }
}

fn state_of(tenant: &Tenant, host: IpAddr) -> String {
    let shown = tenant.router().ip_json(&format!("neigh show {host} dev b0")).unwrap();
    shown[0]["state"][0].as_str().unwrap_or("NONE").to_owned()
}

/// Packets a second in the tests that may lose none.
const PACE: Duration = Duration::from_millis(2);

#[test]
#[ignore = "needs root"]
fn one_in_use_is_kept_alive_and_loses_nothing() {
    for family in Family::BOTH {
        let ends = Ends::new();
        be_quick(&ends.tenant, family);
        let nsplane = Nsplane::start(&[ends.tenant.router()], &[]).unwrap();
        let host = Host::B.address(family);
        let far = ends.tenant.host(Host::B);
        let socket = far.inside(|| UdpSocket::bind((host, 9))).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let macs = ends.macs();
        let done = AtomicBool::new(false);
        let (sent, seen, states) = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let (mut seen, mut buffer) = (0_u32, [0; 64]);
                loop {
                    match socket.recv(&mut buffer) {
                        Ok(_) => seen += 1,
                        Err(_) if done.load(Ordering::Relaxed) => return seen,
                        Err(_) => {}
                    }
                }
            });
            let states = scope.spawn(|| {
                let mut states = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    let now = state_of(&ends.tenant, host);
                    if states.last() != Some(&now) {
                        states.push(now);
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
                states
            });
            let (start, mut sent) = (Instant::now(), 0_u32);
            while start.elapsed() < Duration::from_secs(12) {
                let src = Host::A.address(family);
                ends.a.send(&Udp::new(macs, src, host, b"in use").bytes()).unwrap();
                sent += 1;
                std::thread::sleep(PACE);
            }
            done.store(true, Ordering::Relaxed);
            (sent, reader.join().unwrap(), states.join().unwrap())
        });
        let counters = nsplane.show("counters", &[]).unwrap();
        println!("{family}: {seen} of {sent}, {states:?}");
        assert_eq!(seen, sent, "{family}: {states:?} {counters}");
        let reachable = states.iter().filter(|s| *s == "REACHABLE").count();
        assert!(reachable >= 3, "{family}: confirmed only {reachable} times: {states:?}");
        assert!(!states.iter().any(|s| s == "FAILED"), "{family}: {states:?}");
        let forwarded = counters[0]["userspace"]["forwarded"]["packets"].as_u64().unwrap();
        assert!(forwarded > u64::from(sent) / 2, "{family}: by the kernel: {counters}");
    }
}

#[test]
#[ignore = "needs root"]
fn one_that_goes_is_found_gone_and_one_that_comes_is_found() {
    for family in Family::BOTH {
        let ends = Ends::new();
        be_quick(&ends.tenant, family);
        let _nsplane = Nsplane::start(&[ends.tenant.router()], &[]).unwrap();
        let (macs, src, host) = (ends.macs(), Host::A.address(family), Host::B.address(family));
        let far = ends.tenant.host(Host::B);
        let mut n = 0_u32;
        let mut arrives = || {
            n += 1;
            let mark = format!("ns{n:06}");
            ends.a.send(&Udp::new(macs, src, host, mark.as_bytes()).bytes()).unwrap();
            let marked = |f: &[u8]| is_ours(family, f) && f.ends_with(mark.as_bytes());
            ends.b.receive(Duration::from_millis(20), marked)
        };
        wait_until(SOON, "packets", || arrives().is_some()).unwrap();
        // Another Ethernet address, and not a word of it. What was sent to the one before
        // still arrives at the wire's end: so it is looked at to whom it is.
        far.sysctl("net/ipv6/conf/eth0/ndisc_notify", "0").unwrap();
        let other = [2, 0, 0, 0, 0x77, 0x77];
        far.ip(&format!("link set eth0 address {}", show_mac(other))).unwrap();
        let moved = || arrives().is_some_and(|f| f[..6] == other);
        wait_until(4 * SOON, "packets to the new address", moved).unwrap();
        // Gone, while there are packets to it: then the kernel says so.
        far.ip(&format!("addr del {host}/{} dev eth0", if host.is_ipv4() { 24 } else { 64 }))
            .unwrap();
        ends.a.clear();
        let told = || {
            let _ = arrives();
            ends.a.receive(Duration::from_millis(20), |f| is_unreachable(family, f)).is_some()
        };
        wait_until(4 * SOON, "an answer that it is gone", told).unwrap();
        let prefix = if host.is_ipv4() { "24 dev eth0" } else { "64 dev eth0 nodad" };
        far.ip(&format!("addr add {host}/{prefix}")).unwrap();
        wait_until(4 * SOON, "packets again", || arrives().is_some()).unwrap();
    }
}

#[test]
#[ignore = "needs root"]
fn static_ones_of_every_kind_are_forwarded_to_and_failed_ones_are_not() {
    let ends = Ends::new();
    let nsplane = Nsplane::start(&[ends.tenant.router()], &[]).unwrap();
    let router = ends.tenant.router();
    router.sysctl("net/ipv6/conf/a0/proxy_ndp", "1").unwrap();
    let mac = [2, 0, 0, 0, 0x66, 0x66];
    for family in Family::BOTH {
        let (macs, src) = (ends.macs(), Host::A.address(family));
        let forwarded = || {
            let counters = nsplane.show("counters", &[]).unwrap();
            counters[0]["userspace"]["forwarded"]["packets"].as_u64().unwrap()
        };
        for (n, nud) in (0..).zip(["permanent", "noarp", "reachable"]) {
            let dst = contact(family, n);
            let words = format!("neigh replace {dst} lladdr {} dev b0 nud {nud}", show_mac(mac));
            router.ip(&words).unwrap();
            wait_until(SOON, &format!("{nud} by a worker"), || {
                let before = forwarded();
                ends.a.send(&Udp::new(macs, src, dst, b"nsplane").bytes()).unwrap();
                let got = ends.b.receive(Duration::from_millis(50), |f| is_ours(family, f));
                got.is_some_and(|f| f[..6] == mac) && forwarded() > before
            })
            .unwrap();
        }
        // A proxied address is one that the router answers for: it is forwarded to as others.
        let dst = contact(family, 0);
        router.ip(&format!("neigh add proxy {dst} dev a0")).unwrap();
        ends.a.send(&Udp::new(macs, src, dst, b"nsplane").bytes()).unwrap();
        assert!(ends.b.receive(SOON, |f| is_ours(family, f)).is_some(), "proxied");
        ends.a.clear();
        ends.a.send(&question(dst, (macs.1, src))).unwrap();
        let said = ends.a.receive(SOON, |f| answered(dst, f).is_some());
        assert_eq!(said.and_then(|f| answered(dst, &f)), Some(macs.0), "{family}: who has it");
        // Failed: not ours to send to, however many; the kernel tries again.
        for n in 10..10 + CONTACTS {
            let words = format!("neigh replace {} dev b0 nud failed", contact(family, n));
            router.ip(&words).unwrap();
        }
        let before = forwarded();
        for n in 10..10 + CONTACTS {
            ends.a.send(&Udp::new(macs, src, contact(family, n), b"nsplane").bytes()).unwrap();
        }
        assert!(ends.b.receive(Duration::from_millis(200), |f| is_ours(family, f)).is_none());
        assert_eq!(forwarded(), before);
    }
}
