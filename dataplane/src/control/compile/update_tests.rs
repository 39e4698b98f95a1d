//! Compiling by parts against compiling whole: after any change the result is the same.

use proptest::prelude::*;

use super::super::mirror::tests::{hop, link, local, prefix, route};
use super::tests::{PORTS, add, forwarding};
use super::*;
use crate::control::mirror::Dirty;
use crate::id::Mac;
use crate::netlink::{
    Address, Event, Hook, HookSource, Hop, Insert, Link, Neighbor, Netconf, NextHopKind,
    NextHopObject, Number, Qdisc, ROOT, Route, RouteKind, Rule, RuleAction, Scope, Selector,
    Switch, Tcx,
};
use crate::tables::policy::Action;

/// A change of any kind that there is.
fn change() -> impl Strategy<Value = Event> {
    let dsts = vec!["10.0.0.0/24", "10.2.0.0/16", "0.0.0.0/0", "fd00:1::/64", "::/0"];
    let route = (prop::sample::select(dsts), 1_u32..4, 0_u32..3).prop_map(|(dst, oif, via)| {
        let gateway = format!("10.{oif}.0.{}", via + 1);
        let gateway6 = format!("fd00:{oif}::{}", via + 1);
        let via = if dst.contains(':') { gateway6 } else { gateway };
        super::super::mirror::tests::route(dst, &[hop(oif, Some(&via))])
    });
    let neighbor = (1_u32..4, 0_u8..3, any::<bool>()).prop_map(|(oif, n, stale)| Neighbor {
        ifindex: IfIndex(oif),
        addr: IpAddr::from([10, 0, 0, n]),
        mac: Some(Mac([2, 0, 0, 0, 1, n])),
        state: if stale { 4 } else { 2 },
    });
    let hook = Hook { family: Some(Family::V4), name: "a hook".to_owned(), on_device: false };
    prop_oneof![
        4 => route.clone().prop_map(|r| Event::Route(r, Insert::Replace)),
        2 => route.prop_map(Event::RouteGone),
        4 => neighbor.prop_map(Event::Neighbor),
        1 => (1_u32..4, 0_u8..3).prop_map(|(i, n)| Event::NeighborGone(IfIndex(i), [10, 0, 0, n].into())),
        1 => (1_u32..4, any::<bool>()).prop_map(|(i, up)| Event::Link(link(i, up))),
        1 => (1_u32..4).prop_map(|i| add(local(&format!("10.{i}.0.99"), i))),
        1 => (1_u32..4, any::<bool>()).prop_map(|(i, on)| Event::Netconf(Netconf {
            family: Family::V4,
            scope: Scope::Device(IfIndex(i)),
            forwarding: Some(on),
            rp_filter: Some(u8::from(on)),
            ..Netconf::silent(Family::V4)
        })),
        1 => any::<bool>().prop_map(|on| Event::Netconf(Netconf {
            proxy_neigh: Some(on),
            ..Netconf::silent(Family::V6)
        })),
        1 => any::<bool>().prop_map(|on| Event::Switch(Switch::Redirects, on)),
        1 => (1_u32..4, any::<bool>()).prop_map(|(i, egress)| {
            Event::Tcx(vec![Tcx { ifindex: IfIndex(i), ingress: !egress, egress }])
        }),
        1 => (1_u32..4).prop_map(|i| {
            Event::Address(Address { ifindex: IfIndex(i), prefix: prefix("10.7.0.1/24") })
        }),
        1 => any::<bool>().prop_map(|on| {
            let route = Route { dst: prefix("10.8.0.0/16"), ..local("10.8.0.0", 3) };
            if on { add(route) } else { Event::RouteGone(route) }
        }),
        1 => any::<bool>().prop_map(move |on| {
            Event::Hooks(HookSource::Nftables, if on { vec![hook.clone()] } else { Vec::new() })
        }),
        1 => (1_u32..4, any::<bool>()).prop_map(|(i, limits)| Event::Qdisc(Qdisc {
            ifindex: IfIndex(i),
            parent: ROOT,
            kind: if limits { "tbf" } else { "fq" }.to_owned(),
        })),
        2 => (0_u32..3, 1_u32..4, any::<bool>()).prop_map(|(what, priority, gone)| {
            let rule = Rule::to_table(Family::V4, priority, 100);
            let selector = Selector { tos: (8, 8), ..Selector::default() };
            let rule = match what {
                0 => rule,
                1 => Rule { selector, ..rule },
                _ => Rule { selector, action: RuleAction::Refuse, ..rule },
            };
            if gone { Event::RuleGone(rule) } else { Event::Rule(rule) }
        }),
        2 => (1_u16..3, 1_u32..4).prop_map(|(weight, other)| {
            let hops = [Hop { weight, ..hop(1, None) }, hop(other, None)];
            Event::Route(Route { table: 100, ..super::super::mirror::tests::route("10.3.0.0/16", &hops) }, Insert::Replace)
        }),
        1 => (0_u32..4).prop_map(|policy| Event::Number(Number::HashPolicyV4, policy)),
        1 => (1_u32..4, 1400_u32..1403).prop_map(|(i, mtu)| {
            Event::Link(Link { mtu, ..link(i, true) })
        }),
        1 => (1_u32..4).prop_map(|i| Event::LinkGone(IfIndex(i))),
        1 => (1_u32..4).prop_map(|i| {
            Event::AddressGone(Address { ifindex: IfIndex(i), prefix: prefix("10.7.0.1/24") })
        }),
        3 => object(),
        3 => by_object(),
        1 => Just(Event::Overrun),
    ]
}

