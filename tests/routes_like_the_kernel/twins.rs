//! Two routers with the same devices, addresses and neighbours.
//!
//! ```text
//!  side 0 .. 4, each a device in one namespace      the router
//!   h0 10.0.0.2  fd00::2          ───────────────── r0 10.0.0.1  fd00::1
//!   h1 10.0.1.2  fd00:0:0:1::2    ───────────────── r1 10.0.1.1  fd00:0:0:1::1
//!   ...                                             other: a device that is no port
//! ```

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use nsplane_tests::frame::{UDP, Udp};
use nsplane_tests::netns::{End, Netns, show_mac, veth};
use nsplane_tests::process::Nsplane;
use nsplane_tests::raw::Raw;
use nsplane_tests::wait::wait_until;

const SIDES: usize = 5;
/// How long a change may take to show, looks at settings included.
const SOON: Duration = Duration::from_secs(10);
/// How long a packet may be on its way after the last that arrived.
const PATIENCE: Duration = Duration::from_millis(150);
/// Between two packets.
const PACE: Duration = Duration::from_micros(700);

/// What is configured in both, and what is sent.
pub(crate) struct Case {
    name: String,
    /// Lines for `ip`, all of them `add` or the like; taken back after the case.
    on: String,
    /// Settings, put back after the case.
    pub(crate) sysctls: Vec<(String, String)>,
    probes: Vec<Probe>,
    /// nsplane must forward all that comes out.
    pub(crate) all_ours: bool,
}

impl Case {
    pub(crate) fn new(name: &str, on: &str, probes: Vec<Probe>) -> Self {
        let (name, on) = (name.to_owned(), on.to_owned());
        Self { name, on, sysctls: Vec::new(), probes, all_ours: true }
    }

    /// With longer packets too.
    pub(crate) fn long(mut self) -> Self {
        let long = |p: &Probe| Probe { len: 1390, ..p.clone() };
        let more: Vec<Probe> = self.probes.iter().map(long).collect();
        self.probes.extend(more);
        self.all_ours = false;
        self
    }

    /// The kernel may forward some.
    pub(crate) fn some_kernels(self) -> Self {
        Self { all_ours: false, ..self }
    }
}

/// A packet.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    /// The side that sends it.
    pub(crate) from: usize,
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) tos: u8,
    pub(crate) proto: u8,
    pub(crate) ports: (u16, u16),
    /// IPv4: flags and offset.
    pub(crate) fragment: u16,
    /// Bytes of the payload at least.
    pub(crate) len: usize,
}

impl Probe {
    pub(crate) fn new(from: usize, src: &str, dst: &str) -> Self {
        let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
        Self { from, src, dst, tos: 0, proto: UDP, ports: (12345, 9), fragment: 0, len: 0 }
    }
}

/// Where a packet came out.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// At a side, as these bytes.
    At(usize, Vec<u8>),
    /// The sender got an answer: of that protocol, type and code.
    Answer(u8, u8, u8),
    Nowhere,
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(side, bytes) => {
                write!(f, "side {side}: {:02x?}", &bytes[..bytes.len().min(48)])
            }
            Self::Answer(proto, kind, code) => write!(f, "answer {proto}: {kind}/{code}"),
            Self::Nowhere => f.write_str("nowhere"),
        }
    }
}

/// One of the twins.
struct Twin {
    router: Netns,
    /// Lives as long as the twin.
    _sides: Netns,
    raw: Vec<Raw>,
}

