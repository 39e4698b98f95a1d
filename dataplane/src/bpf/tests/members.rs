//! Whose a frame is, and what becomes of those that are not the port's.

use nsplane_abi::member::{MEMBER_ABSENT, MEMBER_STATED};
use nsplane_abi::vlan::{DOT1AD, DOT1Q};
use nsplane_abi::{PORT_MEMBER_MACS, PORT_MEMBER_QUEUES, PORT_MEMBER_VLANS, PORT_MEMBERS};

use super::*;

const XDP_DROP: u32 = 1;
const MEMBER: PortId = PortId(6);
const OWNER: NsId = NsId { index: 4, generation: 2 };
const MEMBER_MAC: [u8; 6] = [2, 9, 0, 0, 0, 9];
const MEMBER_GENERATION: u32 = 77;

fn entry(flags: u16) -> MemberEntry {
    MemberEntry {
        ns: OWNER.packed(),
        member: MEMBER.0,
        flags,
        generation: MEMBER_GENERATION,
        parent: GENERATION.0,
        ..MemberEntry::default()
    }
}

fn member_conf() -> PortConf {
    PortConf {
        mac: MEMBER_MAC,
        flags: PORT_ROUTE_V4 | PORT_ROUTE_V6,
        max_frame: 1792,
        generation: MEMBER_GENERATION,
    }
}

/// To the member's address, with these tags.
fn frame(packet: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let tags = tags.iter().flat_map(|(a, b)| [a.to_be_bytes(), b.to_be_bytes()].concat());
    let tags: Vec<u8> = tags.collect();
    [&MEMBER_MAC[..], &packet[6..12], &tags, &packet[12..]].concat()
}

/// An instance, and the maps that it shares.
struct Bench {
    bpf: Bpf,
    instance: aya::Ebpf,
}

impl Bench {
    fn new(cross: bool) -> Self {
        let bpf = load();
        let spec = AttachSpec { kind: DeviceKind::Other, cross, ..spec() };
        let loader = bpf.loader();
        let constants = loader.constants(&spec, XdpMode::Native, true);
        let mut instance = loader.instantiate(&constants).expect("an instance");
        attach::load(&mut instance, "nsplane").expect("the verifier accepts it");
        Self { bpf, instance }
    }

    /// The action, and for whom it was counted with what reason.
    fn run(&mut self, packet: &[u8]) -> (u32, PortId, &'static str) {
        self.run_with(TestRunOptions { data_in: Some(packet), ..TestRunOptions::new() })
    }

    /// The same, of a packet that arrives on device 10 of this thread's namespace.
    fn run_at(&mut self, packet: &[u8]) -> (u32, PortId, &'static str) {
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, and two more.
        let ctx = [0, packet.len() as u32, 0, 10, 0, 0].map(u32::to_ne_bytes).concat();
        let (data_in, ctx_in) = (Some(packet), Some(&ctx[..]));
        self.run_with(TestRunOptions { data_in, ctx_in, ..TestRunOptions::new() })
    }

