use proptest::prelude::*;

use super::super::ledger::default_rules;
use super::super::mirror::tests::{hop, link, local, prefix, route};
use super::super::mirror::{TABLE_DEFAULT, TABLE_LOCAL, TABLE_MAIN};
use super::*;
use crate::id::Mac;
use crate::netlink::Suppress;
use crate::netlink::{
    Address, Event, Hook, HookSource, Hop, INGRESS, Insert, Link, Neighbor, Netconf, NextHopKind,
    NextHopObject, Qdisc, ROOT, Route, RouteKind, Rule, Scope,
};
use crate::tables::RpFilter;

pub(super) const PORTS: [(PortId, IfIndex); 2] =
    [(PortId(10), IfIndex(1)), (PortId(20), IfIndex(2))];

fn rule(family: Family, priority: u32, table: u32) -> Event {
    Event::Rule(Rule::to_table(family, priority, table))
}

pub(super) fn add(r: Route) -> Event {
    Event::Route(r, Insert::First)
}

/// Three devices up, the first two of them ports; the rules of a new namespace.
fn base() -> Mirror {
    let mut events: Vec<Event> = (1..4).map(|i| Event::Link(link(i, true))).collect();
    for family in [Family::V4, Family::V6] {
        events.extend(default_rules(family).iter().map(|(p, t)| rule(family, *p, *t)));
    }
    Mirror::from_dump(events)
}

fn with(routes: impl IntoIterator<Item = Route>) -> Mirror {
    let mut m = base();
    for r in routes {
        let _ = m.apply(Event::Route(r, Insert::Last));
    }
    m
}

pub(super) fn source(mirror: &Mirror) -> Source<'_> {
    // Local prefixes, which keep IPv4 with the kernel, are wanted here beside others.
    Source { mirror, bypass: &[Bypass::LocalPrefixes], ports: &PORTS }
}

fn run(m: &Mirror) -> Compiled {
    compile(source(m))
}

fn to(port: u16, gateway: Option<&str>) -> NextHop {
    let gateway = gateway.map(|g| g.parse().unwrap());
    NextHop::Forward { port: PortId(port), gateway, mtu: 1500 }
}

/// What the XDP program is told of prefixes.
fn told(c: &Compiled) -> Vec<(Prefix, bool)> {
    c.kernel_routes.iter().map(|(prefix, kernel)| (*prefix, *kernel)).collect()
}

/// Longest match by a linear scan.
fn lookup(c: &Compiled, addr: IpAddr) -> Option<NextHop> {
    let inside =
        |bits: u128, net: u128, len: u8, width: u8| len == 0 || (bits ^ net) >> (width - len) == 0;
    let index = match addr {
        IpAddr::V4(a) => {
            let a = u128::from(a.to_bits());
            let inside = |net: u32, len| inside(a, net.into(), len, 32);
            let all = c.v4.iter().filter(|(net, len, _)| inside(net.to_bits(), *len));
            all.max_by_key(|(_, len, _)| *len).map(|r| r.2)
        }
        IpAddr::V6(a) => {
            let inside = |net: u128, len| inside(a.to_bits(), net, len, 128);
            let all = c.v6.iter().filter(|(net, len, _)| inside(net.to_bits(), *len));
            all.max_by_key(|(_, len, _)| *len).map(|r| r.2)
        }
    };
    index.map(|i| c.next_hops[i as usize])
}

/// Whether it is forwarded here or refused or left to the kernel for another reason.
fn ours(next_hop: Option<NextHop>) -> Option<NextHop> {
    next_hop.map(|n| if n.is_ours() { n } else { NextHop::Kernel })
}

fn at(c: &Compiled, addr: &str) -> Option<NextHop> {
    lookup(c, addr.parse().unwrap())
}