/// A next-hop object, or a group of them, comes, changes or goes.
fn object() -> impl Strategy<Value = Event> {
    (1_u32..4, 1_u32..4, 0_u32..3, 0_u32..5).prop_map(|(id, oif, via, what)| {
        let kind = match what {
            0 => return Event::NextHopGone(id),
            1 => NextHopKind::Blackhole,
            2 => NextHopKind::Group([(1, 1), (2, 1 + via as u16)].into()),
            _ => NextHopKind::Hop(hop(oif, Some(&format!("10.{oif}.0.{}", via + 1)))),
        };
        Event::NextHop(NextHopObject { id, kind })
    })
}

/// A route that leads to an object, or the same way as one may without it.
fn by_object() -> impl Strategy<Value = Event> {
    let dsts = vec!["10.2.0.0/16", "10.2.3.0/24", "10.2.4.0/24", "10.2.3.4/32", "fd00:1::/64"];
    (prop::sample::select(dsts), 0_u32..4).prop_map(|(dst, id)| match id {
        0 => add(route(dst, &[hop(1, Some("10.1.0.1"))])),
        id => Event::Route(Route { nexthop: Some(id), ..route(dst, &[]) }, Insert::Replace),
    })
}

/// With next hops written out, whose numbers may differ.
fn resolved(c: &Compiled) -> (Compiled, Vec<(NextHop, u8, Option<Group>)>) {
    let apart = c.policy_v4.iter().flat_map(|p| &p.tables).flat_map(|(_, t)| t);
    let hops = c.v4.sorted().map(|r| r.2).chain(apart.map(|r| r.2));
    let apart = c.policy_v6.iter().flat_map(|p| &p.tables).flat_map(|(_, t)| t);
    let hops = hops.chain(c.v6.sorted().map(|r| r.2)).chain(apart.map(|r| r.2));
    let resolve = |i: u32| {
        let (next_hop, met) = (c.next_hops[i as usize], c.suppressed[i as usize]);
        match next_hop {
            NextHop::Group(g) => (NextHop::Group(0), met, Some(c.groups[g as usize].clone())),
            other => (other, met, None),
        }
    };
    let hops = hops.map(resolve).collect();
    let mut rest = c.clone();
    rest.next_hops.clear();
    rest.suppressed.clear();
    rest.groups.clear();
    rest.used = 0;
    (rest.v4_state.classes, rest.v6_state.classes) = Default::default();
    for rule in rest.policy_v4.iter_mut().flat_map(|p| &mut p.rules) {
        if let Action::Refuse(index) = &mut rule.action {
            *index = 0;
        }
    }
    let tables = rest.policy_v4.iter_mut().flat_map(|p| &mut p.tables);
    tables.for_each(|(_, t)| t.iter_mut().for_each(|r| r.2 = 0));
    rest.v4 = c.v4.iter().map(|r| (r.0, r.1, 0)).collect();
    rest.v6 = c.v6.iter().map(|r| (r.0, r.1, 0)).collect();
    (rest, hops)
}

/// Without the ledger, in which more is told than what is forwarded by.
fn tables(c: &Compiled) -> (Compiled, Vec<(NextHop, u8, Option<Group>)>) {
    let (rest, hops) = resolved(c);
    let (v4_state, v6_state) = Default::default();
    (Compiled { ledger: Ledger::default(), v4_state, v6_state, ..rest }, hops)
}

