//! Rules as the workers go through them, against the kernel's way told plainly.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use proptest::prelude::*;

use super::super::tests::{PORTS, source};
use super::super::{Compiled, compile};
use super::*;
use crate::control::mirror::TABLE_MAIN;
use crate::control::mirror::tests::{hop, link, route};
use crate::netlink::{Event, Insert, Link, Route, RouteKind, Rule};
use crate::tables::NextHop;
use crate::tables::fib::Fib4;
use crate::tables::policy::{Key, Policy};

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Port(PortId),
    Kernel,
    NoRoute,
}

/// net/core/fib_rules.c and net/ipv4/fib_rules.c, `fib_rules_lookup`, `fib_rule_match`,
/// `fib4_rule_match`, `fib4_rule_suppress`, as plainly as possible.
fn kernel(m: &Mirror, key: &Key<u32>) -> End {
    let rules: Vec<&Rule> = m.rules.iter().filter(|r| r.family == Family::V4).collect();
    let mut at = 0;
    while let Some(rule) = rules.get(at) {
        at += 1;
        if !rule_matches(m, rule, key) {
            continue;
        }
        match rule.action {
            RuleAction::Goto(priority) => {
                if let Some(target) = rules.iter().position(|r| r.priority == priority) {
                    at = target;
                }
            }
            RuleAction::Nop => {}
            RuleAction::Refuse | RuleAction::Unknown => return End::Kernel,
            RuleAction::Table(table) => {
                let Some((len, found)) = table_lookup(m, table, key.dst) else { continue };
                let refuses = matches!(found.kind, RouteKind::Other(_));
                if found.kind == RouteKind::Throw {
                    continue;
                }
                let device = found.hops.first().and_then(|h| h.oif);
                let group = device.map(|i| m.links[&i].group);
                let short = rule.suppress.prefixlen.is_some_and(|n| u32::from(len) <= n);
                let grouped = rule.suppress.ifgroup.is_some() && rule.suppress.ifgroup == group;
                if !refuses && (short || grouped) {
                    continue;
                }
                let port = device.and_then(|i| PORTS.iter().find(|(_, ifindex)| *ifindex == i));
                return match port {
                    Some((port, _)) if found.kind == RouteKind::Unicast => End::Port(*port),
                    _ => End::Kernel,
                };
            }
        }
    }
    End::NoRoute
}

fn rule_matches(m: &Mirror, rule: &Rule, key: &Key<u32>) -> bool {
    let s = &rule.selector;
    let name = PORTS.iter().find(|(p, _)| *p == key.iif).map(|(_, i)| m.links[i].name.clone());
    let within = |p: Option<Prefix>, addr: u32| match p {
        Some(Prefix { addr: IpAddr::V4(net), len }) => {
            len == 0 || (net.to_bits() ^ addr) >> (32 - len) == 0
        }
        _ => true,
    };
    let port = |p: netlink::Ports, port: u16| {
        p.start == 0
            || if p.mask != 0 {
                (p.start ^ port) & p.mask == 0
            } else {
                p.start <= port && port <= p.end
            }
    };
    let all = (s.iif.is_none() || s.iif == name)
        && s.oif.is_none()
        && !s.l3mdev
        && s.mark.0 & s.mark.1 == 0
        && within(s.src, key.src)
        && within(s.dst, key.dst)
        && s.tos.0 == key.tos & s.tos.1
        && (s.proto == 0 || s.proto == key.proto)
        && port(s.sport, key.sport)
        && port(s.dport, key.dport);
    all != s.invert
}

fn table_lookup(m: &Mirror, table: u32, dst: u32) -> Option<(u8, Route)> {
    let all = m.routes.of(table, Family::V4).filter(|r| {
        let IpAddr::V4(net) = r.dst.addr else { return false };
        r.dst.len == 0 || (net.to_bits() ^ dst) >> (32 - r.dst.len) == 0
    });
    let best = all.min_by_key(|r| (std::cmp::Reverse(r.dst.len), r.priority))?;
    Some((best.dst.len, best))
}