    fn run_with(&mut self, options: TestRunOptions<'_>) -> (u32, PortId, &'static str) {
        let program = self.instance.program("nsplane").expect("the port's program");
        let program: &aya::programs::Xdp = program.try_into().expect("an XDP program");
        let action = program.test_run(options).expect("BPF_PROG_RUN").return_value;
        let mut found = Vec::new();
        for port in [PORT, MEMBER] {
            let counters = self.bpf.counters(port).expect("counters");
            self.bpf.clear_counters(port).expect("clearing");
            let all = PassReason::ALL.into_iter().zip(counters);
            found
                .extend(all.filter(|(_, c)| c.packets != 0).map(|(r, _)| (action, port, r.name())));
        }
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    fn port(&mut self, flags: u16) {
        self.bpf.set_port(PORT, &conf(flags)).expect("a port");
    }

    fn member(&mut self, key: &MemberKey, entry: &MemberEntry) {
        self.bpf.set_member(key, entry).expect("a member");
    }
}

#[test]
fn a_macvlans_frames_are_its_namespaces() {
    if !privileged() {
        return;
    }
    let cookie = macvlan();
    let mut b = Bench::new(false);
    let to_member = frame(&V4, &[]);
    let key = MemberKey::mac(u32::from(PORT.0), MEMBER_MAC);
    let entry =
        MemberEntry { cookie, ifindex: 11, bucket: b.bpf.bucket(Mac(MEMBER_MAC)), ..entry(0) };
    b.member(&key, &entry);
    b.bpf.set_port(MEMBER, &member_conf()).expect("a member's settings");
    // Not asked without the port's flag, nor by another's.
    b.port(PORT_ROUTE_V4 | PORT_MEMBER_VLANS | PORT_MEMBER_QUEUES);
    assert_eq!(b.run_at(&to_member), (XDP_PASS, PORT, "not_for_us"));
    // With nothing of its own to route the port still has members.
    b.port(PORT_MEMBER_MACS);
    assert_eq!(b.run_at(&to_member), (XDP_PASS, MEMBER, "no_socket"));
    assert_eq!(b.run_at(&frame(&V6, &[])), (XDP_PASS, MEMBER, "no_socket"));
    assert_eq!(b.run_at(&V4), (XDP_PASS, PORT, "not_routed"));
    assert_eq!(b.run_at(&frame(&V4, &[(DOT1Q, 5)])), (XDP_PASS, PORT, "not_ip"));
    // Addresses and routes are its namespace's, not the port's.
    let dst: IpAddr = "10.9.1.2".parse().expect("an address");
    b.bpf.add_local(NS, dst).expect("adding");
    assert_eq!(b.run_at(&to_member), (XDP_PASS, MEMBER, "no_socket"));
    b.bpf.add_local(OWNER, dst).expect("adding");
    assert_eq!(b.run_at(&to_member), (XDP_PASS, MEMBER, "local"));
    b.bpf.remove_local(OWNER, dst).expect("removing");
    // Generations: of the member, of the port.
    b.bpf.set_port(MEMBER, &PortConf { generation: 78, ..member_conf() }).expect("settings");
    assert_eq!(b.run_at(&to_member), (XDP_PASS, PORT, "stale"));
    b.bpf.set_port(MEMBER, &member_conf()).expect("settings");
    b.member(&key, &MemberEntry { parent: 1, ..entry });
    assert_eq!(b.run_at(&to_member), (XDP_PASS, PORT, "not_for_us"), "of the slot's use before");
    b.bpf.remove_member(&key).expect("removing");
    b.bpf.remove_member(&key).expect("removing what is not there");
    assert_eq!(b.run_at(&to_member), (XDP_PASS, PORT, "not_for_us"));
}

/// Puts this thread into a namespace of its own, with a macvlan, number 11, of device 10;
/// the namespace's cookie.
fn macvlan() -> u64 {
    // SAFETY: takes an integer; only this thread moves, which is the test's own.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
    ip("link add v0 index 10 type veth peer name v1");
    let mac = Mac(MEMBER_MAC);
    ip(&format!("link add m0 index 11 link v0 address {mac} type macvlan mode bridge"));
    ["v0", "v1", "m0"].iter().for_each(|dev| ip(&format!("link set {dev} up")));
    crate::sys::netns::cookie().expect("a cookie")
}

fn ip(args: &str) {
    let done = Command::new("ip").args(args.split_whitespace()).status().expect("ip runs");
    assert!(done.success(), "ip {args}");
}

#[test]
fn a_macvlan_that_is_not_where_it_was_is_the_kernels() {
    if !privileged() {
        return;
    }
    let cookie = macvlan();
    let mut b = Bench::new(false);
    let to_member = frame(&V4, &[]);
    let key = MemberKey::mac(u32::from(PORT.0), MEMBER_MAC);
    let bucket = b.bpf.bucket(Mac(MEMBER_MAC));
    let there = MemberEntry { cookie, ifindex: 11, bucket, ..entry(0) };
    b.bpf.set_port(MEMBER, &member_conf()).expect("a member's settings");
    b.port(PORT_MEMBER_MACS);
    let moved = (XDP_PASS, MEMBER, "moved");
    let found = (XDP_PASS, MEMBER, "no_socket");
    for (entry, expected) in [
        (there, found),
        (MemberEntry { cookie: cookie + 1, ..there }, moved),
        (MemberEntry { ifindex: 12, ..there }, moved),
        (MemberEntry { bucket: bucket ^ 1, ..there }, moved),
        (there, found),
    ] {
        b.member(&key, &entry);
        assert_eq!(b.run_at(&to_member), expected, "{entry:?}");
    }
    // Of another device than the macvlan's.
    assert_eq!(b.run(&to_member), moved);
    ip("link set m0 down");
    assert_eq!(b.run_at(&to_member), moved);
    ip("link set m0 up");
    assert_eq!(b.run_at(&to_member), found);
    ip("link set m0 address 02:09:00:00:00:0a");
    assert_eq!(b.run_at(&to_member), moved);
    ip(&format!("link set m0 address {}", Mac(MEMBER_MAC)));
    // Others in the same bucket, as many as are looked at; the newest comes first.
    let alike = (0_u16..).map(|n| [2, 8, 0, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]]);
    let alike: Vec<_> = alike.filter(|mac| b.bpf.bucket(Mac(*mac)) == bucket).take(16).collect();
    for (n, mac) in alike.iter().enumerate() {
        assert_eq!(b.run_at(&to_member), found, "behind {n} others");
        ip(&format!("link add n{n} link v0 address {} type macvlan mode bridge", Mac(*mac)));
        ip(&format!("link set n{n} up"));
    }
    assert_eq!(b.run_at(&to_member), moved, "too far down");
    ip("link del n3");
    assert_eq!(b.run_at(&to_member), found);
    let elsewhere = Namespace::new();
    ip(&format!("link set m0 netns {}", elsewhere.tid));
    assert_eq!(b.run_at(&to_member), moved);
    elsewhere.ip("link set m0 up");
    assert_eq!(b.run_at(&to_member), moved);
}