fn source(mirror: &Mirror) -> Source<'_> {
    Source { mirror, bypass: &[], ports: &PORTS }
}

proptest! {
    #[test]
    fn by_parts_as_whole(changes in prop::collection::vec(change(), 1..40)) {
        let mut mirror = forwarding();
        let mut parts = compile(source(&mirror));
        for event in changes {
            let before = tables(&parts);
            let dirty: Dirty = mirror.apply(event.clone());
            let changed = parts.update(source(&mirror), dirty.into());
            prop_assert_eq!(resolved(&parts), resolved(&compile(source(&mirror))), "{:?}", event);
            prop_assert!(changed.any() || tables(&parts) == before, "{:?} is not told of", event);
        }
    }
}

/// A change of a route, in tables that hide each other, of prefixes inside of each other.
fn route_change() -> impl Strategy<Value = Event> {
    let dsts = vec![
        "0.0.0.0/0",
        "10.2.0.0/16",
        "10.2.3.0/24",
        "10.2.3.4/32",
        "10.2.3.5/32",
        "10.9.0.0/16",
        "127.0.5.0/24",
        "::/0",
        "fd00:1::/64",
        "fd00:1::7/128",
        "fe80::/64",
    ];
    let kinds = vec![RouteKind::Unicast, RouteKind::Unicast, RouteKind::Other(6), RouteKind::Throw];
    let tables = vec![254, 254, 254, 254, 254, 254, 253, 255, 100];
    let all = (
        prop::sample::select(dsts),
        prop::sample::select(kinds),
        prop::sample::select(tables),
        // The third device is no port.
        1_u32..4,
        0_u32..2,
        any::<bool>(),
    );
    all.prop_map(|(dst, kind, table, oif, priority, gone)| {
        let route = Route { kind, table, priority, ..route(dst, &[hop(oif, None)]) };
        if gone { Event::RouteGone(route) } else { Event::Route(route, Insert::Replace) }
    })
}

proptest! {
    #[test]
    fn prefix_by_prefix_as_whole(
        changes in prop::collection::vec((prop_oneof![2 => route_change(), 1 => change()], any::<bool>()), 1..60)
    ) {
        let mut mirror = forwarding();
        let mut parts = compile(source(&mirror));
        let (mut what, mut touched) = (Which::default(), Touched::default());
        for (event, now) in changes {
            let named = Touched::named_by(&event);
            let dirty = mirror.apply(event.clone());
            what = what.and(touched.note(named, dirty, &mut mirror).into());
            // Several together, as they come.
            if now {
                let before = tables(&parts);
                let touched = std::mem::take(&mut touched);
                let changed = parts.update_prefixes(source(&mirror), std::mem::take(&mut what), touched);
                prop_assert_eq!(resolved(&parts), resolved(&compile(source(&mirror))), "{:?}", event);
                prop_assert!(changed.any() || tables(&parts) == before, "{:?} is not told of", event);
            }
        }
    }
}

#[test]
fn a_changed_prefix_is_all_that_is_looked_at() {
    let mut mirror = forwarding();
    for n in 0..2000_u32 {
        let dst = format!("20.{}.{}.0/24", n / 256, n % 256);
        let _ = mirror.apply(add(route(&dst, &[hop(1, None)])));
    }
    let mut parts = compile(source(&mirror));
    // Were others looked at, this would be seen.
    let _ = mirror.apply(add(route("20.0.1.0/24", &[hop(2, None)])));
    let one = add(route("20.0.0.0/24", &[hop(2, None)]));
    let mut touched = Touched::default();
    let named = Touched::named_by(&one);
    let dirty = mirror.apply(one);
    assert!(!touched.note(named, dirty, &mut mirror).any());
    let changed = parts.update_prefixes(source(&mirror), Which::default(), touched);
    assert_eq!(changed, Which { v4: true, ..Which::default() });
    let hop = |dst: [u8; 4]| parts.next_hops[parts.v4.get(dst.into(), 24).unwrap() as usize];
    assert_ne!(hop([20, 0, 0, 0]), hop([20, 0, 1, 0]));
}

