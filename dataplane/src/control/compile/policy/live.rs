//! Rules and tables of a real namespace, mirrored and compiled, against what the kernel
//! says of the same packets (`ip route get`).

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use super::super::{Compiled, Source, compile};
use super::tests::{End, ours};
use super::*;
use crate::netns;
use crate::tables::policy::Key;

const RULES: [&str; 22] = [
    "from 10.0.0.0/24 lookup 100",
    "not from 10.0.0.0/24 lookup 100",
    "to 10.9.7.0/25 lookup 100",
    "iif r3 lookup 100",
    "not iif r3 lookup 101",
    "oif r2 lookup 100",
    "not oif r2 lookup 101",
    "iif lo lookup 100",
    "fwmark 7 lookup 100",
    "fwmark 0/1 lookup 101",
    "not fwmark 7 lookup 100",
    "tos 0x10 lookup 100",
    "ipproto tcp lookup 100",
    "not ipproto tcp dport 80 lookup 100",
    "dport 80-90 lookup 101",
    "sport 7 lookup 100",
    "from 10.0.0.0/24 goto 200",
    "nop",
    "lookup main suppress_prefixlength 16",
    "lookup main suppress_ifgroup 7",
    "tos 0x10 prohibit",
    "to 10.9.7.0/25 blackhole",
];

struct Space(String);

impl Space {
    fn ip(&self, words: &str) -> Option<String> {
        let args = ["-n", &self.0].into_iter().chain(words.split_whitespace());
        let done = Command::new("ip").args(args).output().unwrap();
        done.status.success().then(|| String::from_utf8(done.stdout).unwrap())
    }

    fn set(&self, words: &str) {
        assert!(self.ip(words).is_some(), "{words}");
    }

    /// What the kernel would do with a packet.
    fn kernel(&self, key: &Key<u32>) -> Option<u16> {
        let Key { src, dst, iif, tos, proto, sport, dport } = *key;
        let (src, dst, iif) = (Ipv4Addr::from_bits(src), Ipv4Addr::from_bits(dst), iif.0);
        let proto = if proto == 6 { "tcp" } else { "udp" };
        let text = self.ip(&format!(
            "route get {dst} from {src} iif r{iif} tos {tos:#x} ipproto {proto} sport {sport} dport {dport}"
        ))?;
        text.split(" dev r").nth(1)?.chars().next()?.to_digit(10).map(|d| d as u16)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn router() -> Space {
    let space = Space(format!("hm-rules-{}", std::process::id()));
    let done = Command::new("ip").args(["netns", "add", &space.0]).status().unwrap();
    assert!(done.success());
    for setting in ["ip_forward=1", "conf.all.rp_filter=0", "conf.default.rp_filter=0"] {
        let setting = format!("net.ipv4.{setting}");
        let args = ["netns", "exec", &space.0, "sysctl", "-qw", &setting];
        assert!(Command::new("ip").args(args).status().unwrap().success());
    }
    for i in 0..5 {
        space.set(&format!("link add r{i} type veth peer name p{i}"));
        space.set(&format!("link set p{i} up"));
        space.set(&format!("link set r{i} up"));
        space.set(&format!("addr add 10.0.{i}.1/24 dev r{i}"));
    }
    space.set("link set r1 group 7");
    for route in [
        "10.9.0.0/16 via 10.0.1.2",
        "10.9.0.0/16 via 10.0.2.2 table 100",
        "10.9.7.0/24 via 10.0.3.2 table 101",
        "throw 10.9.7.128/25 table 101",
        "10.9.8.0/24 via 10.0.4.2",
    ] {
        space.set(&format!("route add {route}"));
    }
    space
}

/// From two devices and two sources to all that routes tell apart.
fn packets() -> Vec<Key<u32>> {
    let at = |text: &str| text.parse::<Ipv4Addr>().unwrap().to_bits();
    let mut all = Vec::new();
    for (iif, src) in [(0, "10.0.0.2"), (3, "10.0.3.2"), (0, "10.66.0.1")] {
        for dst in ["10.9.7.1", "10.9.7.200", "10.9.1.1", "10.9.8.1", "10.0.1.2", "10.99.0.1"] {
            for (tos, proto, sport, dport) in [(0, 17, 9, 9), (0x10, 6, 7, 85)] {
                let (src, dst, iif) = (at(src), at(dst), PortId(iif));
                all.push(Key { src, dst, iif, tos, proto, sport, dport });
            }
        }
    }
    all
}

fn compiled(space: &Space) -> Compiled {
    let ns = netns::open_path(&Path::new("/run/netns").join(&space.0)).unwrap();
    let mirror = Mirror::of(&ns).unwrap();
    let port = |i: u16| {
        let link = mirror.links.values().find(|l| l.name == format!("r{i}")).unwrap();
        (PortId(i), link.ifindex)
    };
    let ports: Vec<_> = (0..5).map(port).collect();
    compile(Source { mirror: &mirror, bypass: &[], ports: &ports })
}

#[test]
fn rules_lead_where_the_kernel_says() {
    if !netns::tests::root("rules_lead_where_the_kernel_says") {
        return;
    }
    let space = router();
    for rule in RULES {
        space.set(&format!("rule add {rule} pref 100"));
        space.set("rule add lookup 101 pref 200");
        let c = compiled(&space);
        assert_eq!(c.stays_with_kernel_v4, None, "{rule}");
        for key in packets() {
            let ours = match ours(&c, &key) {
                End::Port(port) => Some(port.0),
                // Where the tables are one, a route that throws is the kernel's to follow.
                End::Kernel if c.policy_v4.is_none() => continue,
                End::Kernel | End::NoRoute => None,
            };
            assert_eq!(ours, space.kernel(&key), "{rule}: {key:?}");
        }
        space.set("rule del pref 100");
        space.set("rule del pref 200");
    }
}