#[test]
fn a_router_in_the_common_case() {
    let m = with([
        local("10.0.0.1", 1),
        Route { kind: RouteKind::Broadcast, ..local("10.0.0.255", 1) },
        route("10.0.0.0/24", &[hop(1, None)]),
        route("10.1.0.0/24", &[hop(2, None)]),
        route("0.0.0.0/0", &[hop(2, Some("10.1.0.9"))]),
        Route {
            table: TABLE_LOCAL,
            kind: RouteKind::Local,
            ..route("127.0.0.0/8", &[hop(3, None)])
        },
        local("fd00::1", 1),
        Route { kind: RouteKind::Anycast, ..local("fd00::", 1) },
        route("fd00::/64", &[hop(1, None)]),
        route("fe80::/64", &[hop(1, None)]),
        route("fe80::/64", &[hop(2, None)]),
        Route {
            table: TABLE_LOCAL,
            kind: RouteKind::Multicast,
            ..route("ff00::/8", &[hop(1, None)])
        },
    ]);
    let c = run(&m);
    assert_eq!((&c.stays_with_kernel_v4, &c.stays_with_kernel_v6), (&None, &None));
    assert_eq!(at(&c, "10.0.0.7"), Some(to(10, None)));
    assert_eq!(at(&c, "10.0.0.1"), Some(NextHop::Kernel));
    assert_eq!(at(&c, "8.8.8.8"), Some(to(20, Some("10.1.0.9"))));
    assert_eq!(at(&c, "fd00::7"), Some(to(10, None)));
    assert_eq!(at(&c, "fe80::7"), Some(NextHop::Kernel));
    assert_eq!(at(&c, "fd01::7"), None);
    let locals = ["10.0.0.1", "10.0.0.255", "fd00::", "fd00::1"].map(|a| a.parse().unwrap());
    assert_eq!(c.locals, BTreeSet::from(locals));
    assert_eq!(told(&c), [], "empty in the common case");
    // Each next hop once.
    assert_eq!(c.next_hops.len(), 4);
}

#[test]
fn a_prefix_of_the_local_table_hides_longer_routes() {
    let m = with([
        Route {
            table: TABLE_LOCAL,
            kind: RouteKind::Local,
            ..route("10.0.0.0/16", &[hop(3, None)])
        },
        route("10.0.5.0/24", &[hop(1, None)]),
        route("10.0.0.0/8", &[hop(2, None)]),
    ]);
    let c = run(&m);
    assert_eq!(at(&c, "10.0.5.5"), Some(NextHop::Kernel));
    assert_eq!(at(&c, "10.1.5.5"), Some(to(20, None)));
    let kernel = (prefix("10.0.0.0/16"), true);
    assert_eq!(told(&c), [kernel]);
    assert!(c.locals.is_empty());
}

#[test]
fn the_default_table_is_looked_into_last() {
    let last = |dst| Route { table: TABLE_DEFAULT, ..route(dst, &[hop(2, None)]) };
    let c =
        run(&with([last("10.0.5.0/24"), last("11.0.0.0/8"), route("10.0.0.0/8", &[hop(1, None)])]));
    assert_eq!(at(&c, "10.0.5.5"), Some(to(10, None)));
    assert_eq!(at(&c, "11.0.5.5"), Some(to(20, None)));
    let other = Route { table: 100, ..route("12.0.0.0/8", &[hop(1, None)]) };
    assert_eq!(at(&run(&with([other])), "12.0.0.1"), None);
}

#[test]
fn the_lowest_metric_wins_and_equals_are_the_kernels() {
    let with_metric = |oif, priority| Route { priority, ..route("10.0.0.0/8", &[hop(oif, None)]) };
    let c = run(&with([with_metric(2, 20), with_metric(1, 10)]));
    assert_eq!(at(&c, "10.0.0.1"), Some(to(10, None)));
    // Of equal ones IPv4 takes the first.
    let c = run(&with([with_metric(2, 10), with_metric(1, 10)]));
    assert_eq!(at(&c, "10.0.0.1"), Some(to(20, None)));
    let metric6 = |oif| route("fd00::/64", &[hop(oif, None)]);
    let c = run(&with([metric6(1), metric6(2)]));
    assert_eq!(at(&c, "fd00::1"), Some(NextHop::Kernel));
    // The better one leads to what is not a port: the worse one must not be taken.
    let c = run(&with([with_metric(3, 10), with_metric(1, 20)]));
    assert_eq!(ours(at(&c, "10.0.0.1")), Some(NextHop::Kernel));
}

