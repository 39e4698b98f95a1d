//! The program in this machine's kernel: what it decides, what it tags, how it is
//! attached. Needs root; without, the tests say so and do nothing.
//!
//! Namespaces here have no names: each belongs to a thread and ends with it, so
//! nothing is left behind, whatever happens to the test.
#![allow(unsafe_code, reason = "unshare, and frames of an AF_XDP socket")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::num::NonZeroU32;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use aya::programs::{TestRun as _, TestRunOptions};
use nsplane_abi::headers::ETH_LEN;
use nsplane_abi::tag::{TAG_CSUM_PARTIAL, TAG_LEN, Tag};
use nsplane_abi::{PORT_KERNEL_ROUTES_V4, PORT_KERNEL_ROUTES_V6, PORT_ROUTE_V4, PORT_ROUTE_V6};
use xsk_rs::config::{LibxdpFlags, SocketConfig, UmemConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem};

mod long;
mod members;
mod short;

use super::*;
use crate::id::{Generation, IfIndex, Mac};

const MAC: [u8; 6] = [2, 9, 0, 0, 0, 1];
const NS: NsId = NsId { index: 3, generation: 7 };
const PORT: PortId = PortId(5);
const GENERATION: Generation = Generation(0x0001_0002);
const XDP_PASS: u32 = 2;

/// UDP from 10.9.0.2 to 10.9.1.2, and from fd09::2 to fd09:0:0:1::2.
#[rustfmt::skip]
const V4: [u8; 42] = [
    2, 9, 0, 0, 0, 1, 2, 9, 0, 0, 0, 2, 0x08, 0x00,
    0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 10, 9, 0, 2, 10, 9, 1, 2,
    0x10, 0, 0x20, 0, 0, 8, 0, 0,
];
#[rustfmt::skip]
const V6: [u8; 62] = [
    2, 9, 0, 0, 0, 1, 2, 9, 0, 0, 0, 2, 0x86, 0xdd,
    0x60, 0, 0, 0, 0, 8, 17, 64,
    0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
    0xfd, 9, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2,
    0x10, 0, 0x20, 0, 0, 8, 0, 0,
];

/// True if this process may do all that loading takes; says so if not.
fn privileged() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let caps = line.and_then(|l| u64::from_str_radix(l.trim(), 16).ok()).unwrap_or(0);
    // NET_ADMIN, NET_RAW, SYS_ADMIN, PERFMON, BPF
    let all = [12, 13, 21, 38, 39].into_iter().all(|bit| caps >> bit & 1 == 1);
    if !all {
        eprintln!("left out: needs root");
    }
    all
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread in a network namespace of its own.
struct Namespace {
    jobs: mpsc::Sender<Job>,
    tid: libc::pid_t,
}

impl Namespace {
    fn new() -> Self {
        let (jobs, todo) = mpsc::channel::<Job>();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            // SAFETY: takes an integer; only this thread moves.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
            // SAFETY: takes nothing.
            tell.send(unsafe { libc::gettid() }).expect("the maker waits");
            todo.into_iter().for_each(|job| job());
        });
        Self { jobs, tid: told.recv().expect("the thread started") }
    }

    /// Runs a closure inside.
    fn run<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        let job = Box::new(move || {
            let _ = tell.send(f());
        });
        self.jobs.send(job).expect("the thread lives");
        told.recv().expect("the closure did not panic")
    }

    fn ip(&self, args: &str) {
        let args = args.to_owned();
        let (ok, said) = self.run(move || {
            let out = Command::new("ip").args(args.split_whitespace()).output().expect("ip runs");
            (out.status.success(), format!("ip {args}: {}", String::from_utf8_lossy(&out.stderr)))
        });
        assert!(ok, "{said}");
    }

    fn links(&self) -> String {
        self.run(|| {
            let out = Command::new("ip").args(["-d", "link"]).output().expect("ip runs");
            String::from_utf8_lossy(&out.stdout).into_owned()
        })
    }
}

