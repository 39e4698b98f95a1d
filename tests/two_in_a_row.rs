//! Two routers in a row that nsplane drives answer as two kernels do: who says what of a
//! packet that does not get through, and what comes out of one that does.
//!
//! ```text
//!  A 10.0.0.2 ── a0 [ one ] m0 ── 1400 ── m0 [ two ] b0 ── 1300 ── 10.0.1.2 B
//! ```
//! Every probe is sent twice: through the kernels alone, and with nsplane. All that comes
//! back to A, and all that arrives at B, has to be the same, byte by byte, but for what
//! the kernel draws by lot.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use nsplane_tests::frame::{Udp, sum};
use nsplane_tests::netns::{End, Netns, show_mac, veth};
use nsplane_tests::process::Nsplane;
use nsplane_tests::raw::Raw;

/// How long the kernels are listened to after a probe.
const LISTEN: Duration = Duration::from_millis(150);
/// How long as much is waited for with nsplane, and how much longer for what is too much.
const PATIENCE: Duration = Duration::from_secs(2);
const EXTRA: Duration = Duration::from_millis(30);

const A: usize = 0;
const ONE: usize = 1;
const TWO: usize = 2;
const B: usize = 3;

fn mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0x2b, n]
}

struct Row {
    nodes: [Netns; 4],
    a: Raw,
    b: Raw,
}

impl Row {
    fn new() -> Self {
        let nodes = ["row-a", "row-one", "row-two", "row-b"].map(|l| Netns::new(l).unwrap());
        let end =
            |node: usize, device, n| End { mac: Some(mac(n)), ..End::new(&nodes[node], device) };
        veth(&end(A, "eth0", 1), &end(ONE, "a0", 2)).unwrap();
        veth(&end(ONE, "m0", 3), &end(TWO, "m0", 4)).unwrap();
        veth(&end(TWO, "b0", 5), &end(B, "eth0", 6)).unwrap();
        for node in &nodes {
            // Every answer counts.
            node.sysctl("net/ipv4/icmp_ratelimit", "0").unwrap();
            node.sysctl("net/ipv6/icmp/ratelimit", "0").unwrap();
        }
        for node in [&nodes[ONE], &nodes[TWO]] {
            node.sysctl("net/ipv4/ip_forward", "1").unwrap();
            node.sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
        }
        let neighbor = |address: &str, dev: &str, n| {
            format!("neigh replace {address} lladdr {} dev {dev} nud permanent\n", show_mac(mac(n)))
        };
        let batch = |node: usize, lines: &[&str], neighbors: &[String]| {
            nodes[node].ip_batch(&format!("{}\n{}", lines.join("\n"), neighbors.concat())).unwrap();
        };
        batch(A, &["addr add 10.0.0.2/24 dev eth0", "addr add fd00::2/64 dev eth0 nodad"], &[]);
        batch(
            ONE,
            &[
                "link set m0 mtu 1400",
                "addr add 10.0.0.1/24 dev a0",
                "addr add fd00::1/64 dev a0 nodad",
                "addr add 10.0.5.1/24 dev m0",
                "addr add fd00:0:0:5::1/64 dev m0 nodad",
                "route add default via 10.0.5.2",
                "route add default via fd00:0:0:5::2",
                // Back to where it comes from: worth a redirect.
                "route add 203.0.113.0/24 via 10.0.0.9",
                "route add 2001:db8:9::/48 via fd00::9",
            ],
            &[
                neighbor("10.0.0.2", "a0", 1),
                neighbor("fd00::2", "a0", 1),
                neighbor("10.0.0.9", "a0", 9),
                neighbor("fd00::9", "a0", 9),
                neighbor("10.0.5.2", "m0", 4),
                neighbor("fd00:0:0:5::2", "m0", 4),
            ],
        );
        batch(
            TWO,
            &[
                "link set m0 mtu 1400",
                "link set b0 mtu 1300",
                "addr add 10.0.5.2/24 dev m0",
                "addr add fd00:0:0:5::2/64 dev m0 nodad",
                "addr add 10.0.1.1/24 dev b0",
                "addr add fd00:0:0:1::1/64 dev b0 nodad",
                "route add 10.0.0.0/24 via 10.0.5.1",
                "route add fd00::/64 via fd00:0:0:5::1",
                "route add prohibit 198.18.1.0/24",
                "route add unreachable 198.18.2.0/24",
                "route add blackhole 198.18.3.0/24",
                "route add prohibit 2001:db8:1::/48",
                "route add unreachable 2001:db8:2::/48",
                "route add blackhole 2001:db8:3::/48",
            ],
            &[
                neighbor("10.0.5.1", "m0", 3),
                neighbor("fd00:0:0:5::1", "m0", 3),
                neighbor("10.0.1.2", "b0", 6),
                neighbor("fd00:0:0:1::2", "b0", 6),
            ],
        );
        batch(
            B,
            &[
                "link set eth0 mtu 1300",
                "addr add 10.0.1.2/24 dev eth0",
                "addr add fd00:0:0:1::2/64 dev eth0 nodad",
                "route add default via 10.0.1.1",
                "route add default via fd00:0:0:1::1",
            ],
            &[neighbor("10.0.1.1", "eth0", 5), neighbor("fd00:0:0:1::1", "eth0", 5)],
        );
        let (a, b) = (Raw::open(&nodes[A], "eth0").unwrap(), Raw::open(&nodes[B], "eth0").unwrap());
        Self { nodes, a, b }
    }