#[test]
fn what_only_the_kernel_can_follow() {
    let plain = || route("10.0.0.0/8", &[hop(1, None)]);
    let tunnel = Hop { encap: true, ..hop(1, None) };
    for (what, r) in [
        ("tos", Route { tos: 8, ..plain() }),
        ("blackhole", Route { kind: RouteKind::Other(6), hops: vec![], ..plain() }),
        ("throw", Route { kind: RouteKind::Throw, hops: vec![], ..plain() }),
        ("one not ours", route("10.0.0.0/8", &[hop(1, None), hop(3, None)])),
        ("tunnel", route("10.0.0.0/8", &[tunnel])),
        ("no port", route("10.0.0.0/8", &[hop(3, None)])),
        ("no such device", route("10.0.0.0/8", &[hop(9, None)])),
        ("expires", Route { expires: true, ..plain() }),
        ("unknown", Route { unknown: true, ..plain() }),
        ("no such object", Route { nexthop: Some(7), hops: vec![], ..plain() }),
    ] {
        let c = run(&with([r, route("0.0.0.0/0", &[hop(2, None)])]));
        assert_eq!(ours(at(&c, "10.0.0.1")), Some(NextHop::Kernel), "{what}");
        assert_eq!(at(&c, "11.0.0.1"), Some(to(20, None)), "{what}");
        let kernel = (prefix("10.0.0.0/8"), true);
        assert_eq!(told(&c), [kernel], "{what}");
    }
    // A TOS route beside one for any TOS.
    let c = run(&with([Route { tos: 8, ..plain() }, plain()]));
    assert_eq!(at(&c, "10.0.0.1"), Some(NextHop::Kernel));
    let by_source =
        Route { source: Some(prefix("fd01::/64")), ..route("fd00::/64", &[hop(1, None)]) };
    assert_eq!(at(&run(&with([by_source])), "fd00::1"), Some(NextHop::Kernel));
}

#[test]
fn a_link_without_carrier_or_with_a_master_is_not_used() {
    for change in [|l: &mut Link| l.carrier = false, |l: &mut Link| l.master = Some(IfIndex(3))] {
        let mut m = with([route("10.0.0.0/8", &[hop(1, None)])]);
        let on = Some(true);
        let scope = Scope::Device(IfIndex(1));
        let _ = m.apply(Event::Netconf(Netconf {
            family: Family::V4,
            scope,
            forwarding: on,
            rp_filter: None,
            ..Netconf::silent(Family::V4)
        }));
        let mut l = link(1, true);
        change(&mut l);
        let _ = m.apply(Event::Link(l.clone()));
        let c = run(&m);
        assert_eq!(ours(at(&c, "10.0.0.1")), Some(NextHop::Kernel));
        assert_eq!((c.ports[0].up, c.ports[0].enslaved), (false, l.master.is_some()));
        assert_eq!(c.ports[0].forward_v4, l.master.is_none());
    }
}

#[test]
fn next_hop_objects_are_followed() {
    let mut m = with([
        Route { nexthop: Some(5), ..route("10.0.0.0/8", &[]) },
        Route { nexthop: Some(6), ..route("11.0.0.0/8", &[]) },
    ]);
    let object = NextHopObject { id: 5, kind: NextHopKind::Hop(hop(1, Some("fe80::9"))) };
    let _ = m.apply(Event::NextHop(object));
    let _ = m.apply(Event::NextHop(NextHopObject { id: 6, kind: NextHopKind::Other }));
    let c = run(&m);
    assert_eq!(at(&c, "10.0.0.1"), Some(to(10, Some("fe80::9"))));
    assert_eq!(at(&c, "11.0.0.1"), Some(NextHop::Kernel));
}

#[test]
fn the_least_mtu_counts() {
    let with_mtu = |dst: &str, mtu| Route { mtu: Some(mtu), ..route(dst, &[hop(1, None)]) };
    let mut m = with([with_mtu("10.0.0.0/8", 1400), with_mtu("11.0.0.0/8", 9000)]);
    let _ = m.apply(add(route("fd00::/64", &[hop(1, None)])));
    let _ = m.apply(Event::Link(Link { mtu6: Some(1280), ..link(1, true) }));
    let c = run(&m);
    let mtu = |addr| match at(&c, addr) {
        Some(NextHop::Forward { mtu, .. }) => mtu,
        other => panic!("{other:?}"),
    };
    assert_eq!((mtu("10.0.0.1"), mtu("11.0.0.1"), mtu("fd00::1")), (1400, 1500, 1280));
}