/// A router with device v0 and a host with v1, joined by a veth.
fn router_and_host() -> (Namespace, Namespace) {
    let (router, host) = (Namespace::new(), Namespace::new());
    router.ip(&format!(
        "link add v0 index 10 address {} type veth peer name v1 address 02:09:00:00:00:02 netns {}",
        Mac(MAC),
        host.tid
    ));
    for (ns, dev, n) in [(&router, "v0", 1), (&host, "v1", 2)] {
        ns.ip(&format!("addr add 10.9.0.{n}/24 dev {dev}"));
        ns.ip(&format!("addr add fd09::{n}/64 dev {dev} nodad"));
        ns.ip(&format!("link set {dev} up"));
    }
    host.ip(&format!("neigh add 10.9.0.1 lladdr {} dev v1", Mac(MAC)));
    host.ip(&format!("neigh add fd09::1 lladdr {} dev v1", Mac(MAC)));
    host.ip("route add 10.9.1.0/24 via 10.9.0.1");
    host.ip("route add fd09:0:0:1::/64 via fd09::1");
    (router, host)
}

fn spec() -> AttachSpec {
    AttachSpec {
        ifindex: IfIndex(10),
        name: "v0".into(),
        kind: DeviceKind::Veth,
        port: PORT,
        ns: NS,
        generation: GENERATION,
        cross: false,
    }
}

fn conf(flags: u16) -> PortConf {
    PortConf { mac: MAC, flags, max_frame: 1792, generation: GENERATION.0 }
}

fn load() -> Bpf {
    Bpf::load(Options { max_ports: 8 }).expect("the program loads")
}

/// Packets counted since the last call, by reason; reasons with none left out.
fn counted(bpf: &mut Bpf) -> Vec<(&'static str, u64)> {
    let counters = bpf.counters(PORT).expect("counters");
    bpf.clear_counters(PORT).expect("clearing");
    let all = PassReason::ALL.into_iter().zip(counters);
    all.filter(|(_, c)| c.packets != 0).map(|(r, c)| (r.name(), c.packets)).collect()
}

/// As [`counted`], without what the kernel sends on any link unasked (ND, MLD).
fn counted_routable(bpf: &mut Bpf) -> Vec<(&'static str, u64)> {
    let chatter = [PassReason::Multicast.name(), PassReason::NotIp.name()];
    counted(bpf).into_iter().filter(|(name, _)| !chatter.contains(name)).collect()
}