/// As the workers look.
pub(super) fn ours(c: &Compiled, key: &Key<u32>) -> End {
    let found = match &c.policy_v4 {
        Some(made) => {
            let fib = |routes: &Vec<(u32, u8, u32)>| {
                Arc::new(Fib4::build(routes.iter().map(|r| (Ipv4Addr::from_bits(r.0), r.1, r.2))))
            };
            let policy = Policy {
                rules: made.rules.clone().into(),
                tables: made.tables.iter().map(|(_, routes)| fib(routes)).collect(),
                suppressed: c.suppressed.clone().into(),
            };
            policy.lookup(&c.next_hops, key)
        }
        None => Fib4::build(c.v4.iter()).lookup(key.dst.into()),
    };
    match found.map(|i| c.next_hops[i as usize]) {
        None => End::NoRoute,
        Some(NextHop::Forward { port, .. }) => End::Port(port),
        Some(_) => End::Kernel,
    }
}

fn selector() -> impl Strategy<Value = Selector> {
    let prefix = |net: u32| {
        prop::option::weighted(
            0.3,
            (0_u32..4, 28_u8..=32).prop_map(move |(low, len)| Prefix {
                addr: Ipv4Addr::from_bits((net | low) & (u32::MAX << (32 - len))).into(),
                len,
            }),
        )
    };
    let name = |p| prop::option::weighted(p, prop::sample::select(vec!["v1", "v2", "v3", "lo"]));
    let ports = || {
        prop_oneof![
            4 => Just(netlink::Ports::default()),
            1 => (1_u16..4, 0_u16..3).prop_map(|(start, more)| netlink::Ports { start, end: start + more, mask: 0 }),
            1 => (1_u16..4).prop_map(|start| netlink::Ports { start, end: start, mask: 0xffff }),
        ]
    };
    let some = (any::<bool>(), 0_u8..4, prop_oneof![3 => Just(0), 1 => Just(6), 1 => Just(17)]);
    (
        some,
        prefix(0x0b00_0000),
        prefix(0x0a00_0000),
        name(0.3),
        name(0.05),
        ports(),
        ports(),
        0_u8..10,
    )
        .prop_map(|((invert, tos, proto), src, dst, iif, oif, sport, dport, odd)| Selector {
            invert: invert && odd < 5,
            src,
            dst,
            iif: iif.map(str::to_owned),
            oif: oif.map(str::to_owned),
            mark: if odd == 9 { (1, 3) } else { (4, 3) },
            tos: if tos == 3 { (8, 0x1c) } else { (0, 0) },
            proto,
            sport,
            dport,
            l3mdev: odd == 8,
        })
}

fn rule() -> impl Strategy<Value = Rule> {
    let action = prop_oneof![
        8 => (0_u32..4).prop_map(|t| RuleAction::Table([TABLE_MAIN, 100, 101, 102][t as usize])),
        2 => (1_u32..7).prop_map(RuleAction::Goto),
        1 => Just(RuleAction::Nop),
        1 => Just(RuleAction::Refuse),
    ];
    let suppress = (prop::option::weighted(0.2, 27_u32..31), prop::option::weighted(0.1, 0_u32..3))
        .prop_map(|(prefixlen, ifgroup)| Suppress { prefixlen, ifgroup });
    let selector = prop_oneof![1 => Just(Selector::default()), 2 => selector()];
    (1_u32..6, selector, action, suppress, any::<u32>()).prop_map(
        |(priority, selector, action, suppress, n)| {
            let action = match action {
                // The kernel takes no rule that leads back.
                RuleAction::Goto(to) if to <= priority => RuleAction::Nop,
                action => action,
            };
            let identity = n.to_ne_bytes().into();
            Rule { selector, action, suppress, identity, ..Rule::to_table(Family::V4, priority, 0) }
        },
    )
}

fn any_route() -> impl Strategy<Value = Route> {
    (0_u32..4, 0_u32..8, 27_u8..=32, 0_u32..9, 1_u32..4).prop_map(|(table, low, len, kind, oif)| {
        let net = (0x0a00_0000 | low) & (u32::MAX << (32 - len));
        let mut r = route(&format!("{}/{len}", Ipv4Addr::from_bits(net)), &[hop(oif, None)]);
        r.table = [TABLE_MAIN, 100, 101, 102][table as usize];
        match kind {
            0 => (r.kind, r.hops) = (RouteKind::Other(7), vec![]),
            1 => (r.kind, r.hops) = (RouteKind::Throw, vec![]),
            2 => r.dst.len = 0,
            _ => {}
        }
        if r.dst.len == 0 {
            r.dst.addr = IpAddr::from([0; 4]);
        }
        r
    })
}