    /// What comes of a probe: back to A, and at B. So many frames are waited for.
    fn probe(&self, frame: &[u8], expected: Option<usize>) -> Outcome {
        self.a.clear();
        self.b.clear();
        self.a.send(frame).unwrap();
        let start = Instant::now();
        let mut seen = Outcome::default();
        let mut until = expected.map_or(LISTEN, |n| if n == 0 { LISTEN } else { PATIENCE });
        while start.elapsed() < until {
            let wait = Duration::from_millis(2);
            seen.back.extend(self.a.receive(wait, is_of_interest).map(without_lots));
            seen.through.extend(self.b.receive(wait, is_of_interest).map(without_lots));
            if expected.is_some_and(|n| n > 0 && seen.len() == n) && until == PATIENCE {
                until = start.elapsed() + EXTRA;
            }
        }
        seen.back.sort();
        seen.through.sort();
        seen
    }
}

/// In what order frames came is not looked at: one that a kernel has to cut is overtaken by
/// the next ones, which need no kernel.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    back: Vec<Vec<u8>>,
    through: Vec<Vec<u8>>,
}

impl Outcome {
    fn len(&self) -> usize {
        self.back.len() + self.through.len()
    }
}

/// All but what hosts and routers say unasked or to find each other.
fn is_of_interest(f: &[u8]) -> bool {
    match (f[12], f[13]) {
        (0x08, 0x00) => f[23] != 2,
        (0x86, 0xdd) => {
            let icmp = f[20] == 58 && f.len() > 54;
            let reports = f[20] == 0 && f.len() > 62 && f[54] == 58;
            !(icmp && matches!(f[54], 133..=136 | 143) || reports && matches!(f[62], 131..=143))
        }
        _ => false,
    }
}

/// Without the identification of an ICMP error's own header, and IPv6's flow label there.
fn without_lots(mut f: Vec<u8>) -> Vec<u8> {
    match (f[12], f[13], f[20], f[23]) {
        (0x08, 0x00, _, 1) => {
            f[18..20].fill(0);
            f[24..26].fill(0);
        }
        (0x86, 0xdd, 58, _) => {
            f[15] &= 0xf0;
            f[16..18].fill(0);
        }
        _ => {}
    }
    f
}