#[test]
fn packets_that_are_not_ours_pass_with_their_reason() {
    if !privileged() {
        return;
    }
    let mut bpf = load();
    // No driver is involved here, hence no sk_buff.
    let spec = AttachSpec { kind: DeviceKind::Other, ..spec() };
    let loader = bpf.loader();
    let mut instance =
        loader.instantiate(&loader.constants(&spec, XdpMode::Native, false)).expect("an instance");
    let program = attach::load(&mut instance, "nsplane").expect("the verifier accepts it");
    let run = |bpf: &mut Bpf, packet: &[u8]| {
        let options = TestRunOptions { data_in: Some(packet), ..TestRunOptions::new() };
        let result = program.test_run(options).expect("BPF_PROG_RUN");
        assert_eq!(result.return_value, XDP_PASS);
        let mut counts = counted(bpf);
        assert_eq!(counts.len(), 1, "{counts:?}");
        counts.remove(0).0
    };
    // A veth on a kernel that does not say where an sk_buff's fields are.
    let unknown = [(nsplane_abi::consts::CSUM_UNKNOWN, 1)];
    let mut blind = loader.instantiate(&unknown).expect("an instance");
    attach::load(&mut blind, "nsplane").expect("the verifier accepts it");
    let with = |packet: &[u8], at: usize, bytes: &[u8]| {
        let mut out = packet.to_vec();
        out[at..at + bytes.len()].copy_from_slice(bytes);
        out
    };

    assert_eq!(run(&mut bpf, &V4), "stale");
    bpf.set_port(PORT, &conf(0)).expect("a port");
    assert_eq!(run(&mut bpf, &V4), "not_routed");
    bpf.set_port(PORT, &conf(PORT_ROUTE_V4)).expect("a port");
    assert_eq!(run(&mut bpf, &V4), "no_socket");
    assert_eq!(run(&mut bpf, &V6), "not_routed");
    bpf.set_port(PORT, &conf(PORT_ROUTE_V4 | PORT_ROUTE_V6)).expect("a port");
    assert_eq!(run(&mut bpf, &V6), "no_socket");
    assert_eq!(run(&mut bpf, &with(&V4, 12, &[8, 6])), "not_ip");
    assert_eq!(run(&mut bpf, &with(&V4, 5, &[9])), "not_for_us");
    assert_eq!(run(&mut bpf, &with(&V4, ETH_LEN + 8, &[1])), "ttl");
    assert_eq!(run(&mut bpf, &with(&V6, ETH_LEN + 6, &[0])), "hop_by_hop");
    assert_eq!(run(&mut bpf, &with(&V6, ETH_LEN + 24, &[0xff])), "multicast");
    assert_eq!(run(&mut bpf, &V4[..30]), "malformed");
    let mut long = V4.to_vec();
    long.resize(1793, 0);
    assert_eq!(run(&mut bpf, &long), "too_long");
    assert_eq!(run(&mut bpf, &long[..1792]), "no_socket");

    // Local addresses, of either end, in the port's namespace only.
    let other = NsId { index: 3, generation: 8 };
    for addr in ["10.9.1.2", "10.9.0.2", "fd09:0:0:1::2", "fd09::2"] {
        let addr: IpAddr = addr.parse().expect("an address");
        let packet: &[u8] = if addr.is_ipv4() { &V4 } else { &V6 };
        bpf.add_local(other, addr).expect("adding");
        assert_eq!(run(&mut bpf, packet), "no_socket", "{addr}");
        bpf.add_local(NS, addr).expect("adding");
        assert_eq!(run(&mut bpf, packet), "local", "{addr}");
        bpf.remove_local(NS, addr).expect("removing");
        bpf.remove_local(NS, addr).expect("removing what is not there");
        assert_eq!(run(&mut bpf, packet), "no_socket", "{addr}");
    }

    // The longest match decides, and only where the port's flags ask.
    for (packet, kernel, ours) in
        [(&V4[..], "10.9.0.0/16", "10.9.1.0/24"), (&V6[..], "fd09::/32", "fd09:0:0:1::/64")]
    {
        let prefix = |text: &str| {
            let (addr, len) = text.split_once('/').expect("a prefix");
            (addr.parse::<IpAddr>().expect("an address"), len.parse().expect("a length"))
        };
        let all = PORT_ROUTE_V4 | PORT_ROUTE_V6;
        bpf.set_route(NS, prefix(kernel), true).expect("setting");
        assert_eq!(run(&mut bpf, packet), "no_socket");
        let asking = all | PORT_KERNEL_ROUTES_V4 | PORT_KERNEL_ROUTES_V6;
        bpf.set_port(PORT, &conf(asking)).expect("a port");
        assert_eq!(run(&mut bpf, packet), "kernel_route");
        bpf.set_route(NS, prefix(ours), false).expect("setting");
        assert_eq!(run(&mut bpf, packet), "no_socket");
        bpf.remove_route(NS, prefix(ours)).expect("removing");
        assert_eq!(run(&mut bpf, packet), "kernel_route");
        bpf.remove_route(NS, prefix(kernel)).expect("removing");
        bpf.remove_route(NS, prefix(kernel)).expect("removing what is not there");
        assert_eq!(run(&mut bpf, packet), "no_socket");
        bpf.set_port(PORT, &conf(all)).expect("a port");
    }

    bpf.clear_port(PORT).expect("a port");
    assert_eq!(run(&mut bpf, &V4), "stale");
    assert!(bpf.set_port(PortId(8), &conf(0)).is_err());
    assert!(bpf.clear_socket(PORT, QueueId(32)).is_err());
    bpf.clear_socket(PORT, QueueId(31)).expect("clearing an empty slot");
}

/// An AF_XDP socket on v0, and everything it needs to live.
struct Receiver {
    rx: RxQueue,
    umem: Umem,
    _others: (TxQueue, FillQueue, CompQueue),
}

// SAFETY: the parts are used by one thread at a time.
unsafe impl Send for Receiver {}

