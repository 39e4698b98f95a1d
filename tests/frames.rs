//! Frames of every length and kind come out as the kernel would send them: with MTUs of
//! 1500, 3000 and 9000, odd lengths, padding, tags, in one frame of memory and in several.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nsplane_tests::flow;
use nsplane_tests::frame::{UDP, Udp};
use nsplane_tests::netns::Netns;
use nsplane_tests::process::Nsplane;
use nsplane_tests::raw::Raw;
use nsplane_tests::tenant::{Family, Host, Tenant, TenantSpec};
use nsplane_tests::wait::wait_until;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(5);
/// How long nothing more must have come out until no more is waited for.
const PATIENCE: Duration = Duration::from_millis(500);
/// The first of the numbers that frames are known by.
const MARK: u32 = 0x5eed_0000;

/// Bytes of a frame of memory, and of a page that the kernel puts a long packet's start
/// into: where one more byte takes one more of them.
const EDGES: [usize; 9] = [1514, 1792, 3408, 3520, 3584, 5376, 7168, 7616, 8960];

/// Sets the MTU of all devices of a tenant.
fn set_mtu(tenant: &Tenant, mtu: usize) {
    let router = tenant.router();
    router.ip_batch(&format!("link set a0 mtu {mtu}\nlink set b0 mtu {mtu}\n")).unwrap();
    for host in [Host::A, Host::B] {
        tenant.host(host).ip(&format!("link set {} mtu {mtu}", Host::DEVICE)).unwrap();
    }
}

fn macs(tenant: &Tenant) -> ([u8; 6], [u8; 6]) {
    let router = tenant.router().mac(Host::A.router_device()).unwrap();
    (router, tenant.host(Host::A).mac(Host::DEVICE).unwrap())
}

fn resolve(tenant: &Tenant) {
    for family in Family::BOTH {
        let seen = flow::ping(tenant.host(Host::A), Host::B.address(family), 2).unwrap();
        assert!(seen.received > 0, "no {family} through the router");
    }
}

/// A packet from A to B whose frame is `len` bytes long, with a mark in front and bytes
/// behind it that differ from each other and from packet to packet.
fn packet(macs: ([u8; 6], [u8; 6]), family: Family, len: usize, mark: u32) -> Udp {
    let headers = if family == Family::V4 { 42 } else { 62 };
    let mut payload = mark.to_be_bytes().to_vec();
    let noise = |i: usize| (i * 31 + len * 7 + (i >> 8) * 13) as u8;
    payload.extend((4..len.saturating_sub(headers)).map(noise));
    Udp::new(macs, Host::A.address(family), Host::B.address(family), &payload)
}

fn lengths(mtu: usize) -> Vec<usize> {
    let longest = mtu + 14;
    let edges = EDGES.iter().flat_map(|&edge| edge - 2..=edge + 2);
    let mut all: Vec<usize> = (66..=70).chain([127, 128, 1000, 1001]).chain(edges).collect();
    all.extend([longest - 3, longest - 2, longest - 1, longest]);
    all.retain(|&len| len <= longest);
    all.sort_unstable();
    all.dedup();
    all
}

type Cases = BTreeMap<String, (u32, Vec<u8>)>;

fn cases(tenant: &Tenant, mtu: usize) -> Cases {
    let macs = macs(tenant);
    let mut cases = Cases::new();
    let mut mark = MARK;
    let mut add = |name: String, make: &dyn Fn(u32) -> Vec<u8>| {
        mark += 1;
        cases.insert(name, (mark, make(mark)));
    };
    for family in Family::BOTH {
        for len in lengths(mtu) {
            let make = |mark| packet(macs, family, len, mark).bytes();
            add(format!("{family}, {len:4} bytes"), &make);
        }
        for len in [70, 1001, mtu - 299, mtu - 300] {
            let with = |mark: u32, change: &dyn Fn(&mut Udp)| {
                let mut udp = packet(macs, family, len, mark);
                change(&mut udp);
                udp.bytes()
            };
            let name = |what: &str| format!("{family}, {len:4} bytes, {what}");
            for padding in [1, 2, 17, 300] {
                let what = format!("{padding} more behind it");
                add(name(&what), &|mark| with(mark, &|u| u.padding = padding));
            }
            add(name("no UDP checksum"), &|mark| with(mark, &|u| u.zero_checksum = true));
            add(name("the last hop"), &|mark| with(mark, &|u| u.ttl = 1));
            for (what, tags) in [
                ("only a priority", &[0x81, 0, 0xe0, 0][..]),
                ("VLAN 100", &[0x81, 0, 0, 100]),
                ("an S-tag", &[0x88, 0xa8, 0, 100]),
                ("two tags", &[0x88, 0xa8, 0, 100, 0x81, 0, 0, 7]),
            ] {
                add(name(what), &|mark| {
                    let frame = with(mark, &|_| ());
                    [&frame[..12], tags, &frame[12..]].concat()
                });
            }
            add(name("cut short"), &|mark| {
                let mut frame = with(mark, &|_| ());
                frame.truncate(len - 1);
                frame
            });
        }
    }
    // A jumbo payload's length, which no link here could carry (RFC 2675).
    add("IPv6 jumbogram".into(), &|mark| {
        let mut udp = packet(macs, Family::V6, 1400, mark);
        udp.extension = Some((0, vec![UDP, 0, 0xc2, 4, 0, 1, 0, 8]));
        let mut frame = udp.bytes();
        frame[18..20].copy_from_slice(&[0, 0]);
        frame
    });
    for fragment in [0x4000, 0x2000, 0x2010, 0x0010] {
        add(format!("IPv4, {fragment:#x} in the fragment's field"), &|mark| {
            let mut udp = packet(macs, Family::V4, mtu - 100, mark);
            udp.fragment = fragment;
            udp.bytes()
        });
    }
    cases
}

