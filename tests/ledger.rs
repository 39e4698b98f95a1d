//! Each thing of the kernel that forwarding must obey is noticed, said, obeyed, and
//! forgotten when it is gone. The kernel is the judge: what it would not let through
//! does not arrive, what it forwards arrives by it.

#[path = "ledger/conntrack.rs"]
mod conntrack;
#[path = "ledger/effect.rs"]
mod effect;

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nsplane_tests::lab::{Lab, SOON};
use nsplane_tests::programs::{self, Dropper};
use nsplane_tests::raw::Raw;
use nsplane_tests::tenant::Host;
use nsplane_tests::wait::{wait_for, wait_until};
use serde_json::Value;

const V4: &str = "10.0.1.2";
const V6: &str = "fd00:0:0:1::2";
const DROP_ALL: &str = "{ type filter hook forward priority 0; policy drop; }";

/// A lab with the far host's device, and who a packet is seen to be forwarded by.
struct Bench {
    lab: Lab,
    far: Raw,
}

/// What is expected of one family's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Ours,
    Kernel,
    Nobody,
}
use Way::{Kernel, Nobody, Ours};

impl Bench {
    fn new(label: &str, args: &[&str]) -> Self {
        let lab = Lab::with(label, args);
        let far = Raw::open(lab.tenant.host(Host::B), Host::DEVICE).unwrap();
        Self { lab, far }
    }

    fn rows(&self) -> Vec<Value> {
        self.lab.nsplane.show("ledger", &[]).unwrap().as_array().unwrap().clone()
    }

    /// Waits until the ledger has a row of the item in which `expected` fields are so.
    fn wait_row(&self, item: &str, expected: &[(&str, &str)]) -> Value {
        let fits = |r: &Value| r["item"] == item && expected.iter().all(|(k, v)| r[*k] == *v);
        wait_for(3 * SOON, item, || self.rows().into_iter().find(fits))
            .unwrap_or_else(|e| panic!("{e}: {:#?}", self.rows()))
    }

    fn wait_no_row(&self, item: &str) {
        let gone = || !self.rows().iter().any(|r| r["item"] == item);
        wait_until(3 * SOON, &format!("no {item}"), gone).unwrap();
    }

    fn wait_ways(&self, v4: Way, v6: Way) {
        for (way, dst) in [(v4, V4), (v6, V6)] {
            match way {
                Ours => self.lab.wait_forwarded(&self.far, dst),
                Kernel => self.lab.wait_kernel(&self.far, dst),
                Nobody => self.lab.wait_silent(&self.far, dst),
            }
        }
    }

    /// With what `on` does, the row and the ways are as expected; after `off` there is
    /// the fast path again, and no row.
    fn provoke<T>(
        &self,
        item: &str,
        row: &[(&str, &str)],
        ways: (Way, Way),
        on: impl FnOnce() -> T,
        off: impl FnOnce(T),
    ) {
        println!("{item}");
        self.wait_ways(Ours, Ours);
        let made = on();
        self.wait_row(item, row);
        self.wait_ways(ways.0, ways.1);
        off(made);
        self.wait_no_row(item);
        self.wait_ways(Ours, Ours);
    }

    /// The same with a setting: its value, and the one it has again after that.
    fn setting(
        &self,
        path: &str,
        values: (&str, &str),
        item: &str,
        row: &[(&str, &str)],
        ways: (Way, Way),
    ) {
        let write = |value| self.lab.tenant.router().sysctl(path, value).unwrap();
        self.provoke(item, row, ways, || write(values.0), |()| write(values.1));
    }

    /// The same with a command of `program` and one that takes it back.
    fn command(
        &self,
        program: &str,
        words: (&str, &str),
        item: &str,
        row: &[(&str, &str)],
        ways: (Way, Way),
    ) {
        let router = self.lab.tenant.router();
        let run = |words: &str| {
            router.exec(program, words.split_whitespace()).unwrap();
        };
        self.provoke(item, row, ways, || run(words.0), |()| run(words.1));
    }

    fn inside(&self, make: impl FnOnce() -> std::io::Result<OwnedFd> + Send) -> OwnedFd {
        self.lab.tenant.router().inside(make).unwrap().unwrap()
    }
}