fn udp(dst: &str, payload: usize) -> Udp {
    let dst: IpAddr = dst.parse().unwrap();
    let src = if dst.is_ipv4() { "10.0.0.2" } else { "fd00::2" };
    Udp::new((mac(2), mac(1)), src.parse().unwrap(), dst, &vec![b'x'; payload])
}

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;

/// An ICMP echo request in place of UDP.
fn echo(dst: &str, ttl: u8) -> Vec<u8> {
    let packet = Udp { ttl, ..udp(dst, 24) };
    let mut frame = packet.bytes();
    let v4 = packet.dst.is_ipv4();
    let at = if v4 { 34 } else { 54 };
    let (kind, number) = if v4 { (8, 1) } else { (128, 58) };
    frame[at..at + 8].copy_from_slice(&[kind, 0, 0, 0, 0, 7, 0, 1]);
    let pseudo = if v4 { 0 } else { sum(&frame[22..54], sum(&[0, 32, 0, 58], 0)) };
    let checksum = !sum(&frame[at..], pseudo);
    frame[at + 2..at + 4].copy_from_slice(&checksum.to_be_bytes());
    if v4 {
        frame[23] = number;
        frame[24..26].fill(0);
        let checksum = !sum(&frame[14..34], 0);
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    } else {
        frame[20] = number;
    }
    frame
}

/// Eight bytes of an IPv6 extension header in front of UDP.
fn extension(kind: u8, rest: [u8; 7]) -> Option<(u8, Vec<u8>)> {
    Some((kind, [&[17][..], &rest].concat()))
}

type Probes = Vec<(String, Vec<u8>)>;

/// Hops: who answers when it ends there.
fn traceroute() -> Probes {
    let mut probes = Vec::new();
    for dst in ["10.0.1.2", "fd00:0:0:1::2"] {
        for ttl in 1..=3 {
            probes.push((format!("UDP {dst} TTL {ttl}"), Udp { ttl, ..udp(dst, 20) }.bytes()));
            probes.push((format!("echo {dst} TTL {ttl}"), echo(dst, ttl)));
        }
    }
    for dst in ["10.0.0.1", "10.0.5.2", "10.0.1.1", "fd00::1", "fd00:0:0:5::2"] {
        probes.push((format!("echo to a router's own {dst}"), echo(dst, 64)));
        probes.push((format!("no such port of {dst}"), udp(dst, 20).bytes()));
    }
    probes
}

/// Lengths around the two MTUs, with and without leave to be cut.
fn lengths() -> Probes {
    let mut probes = Vec::new();
    for len in [1300, 1301, 1400, 1401, 1500] {
        for fragment in [0, DONT_FRAGMENT] {
            let packet = Udp { fragment, ..udp("10.0.1.2", len - 28) };
            probes.push((format!("IPv4 {len} bytes, flags {fragment:#x}"), packet.bytes()));
        }
        probes.push((format!("IPv6 {len} bytes"), udp("fd00:0:0:1::2", len - 48).bytes()));
    }
    probes
}

/// Fragments, options and extension headers.
fn headers() -> Probes {
    let v4 = || udp("10.0.1.2", 64);
    let v6 = || udp("fd00:0:0:1::2", 64);
    let mut probes: Vec<(String, Udp)> = vec![
        ("first fragment".into(), Udp { fragment: MORE_FRAGMENTS, ..v4() }),
        ("middle fragment".into(), Udp { fragment: MORE_FRAGMENTS | 9, ..v4() }),
        ("last fragment".into(), Udp { fragment: 18, ..v4() }),
        ("NOPs".into(), Udp { options: vec![1, 1, 1, 0], ..v4() }),
        ("record route".into(), Udp { options: [&[7, 11, 4][..], &[0; 9]].concat(), ..v4() }),
        ("router alert".into(), Udp { options: vec![0x94, 4, 0, 0], ..v4() }),
        ("a bad option".into(), Udp { options: vec![7, 200, 4, 0], ..v4() }),
    ];
    let padding = [0, 1, 4, 0, 0, 0, 0];
    for (what, kind, rest) in [
        ("hop-by-hop", 0, padding),
        ("hop-by-hop, an option to be complained of", 0, [0, 0x80, 4, 0, 0, 0, 0]),
        ("destination options", 60, padding),
        ("routing header", 43, [0, 4, 0, 0, 0, 0, 0]),
        ("first fragment", 44, [0, 0, 1, 0, 0, 0, 7]),
        ("later fragment", 44, [0, 0, 0x40, 0, 0, 0, 7]),
    ] {
        probes.push((format!("IPv6 {what}"), Udp { extension: extension(kind, rest), ..v6() }));
    }
    probes.into_iter().map(|(what, packet)| (what, packet.bytes())).collect()
}