fn mirror(rules: Vec<Rule>, routes: Vec<Route>) -> Mirror {
    let mut events: Vec<Event> =
        (1..4).map(|i| Event::Link(Link { group: i - 1, ..link(i, true) })).collect();
    events.push(Event::Rule(Rule::to_table(Family::V4, 32766, TABLE_MAIN)));
    events.extend(rules.into_iter().map(Event::Rule));
    // Each prefix of a table once.
    let mut seen = std::collections::BTreeSet::new();
    let routes = routes.into_iter().filter(|r| seen.insert((r.table, r.dst)));
    events.extend(routes.map(|r| Event::Route(r, Insert::Last)));
    Mirror::from_dump(events)
}

fn packets() -> impl Iterator<Item = Key<u32>> {
    let mut n = 0_u32;
    std::iter::from_fn(move || {
        n += 1;
        let bits = n.wrapping_mul(2_654_435_761) >> 8;
        Some(Key {
            src: 0x0b00_0000 | bits & 3,
            dst: 0x0a00_0000 | n & 15,
            iif: PORTS[(bits >> 2 & 1) as usize].0,
            tos: [0, 8, 0x28, 0xb8][(bits >> 3 & 3) as usize],
            proto: [6, 17][(bits >> 5 & 1) as usize],
            sport: (bits >> 6 & 3) as u16,
            dport: (bits >> 8 & 7) as u16,
        })
    })
    .take(160)
}

proptest! {
    #[test]
    fn rules_lead_where_the_kernels_do(
        rules in prop::collection::vec(rule(), 0..8),
        routes in prop::collection::vec(any_route(), 0..16),
    ) {
        let m = mirror(rules, routes);
        let c = compile(source(&m));
        if let Some(why) = &c.stays_with_kernel_v4 {
            // Only what nobody can tell of a packet is a reason.
            prop_assert!(why.contains("VRF"), "{}", why);
            return Ok(());
        }
        for key in packets() {
            let (ours, kernels) = (ours(&c, &key), kernel(&m, &key));
            // Where the tables are one, a route that throws is the kernel's to follow.
            let throws = c.policy_v4.is_none() && ours == End::Kernel;
            prop_assert!(ours == kernels || throws, "{:?}: {:?}, the kernel {:?}", key, ours, kernels);
        }
    }

    /// What the kernel forwards in a way that we cannot, the XDP program passes; and it
    /// passes nothing where the kernel could only forward as we do.
    #[test]
    fn what_may_be_the_kernels_passes(
        rules in prop::collection::vec(rule(), 0..8),
        routes in prop::collection::vec(any_route(), 0..16),
    ) {
        let m = mirror(rules, routes);
        let c = compile(source(&m));
        if c.stays_with_kernel_v4.is_some() {
            return Ok(());
        }
        for key in packets() {
            let longest = c.kernel_routes.iter().filter(|k| match k.0.addr {
                IpAddr::V4(net) => {
                    k.0.len == 0 || (net.to_bits() ^ key.dst) >> (32 - k.0.len) == 0
                }
                IpAddr::V6(_) => false,
            });
            let passes = longest.max_by_key(|k| k.0.len).is_some_and(|k| *k.1);
            let elsewhere = c.next_hops.iter().any(|n| matches!(n, NextHop::Elsewhere { .. }));
            // Where the tables are one, a route that throws is the kernel's to follow.
            let throws = c.policy_v4.is_none() && ours(&c, &key) == End::Kernel;
            if passes && !elsewhere && !throws {
                prop_assert!(!matches!(kernel(&m, &key), End::Port(_)), "{:?}", key);
            }
            if leads_elsewhere(&c, &key) {
                prop_assert!(passes, "{:?}", key);
            }
        }
    }
}

fn leads_elsewhere(c: &Compiled, key: &Key<u32>) -> bool {
    let Some(made) = &c.policy_v4 else { return false };
    let fib = |routes: &Vec<(u32, u8, u32)>| {
        Arc::new(Fib4::build(routes.iter().map(|r| (Ipv4Addr::from_bits(r.0), r.1, r.2))))
    };
    let policy = Policy {
        rules: made.rules.clone().into(),
        tables: made.tables.iter().map(|(_, routes)| fib(routes)).collect(),
        suppressed: c.suppressed.clone().into(),
    };
    let found = policy.lookup(&c.next_hops, key).map(|i| c.next_hops[i as usize]);
    matches!(found, Some(NextHop::Elsewhere { .. }))
}
