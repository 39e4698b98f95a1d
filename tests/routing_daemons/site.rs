//! A tenant with two ways out, and routing daemons that tell it of them.
//!
//! ```text
//!                                     n1 ──── n1 [ first ]  10.1.0.2   what is announced
//!   [ client ] eth0 ──── c0 [ router ]                                 by both: PREFIXES
//!   10.0.0.2           10.0.0.1       n2 ──── n2 [ second ] 10.2.0.2   networks from 100.64/10
//! ```
//! Every tenant has these addresses and prefixes. The router is to prefer the first.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use nsplane_tests::daemons::{Programs, Router};
use nsplane_tests::frame::Udp;
use nsplane_tests::netns::{End, Netns, veth};
use nsplane_tests::process::Nsplane;
use nsplane_tests::raw::Raw;
use nsplane_tests::wait::wait_until;
use serde_json::{Value, json};

/// Networks that each neighbour announces.
pub(crate) const PREFIXES: usize = 1000;
/// How long daemons may take to agree.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const FIRST: &str = "10.1.0.2";
pub(crate) const SECOND: &str = "10.2.0.2";

/// The namespaces of a tenant.
pub(crate) struct Site {
    pub(crate) name: &'static str,
    pub(crate) client: Netns,
    pub(crate) router: Netns,
    pub(crate) first: Netns,
    pub(crate) second: Netns,
}

pub(crate) fn network(n: usize) -> String {
    format!("100.{}.{}.0/24", 64 + n / 256, n % 256)
}

/// A host in a network.
pub(crate) fn host(n: usize) -> String {
    network(n).replace(".0/24", ".9")
}

impl Site {
    pub(crate) fn new(name: &'static str) -> Self {
        let [client, router, first, second] =
            ["c", "r", "1", "2"].map(|part| Netns::new(&format!("{name}-{part}")).unwrap());
        veth(&End::new(&client, "eth0"), &End::new(&router, "c0")).unwrap();
        veth(&End::new(&router, "n1"), &End::new(&first, "n1")).unwrap();
        veth(&End::new(&router, "n2"), &End::new(&second, "n2")).unwrap();
        router.sysctl("net/ipv4/ip_forward", "1").unwrap();
        router
            .ip_batch("addr add 10.0.0.1/24 dev c0\naddr add 10.1.0.1/24 dev n1\naddr add 10.2.0.1/24 dev n2\n")
            .unwrap();
        client.ip("addr add 10.0.0.2/24 dev eth0").unwrap();
        first.ip(&format!("addr add {FIRST}/24 dev n1")).unwrap();
        second.ip(&format!("addr add {SECOND}/24 dev n2")).unwrap();
        Self { name, client, router, first, second }
    }

    /// What the kernel has of the announced networks, by router.
    pub(crate) fn kernel_routes(&self, via: &str) -> usize {
        let routes = self.router.ip(&format!("route show via {via}")).unwrap();
        routes.lines().filter(|line| line.starts_with("100.")).count()
    }

    /// What nsplane has of them.
    pub(crate) fn routes(&self, nsplane: &Nsplane, via: &str) -> usize {
        let routes = nsplane.ask("routes", Some(&self.router)).unwrap();
        let all = routes.as_array().unwrap().iter();
        all.filter(|r| r["tier"] == "userspace" && r["via"] == via).count()
    }

    /// Waits until kernel and nsplane have all of them by that router.
    pub(crate) fn wait_routes(&self, nsplane: &Nsplane, via: &str) {
        let what = format!("{}: all networks by {via}", self.name);
        wait_until(PATIENCE, &what, || self.kernel_routes(via) == PREFIXES).unwrap_or_else(|e| {
            let routes = self.router.ip("route").unwrap();
            let few: Vec<&str> = routes.lines().take(8).collect();
            panic!("{e}; it has {}:\n{}", self.kernel_routes(via), few.join("\n"))
        });
        wait_until(PATIENCE, &what, || self.routes(nsplane, via) == PREFIXES).unwrap();
    }

    /// What `nsplane explain` says of a packet of the client's.
    pub(crate) fn explain(&self, nsplane: &Nsplane, dst: &str) -> Value {
        let netns = self.router.name();
        let question = json!({ "netns": netns, "iif": "c0", "src": "10.0.0.2", "dst": dst });
        nsplane.request(&json!({ "explain": question })).unwrap()["explained"].take()
    }

    /// Packets that nsplane forwarded.
    pub(crate) fn forwarded(&self, nsplane: &Nsplane) -> u64 {
        let counters = nsplane.ask("counters", Some(&self.router)).unwrap();
        counters[0]["userspace"]["forwarded"]["packets"].as_u64().unwrap()
    }
}