/// The frames that come out at B, by their marks; of each the first.
type Outcomes = BTreeMap<u32, Vec<u8>>;

/// Sends all cases. `expected`: what came out before, to wait for as many.
fn outcomes(tenant: &Tenant, cases: &Cases, expected: Option<&Outcomes>) -> Outcomes {
    let near = Raw::open(tenant.host(Host::A), Host::DEVICE).unwrap();
    let far = Raw::open(tenant.host(Host::B), Host::DEVICE).unwrap();
    let mut seen = Outcomes::new();
    let mut see = |timeout| {
        let frame = far.receive(timeout, |f| mark_of(f).is_some());
        let new = frame.and_then(|f| seen.insert(mark_of(&f)?, f)).is_none();
        assert!(new, "a frame came out twice");
        seen.len()
    };
    for (name, (_, frame)) in cases {
        near.send(frame).unwrap_or_else(|e| panic!("sending {name}: {e}"));
        // Most come at once; a socket has room for some.
        see(Duration::from_millis(20));
    }
    let all = expected.map_or(0, BTreeMap::len);
    let mut before = usize::MAX;
    let mut patience = 10;
    loop {
        let now = see(PATIENCE);
        patience -= u32::from(now < all && now == before);
        if now == before && (now >= all || patience == 0) {
            return seen;
        }
        before = now;
    }
}

fn mark_of(frame: &[u8]) -> Option<u32> {
    let marks = frame.windows(4).take(100).filter_map(|w| w.try_into().ok());
    marks.map(u32::from_be_bytes).find(|mark| mark >> 16 == MARK >> 16)
}

fn compare(mtu: usize, args: &[&str]) -> Value {
    let tenant = Tenant::new("frames", &TenantSpec::default()).unwrap();
    set_mtu(&tenant, mtu);
    resolve(&tenant);
    let cases = cases(&tenant, mtu);
    let kernel = outcomes(&tenant, &cases, None);
    let nsplane = Nsplane::start(&[tenant.router()], args).unwrap();
    resolve(&tenant);
    let ours = outcomes(&tenant, &cases, Some(&kernel));
    let differ = |(name, (mark, _)): (&String, &(u32, Vec<u8>))| {
        let (theirs, ours) = (kernel.get(mark), ours.get(mark));
        let about = |f: Option<&Vec<u8>>| f.map(|f| (f.len(), f[..60].to_vec()));
        let differ = theirs != ours;
        if differ {
            println!("{name}\n  {:02x?}\n  {:02x?}", about(theirs), about(ours));
        }
        differ.then(|| name.clone())
    };
    let different: Vec<_> = cases.iter().filter_map(differ).collect();
    assert!(different.is_empty(), "not as the kernel: {different:?}");
    let through = kernel.len();
    assert!(through > 2 * lengths(mtu).len(), "the kernel forwarded only {through}");
    let counters = nsplane.show("counters", &[]).unwrap()[0].take();
    let forwarded = counters["userspace"]["forwarded"]["packets"].as_u64().unwrap();
    println!("MTU {mtu} {args:?}: {through} came out, {forwarded} by nsplane");
    all_frames_are_back(&nsplane);
    counters
}

/// Nothing of the memory is on its way, and none is missing.
fn all_frames_are_back(nsplane: &Nsplane) {
    let mut last = Value::Null;
    wait_until(SOON, "all frames to be accounted for", || {
        last = nsplane.show("memory", &[]).unwrap()[0].take();
        last["moving"] == 0
    })
    .unwrap_or_else(|e| panic!("{e}: {last}"));
}