#[test]
#[ignore = "needs root"]
fn settings() {
    let b = Bench::new("ledset", &[]);
    assert_eq!(b.rows(), Vec::<Value>::new(), "a plain router uses nothing");
    let kernel = |scope| [("scope", scope), ("status", "kernel"), ("tier", "kernel")];
    let (v4, v6) = (kernel("IPv4"), kernel("IPv6"));
    b.setting("net/ipv4/conf/all/accept_redirects", ("1", "0"), "redirects", &v4, (Kernel, Ours));
    b.setting("net/ipv6/conf/b0/forwarding", ("0", "1"), "redirects", &v6, (Ours, Kernel));
    b.setting("net/ipv4/ip_forward_use_pmtu", ("1", "0"), "pmtu", &v4, (Kernel, Ours));
    b.setting("net/ipv6/conf/all/proxy_ndp", ("1", "0"), "proxy-ndp", &v6, (Ours, Kernel));
    let off = |scope| [("scope", scope), ("status", "converted"), ("tier", "kernel")];
    let a0 = off("a0 IPv4, arriving");
    b.setting("net/ipv4/conf/a0/forwarding", ("0", "1"), "forwarding", &a0, (Nobody, Ours));
    // What arrives at another device is not concerned.
    let b0 = off("b0 IPv4, arriving");
    b.setting("net/ipv4/conf/b0/forwarding", ("0", "1"), "forwarding", &b0, (Ours, Ours));
    b.setting(
        "net/ipv6/conf/all/forwarding",
        ("0", "1"),
        "forwarding",
        &off("IPv6"),
        (Ours, Nobody),
    );
    let quiet = b.lab.tenant.router().read_sysctl("net/ipv6/route/skip_notify_on_dev_down");
    if quiet.is_ok() {
        let path = "net/ipv6/route/skip_notify_on_dev_down";
        b.setting(path, ("1", "0"), "quiet-routes", &v6, (Ours, Kernel));
    }
}

#[test]
#[ignore = "needs root"]
fn reverse_path_filters() {
    let b = Bench::new("ledrp", &[]);
    let router = b.lab.tenant.router();
    let row =
        |reason| [("scope", "a0 IPv4, arriving"), ("status", "converted"), ("reason", reason)];
    b.setting("net/ipv4/conf/a0/rp_filter", ("2", "0"), "rp-filter", &row("loose"), (Ours, Ours));
    // The way back to the source leads elsewhere.
    let away = || {
        router.sysctl("net/ipv4/conf/all/rp_filter", "1").unwrap();
        router.ip("route add 10.0.0.2/32 dev b0").unwrap();
    };
    let back = |()| {
        router.ip("route del 10.0.0.2/32 dev b0").unwrap();
        router.sysctl("net/ipv4/conf/all/rp_filter", "0").unwrap();
    };
    b.provoke("rp-filter", &row("strict"), (Nobody, Ours), away, back);
}

/// These have no effect on packets that are forwarded: nsplane goes on.
#[test]
#[ignore = "needs root"]
fn harmless_settings() {
    let b = Bench::new("ledharm", &[]);
    let router = b.lab.tenant.router();
    for (path, value) in [
        ("net/ipv4/conf/all/accept_local", "1"),
        ("net/ipv4/conf/all/route_localnet", "1"),
        ("net/ipv4/conf/all/accept_source_route", "1"),
        ("net/ipv4/conf/all/src_valid_mark", "1"),
        ("net/ipv4/conf/all/bc_forwarding", "1"),
        ("net/ipv4/conf/all/log_martians", "1"),
        ("net/ipv4/ip_forward_update_priority", "0"),
        ("net/ipv4/fib_multipath_hash_policy", "1"),
        ("net/ipv4/ip_early_demux", "0"),
        ("net/ipv4/conf/all/disable_policy", "1"),
        ("net/ipv6/conf/all/seg6_enabled", "1"),
        ("net/ipv6/conf/all/accept_ra", "2"),
    ] {
        router.sysctl(path, value).unwrap();
    }
    b.wait_ways(Ours, Ours);
    let row = [("status", "harmless"), ("tier", "userspace")];
    b.setting("net/ipv4/conf/a0/proxy_arp", ("1", "0"), "proxy-arp", &row, (Ours, Ours));
    let row = [("scope", "multicast packets"), ("status", "kernel")];
    let on = || b.inside(programs::multicast_router);
    b.provoke("multicast", &row, (Ours, Ours), on, drop);
}