/// The client's end and both neighbours', to send and see packets.
pub(crate) struct Traffic<'a> {
    site: &'a Site,
    near: Raw,
    first: Raw,
    second: Raw,
    macs: ([u8; 6], [u8; 6]),
}

impl<'a> Traffic<'a> {
    pub(crate) fn new(site: &'a Site) -> Self {
        let macs = (site.router.mac("c0").unwrap(), site.client.mac("eth0").unwrap());
        Self {
            site,
            near: Raw::open(&site.client, "eth0").unwrap(),
            first: Raw::open(&site.first, "n1").unwrap(),
            second: Raw::open(&site.second, "n2").unwrap(),
            macs,
        }
    }

    /// The words that a packet of this tenant's carries.
    fn mark(&self) -> String {
        format!("of {} only", self.site.name)
    }

    pub(crate) fn send(&self, dst: &str) {
        let (src, dst): (IpAddr, IpAddr) = ("10.0.0.2".parse().unwrap(), dst.parse().unwrap());
        let frame = Udp::new(self.macs, src, dst, self.mark().as_bytes()).bytes();
        self.near.send(&frame).unwrap();
    }

    pub(crate) fn clear(&self) {
        self.first.clear();
        self.second.clear();
    }

    /// A packet arrived at the neighbour of that address.
    pub(crate) fn arrived(&self, via: &str, patience: Duration) -> bool {
        let (far, mark) = (if via == FIRST { &self.first } else { &self.second }, self.mark());
        far.receive(patience, |f| f.windows(mark.len()).any(|w| w == mark.as_bytes())).is_some()
    }

    /// A packet of another tenant's arrived at one of the neighbours.
    pub(crate) fn saw_anything_of(&self, tenant: &str) -> bool {
        let mark = format!("of {tenant} only");
        let saw = |far: &Raw| {
            let wanted = |f: &[u8]| f.windows(mark.len()).any(|w| w == mark.as_bytes());
            far.receive(Duration::from_millis(50), wanted).is_some()
        };
        saw(&self.first) || saw(&self.second)
    }

    /// Waits until a packet to `dst` gets to that neighbour, forwarded by nsplane.
    pub(crate) fn wait_forwarded(&self, nsplane: &Nsplane, dst: &str, via: &str) {
        wait_until(PATIENCE, &format!("{}: {dst} by {via}", self.site.name), || {
            let before = self.site.forwarded(nsplane);
            self.clear();
            self.send(dst);
            self.arrived(via, Duration::from_millis(100)) && self.site.forwarded(nsplane) > before
        })
        .unwrap_or_else(|e| panic!("{e}: {:#}", self.site.explain(nsplane, dst)));
    }

    /// Packets to `dst` go by the first router; something was done so that they will go by
    /// the second. Sends until they do; how long after the kernel's own change that was.
    pub(crate) fn wait_moved(&self, nsplane: &Nsplane, dst: &str) -> Duration {
        let start = Instant::now();
        let mut kernel = None;
        self.clear();
        while start.elapsed() < PATIENCE {
            if kernel.is_none() {
                let way = &self.site.explain(nsplane, dst)["kernel"]["way"];
                kernel = (way["via"] == SECOND).then(Instant::now);
            }
            self.send(dst);
            if self.arrived(SECOND, Duration::from_millis(2)) {
                // Seen to arrive before the kernel was asked again, it is not later.
                return kernel.map_or(Duration::ZERO, |then| then.elapsed());
            }
        }
        panic!(
            "{}: {dst} does not go by {SECOND}: {:#}",
            self.site.name,
            self.site.explain(nsplane, dst)
        )
    }
}

/// A router, and its neighbours, with FRR's BGP; the second neighbour is BIRD.
pub(crate) fn bgp_by_frr<'a>(programs: &Programs, site: &'a Site) -> [Router<'a>; 3] {
    let mut router = Router::new(programs, &site.router).unwrap();
    router.frr("zebra", "").unwrap();
    router.frr("bgpd", ROUTER_FRR).unwrap();
    let mut first = Router::new(programs, &site.first).unwrap();
    kernel_networks(&site.first);
    first.frr("zebra", "").unwrap();
    first.frr("bgpd", FIRST_FRR).unwrap();
    let mut second = Router::new(programs, &site.second).unwrap();
    second.bird(&neighbour_bird(SECOND, 65003, "10.2.0.1")).unwrap();
    [router, first, second]
}

