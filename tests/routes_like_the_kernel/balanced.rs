//! Several next hops: with a seed each flow takes the kernel's, without one an even share
//! of the flows takes each, and always the same one.

use crate::twins::{Case, Probe, Seen, Twins};

const FLOWS: u32 = 200;

/// Flows of both families with all that a choice may depend on.
fn flows() -> Vec<Probe> {
    let flow = |n: u32| {
        let (a, b) = (n % 7 + 1, n / 7 + 1);
        let mut p = match n % 2 {
            0 => Probe::new(0, &format!("10.0.0.{}", n + 2), &format!("10.9.{a}.{b}")),
            _ => Probe::new(0, &format!("fd00::{:x}", n + 2), &format!("fd09:{a}::{b:x}")),
        };
        p.ports = ((n * 7919 % 60_000) as u16 + 1, (n % 5) as u16 + 80);
        p.proto = [17, 17, 6, 17, 132, 50, 47, 51][(n / 2 % 8) as usize];
        if n.is_multiple_of(11) {
            p.fragment = 0x2000;
        }
        p
    };
    (0..FLOWS).map(flow).collect()
}

fn cases() -> Vec<Case> {
    let v4 = |weights: [u32; 3]| {
        let hops = (1..4).zip(weights).map(|(i, w)| format!(" nexthop via 10.0.{i}.2 weight {w}"));
        format!("route add 10.9.0.0/16{}\n", hops.collect::<String>())
    };
    let v6 = |weights: [u32; 3]| {
        let hops =
            (1..4).zip(weights).map(|(i, w)| format!(" nexthop via fd00:0:0:{i}::2 weight {w}"));
        format!("-6 route add fd09::/16{}\n", hops.collect::<String>())
    };
    let groups = "nexthop add id 1 via 10.0.1.2 dev r1\nnexthop add id 2 via 10.0.2.2 dev r2\n\
                  nexthop add id 11 via fd00:0:0:1::2 dev r1\nnexthop add id 12 via fd00:0:0:2::2 dev r2\n\
                  nexthop add id 3 group 1,3/2,1\nnexthop add id 13 group 11,1/12,5\n\
                  route add 10.9.0.0/16 nhid 3\n-6 route add fd09::/16 nhid 13\n";
    let asks = "rule add sport 7 lookup 100 pref 100\n-6 rule add sport 7 lookup 100 pref 100\n";
    let mut cases = Vec::new();
    for policy in ["0", "1"] {
        for (name, on) in [
            ("alike", v4([1, 1, 1]) + &v6([1, 1, 1])),
            ("weighted", v4([1, 5, 250]) + &v6([9, 3, 1])),
            ("groups", groups.to_owned()),
            ("beside rules", v4([1, 1, 1]) + &v6([1, 1, 1]) + asks),
        ] {
            let mut case = Case::new(&format!("policy {policy}, {name}"), &on, flows());
            for (path, value) in [
                ("net/ipv4/fib_multipath_hash_policy", policy),
                ("net/ipv6/fib_multipath_hash_policy", policy),
                ("net/ipv4/fib_multipath_hash_seed", "4711"),
            ] {
                case.sysctls.push((path.to_owned(), value.to_owned()));
            }
            cases.push(case);
        }
    }
    let mut inner = Case::new("policy 2", &(v4([1, 1, 1]) + &v6([1, 1, 1])), flows());
    inner.sysctls = vec![
        ("net/ipv4/fib_multipath_hash_policy".to_owned(), "2".to_owned()),
        ("net/ipv6/fib_multipath_hash_policy".to_owned(), "2".to_owned()),
        ("net/ipv4/fib_multipath_hash_seed".to_owned(), "4711".to_owned()),
    ];
    cases.push(inner.some_kernels());
    cases
}

#[test]
#[ignore = "needs root"]
fn flows_take_the_kernels_way_with_a_seed() {
    Twins::new("seed").compare(cases());
}

#[test]
#[ignore = "needs root"]
fn flows_are_spread_and_stay() {
    let twins = Twins::new("spread");
    twins.ip("route add 10.9.0.0/16 nexthop via 10.0.1.2 weight 1 nexthop via 10.0.2.2 weight 3\n\
              -6 route add fd09::/16 nexthop via fd00:0:0:1::2 nexthop via fd00:0:0:2::2\n");
    let flows = flows();
    twins.wait_ours(&flows);
    let sides = |seen: Vec<Seen>| -> Vec<usize> {
        seen.into_iter().map(|s| if let Seen::At(side, _) = s { side } else { 9 }).collect()
    };
    let first = sides(twins.ours(&flows));
    for round in 0..3 {
        assert_eq!(sides(twins.ours(&flows)), first, "round {round}: flows stay where they are");
    }
    let at_1 = |odd: usize| first.iter().skip(odd).step_by(2).filter(|s| **s == 1).count();
    // A quarter and a half of 100, six standard deviations to each side.
    assert!((1..=51).contains(&at_1(0)), "{}", at_1(0));
    assert!((20..=80).contains(&at_1(1)), "{}", at_1(1));
}