#[test]
#[ignore = "needs root"]
fn netfilter() {
    let b = Bench::new("lednf", &[]);
    let router = b.lab.tenant.router();
    let nft = |words: &str| router.exec("nft", [words]).map(drop).unwrap();
    let both = [("scope", "IPv4, IPv6"), ("status", "kernel"), ("tier", "kernel")];
    let on = || {
        nft("add table inet t");
        nft(&format!("add chain inet t f {DROP_ALL}"));
    };
    b.provoke("netfilter", &both, (Nobody, Nobody), on, |()| nft("delete table inet t"));
    let v4 = [("scope", "IPv4"), ("status", "kernel"), ("tier", "kernel")];
    match Dropper::netfilter() {
        Ok(program) => {
            let on = || b.inside(|| program.on_forward_v4());
            b.provoke("netfilter", &v4, (Nobody, Ours), on, drop);
        }
        Err(e) => println!("BPF on netfilter hooks: left out, this kernel has none: {e}"),
    }
    // Last: such a table stays.
    if std::path::Path::new("/proc/net/ip_tables_names").exists() {
        router.exec("iptables-legacy", ["-A", "FORWARD", "-j", "DROP"]).unwrap();
        b.wait_row("netfilter", &v4);
        b.wait_ways(Nobody, Ours);
    } else {
        println!("iptables: left out, this kernel has none of old");
    }
}

#[test]
#[ignore = "needs root"]
fn policies_and_rules() {
    let b = Bench::new("ledpol", &[]);
    let v4 = [("scope", "IPv4"), ("status", "kernel"), ("tier", "kernel")];
    let v6 = [("scope", "IPv6"), ("status", "kernel"), ("tier", "kernel")];
    let policy = "dir fwd src 10.0.0.0/24 dst 10.0.1.0/24";
    let on = format!("xfrm policy add {policy} action block");
    let off = format!("xfrm policy delete {policy}");
    b.command("ip", (&on, &off), "xfrm", &v4, (Nobody, Ours));
    let ours = |scope| [("scope", scope), ("status", "converted")];
    let rule = "to 10.0.1.0/24 priority 10 prohibit";
    let (on, off) = (format!("rule add {rule}"), format!("rule del {rule}"));
    b.command("ip", (&on, &off), "policy", &ours("IPv4"), (Nobody, Ours));
    let rule = "from all priority 10 lookup 77";
    let (on, off) = (format!("-6 rule add {rule}"), format!("-6 rule del {rule}"));
    b.command("ip", (&on, &off), "policy", &ours("IPv6"), (Ours, Ours));
    let rule = "from all uidrange 7-8 priority 10 lookup 77";
    let (on, off) = (format!("-6 rule add {rule}"), format!("-6 rule del {rule}"));
    b.command("ip", (&on, &off), "rules", &v6, (Ours, Kernel));
    // Sources in it are refused.
    let prefix = "local 10.0.0.0/25 dev lo";
    let (on, off) = (format!("route add {prefix}"), format!("route del {prefix}"));
    b.command("ip", (&on, &off), "local-prefixes", &v4, (Nobody, Ours));
}

#[test]
#[ignore = "needs root"]
fn devices() {
    let b = Bench::new("leddev", &[]);
    let row = |scope| [("scope", scope), ("status", "kernel"), ("tier", "kernel")];
    for (device, place, item, scope) in [
        ("a0", "clsact", "tc", "a0"),
        ("a0", "ingress", "tc", "a0, arriving"),
        ("b0", "root tbf rate 100mbit burst 100k latency 10ms", "shaping", "b0, leaving"),
    ] {
        let on = format!("qdisc add dev {device} {place}");
        let off = format!("qdisc del dev {device} {place}");
        b.command("tc", (&on, &off), item, &row(scope), (Kernel, Kernel));
    }
    let router = b.lab.tenant.router();
    let program = match Dropper::tcx() {
        Ok(program) => program,
        Err(e) => panic!("no kernel that we know refuses a classifier: {e}"),
    };
    for (device, egress, scope) in [("a0", false, "a0, arriving"), ("b0", true, "b0, leaving")] {
        let index = router.ifindex(device).unwrap();
        let on = || b.inside(|| program.on_device(index, egress));
        b.provoke("tcx", &row(scope), (Nobody, Nobody), on, drop);
    }
    // A member of a bridge is no port. (It takes the addresses' routes along.)
    router.ip("link add br0 type bridge").unwrap();
    router.ip("link set a0 master br0").unwrap();
    b.wait_row("master", &row("a0"));
    router.ip("link set a0 nomaster").unwrap();
    b.wait_no_row("master");
    b.wait_ways(Ours, Ours);
}