impl Receiver {
    fn new() -> Self {
        let frames = NonZeroU32::new(64).expect("not zero");
        let (umem, descs) = Umem::new(UmemConfig::default(), frames, false).expect("a UMEM");
        let config = SocketConfig::builder()
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .build();
        let device = "v0".parse().expect("a name");
        // SAFETY: the UMEM has no other socket.
        let (tx, rx, rings) =
            unsafe { Socket::new(config, &umem, &device, 0) }.expect("a socket on v0");
        let (mut fill, comp) = rings.expect("the UMEM's first socket has them");
        // SAFETY: the descriptors are this UMEM's, and nobody else uses them.
        let filled = unsafe { fill.produce(&descs) };
        assert_eq!(filled, descs.len());
        Self { rx, umem, _others: (tx, fill, comp) }
    }

    /// The next packet and its tag.
    fn next(&mut self) -> Option<(Tag, Vec<u8>)> {
        let mut descs = [FrameDesc::default()];
        // SAFETY: the ring's frames are this UMEM's.
        if unsafe { self.rx.poll_and_consume(&mut descs, 1000) }.expect("poll") == 0 {
            return None;
        }
        // SAFETY: the descriptor has just come from the ring.
        let data = unsafe { self.umem.data(&descs[0]) };
        // SAFETY: 256 bytes of headroom come before the packet in its chunk.
        let before = unsafe { data.contents().as_ptr().sub(TAG_LEN) };
        // SAFETY: as above; the bytes have no alignment to keep.
        let tag = unsafe { before.cast::<[u8; TAG_LEN]>().read_unaligned() };
        Some((Tag::from_bytes(&tag), data.contents().to_vec()))
    }
}

/// Sum of 16-bit words (RFC 1071).
fn sum(bytes: &[u8], start: u32) -> u16 {
    let words = bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0)));
    let mut sum = words.fold(start, |a, w| a + w);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded")
}

/// Completes an unfinished checksum as the tag says, then checks it from scratch.
fn assert_completes(tag: Tag, packet: &[u8]) {
    let (start, offset) = (usize::from(tag.csum_start), usize::from(tag.csum_offset));
    let mut packet = packet.to_vec();
    let complete = !sum(&packet[start..], 0);
    packet[start + offset..start + offset + 2].copy_from_slice(&complete.to_be_bytes());
    let v4 = packet[12] == 8;
    let (addresses, protocol) = if v4 { (26..34, packet[23]) } else { (22..54, packet[20]) };
    let len = u32::try_from(packet.len() - start).expect("short");
    let pseudo = u32::from(sum(&packet[addresses], u32::from(protocol) + len));
    assert_eq!(sum(&packet[start..], pseudo), 0xffff, "{packet:02x?}");
}

fn send_udp(from: &Namespace, to: &'static str, payload: &'static [u8]) {
    let to: SocketAddr = to.parse().expect("an address");
    from.run(move || {
        let any: SocketAddr =
            if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().expect("any");
        UdpSocket::bind(any).and_then(|s| s.send_to(payload, to)).expect("sending");
    });
}

/// One echo request, whether or not it is answered.
fn ping(from: &Namespace, to: &'static str) {
    from.run(move || {
        let _ = Command::new("ping").args(["-c1", "-W0.05", to]).output().expect("ping runs");
    });
}

