use std::process::Command;

use super::*;

#[test]
fn siphash_of_its_paper() {
    let key = |from: u8| u64::from_le_bytes(std::array::from_fn(|i| from + i as u8));
    let message: [u8; 15] = std::array::from_fn(|i| i as u8);
    assert_eq!(siphash(key(0), key(8), &message), 0xa129_ca61_49be_45e5);
}

#[test]
fn weights_are_parts_of_31_bits() {
    assert_eq!(bounds(&[1]), [0x7fff_ffff]);
    assert_eq!(bounds(&[1, 1]), [0x3fff_ffff, 0x7fff_ffff]);
    assert_eq!(bounds(&[1, 2]), [0x2aaa_aaaa, 0x7fff_ffff]);
    assert_eq!(bounds(&[256, 256, 256]).last(), Some(&0x7fff_ffff));
}

#[test]
fn a_flow_and_its_answers_have_one_hash() {
    let there = FlowKey { proto: 6, label: 0, ports: (1024, 80) };
    let back = FlowKey { ports: (80, 1024), ..there };
    let (a, b) = ([10, 0, 0, 2], [192, 168, 0, 1]);
    assert_eq!(there.hash_v4(7, a, b), back.hash_v4(7, b, a));
    assert_ne!(there.hash_v4(7, a, b), there.hash_v4(8, a, b));
    assert_ne!(there.hash_v4(7, a, b), back.hash_v4(7, a, [192, 168, 0, 2]));
    let (a, b) = ([1; 16], [2; 16]);
    assert_eq!(there.hash_v6(7, a, b), back.hash_v6(7, b, a));
}

#[test]
fn the_spread_is_as_the_weights() {
    let member = |port, bound| Member { bound, port: PortId(port), gateway: None, mtu: 1500 };
    let bounds = bounds(&[1, 3]);
    let members = [member(0, bounds[0]), member(1, bounds[1])].into();
    let group = Group { how: How::new(Fields::Addresses, 0), members };
    let first = |i: &u32| {
        let hash = FlowKey::default().hash_v4(group.how.seed, i.to_be_bytes(), [10, 0, 0, 1]);
        group.choose(hash).unwrap().port == PortId(0)
    };
    let taken = (0..40_000_u32).filter(first).count();
    assert!((9_500..10_500).contains(&taken), "{taken}");
}

/// A namespace with a router's devices, deleted in the end.
struct Space(String);