/// Nobody's rules may take the time of all: they are not gone through, and where the
/// operator says that rules do not count there are the usual ones.
#[test]
fn more_rules_or_conditions_than_there_is_room_for() {
    let many = |n: u32, suppress: fn(u32) -> Option<u32>| {
        let mut m = with([route("10.0.0.0/8", &[hop(1, None)])]);
        for i in 0..n {
            let Event::Rule(more) = rule(Family::V4, 100 + i, 1000 + i % 9) else { unreachable!() };
            let suppress = Suppress { prefixlen: suppress(i), ifgroup: None };
            let _ = m.apply(Event::Rule(Rule { suppress, ..more }));
        }
        m
    };
    for m in [many(1001, |_| None), many(9, Some)] {
        let c = run(&m);
        assert!(c.stays_with_kernel_v4.as_ref().unwrap().contains("more policy rules"));
        assert!(c.v4.is_empty() && c.policy_v4.is_none());
        let source = Source { mirror: &m, bypass: &[Bypass::Rules], ports: &PORTS };
        let c = compile(source);
        assert!(c.stays_with_kernel_v4.is_none() && c.policy_v4.is_none() && !c.v4.is_empty());
    }
    assert!(run(&many(8, Some)).policy_v4.is_some());
}

#[test]
fn a_rule_that_is_not_known_keeps_the_family_with_the_kernel() {
    let mut m = with([route("10.0.0.0/8", &[hop(1, None)]), route("fd00::/64", &[hop(1, None)])]);
    for family in [Family::V4, Family::V6] {
        let scope = if family == Family::V4 { Scope::Device(IfIndex(1)) } else { Scope::All };
        let _ = m.apply(Event::Netconf(Netconf {
            family,
            scope,
            forwarding: Some(true),
            rp_filter: Some(1),
            ..Netconf::silent(family)
        }));
    }
    let address = Address { ifindex: IfIndex(1), prefix: prefix("fd00::1/64") };
    let _ = m.apply(Event::Address(address));
    let c = run(&m);
    assert!(c.ports[0].forward_v4 && c.ports[0].forward_v6 && !c.ports[1].forward_v4);
    assert_eq!((c.ports[0].rp_filter, c.ports[1].rp_filter), (RpFilter::Strict, RpFilter::Off));

    let Event::Rule(odd) = rule(Family::V4, 100, 42) else { unreachable!() };
    let odd = Rule { unknown: Some("users"), ..odd };
    let _ = m.apply(Event::Rule(odd.clone()));
    let c = run(&m);
    assert!(c.stays_with_kernel_v4.as_ref().unwrap().contains("100"));
    assert!(!c.ports[0].forward_v4 && c.ports[0].forward_v6);
    assert!(c.v4.is_empty() && !c.v6.is_empty());

    let Event::Rule(main) = rule(Family::V6, 32766, TABLE_MAIN) else { unreachable!() };
    let _ = m.apply(Event::RuleGone(odd));
    let _ = m.apply(Event::RuleGone(main));
    let c = run(&m);
    assert_eq!(c.stays_with_kernel_v4, None);
    assert_eq!((c.stays_with_kernel_v6, c.v6.len()), (None, 0), "no rule leads to main");
    let _ = m.apply(Event::Unreadable(Family::V4));
    assert!(run(&m).stays_with_kernel_v4.is_some());
}

#[test]
fn ipv6_needs_ipv6_on_the_device() {
    let mut m = base();
    let on = Netconf {
        family: Family::V6,
        scope: Scope::All,
        forwarding: Some(true),
        rp_filter: None,
        ..Netconf::silent(Family::V6)
    };
    let _ = m.apply(Event::Netconf(on));
    assert!(!run(&m).ports[0].forward_v6);
}

