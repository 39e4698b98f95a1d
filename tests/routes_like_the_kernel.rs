//! Two routers alike, one of them under nsplane: with the same rules and routes the same
//! packets come out of the same device, every byte the same; and those that nsplane is to
//! forward itself it did.

#[path = "routes_like_the_kernel/twins.rs"]
mod twins;

#[path = "routes_like_the_kernel/balanced.rs"]
mod balanced;

use twins::{Case, Probe, Twins};

/// Each case by itself: a name, what is configured, and what is sent.
fn rules() -> Vec<Case> {
    let base = "route add 10.9.0.0/16 via 10.0.1.2\nroute add 10.9.0.0/16 via 10.0.2.2 table 100\n\
                route add 10.9.7.0/24 via 10.0.3.2 table 101\n\
                -6 route add fd09::/16 via fd00:0:0:1::2\n\
                -6 route add fd09::/16 via fd00:0:0:2::2 table 100\n\
                -6 route add fd09:7::/32 via fd00:0:0:3::2 table 101\n";
    let case = |name: &'static str, on: &str| Case::new(name, &format!("{base}{on}"), probes());
    vec![
        case("no rules", ""),
        case(
            "from",
            "rule add from 10.0.0.0/24 lookup 100 pref 100\n\
                      -6 rule add from fd00::/64 lookup 100 pref 100\n",
        ),
        case(
            "not from",
            "rule add not from 10.0.0.0/24 lookup 100 pref 100\n\
                          -6 rule add not from fd00::/64 lookup 100 pref 100\n",
        ),
        case(
            "to",
            "rule add to 10.9.7.0/25 lookup 100 pref 100\n\
                    -6 rule add to fd09:7::/48 lookup 100 pref 100\n",
        ),
        case(
            "iif",
            "rule add iif r4 lookup 100 pref 100\n-6 rule add iif r4 lookup 100 pref 100\n",
        ),
        case(
            "not iif",
            "rule add not iif r4 lookup 100 pref 100\n\
                         -6 rule add not iif r4 lookup 100 pref 100\n",
        ),
        case(
            "oif, and devices that are not there",
            "rule add oif r2 lookup 100 pref 100\nrule add iif lo lookup 100 pref 101\n\
              rule add iif nowhere lookup 100 pref 102\nrule add not oif r2 lookup 101 pref 103\n",
        ),
        case(
            "marks",
            "rule add fwmark 7 lookup 100 pref 100\nrule add fwmark 0/1 lookup 101 pref 101\n\
                       -6 rule add not fwmark 7 lookup 100 pref 100\n",
        ),
        case(
            "TOS",
            "rule add tos 0x10 lookup 100 pref 100\n-6 rule add tos 0x10 lookup 100 pref 100\n",
        ),
        case(
            "protocol",
            "rule add ipproto tcp lookup 100 pref 100\n\
                          -6 rule add ipproto tcp lookup 100 pref 100\n",
        ),
        case(
            "ports",
            "rule add dport 80-90 lookup 100 pref 100\nrule add sport 12345 lookup 101 pref 101\n\
                       -6 rule add dport 80-90 lookup 100 pref 100\n",
        ),
        case("not ports", "rule add not ipproto udp dport 9 lookup 100 pref 100\n"),
        case(
            "the first of a priority",
            "rule add from 10.0.0.0/24 lookup 100 pref 100\n\
              rule add from 10.0.0.0/24 lookup 101 pref 100\n",
        ),
        case(
            "the next table where one says nothing",
            "rule add lookup 102 pref 99\n\
              rule add lookup 101 pref 100\nrule add lookup 100 pref 101\n",
        ),
        case(
            "throw",
            // A rule that asks for something keeps the tables apart.
            "route add throw 10.9.7.0/25 table 100\nrule add lookup 100 pref 100\n\
              -6 route add throw fd09:7::/48 table 100\n-6 rule add lookup 100 pref 100\n\
              rule add sport 7777 lookup 102 pref 90\n-6 rule add sport 7777 lookup 102 pref 90\n",
        ),
        case(
            "throw in main",
            "route add throw 10.9.7.0/25\nroute add 10.9.7.0/24 via 10.0.2.2 table default\n\
              rule add tos 0x10 lookup 100 pref 100\n",
        ),
        case(
            "goto",
            "rule add from 10.0.0.0/24 goto 200 pref 100\nrule add lookup 100 pref 150\n\
              rule add lookup 101 pref 200\n-6 rule add goto 300 pref 100\n",
        ),
        case("nop", "rule add from 10.0.0.0/24 nop pref 100\nrule add lookup 101 pref 101\n"),
        case(
            "suppress_prefixlength",
            "route add default via 10.0.2.2\n\
              rule add lookup main suppress_prefixlength 0 pref 100\nrule add lookup 100 pref 101\n\
              rule add lookup main suppress_prefixlength 16 pref 50\n\
              -6 rule add lookup main suppress_prefixlength 16 pref 50\n\
              -6 rule add lookup 100 pref 51\n",
        ),
        case(
            "suppress_ifgroup",
            "link set r1 group 7\n\
              rule add lookup main suppress_ifgroup 7 pref 100\nrule add lookup 100 pref 101\n\
              -6 rule add lookup main suppress_ifgroup 7 pref 100\n-6 rule add lookup 100 pref 101\n",
        ),
        case(
            "a tunnel beside",
            "rule add lookup main suppress_prefixlength 0 pref 100\n\
              rule add not fwmark 7 lookup 102 pref 101\nroute add default dev other table 102\n",
        ),
        case(
            "blackhole",
            "rule add from 10.0.0.0/24 blackhole pref 100\n\
              -6 rule add from fd00::/64 blackhole pref 100\n",
        ),
        case(
            "unreachable",
            "rule add from 10.0.0.0/24 unreachable pref 100\n\
              -6 rule add from fd00::/64 unreachable pref 100\n",
        ),
        case(
            "prohibit",
            "rule add tos 0x10 prohibit pref 100\n-6 rule add tos 0x10 prohibit pref 100\n",
        ),
        case("no main", "rule del pref 32766\nrule add to 10.9.7.0/24 lookup main pref 100\n"),
        case(
            "local late",
            "rule add lookup local pref 200\nrule del pref 0\nrule add lookup 100 pref 100\n",
        ),
    ]
}