impl Space {
    fn run(&self, words: &str) {
        let (program, args) = words.split_once(' ').unwrap();
        let args = args.replace("NS", &self.0);
        let done = Command::new(program).args(args.split_whitespace()).output().unwrap();
        assert!(done.status.success(), "{words}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// The device that each of the flows takes, as `ip route get` says.
    fn devices(&self, flows: &[Asked]) -> Vec<u16> {
        let file = std::env::temp_dir().join(&self.0);
        let lines: Vec<String> = flows.iter().map(Asked::line).collect();
        std::fs::write(&file, lines.join("\n") + "\n").unwrap();
        let path = file.to_str().unwrap();
        let out = Command::new("ip").args(["-n", &self.0, "-batch", path]).output().unwrap();
        std::fs::remove_file(&file).unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        let device = |l: &str| l.split(" dev r").nth(1)?.chars().next()?.to_digit(10);
        text.lines().filter_map(device).map(|d| d as u16).collect()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// A flow that the kernel is asked about.
struct Asked {
    src: IpAddr,
    dst: IpAddr,
    udp: bool,
    ports: (u16, u16),
}

impl Asked {
    fn number(n: u32) -> Self {
        let (a, b) = ((n / 200) as u8, (n % 200) as u8);
        let ports = ((n * 7919 % 60_000) as u16 + 1, (n % 5) as u16 + 80);
        let (src, dst) = match n % 2 {
            0 => (IpAddr::from([10, 0, 0, b + 2]), IpAddr::from([10, 9, a, b])),
            _ => {
                let n = n as u16;
                ([0xfd00, 0, 0, 0, 0, 0, 0, n + 2].into(), [0xfd09, n, 0, 0, 0, 0, 0, 1].into())
            }
        };
        Self { src, dst, udp: n.is_multiple_of(3), ports }
    }

    fn line(&self) -> String {
        let Self { src, dst, ports: (sport, dport), .. } = self;
        let proto = if self.udp { "udp" } else { "tcp" };
        format!("route get {dst} from {src} iif r0 ipproto {proto} sport {sport} dport {dport}")
    }

    fn hash(&self, fields: Fields, seed: u32) -> u32 {
        let proto = if self.udp { 17 } else { 6 };
        let key = match (fields, self.src) {
            (Fields::Ports, _) => FlowKey { proto, label: 0, ports: self.ports },
            (_, IpAddr::V6(_)) => FlowKey { proto, ..FlowKey::default() },
            (_, IpAddr::V4(_)) => FlowKey::default(),
        };
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => key.hash_v4(seed, src.octets(), dst.octets()),
            (IpAddr::V6(src), IpAddr::V6(dst)) => key.hash_v6(seed, src.octets(), dst.octets()),
            _ => unreachable!(),
        }
    }
}

/// The kernel says by which device it would forward each of 600 flows.
#[test]
fn flows_take_the_kernels_way() {
    if !crate::netns::tests::root("flows_take_the_kernels_way") {
        return;
    }
    let space = Space(format!("hm-hash-{}", std::process::id()));
    space.run("ip netns add NS");
    for setting in ["ipv4.ip_forward=1", "ipv6.conf.all.forwarding=1", "ipv4.conf.all.rp_filter=0"]
    {
        space.run(&format!("ip netns exec NS sysctl -qw net.{setting}"));
    }
    for i in 0..4 {
        space.run(&format!("ip -n NS link add r{i} type veth peer name p{i}"));
        space.run(&format!("ip netns exec NS sysctl -qw net.ipv4.conf.r{i}.rp_filter=0"));
        space.run(&format!("ip -n NS link set r{i} up"));
        space.run(&format!("ip -n NS link set p{i} up"));
        space.run(&format!("ip -n NS addr add 10.0.{i}.1/24 dev r{i}"));
        space.run(&format!("ip -n NS addr add fd00:0:0:{i}::1/64 dev r{i} nodad"));
    }
    let flows: Vec<Asked> = (0..600).map(Asked::number).collect();
    let seed = 4711;
    space.run(&format!("ip netns exec NS sysctl -qw net.ipv4.fib_multipath_hash_seed={seed}"));
    for weights in [[1_u16, 1, 1], [1, 5, 250]] {
        let hops = |net: &str| {
            let hop = |(i, w)| {
                format!(
                    " nexthop via {net}{i}{} weight {w}",
                    if net.contains(':') { "::2" } else { ".2" }
                )
            };
            (1..4).zip(weights).map(hop).collect::<String>()
        };
        space.run(&format!("ip -n NS route replace 10.9.0.0/16{}", hops("10.0.")));
        space.run(&format!("ip -n NS -6 route replace fd09::/16{}", hops("fd00:0:0:")));
        let bounds = bounds(&weights);
        for (policy, fields) in [(0, Fields::Addresses), (1, Fields::Ports)] {
            for family in ["ipv4", "ipv6"] {
                let setting = format!("net.{family}.fib_multipath_hash_policy={policy}");
                space.run(&format!("ip netns exec NS sysctl -qw {setting}"));
            }
            let ours = |flow: &Asked| {
                let hash = flow.hash(fields, seed);
                bounds.iter().position(|b| hash <= *b).unwrap() as u16 + 1
            };
            let ours: Vec<u16> = flows.iter().map(ours).collect();
            let kernels = space.devices(&flows);
            assert_eq!(kernels.len(), flows.len());
            let wrong = ours.iter().zip(&kernels).filter(|(a, b)| a != b).count();
            assert_eq!(wrong, 0, "of {} flows, policy {policy}, weights {weights:?}", flows.len());
        }
    }
}