impl Twin {
    fn new(label: &str) -> Self {
        let (router, sides) =
            (Netns::new(&format!("{label}-r")).unwrap(), Netns::new(label).unwrap());
        router.sysctl("net/ipv4/ip_forward", "1").unwrap();
        router.sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
        // Answers are compared, so there must be one to each packet.
        router.sysctl("net/ipv4/icmp_ratelimit", "0").unwrap();
        router.sysctl("net/ipv6/icmp/ratelimit", "0").unwrap();
        for side in 0..SIDES {
            let (near, far) = (format!("r{side}"), format!("h{side}"));
            let end = |end: u8, netns, device| End {
                mac: Some(mac(side, end)),
                ..End::new(netns, device)
            };
            veth(&end(1, &router, &near), &end(2, &sides, &far)).unwrap();
            let far_mac = show_mac(mac(side, 2));
            let mut lines = format!(
                "addr add 10.0.{side}.1/24 dev {near}\naddr add fd00:0:0:{side}::1/64 dev {near} nodad\n"
            );
            for addr in [
                format!("10.0.{side}.2"),
                format!("fd00:0:0:{side}::2"),
                "192.0.2.1".to_owned(),
                "2001:db8::1".to_owned(),
                "fe80::77".to_owned(),
            ] {
                lines +=
                    &format!("neigh replace {addr} lladdr {far_mac} dev {near} nud permanent\n");
            }
            // What is on the link because a route says so.
            for last in [
                "10.9.7.1",
                "10.9.7.200",
                "10.9.1.1",
                "10.9.2.1",
                "10.9.3.1",
                "fd09:7::1",
                "fd09:7:1::1",
                "fd09:1::1",
                "fd09:2::1",
                "fd09:3::1",
            ] {
                lines +=
                    &format!("neigh replace {last} lladdr {far_mac} dev {near} nud permanent\n");
            }
            router.ip_batch(&lines).unwrap();
        }
        router.ip_batch("link add other type dummy\nlink set other up\n").unwrap();
        let raw = (0..SIDES).map(|s| Raw::open(&sides, &format!("h{s}")).unwrap()).collect();
        Self { router, _sides: sides, raw }
    }

    /// Configures; returns what puts the settings back.
    fn on(&self, case: &Case) -> Vec<(String, String)> {
        let set = |(path, value): &(String, String)| {
            let before = self.router.read_sysctl(path).unwrap();
            self.router.sysctl(path, value).unwrap();
            (path.clone(), before)
        };
        let before = case.sysctls.iter().map(set).collect();
        self.router.ip_batch(&case.on).unwrap_or_else(|e| panic!("{}: {e:#}", case.name));
        before
    }

    fn off(&self, case: &Case, before: &[(String, String)]) {
        let lines: Vec<String> = case.on.lines().rev().map(undo).collect();
        self.router.ip_batch(&lines.join("\n")).unwrap_or_else(|e| panic!("{}: {e:#}", case.name));
        for (path, value) in before {
            self.router.sysctl(path, value).unwrap();
        }
    }

    /// Sends all, and sees where each comes out.
    fn send(&self, probes: &[Probe]) -> Vec<Seen> {
        self.raw.iter().for_each(Raw::clear);
        for (n, probe) in probes.iter().enumerate() {
            self.raw[probe.from].send(&frame(probe, n)).unwrap();
            std::thread::sleep(PACE);
        }
        let mut seen = vec![Seen::Nowhere; probes.len()];
        for (side, raw) in self.raw.iter().enumerate() {
            while let Some(bytes) = raw.receive(PATIENCE, |f| number(f).is_some()) {
                let n = number(&bytes).unwrap();
                if let Some(seen) = seen.get_mut(n) {
                    *seen = classify(&probes[n], side, bytes);
                }
            }
        }
        seen
    }
}

fn mac(side: usize, end: u8) -> [u8; 6] {
    [2, 0, 7, 0, side as u8, end]
}

/// The line that takes back what a line did.
fn undo(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let family = if words[0] == "-6" { "-6 " } else { "" };
    match words.iter().position(|w| *w == "nexthop" || *w == "link") {
        Some(0) if words[0] == "nexthop" => return format!("nexthop del id {}", words[3]),
        Some(0) => return format!("link set {} group 0", words[2]),
        _ => {}
    }
    if line.contains("rule del pref 0") {
        return "rule add lookup local pref 0".to_owned();
    }
    if line.contains("rule del pref 32766") {
        return "rule add lookup main pref 32766".to_owned();
    }
    let words: Vec<&str> = words.into_iter().filter(|w| *w != "-6").collect();
    let words = words.join(" ");
    let back = ["add", "append", "prepend"].iter().find_map(|verb| {
        words.contains(&format!(" {verb} ")).then(|| words.replacen(verb, "del", 1))
    });
    format!("{family}{}", back.unwrap_or_else(|| panic!("how is this undone: {line}")))
}

const MARK: &[u8] = b"probe number ";