fn routes() -> Vec<Case> {
    let case = |name: &'static str, on: &str| Case::new(name, on, probes());
    vec![
        case("metrics", "route add 10.9.0.0/16 via 10.0.1.2 metric 20\nroute add 10.9.0.0/16 via 10.0.2.2 metric 10\n\
              -6 route add fd09::/16 via fd00:0:0:1::2 metric 20\n-6 route add fd09::/16 via fd00:0:0:2::2 metric 10\n"),
        case("two of a metric", "route add 10.9.0.0/16 via 10.0.1.2\nroute append 10.9.0.0/16 via 10.0.2.2\n\
              route prepend 10.9.7.0/24 via 10.0.3.2\nroute prepend 10.9.7.0/24 via 10.0.2.2\n"),
        case("by IPv6's routers", "route add 10.9.0.0/16 via inet6 fd00:0:0:2::2 dev r2\n\
              route add 10.9.7.0/24 via inet6 fe80::77 dev r3\n"),
        case("onlink", "route add 10.9.0.0/16 via 192.0.2.1 dev r2 onlink\n\
              -6 route add fd09::/16 via 2001:db8::1 dev r2 onlink\n"),
        case("scope link", "route add 10.9.0.0/16 dev r2 scope link\n-6 route add fd09::/16 dev r2\n"),
        case("short routes", "route add 10.9.0.0/16 via 10.0.1.2 mtu 600\nroute add 10.9.7.0/24 via 10.0.2.2 mtu lock 600\n\
              -6 route add fd09::/16 via fd00:0:0:1::2 mtu 1300\n\
              -6 route add fd09:7::/32 via fd00:0:0:2::2 mtu lock 1300\n").long(),
        case("refusing", "route add 10.9.0.0/16 via 10.0.1.2\nroute add blackhole 10.9.7.0/24\n\
              route add unreachable 10.9.1.0/24\nroute add prohibit 10.9.2.0/24\nroute add throw 10.9.3.0/24\n\
              -6 route add fd09::/16 via fd00:0:0:1::2\n-6 route add blackhole fd09:7::/32\n\
              -6 route add unreachable fd09:1::/32\n-6 route add prohibit fd09:2::/32\n"),
        case("a route for a TOS", "route add 10.9.0.0/16 via 10.0.1.2\nroute add 10.9.0.0/16 tos 0x10 via 10.0.2.2\n").some_kernels(),
        case("out of what is no port", "route add 10.9.0.0/16 via 10.0.1.2\nroute add 10.9.7.0/24 dev other\n"),
        case("objects", "nexthop add id 1 via 10.0.1.2 dev r1\nnexthop add id 2 via fd00:0:0:2::2 dev r2\n\
              nexthop add id 3 blackhole\nnexthop add id 4 group 2\nroute add 10.9.0.0/16 nhid 1\n\
              route add 10.9.1.0/24 nhid 3\nroute add 10.9.7.0/24 nhid 4\n-6 route add fd09::/16 nhid 2\n"),
    ]
}