#[test]
fn local_packets_of_a_veth_are_tagged_with_their_checksums_state() {
    if !privileged() {
        return;
    }
    let (router, host) = router_and_host();
    let mut bpf = load();
    let loader = bpf.loader();
    let attached = router.run(move || loader.attach(&spec(), AttachMode::Auto)).expect("attach");
    assert_eq!(attached.mode(), XdpMode::Native);
    let mut receiver = router.run(Receiver::new);
    bpf.set_socket(PORT, QueueId(0), receiver.rx.fd()).expect("a socket");
    bpf.set_port(PORT, &conf(PORT_ROUTE_V4 | PORT_ROUTE_V6)).expect("a port");

    let expected = Tag {
        ns: NS.packed(),
        port: PORT.0,
        generation: GENERATION.low(),
        flags: TAG_CSUM_PARTIAL,
        csum_start: 34,
        csum_offset: 6,
        member: 0,
    };
    send_udp(&host, "10.9.1.2:9", b"odd");
    let (tag, packet) = receiver.next().expect("UDP over IPv4");
    assert_eq!(tag, expected);
    assert_completes(tag, &packet);

    send_udp(&host, "[fd09:0:0:1::2]:9", b"even");
    let (tag, packet) = receiver.next().expect("UDP over IPv6");
    assert_eq!(tag, Tag { csum_start: 54, ..expected });
    assert_completes(tag, &packet);

    host.run(|| {
        let to = SocketAddr::from((Ipv4Addr::new(10, 9, 1, 3), 9));
        let _ = TcpStream::connect_timeout(&to, Duration::from_millis(50));
    });
    let (tag, packet) = receiver.next().expect("TCP over IPv4");
    assert_eq!(tag, Tag { csum_offset: 16, ..expected });
    assert_completes(tag, &packet);

    // ICMP's checksum is complete from the start.
    ping(&host, "10.9.1.4");
    let (tag, packet) = receiver.next().expect("ICMP");
    assert_eq!(tag, Tag { flags: 0, csum_start: 0, csum_offset: 0, ..expected });
    assert_eq!(packet[23], 1);

    // To the router itself: the stack has it, with its checksum as it was.
    let listener = router.run(|| UdpSocket::bind("10.9.0.1:7")).expect("a socket");
    bpf.add_local(NS, "10.9.0.1".parse().expect("an address")).expect("adding");
    assert_eq!(counted(&mut bpf).first(), Some(&("redirected", 4)));
    send_udp(&host, "10.9.0.1:7", b"local");
    listener.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    assert_eq!(listener.recv(&mut [0; 16]).expect("delivered by the stack"), 5);
    assert!(counted(&mut bpf).contains(&("local", 1)));

    // An empty slot, and a program of another generation, pass.
    bpf.clear_socket(PORT, QueueId(0)).expect("clearing");
    send_udp(&host, "10.9.1.2:9", b"x");
    wait_for(&mut bpf, "no_socket");
    bpf.set_socket(PORT, QueueId(0), receiver.rx.fd()).expect("a socket");
    let newer = PortConf { generation: GENERATION.0 + 1, ..conf(PORT_ROUTE_V4) };
    bpf.set_port(PORT, &newer).expect("a port");
    send_udp(&host, "10.9.1.2:9", b"x");
    wait_for(&mut bpf, "stale");

    drop(attached);
    assert!(!router.links().contains("xdp"), "{}", router.links());
}

/// Waits until a packet was counted for this reason.
fn wait_for(bpf: &mut Bpf, reason: &str) {
    let until = Instant::now() + Duration::from_secs(2);
    loop {
        let counts = counted(bpf);
        if counts.iter().any(|(name, _)| *name == reason) {
            return;
        }
        assert!(Instant::now() < until, "no packet counted as {reason}: {counts:?}");
        thread::yield_now();
    }
}

#[test]
fn generic_mode_passes_unfinished_checksums_and_what_we_inject() {
    if !privileged() {
        return;
    }
    let (router, host) = router_and_host();
    let mut bpf = load();
    let mut injector = bpf.take_injector().expect("one");
    assert!(bpf.take_injector().is_none());
    let loader = bpf.loader();
    let attached = router.run(move || loader.attach(&spec(), AttachMode::Generic)).expect("attach");
    assert_eq!(attached.mode(), XdpMode::Generic);
    assert!(router.links().contains("xdpgeneric"));
    let mut receiver = router.run(Receiver::new);
    bpf.set_socket(PORT, QueueId(0), receiver.rx.fd()).expect("a socket");
    // A local sender's checksum is left to the device; what comes whole is ours.
    for (flags, to) in [(PORT_ROUTE_V6, "[fd09:0:0:1::2]:9"), (PORT_ROUTE_V4, "10.9.1.2:9")] {
        bpf.set_port(PORT, &conf(flags)).expect("a port");
        counted(&mut bpf);
        send_udp(&host, to, b"hello");
        wait_for(&mut bpf, "checksum");
    }
    // What the kernel sent of IPv6 meanwhile was not asked for.
    while receiver.next().is_some() {}
    ping(&host, "10.9.1.4");
    let (tag, packet) = receiver.next().expect("ICMP");
    assert_eq!((tag.flags, tag.csum_start, packet[23]), (0, 0, 1));
    counted(&mut bpf);

    // Injected, it passes the program; the next one from the wire does not.
    router.run(move || {
        injector.inject(IfIndex(10), XdpMode::Generic, &V4).expect("injecting");
        let missing = injector
            .inject(IfIndex(99), XdpMode::Generic, &V4)
            .expect_err("there is no such device");
        assert_eq!(missing.raw_os_error(), Some(libc::ENODEV));
        injector
            .inject(IfIndex(10), XdpMode::Generic, &[0; nsplane_abi::long::LONGEST + 1])
            .expect_err("too long");
    });
    assert_eq!(counted_routable(&mut bpf), [("punted", 1)]);
    ping(&host, "10.9.1.4");
    assert!(receiver.next().is_some(), "{:?}", counted(&mut bpf));
    drop(attached);
    assert!(!router.links().contains("xdp"), "{}", router.links());
}