#[test]
fn nothing_of_a_stated_vlan_passes() {
    if !privileged() {
        return;
    }
    let mut b = Bench::new(false);
    let port = u32::from(PORT.0);
    let tags = [(DOT1AD, 10), (DOT1Q, 100)];
    b.port(PORT_ROUTE_V4 | PORT_ROUTE_V6 | PORT_MEMBERS);
    b.bpf.set_port(MEMBER, &member_conf()).expect("a member's settings");
    for key in [MemberKey::vlan(port, tags[0], (0, 0)), MemberKey::vlan(port, tags[0], tags[1])] {
        b.member(&key, &entry(MEMBER_STATED));
    }
    for tags in [&tags[..1], &tags[..]] {
        for (packet, reason) in [(&V4[..], "no_socket"), (&V6, "no_socket")] {
            let packet = frame(packet, tags);
            assert_eq!(b.run(&packet), (XDP_DROP, MEMBER, reason));
            let mut short_lived = packet.clone();
            let at = 14 + 4 * tags.len() + if packet.len() < 60 { 8 } else { 7 };
            short_lived[at] = 1;
            assert_eq!(b.run(&short_lived), (XDP_DROP, MEMBER, "ttl"));
            let mut other = packet.clone();
            other[5] = 8;
            assert_eq!(b.run(&other), (XDP_DROP, MEMBER, "not_for_us"));
        }
    }
    // A priority is no part of the VLAN; another VLAN, or kind of tag, is not its own.
    assert_eq!(b.run(&frame(&V4, &[(DOT1AD, 0xe00a)])), (XDP_DROP, MEMBER, "no_socket"));
    for tags in [&[(DOT1AD, 11)][..], &[(DOT1Q, 10)], &[(DOT1AD, 10), (DOT1Q, 101)]] {
        assert_eq!(b.run(&frame(&V4, tags)), (XDP_PASS, PORT, "not_ip"), "{tags:?}");
    }
    let third = frame(&V4, &[tags[0], tags[1], (DOT1Q, 1)]);
    assert_eq!(b.run(&third), (XDP_DROP, MEMBER, "not_ip"));
    // The port's own frames are as ever.
    assert_eq!(b.run(&V4), (XDP_PASS, PORT, "no_socket"));
    // Of the slot's use before: tagged still, and so not the port's to route.
    let before = MemberEntry { parent: 1, ..entry(MEMBER_STATED) };
    b.member(&MemberKey::vlan(port, (DOT1Q, 7), (0, 0)), &before);
    let to_port = [&V4[..12], &[0x81, 0, 0, 7], &V4[12..]].concat();
    assert_eq!(b.run(&to_port), (XDP_PASS, PORT, "not_ip"));
    // Nobody there: not the port's either.
    let absent = MemberEntry { flags: MEMBER_STATED | MEMBER_ABSENT, ..entry(0) };
    b.member(&MemberKey::vlan(port, tags[0], (0, 0)), &absent);
    assert_eq!(b.run(&frame(&V4, &tags[..1])), (XDP_DROP, PORT, "no_member"));
    // A queue's frames are its owner's, however they look.
    b.member(&MemberKey::queue(port, 0), &absent);
    assert_eq!(b.run(&V4), (XDP_DROP, PORT, "no_member"));
    b.member(&MemberKey::queue(port, 0), &entry(MEMBER_STATED));
    assert_eq!(b.run(&frame(&V4, &[])), (XDP_DROP, MEMBER, "no_socket"));
    b.member(&MemberKey::queue(port, 0), &MemberEntry { generation: 1, ..entry(MEMBER_STATED) });
    assert_eq!(b.run(&V4), (XDP_DROP, PORT, "stale"));
}

#[test]
fn a_far_end_passes_nothing() {
    if !privileged() {
        return;
    }
    let mut b = Bench::new(true);
    assert_eq!(b.run(&V4), (XDP_DROP, PORT, "stale"));
    b.port(0);
    assert_eq!(b.run(&V4), (XDP_DROP, PORT, "no_socket"));
    assert_eq!(b.run(&frame(&V4, &[(DOT1Q, 1)])), (XDP_DROP, PORT, "no_socket"));
    let mut long = V4.to_vec();
    long.resize(1793, 0);
    assert_eq!(b.run(&long), (XDP_DROP, PORT, "too_long"));
}