/// Destinations and sources that get nowhere, or elsewhere.
fn addresses() -> Probes {
    let mut probes = Vec::new();
    for dst in [
        "198.51.100.1",
        "198.18.1.1",
        "198.18.2.1",
        "198.18.3.1",
        "2001:db8:ffff::1",
        "2001:db8:1::1",
        "2001:db8:2::1",
        "2001:db8:3::1",
        // Directed and limited broadcast, multicast, loopback, reserved, link-local.
        "10.0.1.255",
        "255.255.255.255",
        "224.0.0.5",
        "239.1.1.1",
        "127.0.0.1",
        "0.0.0.1",
        "240.0.0.1",
        "169.254.1.1",
        "fe80::1234",
        "ff02::1",
        "ff0e::1",
        "::1",
        "::",
    ] {
        probes.push((format!("to {dst}"), udp(dst, 20).bytes()));
    }
    for src in ["127.0.0.1", "0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255", "10.0.1.1"] {
        let packet = Udp { src: src.parse().unwrap(), ..udp("10.0.1.2", 20) };
        probes.push((format!("from {src}"), packet.bytes()));
    }
    for src in ["::1", "::", "ff02::1", "fe80::77", "fd00:0:0:1::1"] {
        let packet = Udp { src: src.parse().unwrap(), ..udp("fd00:0:0:1::2", 20) };
        probes.push((format!("from {src}"), packet.bytes()));
    }
    for dst in ["203.0.113.1", "2001:db8:9::1"] {
        probes.push((format!("by the way that it came: {dst}"), udp(dst, 20).bytes()));
    }
    probes
}

fn same(probes: &Probes) {
    let kernels = Row::new();
    let expected: Vec<Outcome> = probes.iter().map(|(_, f)| kernels.probe(f, None)).collect();
    drop(kernels);
    let row = Row::new();
    let nsplane = Nsplane::start(&[&row.nodes[ONE], &row.nodes[TWO]], &[]).unwrap();
    let mut differ = Vec::new();
    for ((what, frame), expected) in probes.iter().zip(&expected) {
        let got = row.probe(frame, Some(expected.len()));
        if got != *expected {
            differ.push(format!("{what}:\n kernels {expected:x?}\n nsplane {got:x?}"));
        }
    }
    let answered = expected.iter().filter(|e| !e.back.is_empty()).count();
    let through = expected.iter().filter(|e| !e.through.is_empty()).count();
    println!("{} probes, {answered} answered, {through} got through", probes.len());
    let counters = nsplane.show("counters", &[]).unwrap();
    assert!(differ.is_empty(), "{} differ: {}\n{counters}", differ.len(), differ.join("\n"));
    // It was nsplane that was asked.
    assert!(counters.to_string().contains("\"punts\""), "{counters}");
}

#[test]
#[ignore = "needs root"]
fn traceroute_finds_the_same_hops() {
    same(&traceroute());
}

#[test]
#[ignore = "needs root"]
fn packets_too_long_are_cut_or_complained_of() {
    same(&lengths());
}

#[test]
#[ignore = "needs root"]
fn fragments_options_and_extension_headers() {
    same(&headers());
}

#[test]
#[ignore = "needs root"]
fn addresses_that_get_nowhere() {
    same(&addresses());
}