pub(crate) const ROUTER_FRR: &str = "router bgp 65001
 bgp router-id 10.1.0.1
 no bgp ebgp-requires-policy
 neighbor 10.1.0.2 remote-as 65002
 neighbor 10.1.0.2 timers connect 1
 neighbor 10.2.0.2 remote-as 65003
 neighbor 10.2.0.2 timers connect 1
 address-family ipv4 unicast
  neighbor 10.1.0.2 weight 200
  neighbor 10.2.0.2 weight 100
";

const FIRST_FRR: &str = "router bgp 65002
 bgp router-id 10.1.0.2
 no bgp ebgp-requires-policy
 neighbor 10.1.0.1 remote-as 65001
 neighbor 10.1.0.1 timers connect 1
 address-family ipv4 unicast
  redistribute kernel
";

/// Routes of the kernel's for a daemon to announce.
fn kernel_networks(netns: &Netns) {
    let mut lines = String::new();
    for n in 0..PREFIXES {
        writeln!(lines, "route add blackhole {}", network(n)).unwrap();
    }
    netns.ip_batch(&lines).unwrap();
}

/// The same with BIRD everywhere.
pub(crate) fn bgp_by_bird<'a>(programs: &Programs, site: &'a Site) -> [Router<'a>; 3] {
    let mut router = Router::new(programs, &site.router).unwrap();
    router.bird(ROUTER_BIRD).unwrap();
    let mut first = Router::new(programs, &site.first).unwrap();
    first.bird(&neighbour_bird(FIRST, 65002, "10.1.0.1")).unwrap();
    let mut second = Router::new(programs, &site.second).unwrap();
    second.bird(&neighbour_bird(SECOND, 65003, "10.2.0.1")).unwrap();
    [router, first, second]
}

const ROUTER_BIRD: &str = "log stderr all;
router id 10.1.0.1;
protocol device { scan time 1; }
protocol direct { ipv4; }
protocol kernel { ipv4 { import none; export where source = RTS_BGP; }; }
protocol bgp peer1 {
  local 10.1.0.1 as 65001; neighbor 10.1.0.2 as 65002;
  connect delay time 1; connect retry time 1; error wait time 1, 2;
  ipv4 { import filter { bgp_local_pref = 200; accept; }; export none; };
}
protocol bgp peer2 {
  local 10.2.0.1 as 65001; neighbor 10.2.0.2 as 65003;
  connect delay time 1; connect retry time 1; error wait time 1, 2;
  ipv4 { import all; export none; };
}
";

fn neighbour_bird(own: &str, number: u32, router: &str) -> String {
    let mut text = format!(
        "log stderr all;\nrouter id {own};\nprotocol device {{ scan time 1; }}\n\
         protocol direct {{ ipv4; }}\nprotocol static {{\n  ipv4;\n"
    );
    for n in 0..PREFIXES {
        writeln!(text, "  route {} blackhole;", network(n)).unwrap();
    }
    write!(
        text,
        "}}\nprotocol bgp up {{\n  local {own} as {number}; neighbor {router} as 65001;\n  \
         connect delay time 1; connect retry time 1; error wait time 1, 2;\n  \
         ipv4 {{ import none; export where source = RTS_STATIC; }};\n}}\n"
    )
    .unwrap();
    text
}

/// FRR's OSPF everywhere, watched by BFD.
pub(crate) fn ospf_and_bfd<'a>(programs: &Programs, site: &'a Site) -> [Router<'a>; 3] {
    let mut router = Router::new(programs, &site.router).unwrap();
    let config = "router ospf\n ospf router-id 10.1.0.1\n timers throttle spf 0 50 500\n \
                  network 10.1.0.0/24 area 0\n network 10.2.0.0/24 area 0\n";
    ospf(&mut router, &format!("{}{}{config}", link("n1", 10), link("n2", 20)));
    let neighbour = |netns: &'a Netns, device, own| {
        kernel_networks(netns);
        let mut neighbour = Router::new(programs, netns).unwrap();
        let config = format!(
            "{}router ospf\n ospf router-id {own}\n network {own}/24 area 0\n \
             redistribute kernel metric 10 metric-type 1\n",
            link(device, 10)
        );
        ospf(&mut neighbour, &config);
        neighbour
    };
    let first = neighbour(&site.first, "n1", FIRST);
    let second = neighbour(&site.second, "n2", SECOND);
    [router, first, second]
}

fn ospf(router: &mut Router<'_>, config: &str) {
    router.frr("zebra", "").unwrap();
    router.frr("bfdd", "").unwrap();
    router.frr("ospfd", config).unwrap();
}

fn link(device: &str, cost: u32) -> String {
    format!(
        "interface {device}\n ip ospf network point-to-point\n ip ospf hello-interval 1\n \
         ip ospf dead-interval 20\n ip ospf cost {cost}\n ip ospf bfd\n!\n"
    )
}
