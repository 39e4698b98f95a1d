//! The mirror against the kernel: after each change to a real namespace, what the
//! events made of the mirror must be what a fresh dump says.

mod hooks;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::netlink::{self, Channels, LinkKind, Monitor};
use crate::netns::{self, Netns, Watcher};

/// A named namespace, deleted in the end, whatever the end is.
struct Space {
    name: String,
}

impl Space {
    fn new(name: &str) -> Self {
        let space = Self { name: format!("hm-{name}-{}", std::process::id()) };
        run("ip", &["netns", "add", &space.name]);
        space
    }

    /// `ip -n NAME ...`, words split at spaces.
    fn ip(&self, words: &str) {
        let mut args = vec!["-n", &self.name];
        args.extend(words.split(' '));
        run("ip", &args);
    }

    fn sysctl(&self, setting: &str) {
        run("ip", &["netns", "exec", &self.name, "sysctl", "-qw", setting]);
    }

    fn open(&self) -> Netns {
        netns::open_path(&Path::new("/run/netns").join(&self.name)).unwrap()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn run(program: &str, args: &[&str]) {
    let out = Command::new(program).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program} {}: {said}", args.join(" "));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A mirror that is kept up as `control` does it.
struct Follower {
    ns: Arc<Netns>,
    monitor: Monitor,
    mirror: Mirror,
}

impl Follower {
    fn new(space: &Space) -> Self {
        let ns = Arc::new(space.open());
        let monitor = Monitor::open(&ns).unwrap();
        let mirror = Mirror::from_dump(netlink::dump(&ns).unwrap());
        Self { ns, monitor, mirror }
    }

    /// Applies events until the mirror is what a dump says. Dumps again only where
    /// the mirror asks for it, which it may do where `resync` says so.
    fn settle(&mut self, what: &str, resync: bool) {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let mut dirty = Dirty::default();
            for event in self.monitor.queued().unwrap() {
                dirty = dirty.and(self.mirror.apply(event));
            }
            assert!(resync || !dirty.resync, "{what}: asks for a dump");
            let fresh = Mirror::from_dump(netlink::dump(&self.ns).unwrap());
            if dirty.resync {
                self.mirror = fresh.clone();
            }
            if normal(&self.mirror) == normal(&fresh) {
                break;
            }
            assert!(Instant::now() < end, "{what}: {}", difference(&self.mirror, &fresh));
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(self.monitor.tally().malformed, 0, "{what}");
    }

    fn link(&self, name: &str) -> &Link {
        self.mirror.links.values().find(|l| l.name == name).unwrap()
    }
}

/// What one has and the other has not, for the reader of a failed test.
fn difference(ours: &Mirror, kernels: &Mirror) -> String {
    let parts = |m: &Mirror| -> BTreeSet<String> {
        let (m, routes) = normal(m);
        let links = m.links.values().map(|l| format!("{l:?}"));
        let routes = routes.iter().map(|r| format!("{r:?}"));
        let addresses = m.addresses.iter().map(|a| format!("{a:?}"));
        let rules = m.rules.iter().map(|r| format!("{r:?}"));
        let neighbors = m.neighbors.values().map(|n| format!("{n:?}"));
        let settings = m.netconf.iter().map(|s| format!("{s:?}"));
        let hooks = m.hooks.values().flatten().map(|h| format!("{h:?}"));
        let qdiscs = m.qdiscs.values().map(|q| format!("{q:?}"));
        let objects = m.nexthops.values().map(|o| format!("{o:?}"));
        let state = links.chain(routes).chain(addresses).chain(rules);
        state.chain(neighbors).chain(settings).chain(objects).chain(hooks).chain(qdiscs).collect()
    };
    let (ours, kernels) = (parts(ours), parts(kernels));
    let only = |a: &BTreeSet<String>, b: &BTreeSet<String>| {
        a.difference(b).cloned().collect::<Vec<_>>().join("\n  ")
    };
    format!("mirror\n  {}\nkernel\n  {}", only(&ours, &kernels), only(&kernels, &ours))
}

/// IPv6 says next hops, and routes of one metric, in an order of the moment; and
/// neighbours that need no resolving (noarp, 0x40) come without a message. Whether a next hop of
/// IPv6 out of a device that is down is dead nobody asks: it goes by the device.
fn normal(m: &Mirror) -> (Mirror, Vec<Route>) {
    let mut routes: Vec<Route> = m.routes.iter().cloned().collect();
    let down = |h: &Hop| h.oif.and_then(|i| m.links.get(&i)).is_some_and(|l| !l.up);
    for r in &mut routes {
        let v6 = r.dst.addr.is_ipv6();
        r.hops.iter_mut().filter(|h| v6 && down(h)).for_each(|h| h.dead = false);
        r.hops.sort_unstable();
    }
    routes.sort_by_cached_key(|r| format!("{:?}", (r.table, r.dst, r.priority, &r.hops)));
    let mut rest = Mirror { routes: Routes::default(), ..m.clone() };
    rest.neighbors.retain(|_, n| n.state != 0x40);
    (rest, routes)
}

#[test]
fn follows_the_kernel() {
    if !netns::tests::root("follows_the_kernel") {
        return;
    }
    let runtime = runtime();
    let _context = runtime.enter();
    let (space, peer) = (Space::new("live"), Space::new("peer"));
    let mut f = Follower::new(&space);

    space.ip(&format!("link add hma type veth peer name hmb netns {}", peer.name));
    space.ip("link add hmc type veth peer name hmd");
    f.settle("new devices", false);
    assert_eq!(f.link("hma").kind, LinkKind::Veth);
    assert!(f.link("hma").peer_nsid.is_some() && f.link("hmc").peer_nsid.is_none());

    for dev in ["lo", "hma", "hmc", "hmd"] {
        space.ip(&format!("link set {dev} up"));
    }
    peer.ip("link set hmb up");
    peer.ip("addr add 10.0.0.2/24 dev hmb");
    space.ip("addr add 10.0.0.1/24 dev hma");
    space.ip("addr add 10.0.0.7/32 dev hma");
    space.ip("addr add 10.1.0.1/24 dev hmc");
    space.ip("addr add fd00::1/64 dev hma nodad");
    f.settle("addresses", false);
    let hma = f.link("hma").ifindex;
    assert!(f.link("hma").up && f.link("hma").carrier);

    space.sysctl("net.ipv4.ip_forward=1");
    space.sysctl("net.ipv6.conf.all.forwarding=1");
    space.sysctl("net.ipv4.conf.hma.rp_filter=2");
    f.settle("settings", false);
    assert!(f.mirror.forwards_v4(hma) && f.mirror.forwards_v6());
    assert_eq!(f.mirror.rp_filter(hma), 2);
    space.sysctl("net.ipv4.conf.hma.forwarding=0");
    f.settle("forwarding off", false);
    assert!(!f.mirror.forwards_v4(hma));

    routes_v4(&space, &mut f);
    routes_v6(&space, &mut f);
    neighbors(&space, &mut f, hma);

    space.ip("rule add from 10.0.0.0/8 lookup 100 priority 100");
    f.settle("a rule", false);
    assert!(f.mirror.rules.iter().any(|r| r.priority == 100 && r.selector.src.is_some()));
    // Of equal priorities the first that was made comes first.
    for words in [
        "rule add from 9.0.0.0/8 lookup 101 priority 100",
        "rule add from 11.0.0.0/8 iif hma goto 32766 priority 100",
        "rule add not fwmark 7/15 ipproto udp dport 5-9 blackhole priority 50",
        "rule add priority 60 lookup main suppress_prefixlength 0 suppress_ifgroup 3",
        "rule del from 10.0.0.0/8 lookup 100 priority 100",
        "rule add from 10.0.0.0/8 lookup 100 priority 100",
        "-6 rule add to fd00::/16 tos 0x10 unreachable priority 9",
        "rule del priority 50",
        "rule del priority 60",
        "rule del priority 100",
        "rule del priority 100",
    ] {
        space.ip(words);
        f.settle(words, false);
    }
    assert!(f.mirror.rules.iter().all(|r| r.unknown.is_none()));
    space.ip("rule del priority 100");
    space.ip("link set hma mtu 1400");
    f.settle("no rule, an mtu", false);
    assert_eq!((f.link("hma").mtu, f.link("hma").mtu6), (1400, Some(1400)));
    space.ip("link set hma mtu 1450");
    space.ip("link set hma address 02:00:00:00:00:99");
    f.settle("more mtu, another address", false);
    assert_eq!((f.link("hma").mtu, f.link("hma").mtu6), (1450, Some(1450)));

    peer.ip("link set hmb down");
    f.settle("no carrier", true);
    assert!(f.link("hma").up && !f.link("hma").carrier);
    peer.ip("link set hmb up");
    f.settle("carrier", false);
    space.ip("link set hma down");
    f.settle("down", true);
    space.ip("link set hma up");
    f.settle("up", false);

    space.ip("link set hmc name hmz");
    f.settle("a new name", false);
    space.ip(&format!("link set hmd netns {}", peer.name));
    f.settle("a device moved away", true);
    space.ip("link del hma");
    f.settle("a device deleted", true);
}

fn routes_v4(space: &Space, f: &mut Follower) {
    for words in [
        "route add 10.2.0.0/16 via 10.0.0.2",
        "route add 10.2.0.0/16 via 10.1.0.2 metric 50",
        "route append 10.2.0.0/16 via 10.1.0.3",
        "route prepend 10.2.0.0/16 via 10.1.0.4",
        "route add 10.3.0.0/16 nexthop via 10.0.0.2 nexthop via 10.1.0.2",
        "route add 10.4.0.0/16 via inet6 fe80::1 dev hma",
        "route add table 100 10.5.0.0/16 dev hma mtu 1300",
        "route add 10.5.0.0/16 tos 8 dev hma",
        "route add blackhole 10.6.0.0/16",
        "route add throw 10.7.0.0/16",
        "route add 10.8.0.0/16 via 10.0.0.2 src 10.0.0.7",
        "nexthop add id 5 via 10.0.0.2 dev hma",
        "nexthop add id 6 via 10.1.0.2 dev hmc",
        "nexthop add id 9 group 5/6",
        "route add 10.9.0.0/16 nhid 5",
        "route add 10.10.0.0/16 nhid 9",
    ] {
        space.ip(words);
        f.settle(words, false);
    }
    for words in [
        "route replace 10.2.0.0/16 via 10.1.0.9",
        "route change 10.2.0.0/16 via 10.1.0.8 metric 50",
        "route del 10.2.0.0/16 via 10.0.0.2",
        "addr del 10.0.0.7/32 dev hma",
        "nexthop replace id 6 via 10.1.0.3 dev hmc",
        "nexthop del id 5",
        "nexthop add id 15 via 10.0.0.2 dev hma",
        "nexthop add id 16 via 10.1.0.2 dev hmc",
        "nexthop add id 19 group 15,3/16,200",
        "nexthop add id 18 group 15",
        "nexthop add id 20 blackhole",
        "route add 10.12.0.0/16 nhid 19",
        "route add 10.13.0.0/16 nhid 18",
        "route add 10.14.0.0/16 nhid 20",
        "route add 10.15.0.0/16 nexthop via 10.0.0.2 weight 5 nexthop via 10.1.0.2 weight 256",
        "nexthop replace id 19 group 16,2/15,7",
    ] {
        space.ip(words);
        f.settle(words, false);
    }
    space.ip("nexthop add id 7 via 10.0.0.2 dev hma");
    space.ip("route add 10.11.0.0/16 nhid 7");
    f.settle("an object for the link's fall", false);
}

#[test]
fn the_last_address_goes_and_comes_back() {
    if !netns::tests::root("the_last_address_goes_and_comes_back") {
        return;
    }
    let runtime = runtime();
    let _context = runtime.enter();
    let space = Space::new("last");
    space.ip("link add hml type veth peer name hmm");
    for words in [
        "link set hml up",
        "link set hmm up",
        "addr add 10.1.0.1/24 dev hml",
        "addr add 10.2.0.1/24 dev hmm",
        "route add 10.9.0.0/16 via 10.1.0.2",
        "route add 10.10.0.0/16 nexthop via 10.1.0.2 nexthop via 10.2.0.2",
        "nexthop add id 5 via 10.1.0.2 dev hml",
        "route add 10.11.0.0/16 nhid 5",
    ] {
        space.ip(words);
    }
    let mut f = Follower::new(&space);
    for words in ["addr del 10.1.0.1/24 dev hml", "addr add 10.1.0.1/24 dev hml"] {
        space.ip(words);
        f.settle(words, false);
    }
}

/// IPv6's next hops out of a device on which IPv6 is off die, and live when it is on.
#[test]
fn a_device_without_ipv6_and_with_it_again() {
    if !netns::tests::root("a_device_without_ipv6_and_with_it_again") {
        return;
    }
    let runtime = runtime();
    let _context = runtime.enter();
    let space = Space::new("off6");
    space.ip("link add hmn type veth peer name hmo");
    for words in [
        "link set hmn up",
        "link set hmo up",
        "addr add fd01::1/64 dev hmn nodad",
        "addr add fd02::1/64 dev hmo nodad",
        "-6 route add fd09::/64 nexthop via fd01::2 nexthop via fd02::2",
    ] {
        space.ip(words);
    }
    let mut f = Follower::new(&space);
    let one = f.link("hmn").ifindex;
    for off in ["1", "0", "1", "0"] {
        let words =
            format!("netns exec {} sysctl -qw net.ipv6.conf.hmn.disable_ipv6={off}", space.name);
        run("ip", &words.split_whitespace().collect::<Vec<_>>());
        f.settle(&words, true);
        let route = f.mirror.routes.iter().find(|r| r.hops.len() == 2).unwrap();
        let dead = route.hops.iter().find(|h| h.oif == Some(one)).unwrap().dead;
        assert_eq!(dead, off == "1");
    }
}

fn routes_v6(space: &Space, f: &mut Follower) {
    for words in [
        "route add fd01::/64 via fd00::2",
        "route append fd01::/64 via fd00::3",
        "route append fd01::/64 via fd00::4",
        "route del fd01::/64 via fd00::3",
        "route add fd02::/64 nexthop via fd00::2 nexthop via fd00::3",
        "route replace fd02::/64 via fd00::4",
        "route add fd08::/64 nexthop via fd00::2 weight 3 nexthop via fd00::3 weight 7",
        "route append fd08::/64 via fd00::4",
        "route del fd08::/64 via fd00::3",
        "route replace fd02::/64 nexthop via fd00::5 nexthop via fd00::6",
        "route add fd03::/64 dev hmc metric 7",
        "route append fd03::/64 dev hma metric 7",
        "route add unreachable fd04::/64",
        "route del fd02::/64",
        "addr add fd0a::1/64 dev hmc nodad",
        "route add fd06::/64 nexthop via fd00::2 nexthop via fd0a::2",
        "nexthop add id 8 via fd00::2 dev hma",
        "route add fd05::/64 nhid 8",
    ] {
        let words = format!("-6 {words}");
        space.ip(&words);
        f.settle(&words, false);
    }
}

fn neighbors(space: &Space, f: &mut Follower, hma: IfIndex) {
    space.ip("neigh add 10.0.0.77 lladdr 02:00:00:00:00:77 dev hma nud permanent");
    f.settle("a neighbour", false);
    let key = (hma, "10.0.0.77".parse().unwrap());
    assert!(f.mirror.neighbors[&key].usable().is_some());
    space.ip("neigh change 10.0.0.77 lladdr 02:00:00:00:00:78 dev hma nud stale");
    f.settle("another address", false);
    assert!(f.mirror.neighbors[&key].stale());
    space.ip("neigh del 10.0.0.77 dev hma");
    f.settle("no neighbour", false);

    // The kernel resolves what it is asked to.
    let peer: IpAddr = "10.0.0.2".parse().unwrap();
    f.monitor.resolve(hma, peer).unwrap();
    let end = Instant::now() + Duration::from_secs(5);
    while f.mirror.neighbors.get(&(hma, peer)).is_none_or(|n| n.usable().is_none()) {
        for event in f.monitor.queued().unwrap() {
            let _ = f.mirror.apply(event);
        }
        assert!(Instant::now() < end, "not resolved");
        std::thread::sleep(Duration::from_millis(10));
    }
    f.settle("a resolved neighbour", false);
}

#[test]
fn namespaces_are_found_as_they_come_and_go() {
    if !netns::tests::root("namespaces_are_found_as_they_come_and_go") {
        return;
    }
    runtime().block_on(async {
        let all = &[&netns::Selector::all()];
        let named = |name: &str| {
            let chosen = netns::scan(all).unwrap().choose(all);
            chosen.into_iter().find(|c| c.known.origin.label() == name)
        };
        let mut watcher = Watcher::new().unwrap();
        watcher.watch(netns::directories(all)).unwrap();
        let space = Space::new("watch");
        wait(&mut watcher, || named(&space.name).is_some()).await;
        let ns = netns::open(&named(&space.name).unwrap()).unwrap();
        assert_eq!((ns.name(), ns.cookie()), (space.name.as_str(), space.open().cookie()));

        // A veth has as many channels as it uses, whatever was allocated.
        space.ip("link add hmq numrxqueues 4 numtxqueues 4 type veth peer name hmr");
        let channels = netlink::channels(&ns, "hmq").unwrap();
        assert!(channels.rx >= 1 && channels.rx <= 4, "{channels:?}");
        assert_eq!(netlink::channels(&ns, "lo").unwrap(), Channels { rx: 1, tx: 1 });
        assert!(netlink::channels(&ns, "nobody").unwrap_err().to_string().contains("nobody"));

        // Events wake the monitor.
        let ns = Arc::new(ns);
        let mut monitor = Monitor::open(&ns).unwrap();
        space.ip("link set hmq up");
        let events = monitor.next().await.unwrap();
        assert!(events.iter().any(|e| matches!(e, Event::Link(l) if l.name == "hmq")));

        let name = space.name.clone();
        drop((ns, monitor, space));
        wait(&mut watcher, || named(&name).is_none()).await;
    });
}

async fn wait(watcher: &mut Watcher, is_so: impl Fn() -> bool) {
    let so = async {
        while !is_so() {
            watcher.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(5), so).await.unwrap();
}

/// A burst that no receive buffer holds: the loss is told, and a dump repairs it.
#[test]
fn an_overrun_is_told() {
    if !netns::tests::root("an_overrun_is_told") {
        return;
    }
    let runtime = runtime();
    let _context = runtime.enter();
    let space = Space::new("flood");
    let mut f = Follower::new(&space);
    crate::sys::netns::receive_buffer(f.monitor.as_socket(), 4096).unwrap();
    space.ip("link add hmo type veth peer name hmp");
    space.ip("link set hmo up");
    let batch: String =
        (0..2000).map(|i| format!("route add 10.{}.{}.0/24 dev hmo\n", i / 256, i % 256)).collect();
    let path = std::env::temp_dir().join(&space.name);
    std::fs::write(&path, batch).unwrap();
    space.ip(&format!("-batch {}", path.display()));
    std::fs::remove_file(&path).unwrap();
    f.settle("a flood", true);
    assert_eq!(f.mirror.routes.iter().filter(|r| r.table == TABLE_MAIN).count(), 2000);
}
