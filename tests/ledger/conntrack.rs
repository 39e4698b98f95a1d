//! Connection tracking that is asked for where forwarded packets meet no chain: the kernel
//! would track them too, so they are its own.

use std::time::{Duration, Instant};

use nsplane_bench::Sink;
use nsplane_tests::lab::SOON;
use nsplane_tests::netns::Netns;
use nsplane_tests::tenant::{Family, Host, Tenant, TenantSpec};
use nsplane_tests::wait::wait_until;

use super::Bench;
use super::Way::{Kernel, Ours};

const INPUT: &str = "type filter hook input priority 0;";
const OUTPUT: &str = "type filter hook output priority 0;";

/// A program and what it is told in a router.
type Command = (&'static str, String);

fn nft(script: &str) -> Command {
    ("nft", script.replace("INPUT", INPUT).replace("OUTPUT", OUTPUT))
}

fn iptables(words: &str) -> Command {
    ("iptables-nft", words.to_owned())
}

/// Rulesets that a namespace may have for itself. Which of them have the kernel track what
/// it forwards the kernel is asked.
fn rulesets() -> Vec<Command> {
    vec![
        nft("table inet t { chain i { INPUT tcp dport 22 accept; }; }"),
        nft("table inet t { chain i { INPUT ct state established accept; }; }"),
        nft("table ip t { chain i { INPUT ct state vmap { invalid : drop }; }; }"),
        nft("table ip6 t { chain o { OUTPUT ct mark set 5; }; }"),
        nft("table ip t { chain alone { ct state new accept; }; }"),
        nft("table ip t { flags dormant; chain i { INPUT ct state new accept; }; }"),
        nft("table ip t { chain o { type nat hook output priority 0; }; }"),
        nft(
            "table ip t { chain o { type nat hook output priority 0; tcp dport 80 redirect to :81; }; }",
        ),
        nft("table ip t { chain alone { dnat to 10.0.0.9; }; }"),
        nft("table ip t { chain i { INPUT ct count over 5 drop; }; }"),
        nft("table ip t { set s { type ipv4_addr; flags dynamic; ct count over 5; }; }"),
        nft(
            "table ip t { set s { type ipv4_addr; flags dynamic; }; chain i { INPUT add @s { ip saddr ct count over 5 } drop; }; }",
        ),
        nft(
            "table ip t { set s { type ipv4_addr; flags dynamic; }; chain i { INPUT add @s { ip saddr counter } drop; }; }",
        ),
        nft(
            "table ip t { set s { type ipv4_addr; flags dynamic; elements = { 10.0.0.9 ct count over 5 }; }; }",
        ),
        nft("table ip t { ct helper h { type \"ftp\" protocol tcp; }; }"),
        nft("table ip t { counter k { }; chain i { INPUT counter name k; }; }"),
        nft("table ip t { chain alone { meta l4proto tcp tproxy to :5000; }; }"),
        nft("table ip t { chain i { INPUT socket transparent 1 accept; }; }"),
        nft("table ip t { chain o { type filter hook output priority -300; notrack; }; }"),
        nft(
            "table ip t { chain i { INPUT limit rate 1/second log; fib saddr type local drop; }; }",
        ),
        iptables("-A INPUT -m conntrack --ctstate NEW -j LOG"),
        iptables("-A INPUT -m comment --comment x -j LOG"),
        iptables("-A INPUT -m socket"),
        iptables("-t nat -A OUTPUT -p tcp -j DNAT --to-destination 10.0.0.9"),
        iptables("-A INPUT -p tcp -j CONNMARK --set-mark 1"),
    ]
}

fn apply(router: &Netns, (program, words): &Command) -> Result<(), String> {
    let done = match *program {
        "nft" => router.exec("nft", [words]),
        program => router.exec(program, words.split_whitespace()),
    };
    done.map(drop).map_err(|e| e.to_string())
}

/// A namespace whose packets nobody but the kernel forwards.
struct Twin(Tenant);

const TRACKED: &str = "net/netfilter/nf_conntrack_count";

impl Twin {
    fn tracked(&self) -> u64 {
        self.0.router().read_sysctl(TRACKED).unwrap().parse().unwrap()
    }

    /// Fragments of IPv4 that were put together.
    fn put_together(&self) -> u64 {
        let text = self.0.router().exec("cat", ["/proc/net/snmp"]).unwrap();
        let mut lines = text.lines().filter(|l| l.starts_with("Ip:"));
        let names = lines.next().unwrap().split_whitespace();
        let at = names.into_iter().position(|n| n == "ReasmReqds").unwrap();
        lines.next().unwrap().split_whitespace().nth(at).unwrap().parse().unwrap()
    }

    /// The kernel does to a family's packets on their way what tracking does. An entry may
    /// run out at the moment that another is made: it is tried three times.
    fn meets(&self, family: Family) -> bool {
        (0..3).any(|_| {
            let before = (self.tracked(), self.put_together());
            let to = Host::B.address(family).to_string();
            self.0.host(Host::A).exec("ping", ["-c1", "-s3000", &to]).unwrap();
            self.tracked() > before.0 || self.put_together() > before.1
        })
    }
}

#[test]
#[ignore = "needs root"]
fn as_the_kernel_has_it() {
    let b = Bench::new("ledct", &[]);
    let router = b.lab.tenant.router();
    let twin = Twin(Tenant::new("ledctk", &TenantSpec::default()).unwrap());
    if twin.0.router().read_sysctl(TRACKED).is_err() {
        return println!("left out: this kernel has no connection tracking");
    }
    let flush = nft("flush ruleset");
    for ruleset in rulesets() {
        if let Err(e) = apply(twin.0.router(), &ruleset) {
            println!("left out: {} {}: {e}", ruleset.0, ruleset.1);
            continue;
        }
        apply(router, &ruleset).unwrap();
        let met = (twin.meets(Family::V4), twin.meets(Family::V6));
        println!("IPv4 {}, IPv6 {}: {} {}", met.0, met.1, ruleset.0, ruleset.1);
        let way = |met| if met { Kernel } else { Ours };
        match met {
            (false, false) => see_it_read(&b),
            (v4, v6) => {
                let scope = match (v4, v6) {
                    (true, true) => "IPv4, IPv6",
                    (true, false) => "IPv4",
                    _ => "IPv6",
                };
                b.wait_row("conntrack", &[("scope", scope), ("status", "kernel")]);
            }
        }
        assert_eq!(b.rows().len(), usize::from(met != (false, false)), "{:#?}", b.rows());
        b.wait_ways(way(met.0), way(met.1));
        for router in [router, twin.0.router()] {
            apply(router, &flush).unwrap();
        }
        b.wait_no_row("conntrack");
        b.wait_ways(Ours, Ours);
    }
}

/// Waits until what is there was read: with a chain that is there too, and gone again.
fn see_it_read(b: &Bench) {
    let router = b.lab.tenant.router();
    let chain = "add table ip see; add chain ip see f { type filter hook forward priority 0; }";
    apply(router, &nft(chain)).unwrap();
    b.wait_row("netfilter", &[]);
    apply(router, &nft("delete table ip see")).unwrap();
    b.wait_no_row("netfilter");
}

/// How long the fast path outlives the first rule that asks for tracking, and how long it
/// takes to come back, with packets on their way.
#[test]
#[ignore = "needs root"]
fn there_and_back() {
    const MARK: u32 = 0x1edc;
    let b = Bench::new("ledctf", &[]);
    let router = b.lab.tenant.router();
    let run = |words: &str| apply(router, &nft(words)).unwrap();
    run("table inet t { chain i { INPUT tcp dport 22 accept; }; }");
    let _sink = Sink::attach(b.lab.tenant.host(Host::B), Host::DEVICE, MARK).unwrap();
    let (mut past, mut back) = (Vec::new(), Vec::new());
    super::effect::under_load(&b, MARK, || {
        for _ in 0..5 {
            let before = b.lab.forwarded();
            wait_until(SOON, "the load, by nsplane", || b.lab.forwarded() > before + 20).unwrap();
            run("add rule inet t i ct state established accept");
            let start = Instant::now();
            let (mut last, mut count) = (Duration::ZERO, b.lab.forwarded());
            while start.elapsed() < Duration::from_millis(500) {
                let now = b.lab.forwarded();
                if now != count {
                    (last, count) = (start.elapsed(), now);
                }
            }
            past.push(last);
            run("flush chain inet t i");
            let start = Instant::now();
            wait_until(SOON, "nsplane again", || b.lab.forwarded() > count).unwrap();
            back.push(start.elapsed());
        }
    });
    println!("last packet by nsplane, after the command ended: {past:?}");
    println!("nsplane forwards again, after the command ended: {back:?}");
    assert!(past.iter().all(|t| *t < Duration::from_millis(450)), "{past:?}");
}

/// Passed by with its own word; a filter is not.
#[test]
#[ignore = "needs root"]
fn bypass() {
    let b = Bench::new("ledctby", &["--bypass", "conntrack"]);
    let router = b.lab.tenant.router();
    apply(router, &nft("table inet t { chain i { INPUT ct state new accept; }; }")).unwrap();
    let row = [("scope", "IPv4, IPv6"), ("status", "bypassed"), ("tier", "userspace")];
    b.wait_row("conntrack", &row);
    b.wait_ways(Ours, Ours);
    let log = b.lab.nsplane.log();
    assert!(log.contains("WARN") && log.contains("bypassed") && log.contains("with ct"), "{log}");
    let chain = "add chain inet t f { type filter hook forward priority 0; }";
    apply(router, &nft(chain)).unwrap();
    b.wait_row("netfilter", &[("status", "kernel")]);
    b.wait_ways(Kernel, Kernel);
}