/// Sources with and without a way back, of each filter.
fn sources() -> Vec<Case> {
    let mut cases = Vec::new();
    for (filter, name) in [("0", "any source"), ("1", "strict"), ("2", "loose")] {
        let base = "route add 10.9.0.0/16 via 10.0.1.2\nroute add 10.77.0.0/16 via 10.0.2.2\n\
                    route add blackhole 10.78.0.0/16\n";
        for (what, on) in [
            ("", ""),
            (
                ", way back by rules",
                "rule add to 10.77.0.0/16 iif r1 lookup 100 pref 100\n\
                                     route add default via 10.0.0.2 table 100\n",
            ),
            (
                ", way back by several",
                "route add 10.79.0.0/16 nexthop via 10.0.0.2 nexthop via 10.0.2.2\n",
            ),
            (", way back by no port", "route add 10.79.0.0/16 dev other\n"),
        ] {
            let mut case = Case::new(&format!("{name}{what}"), &format!("{base}{on}"), from_all());
            for device in ["all", "r0", "r1", "r2", "r3", "r4"] {
                let path = format!("net/ipv4/conf/{device}/rp_filter");
                case.sysctls.push((path, filter.to_owned()));
            }
            cases.push(case);
        }
    }
    cases
}

/// From two devices and two sources, to two prefixes, with what rules ask for.
fn probes() -> Vec<Probe> {
    let mut all = Vec::new();
    for (from, src, src6) in
        [(0, "10.0.0.2", "fd00::2"), (4, "10.0.4.2", "fd00:0:0:4::2"), (0, "10.66.0.1", "fd66::1")]
    {
        for (dst, dst6) in [
            ("10.9.7.1", "fd09:7::1"),
            ("10.9.7.200", "fd09:7:1::1"),
            ("10.9.1.1", "fd09:1::1"),
            ("10.9.2.1", "fd09:2::1"),
            ("10.9.3.1", "fd09:3::1"),
            ("10.0.1.2", "fd00:0:0:1::2"),
        ] {
            all.push(Probe::new(from, src, dst));
            all.push(Probe::new(from, src6, dst6));
        }
        for (src, dst) in [(src, "10.9.7.1"), (src6, "fd09:7::1")] {
            let plain = Probe::new(from, src, dst);
            all.push(Probe { tos: 0x10, ..plain.clone() });
            all.push(Probe { tos: 0xb8, ..plain.clone() });
            all.push(Probe { tos: 0x13, ..plain.clone() });
            all.push(Probe { ports: (1, 85), ..plain.clone() });
            all.push(Probe { proto: 6, ports: (12345, 80), ..plain.clone() });
            all.push(Probe { proto: 132, ports: (7, 85), ..plain.clone() });
            all.push(Probe { proto: 47, ports: (12345, 80), ..plain.clone() });
            all.push(Probe { fragment: 0x2000, ports: (12345, 80), ..plain });
        }
    }
    all
}

fn from_all() -> Vec<Probe> {
    let sources = ["10.0.0.2", "10.0.2.2", "10.66.0.1", "10.77.0.1", "10.78.0.1", "10.79.0.1"];
    let from = |device: usize| sources.map(|src| Probe::new(device, src, "10.9.7.1"));
    [from(0), from(2), from(4)].concat()
}

#[test]
#[ignore = "needs root"]
fn policy_rules() {
    Twins::new("rules").compare(rules());
}

#[test]
#[ignore = "needs root"]
fn kinds_of_routes() {
    Twins::new("kinds").compare(routes());
}

#[test]
#[ignore = "needs root"]
fn reverse_path_filters() {
    Twins::new("rpf").compare(sources());
}