#[test]
fn what_all_routes_lead_to_changes_without_a_look_at_them() {
    let mut mirror = forwarding();
    let object = |via: &str| {
        Event::NextHop(NextHopObject { id: 7, kind: NextHopKind::Hop(hop(1, Some(via))) })
    };
    let _ = mirror.apply(object("10.1.0.1"));
    for n in 0..2000_u32 {
        let dst = format!("20.{}.{}.0/24", n / 256, n % 256);
        let _ = mirror.apply(add(Route { nexthop: Some(7), ..route(&dst, &[]) }));
    }
    let mut parts = compile(source(&mirror));
    for via in ["10.1.0.2", "10.1.0.3"] {
        let before = parts.v4.clone();
        let dirty = mirror.apply(object(via));
        let changed = parts.update(source(&mirror), dirty.into());
        assert_eq!(changed, Which { ways: true, ..Which::default() });
        assert!(parts.v4 == before, "numbers are as they were");
        assert_eq!(resolved(&parts), resolved(&compile(source(&mirror))));
    }
    // And where they do not all: one that leads the same way by itself.
    let _ = mirror.apply(add(route("30.0.0.0/24", &[hop(1, Some("10.1.0.3"))])));
    let mut parts = compile(source(&mirror));
    for via in ["10.1.0.4", "10.1.0.3", "10.1.0.5"] {
        let dirty = mirror.apply(object(via));
        let _ = parts.update(source(&mirror), dirty.into());
        assert_eq!(resolved(&parts), resolved(&compile(source(&mirror))));
    }
}

#[test]
fn an_address_is_local_without_a_look_at_other_routes() {
    let mut mirror = forwarding();
    for dst in ["10.5.0.1/32", "10.5.0.0/24"] {
        let _ = mirror.apply(add(route(dst, &[hop(1, None)])));
    }
    let mut parts = compile(source(&mirror));
    // Were another looked at, this would be seen.
    let _ = mirror.apply(add(route("10.5.0.0/24", &[hop(2, None)])));
    let address = local("10.5.0.1", 1);
    for event in [add(address.clone()), Event::RouteGone(address)] {
        let (mut touched, named) = (Touched::default(), Touched::named_by(&event));
        let here = matches!(event, Event::Route(..));
        let dirty = mirror.apply(event);
        let rest = touched.note(named, dirty, &mut mirror);
        let changed = parts.update_prefixes(source(&mirror), rest.into(), touched);
        assert!(changed.v4 && changed.maps);
        assert_eq!(parts.locals.contains(&IpAddr::from([10, 5, 0, 1])), here);
        let hop =
            |dst: [u8; 4], len| parts.next_hops[parts.v4.get(dst.into(), len).unwrap() as usize];
        assert_eq!(hop([10, 5, 0, 1], 32).is_ours(), !here, "hidden by the local one");
        let NextHop::Forward { port, .. } = hop([10, 5, 0, 0], 24) else { panic!("not ours") };
        assert_eq!(port, PORTS[0].0);
    }
}

#[test]
fn next_hops_of_routes_that_are_gone_do_not_pile_up() {
    let mut mirror = forwarding();
    let mut parts = compile(source(&mirror));
    for n in 0..10 * UNUSED {
        let via = format!("10.1.{}.{}", n / 250, n % 250 + 1);
        let dirty = mirror
            .apply(Event::Route(route("10.9.0.0/16", &[hop(1, Some(&via))]), Insert::Replace));
        let _ = parts.update(source(&mirror), dirty.into());
        assert!(parts.next_hops.len() <= 3 * UNUSED, "{}", parts.next_hops.len());
    }
    assert_eq!(resolved(&parts), resolved(&compile(source(&mirror))));
}

#[test]
fn groups_that_nothing_leads_to_any_more_do_not_pile_up() {
    let mut mirror = forwarding();
    for (id, oif) in [(1, 1), (2, 2)] {
        let via = format!("10.{oif}.0.1");
        let kind = NextHopKind::Hop(hop(oif, Some(&via)));
        let _ = mirror.apply(Event::NextHop(NextHopObject { id, kind }));
    }
    let group = |weight| {
        let kind = NextHopKind::Group([(1, 1), (2, weight)].into());
        Event::NextHop(NextHopObject { id: 3, kind })
    };
    let _ = mirror.apply(group(1));
    let _ = mirror.apply(add(Route { nexthop: Some(3), ..route("10.9.0.0/16", &[]) }));
    let mut parts = compile(source(&mirror));
    for weight in 0..4 * UNUSED as u16 {
        let dirty = mirror.apply(group(weight + 2));
        let _ = parts.update(source(&mirror), dirty.into());
        assert!(parts.groups.len() <= 3 * UNUSED, "{}", parts.groups.len());
    }
    assert_eq!(resolved(&parts), resolved(&compile(source(&mirror))));
}