#[test]
fn ours_inside_the_kernels_inside_ours() {
    let m = with([
        route("0.0.0.0/0", &[hop(1, None)]),
        route("10.0.0.0/8", &[hop(3, None)]),
        route("10.1.0.0/16", &[hop(3, None)]),
        route("10.1.1.0/24", &[hop(2, None)]),
        route("10.1.1.128/25", &[hop(1, None)]),
        local("10.1.1.1", 2),
    ]);
    let is = |p: &str, kernel| (prefix(p), kernel);
    assert_eq!(told(&run(&m)), [is("10.0.0.0/8", true), is("10.1.1.0/24", false)]);
}

/// What the kernel does, told as plainly as possible: each table in turn, in it
/// from the longest prefix to the shortest, in that the routes that match the
/// packet (TOS 0) by metric, the first that lives.
fn kernel(m: &Mirror, addr: u32) -> Option<NextHop> {
    for table in [TABLE_LOCAL, TABLE_MAIN, TABLE_DEFAULT] {
        let mut all: Vec<Route> = m.routes.of(table, Family::V4).collect();
        all.retain(|r| {
            let IpAddr::V4(net) = r.dst.addr else { return false };
            r.dst.len == 0 || (net.to_bits() ^ addr) >> (32 - r.dst.len) == 0
        });
        all.sort_by_key(|r| (std::cmp::Reverse(r.dst.len), r.priority));
        let lives = |r: &&Route| {
            r.tos == 0
                && r.hops.iter().any(|h| h.oif.is_some_and(|i| m.links[&i].up)) | r.hops.is_empty()
        };
        match all.iter().find(lives) {
            None => {}
            Some(r) if r.kind == RouteKind::Throw => {}
            Some(r) => {
                return Some(match (r.kind, r.hops.as_slice()) {
                    (RouteKind::Unicast, [h]) => match h.oif {
                        Some(IfIndex(1)) => {
                            NextHop::Forward { port: PortId(10), gateway: h.gateway, mtu: 1500 }
                        }
                        Some(IfIndex(2)) => {
                            NextHop::Forward { port: PortId(20), gateway: h.gateway, mtu: 1500 }
                        }
                        _ => NextHop::Kernel,
                    },
                    _ => NextHop::Kernel,
                });
            }
        }
    }
    None
}

fn any_route(odd: bool) -> impl Strategy<Value = Route> {
    let table = prop::sample::select(vec![TABLE_LOCAL, TABLE_MAIN, TABLE_MAIN, TABLE_DEFAULT]);
    let kinds = if odd { 10 } else { 7 };
    (table, 0_u32..64, 26_u8..=32, 0..kinds, 1_u32..4, any::<bool>(), 0_u32..3, any::<bool>())
        .prop_map(|(table, low, len, kind, oif, gateway, priority, tos)| {
            let net = (0x0a00_0000 | low) & (u32::MAX << (32 - len));
            let dst = format!("{}/{len}", std::net::Ipv4Addr::from_bits(net));
            let mut r = route(&dst, &[hop(oif, gateway.then_some("10.9.9.9"))]);
            (r.table, r.priority) = (table, priority);
            if table == TABLE_LOCAL {
                r.kind = RouteKind::Local;
            }
            match kind {
                6 => (r.kind, r.hops) = (RouteKind::Other(6), vec![]),
                7 => (r.kind, r.hops) = (RouteKind::Throw, vec![]),
                8 => r.tos = if tos { 8 } else { 0 },
                9 => r.hops = vec![hop(1, None), hop(3, None)],
                _ => {}
            }
            r
        })
}

/// Two routes, and forwarding on.
pub(super) fn forwarding() -> Mirror {
    let mut m = with([
        route("10.0.0.0/24", &[hop(1, None)]),
        route("10.1.0.0/24", &[hop(2, None)]),
        route("fd00::/64", &[hop(1, None)]),
    ]);
    for (family, scope) in [
        (Family::V4, Scope::Device(IfIndex(1))),
        (Family::V4, Scope::Device(IfIndex(2))),
        (Family::V6, Scope::All),
    ] {
        let on = Netconf {
            family,
            scope,
            forwarding: Some(true),
            rp_filter: None,
            ..Netconf::silent(family)
        };
        assert!(m.apply(Event::Netconf(on)).netconf);
    }
    for i in [1, 2] {
        let address = Address { ifindex: IfIndex(i), prefix: prefix("fd00::1/64") };
        assert!(m.apply(Event::Address(address)).addresses);
    }
    m
}