#[test]
fn injected_packets_reach_the_stack_past_a_native_program() {
    if !privileged() {
        return;
    }
    let (router, _host) = router_and_host();
    let mut bpf = load();
    let mut injector = bpf.take_injector().expect("one");
    let loader = bpf.loader();
    let _attached = router.run(move || loader.attach(&spec(), AttachMode::Native)).expect("attach");
    bpf.set_port(PORT, &conf(PORT_ROUTE_V4)).expect("a port");
    counted(&mut bpf);
    let listener = router.run(|| UdpSocket::bind("10.9.0.1:8192")).expect("a socket");
    listener.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    let mut packet = V4;
    packet[30..34].copy_from_slice(&[10, 9, 0, 1]);
    let header = !sum(&packet[14..34], 0);
    packet[24..26].copy_from_slice(&header.to_be_bytes());
    router.run(move || injector.inject(IfIndex(10), XdpMode::Native, &packet)).expect("injecting");
    assert_eq!(listener.recv(&mut [0; 16]).expect("delivered by the stack"), 0);
    assert!(counted_routable(&mut bpf).is_empty());
}

#[test]
fn what_keeps_a_program_from_a_device_is_told_apart() {
    if !privileged() {
        return;
    }
    let (router, host) = router_and_host();
    let loader = load().loader();
    let attach = move |spec: AttachSpec, mode| {
        let loader = loader.clone();
        move || {
            let start = Instant::now();
            let result = loader.attach(&spec, mode);
            eprintln!("attach {mode:?}: {:?}", start.elapsed());
            result
        }
    };
    let absent = AttachSpec { ifindex: IfIndex(99), ..spec() };
    let error = router.run(attach(absent, AttachMode::Auto)).expect_err("no such device");
    assert!(matches!(error, Error::NoDevice { .. }), "{error}");

    let held = router.run(attach(spec(), AttachMode::Native)).expect("attach");
    for mode in [AttachMode::Auto, AttachMode::Native, AttachMode::Generic] {
        let error = router.run(attach(spec(), mode)).expect_err("it has one");
        assert!(matches!(error, Error::Busy { .. }), "{error}");
    }
    drop(held);

    router.ip("link add mv0 index 20 link v0 type macvlan");
    let macvlan = AttachSpec { ifindex: IfIndex(20), name: "mv0".into(), ..spec() };
    let error = router.run(attach(macvlan.clone(), AttachMode::Native)).expect_err("no native XDP");
    assert!(matches!(error, Error::NotSupported { .. }), "{error}");
    let generic = router.run(attach(macvlan, AttachMode::Auto)).expect("attach");
    assert_eq!(generic.mode(), XdpMode::Generic);
    drop(generic);

    host.ip(
        "link add w0 index 30 numtxqueues 1 numrxqueues 1 type veth peer name w1 numtxqueues 4",
    );
    host.ip("link set w1 up");
    let narrow = AttachSpec { ifindex: IfIndex(30), name: "w0".into(), ..spec() };
    let result = host.run(attach(narrow, AttachMode::Native));
    assert!(matches!(result, Err(Error::TooFewQueues { .. })), "{result:?}");
}