fn frame(probe: &Probe, n: usize) -> Vec<u8> {
    let macs = (mac(probe.from, 1), mac(probe.from, 2));
    let mut payload = MARK.to_vec();
    payload.extend((n as u32).to_be_bytes());
    payload.resize(payload.len().max(probe.len), 0);
    let udp = Udp::new(macs, probe.src, probe.dst, &payload);
    let Probe { tos, proto, ports, fragment, .. } = *probe;
    Udp { tos, proto, ports, fragment, ..udp }.bytes()
}

/// The number of the probe that a frame is, or is an answer to.
fn number(frame: &[u8]) -> Option<usize> {
    let at = frame.windows(MARK.len()).position(|w| w == MARK)? + MARK.len();
    let bytes = frame.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_be_bytes(bytes) as usize)
}

fn classify(probe: &Probe, side: usize, bytes: Vec<u8>) -> Seen {
    let (at, proto) = match probe.dst {
        IpAddr::V4(_) => (34, bytes[23]),
        IpAddr::V6(_) => (54, bytes[20]),
    };
    if [1, 58].contains(&proto) && proto != probe.proto {
        return Seen::Answer(proto, bytes[at], bytes[at + 1]);
    }
    Seen::At(side, bytes)
}

/// Both twins, one under nsplane.
pub(crate) struct Twins {
    kernel: Twin,
    ours: Twin,
    nsplane: Nsplane,
}

impl Twins {
    pub(crate) fn new(label: &str) -> Self {
        let (kernel, ours) = (Twin::new(&format!("{label}-k")), Twin::new(&format!("{label}-n")));
        let nsplane = Nsplane::start(&[&ours.router], &[]).unwrap();
        Self { kernel, ours, nsplane }
    }

    fn forwarded(&self) -> u64 {
        let counters = self.nsplane.show("counters", &[]).unwrap();
        counters[0]["userspace"]["forwarded"]["packets"].as_u64().unwrap()
    }

    /// Goes through the cases; says all that differs.
    pub(crate) fn compare(&self, cases: Vec<Case>) {
        let mut wrong = Vec::new();
        for case in cases {
            if let Err(why) = self.compare_one(&case) {
                println!("{}: {why}", case.name);
                wrong.push(case.name);
            }
        }
        assert!(wrong.is_empty(), "not as the kernel: {wrong:#?}");
    }

    fn compare_one(&self, case: &Case) -> Result<(), String> {
        let before = (self.kernel.on(case), self.ours.on(case));
        let kernel = self.kernel.send(&case.probes);
        let out = kernel.iter().filter(|s| matches!(s, Seen::At(..))).count();
        let mut why = String::new();
        // Until what was changed has been noticed.
        let same = wait_until(SOON, "the same", || {
            let count = self.forwarded();
            let ours = self.ours.send(&case.probes);
            let forwarded = self.forwarded() - count;
            let differs = (0..ours.len()).filter(|n| kernel[*n] != ours[*n]);
            why = differs.take(3).fold(String::new(), |text, n| {
                let (probe, kernel, ours) = (&case.probes[n], &kernel[n], &ours[n]);
                format!("{text}\n  {probe:?}\n    kernel {kernel:?}\n    ours   {ours:?}")
            });
            if why.is_empty() && case.all_ours && forwarded != out as u64 {
                why = format!("nsplane forwarded {forwarded} of {out} itself");
            }
            why.is_empty()
        });
        if same.is_ok() {
            println!("{}: {} sent, {out} came out", case.name, case.probes.len());
        }
        self.kernel.off(case, &before.0);
        self.ours.off(case, &before.1);
        same.map_err(|_| why)
    }

    /// Where nsplane's twin lets probes out, after `on`.
    pub(crate) fn ours(&self, probes: &[Probe]) -> Vec<Seen> {
        self.ours.send(probes)
    }

    /// Configures nsplane's twin only.
    pub(crate) fn ip(&self, lines: &str) {
        self.ours.router.ip_batch(lines).unwrap();
    }

    /// Waits until nsplane forwards all of these itself.
    pub(crate) fn wait_ours(&self, probes: &[Probe]) {
        wait_until(SOON, "all to be forwarded", || {
            let count = self.forwarded();
            let seen = self.ours.send(probes);
            let out = seen.iter().filter(|s| matches!(s, Seen::At(..))).count();
            out == probes.len() && self.forwarded() - count == out as u64
        })
        .unwrap_or_else(|e| panic!("{e}: {}", self.nsplane.show("counters", &[]).unwrap()));
    }
}