/// A program that was loaded long ago and is attached without a link has no sign that
/// is looked for each second.
#[test]
#[ignore = "needs root"]
fn a_program_without_a_link() {
    let b = Bench::new("ledold", &[]);
    let program = Dropper::tcx().unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    b.wait_ways(Ours, Ours);
    let router = b.lab.tenant.router();
    let index = router.ifindex("a0").unwrap();
    let start = Instant::now();
    router.inside(|| program.on_device_for_good(index)).unwrap().unwrap();
    let there = || b.rows().iter().any(|r| r["item"] == "tcx");
    wait_until(Duration::from_secs(30), "the program", there).unwrap();
    println!("noticed after {:?}", start.elapsed());
    b.wait_ways(Nobody, Nobody);
}

#[test]
#[ignore = "needs root"]
fn routes() {
    let b = Bench::new("ledroute", &[]);
    let router = b.lab.tenant.router();
    let row = |scope| [("scope", scope), ("status", "kernel"), ("tier", "kernel")];
    let v4 = row("1 IPv4 route");
    router.ip("route add 10.0.1.2/32 dev b0").unwrap();
    for (route, item, way) in [
        ("blackhole 10.0.1.2/32 metric 0", "refusing", Nobody),
        ("10.0.1.2/32 dev b0 tos 0x10", "some-packets", Kernel),
    ] {
        if item != "some-packets" {
            router.ip("route del 10.0.1.2/32").unwrap();
        }
        let on = format!("route add {route}");
        let off = format!("route del {route}");
        println!("{item}");
        router.ip(&on).unwrap();
        b.wait_row(item, &v4);
        b.wait_ways(way, Ours);
        router.ip(&off).unwrap();
        b.wait_no_row(item);
        let _ = router.ip("route replace 10.0.1.2/32 dev b0");
        b.wait_ways(Ours, Ours);
    }
    router.ip("route del 10.0.1.2/32").unwrap();
    // Which of several next hops a flow takes is the kernel's choice, and ours too.
    let several = "10.0.1.2/32 nexthop dev b0 nexthop dev b0 weight 2";
    router.ip(&format!("route add {several}")).unwrap();
    b.wait_row("balanced", &[("scope", "1 IPv4 route"), ("status", "converted")]);
    b.wait_ways(Ours, Ours);
    let policy = "net/ipv4/fib_multipath_hash_policy";
    router.sysctl(policy, "3").unwrap();
    b.wait_row("multipath", &v4);
    b.wait_ways(Kernel, Ours);
    router.sysctl(policy, "0").unwrap();
    b.wait_no_row("multipath");
    router.ip(&format!("route del {several}")).unwrap();
    b.wait_no_row("balanced");
    // A tunnel around the packet: it does not arrive as it was.
    let seg6 = "-6 route add fd00:0:0:1::2/128 encap seg6 mode encap segs fd00:0:0:1::9 dev b0";
    match router.ip(seg6) {
        Ok(_) => {
            b.wait_row("encap", &row("1 IPv6 route"));
            b.wait_ways(Ours, Nobody);
            router.ip("-6 route del fd00:0:0:1::2/128").unwrap();
            b.wait_no_row("encap");
        }
        Err(e) => println!("lightweight tunnels: left out, this kernel has no seg6: {e}"),
    }
    router.ip("-6 route add fd00:0:0:1::2/128 dev b0 expires 60").unwrap();
    b.wait_row("expiring", &row("1 IPv6 route"));
    b.wait_ways(Ours, Kernel);
    router.ip("-6 route del fd00:0:0:1::2/128").unwrap();
    // Out of a device that is no port.
    router.ip("link add br9 type bridge").unwrap();
    router.ip("link set br9 up").unwrap();
    router.ip("route add 10.0.1.2/32 dev br9").unwrap();
    b.wait_row("other-devices", &v4);
    b.wait_ways(Nobody, Ours);
    router.ip("link del br9").unwrap();
    b.wait_ways(Ours, Ours);
}