fn too_long(counters: &Value) -> u64 {
    counters["kernel"]["passed"]["too_long"]["packets"].as_u64().unwrap_or(0)
}

/// Those that the kernel forwards and that nsplane should: all lengths, and of the others
/// those with padding, a zero checksum or a fragment's field.
fn are_ours(counters: &Value, mtu: usize) {
    let forwarded = counters["userspace"]["forwarded"]["packets"].as_u64().unwrap();
    assert!(forwarded >= 2 * lengths(mtu).len() as u64 + 2 * 4 * 4, "{counters}");
    assert_eq!(too_long(counters), 0, "{counters}");
    assert_eq!(counters["userspace"]["punts_failed"], 0, "{counters}");
}

#[test]
#[ignore = "needs root"]
fn native_1500() {
    are_ours(&compare(1500, &[]), 1500);
}

#[test]
#[ignore = "needs root"]
fn native_3000() {
    are_ours(&compare(3000, &[]), 3000);
}

#[test]
#[ignore = "needs root"]
fn native_9000() {
    are_ours(&compare(9000, &[]), 9000);
}

#[test]
#[ignore = "needs root"]
fn native_9000_by_two_workers_with_large_frames() {
    are_ours(&compare(9000, &["--workers", "2", "--frame-size", "4096"]), 9000);
}

#[test]
#[ignore = "needs root"]
fn generic_3000() {
    assert_eq!(too_long(&compare(3000, &["--xdp", "generic"])), 0);
}

#[test]
#[ignore = "needs root"]
fn generic_9000() {
    // What is too long to be injected past a generic program is the kernel's.
    assert!(too_long(&compare(9000, &["--xdp", "generic"])) > 0);
}

fn ping(from: &Netns, args: &str) -> String {
    from.exec("sh", ["-c", &format!("ping -n {args} 2>&1 || true")]).unwrap()
}

/// What a worker cannot do with a long packet, the kernel does, with all of it.
#[test]
#[ignore = "needs root"]
fn long_packets_reach_the_kernel() {
    let tenant = Tenant::new("long", &TenantSpec::default()).unwrap();
    set_mtu(&tenant, 9000);
    let nsplane = Nsplane::start(&[tenant.router()], &[]).unwrap();
    let (host, router) = (tenant.host(Host::A), tenant.router());
    let near = Raw::open(host, Host::DEVICE).unwrap();
    let far = Raw::open(tenant.host(Host::B), Host::DEVICE).unwrap();
    // First contact by the longest packet there is: resolved by the kernel, and sent whole.
    for family in Family::BOTH {
        router.ip("neigh flush dev b0").unwrap();
        let mut udp = packet(macs(&tenant), family, 9014, MARK);
        near.send(&udp.bytes()).unwrap();
        let marked = |f: &[u8]| mark_of(f) == Some(MARK);
        let got = far.receive(SOON, marked).unwrap_or_else(|| panic!("no {family}"));
        udp.ttl -= 1;
        assert_eq!(got[14..], udp.bytes()[14..], "{family}");
    }
    let by_host = |family| (host, Host::B.address(family));
    for family in Family::BOTH {
        let (host, to) = by_host(family);
        let out = ping(host, &format!("-c 3 -i 0.2 -W 2 -s 8900 {to}"));
        assert!(out.contains("3 received"), "{out}");
        // Nobody there, and no way there.
        let nobody: IpAddr =
            if family == Family::V4 { "10.0.1.77" } else { "fd00:0:0:1::77" }.parse().unwrap();
        let out = ping(host, &format!("-c 1 -W 5 -s 8900 {nobody}"));
        assert!(out.contains("nreachable"), "{out}");
        let nowhere = if family == Family::V4 { "198.51.100.1" } else { "2001:db8::1" };
        let out = ping(host, &format!("-c 1 -W 5 -s 8900 {nowhere}"));
        assert!(out.contains("nreachable"), "{out}");
    }
    // A link that it is too long for.
    router.ip("link set b0 mtu 1400").unwrap();
    tenant.host(Host::B).ip("link set eth0 mtu 1400").unwrap();
    for family in Family::BOTH {
        let (host, to) = by_host(family);
        let out = ping(host, &format!("-c 1 -W 2 -M do -s 8900 {to}"));
        assert!(out.contains("mtu = 1400") || out.contains("mtu=1400"), "{out}");
    }
    host.ip("route flush cache").unwrap();
    let out = ping(host, "-c 3 -i 0.2 -W 2 -M dont -s 8900 10.0.1.2");
    assert!(out.contains("3 received"), "{out}");
    let counters = nsplane.show("counters", &[]).unwrap()[0].take();
    let userspace = &counters["userspace"];
    for reason in ["no_neighbor", "no_route", "too_big"] {
        assert!(userspace["punts"][reason].as_u64() > Some(0), "{reason}: {counters}");
    }
    assert_eq!(userspace["punts_failed"], 0, "{counters}");
    assert_eq!(too_long(&counters), 0, "{counters}");
    all_frames_are_back(&nsplane);
}