#[test]
fn a_hook_leaves_its_family_to_the_kernel() {
    let mut m = forwarding();
    let name = "nftables chain ip t/c".to_owned();
    let hook = Hook { family: Some(Family::V4), name, on_device: false };
    assert!(m.apply(Event::Hooks(HookSource::Nftables, vec![hook.clone()])).hooks);
    let c = run(&m);
    assert_eq!(c.stays_with_kernel_v4.as_deref(), Some("nftables chain ip t/c"));
    assert_eq!(c.stays_with_kernel_v6, None);
    assert!(c.v4.is_empty() && !c.v6.is_empty());
    assert!(c.ports.iter().all(|p| !p.forward_v4 && p.forward_v6));
    let both = Hook { family: None, ..hook };
    assert!(m.apply(Event::Hooks(HookSource::Nftables, vec![both])).hooks);
    assert!(run(&m).ports.iter().all(|p| !p.forward_v4 && !p.forward_v6));
    assert!(m.apply(Event::Hooks(HookSource::Nftables, Vec::new())).hooks);
    assert_eq!(run(&m), run(&forwarding()));
}

#[test]
fn traffic_control_leaves_a_device_to_the_kernel() {
    let lead = |m: &Mirror| {
        let c = run(m);
        let arrives: Vec<bool> = c.ports.iter().map(|p| p.forward_v4 && p.forward_v6).collect();
        let leaves = ["10.0.0.7", "10.1.0.7"].map(|a| at(&c, a).unwrap().is_ours());
        (arrives, leaves)
    };
    let set = |parent, kind: &str| {
        let mut m = forwarding();
        let qdisc = Qdisc { ifindex: IfIndex(2), parent, kind: kind.to_owned() };
        let _ = m.apply(Event::Qdisc(qdisc));
        m
    };
    assert_eq!(lead(&forwarding()), (vec![true, true], [true, true]));
    assert_eq!(lead(&set(ROOT, "mq")), (vec![true, true], [true, true]));
    assert_eq!(lead(&set(ROOT, "tbf")), (vec![true, true], [true, false]));
    assert_eq!(lead(&set(INGRESS, "ingress")), (vec![true, false], [true, true]));
    assert_eq!(lead(&set(INGRESS, "clsact")), (vec![true, false], [true, false]));
}

proptest! {
    /// Whatever the routes: where we forward, the kernel would have forwarded the
    /// same way, and the XDP program passes exactly what is the kernel's.
    #[test]
    fn forwards_only_what_the_kernel_would(routes in prop::collection::vec(any_route(true), 0..20)) {
        let m = with(routes);
        let c = run(&m);
        for addr in 0x0a00_0000_u32..0x0a00_0040 {
            let ip = IpAddr::from(addr.to_be_bytes());
            let ours = ours(lookup(&c, ip));
            match ours {
                Some(NextHop::Forward { .. }) => prop_assert_eq!(ours, kernel(&m, addr)),
                Some(_) => {}
                None => prop_assert_eq!(kernel(&m, addr), None),
            }
            let longest = c.kernel_routes.iter().filter(|k| match k.0.addr {
                IpAddr::V4(net) => k.0.len == 0 || (net.to_bits() ^ addr) >> (32 - k.0.len) == 0,
                IpAddr::V6(_) => false,
            });
            let passes = longest.max_by_key(|k| k.0.len).is_some_and(|k| *k.1);
            prop_assert_eq!(c.locals.contains(&ip) || passes, ours == Some(NextHop::Kernel));
        }
    }

    /// And where the routes are ordinary ones, we forward all that it would.
    #[test]
    fn forwards_all_that_is_ordinary(routes in prop::collection::vec(any_route(false), 0..20)) {
        let mut seen = BTreeSet::new();
        let routes = routes.into_iter().filter(|r| seen.insert((r.table, r.dst, r.priority)));
        let m = with(routes.collect::<Vec<_>>());
        let c = run(&m);
        for addr in 0x0a00_0000_u32..0x0a00_0040 {
            prop_assert_eq!(ours(lookup(&c, IpAddr::from(addr.to_be_bytes()))), kernel(&m, addr));
        }
    }
}

mod dead;
mod kept;
mod neighbors;