/// Any MTU will do; what is longer than the longest packet that is handled passes.
#[test]
#[ignore = "needs root"]
fn the_longest_are_the_kernels() {
    let tenant = Tenant::new("longest", &TenantSpec::default()).unwrap();
    let nsplane = Nsplane::start(&[tenant.router()], &[]).unwrap();
    resolve(&tenant);
    // Raised while nsplane runs.
    set_mtu(&tenant, 20_000);
    let near = Raw::open(tenant.host(Host::A), Host::DEVICE).unwrap();
    let far = Raw::open(tenant.host(Host::B), Host::DEVICE).unwrap();
    let macs = macs(&tenant);
    let counts = || {
        let counters = nsplane.show("counters", &[]).unwrap()[0].take();
        (counters["userspace"]["forwarded"]["packets"].as_u64().unwrap(), too_long(&counters))
    };
    let mut mark = MARK;
    for (len, ours) in
        [(9014, true), (14_335, true), (14_336, true), (14_337, false), (20_014, false)]
    {
        wait_until(SOON, &format!("{len} bytes"), || {
            mark += 1;
            let mut udp = packet(macs, Family::V4, len, mark);
            let before = counts();
            near.send(&udp.bytes()).unwrap();
            let got = far.receive(PATIENCE, |f| mark_of(f) == Some(mark));
            udp.ttl -= 1;
            let whole = got.is_some_and(|f| f[14..] == udp.bytes()[14..]);
            let after = counts();
            whole && (after.0 > before.0) == ours && (after.1 > before.1) != ours
        })
        .unwrap_or_else(|e| panic!("{e}: {:?}", counts()));
    }
    let ports = nsplane.show("ports", &[]).unwrap();
    assert!(ports[0]["reason"].as_str().unwrap().contains("14336"), "{ports}");
}

/// Frames of all lengths while devices go down, change their MTU and move away and back:
/// each frame of memory comes back.
#[test]
#[ignore = "needs root"]
fn no_frame_of_memory_is_lost() {
    let tenant = Tenant::new("soak", &TenantSpec::default()).unwrap();
    let elsewhere = Netns::new("elsewhere").unwrap();
    set_mtu(&tenant, 9000);
    let args = ["--workers", "2", "--frames", "4096", "--ring-size", "256"];
    let nsplane = Nsplane::start(&[tenant.router()], &args).unwrap();
    resolve(&tenant);
    let (router, macs) = (tenant.router(), macs(&tenant));
    let stop = AtomicBool::new(false);
    let ports = |n: usize| {
        wait_until(SOON, "ports", || {
            let ports = nsplane.show("ports", &[]).unwrap();
            let is = |p: &&Value| p["port"].as_str().is_some_and(|port| !port.is_empty());
            ports.as_array().unwrap().iter().filter(is).count() == n
        })
        .unwrap();
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let near = Raw::open(tenant.host(Host::A), Host::DEVICE).unwrap();
            let frames: Vec<_> = (0..64)
                .map(|n| packet(macs, Family::BOTH[n % 2], 100 + n * 141, n as u32).bytes())
                .collect();
            for frame in frames.iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                // Not where the link is down or shorter just now.
                let _ = near.send(frame);
            }
        });
        let changes = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..5 {
                for mtu in [1500, 9000, 2000, 9000] {
                    router.ip(&format!("link set b0 mtu {mtu}")).unwrap();
                }
                router.ip("link set b0 down").unwrap();
                ports(2);
                router.ip("link set b0 up").unwrap();
                router.ip(&format!("link set b0 netns {}", elsewhere.name())).unwrap();
                ports(1);
                elsewhere.ip(&format!("link set b0 netns {}", router.name())).unwrap();
                router
                    .ip_batch(
                        "link set b0 up\naddr add 10.0.1.1/24 dev b0\n\
                         addr add fd00:0:0:1::1/64 dev b0 nodad\n",
                    )
                    .unwrap();
                ports(2);
                let before = forwarded(&nsplane);
                wait_until(SOON, &format!("packets in round {round}"), || {
                    forwarded(&nsplane) > before + 100
                })
                .unwrap();
            }
        }));
        stop.store(true, Ordering::Relaxed);
        changes.unwrap();
    });
    all_frames_are_back(&nsplane);
}

fn forwarded(nsplane: &Nsplane) -> u64 {
    let counters = nsplane.show("counters", &[]).unwrap();
    counters[0]["userspace"]["forwarded"]["packets"].as_u64().unwrap()
}
