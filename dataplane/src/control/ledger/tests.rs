use super::*;
use crate::control::mirror::tests::{hop, link, local, prefix, route};
use crate::netlink::{
    self, Event, Hook, HookSource, INGRESS, Insert, Link, LinkKind, Netconf, Qdisc, ROOT, Route,
    RouteKind, Rule, Switch, Tcx,
};

/// Two devices up that forward both families; the rules of a new namespace.
fn router() -> Mirror {
    let mut events: Vec<Event> = (1..3).map(|i| Event::Link(link(i, true))).collect();
    for family in [Family::V4, Family::V6] {
        events.extend(default_rules(family).iter().map(|(p, t)| rule(family, *p, *t, true)));
        for scope in [netlink::Scope::All, device(1), device(2)] {
            events.push(set(family, scope, |n| n.forwarding = Some(true)));
        }
    }
    Mirror::from_dump(events)
}

fn device(index: u32) -> netlink::Scope {
    netlink::Scope::Device(IfIndex(index))
}

fn rule(family: Family, priority: u32, table: u32, known: bool) -> Event {
    let unknown = (!known).then_some("users");
    Event::Rule(Rule { unknown, ..Rule::to_table(family, priority, table) })
}

fn set(family: Family, scope: netlink::Scope, what: fn(&mut Netconf)) -> Event {
    let mut n = Netconf { scope, ..Netconf::silent(family) };
    what(&mut n);
    Event::Netconf(n)
}

fn hooks(source: HookSource, family: Option<Family>) -> Event {
    Event::Hooks(source, vec![Hook { family, name: "a hook".to_owned(), on_device: false }])
}

fn qdisc(parent: u32, kind: &str) -> Event {
    Event::Qdisc(Qdisc { ifindex: IfIndex(1), parent, kind: kind.to_owned() })
}

/// The router after these events.
fn with(events: Vec<Event>) -> Mirror {
    let mut m = router();
    for event in events {
        assert!(m.apply(event).any());
    }
    m
}

/// What a test says of an item: it is found after the events, and keeps these with
/// the kernel: families whole, then of device 1 what arrives (by family) and leaves.
struct Case {
    item: &'static str,
    events: Vec<Event>,
    stays: [bool; 2],
    arriving: [bool; 2],
    leaving: bool,
}

fn whole(item: &'static str, events: Vec<Event>, stays: [bool; 2]) -> Case {
    Case { item, events, stays, arriving: [false; 2], leaving: false }
}

fn part(item: &'static str, events: Vec<Event>, arriving: [bool; 2], leaving: bool) -> Case {
    Case { item, events, stays: [false; 2], arriving, leaving }
}

fn cases() -> Vec<Case> {
    let (v4, v6, both) = ([true, false], [false, true], [true, true]);
    let (only_v4, none) = (Some(Family::V4), [false, false]);
    let ipvlan = Link {
        kind: LinkKind::Other("ipvlan".to_owned()),
        peer: Some(IfIndex(1)),
        ..link(3, true)
    };
    let member = Link { master: Some(IfIndex(9)), ..link(1, true) };
    let local_prefix = Route { dst: prefix("10.9.0.0/16"), ..local("10.9.0.0", 1) };
    let tcx = Tcx { ifindex: IfIndex(1), ingress: true, egress: false };
    let all = netlink::Scope::All;
    vec![
        // Until all of it is read again.
        whole("unreadable", vec![Event::Unreadable(Family::V6)], both),
        whole("rules", vec![rule(Family::V4, 100, 254, false)], v4),
        whole("rules", vec![rule(Family::V6, 100, 7, false)], v6),
        whole("policy", vec![rule(Family::V6, 100, 7, true)], [false; 2]),
        whole("netfilter", vec![hooks(HookSource::Nftables, None)], both),
        whole("netfilter", vec![hooks(HookSource::Iptables, only_v4)], v4),
        whole("netfilter", vec![hooks(HookSource::Bpf, only_v4)], v4),
        whole("conntrack", vec![hooks(HookSource::Conntrack, None)], both),
        whole("conntrack", vec![hooks(HookSource::Conntrack, only_v4)], v4),
        whole("ipvs", vec![hooks(HookSource::Ipvs, None)], both),
        whole("xfrm", vec![hooks(HookSource::Xfrm, only_v4)], v4),
        whole("redirects", vec![Event::Switch(Switch::Redirects, true)], v4),
        whole("redirects", vec![set(Family::V6, device(2), |n| n.forwarding = Some(false))], v6),
        whole("pmtu", vec![Event::Switch(Switch::ForwardUsePmtu, true)], v4),
        whole("proxy-ndp", vec![set(Family::V6, all, |n| n.proxy_neigh = Some(true))], v6),
        whole("local-prefixes", vec![Event::Route(local_prefix, Insert::First)], v4),
        whole("quiet-routes", vec![Event::Switch(Switch::QuietRoutes, true)], v6),
        part(
            "forwarding",
            vec![set(Family::V4, device(1), |n| n.forwarding = Some(false))],
            none,
            false,
        ),
        part("rp-filter", vec![set(Family::V4, all, |n| n.rp_filter = Some(1))], none, false),
        part("master", vec![Event::Link(member)], both, true),
        part("shared-mac", vec![Event::Link(ipvlan)], both, false),
        part("tc", vec![qdisc(INGRESS, "clsact")], both, true),
        part("tc", vec![qdisc(INGRESS, "ingress")], both, false),
        part("tcx", vec![Event::Tcx(vec![tcx])], both, false),
        part("shaping", vec![qdisc(ROOT, "tbf")], none, true),
        part(
            "multicast",
            vec![set(Family::V4, all, |n| n.mc_forwarding = Some(true))],
            none,
            false,
        ),
        part(
            "proxy-arp",
            vec![set(Family::V4, device(1), |n| n.proxy_neigh = Some(true))],
            none,
            false,
        ),
    ]
}

/// Families whole, what arrives at device 1 by family, what leaves by it.
fn kept(ledger: &Ledger) -> ([bool; 2], [bool; 2], bool) {
    let families = [Family::V4, Family::V6];
    let one = IfIndex(1);
    (
        families.map(|f| ledger.stays(f).is_some()),
        families.map(|f| ledger.keeps_arriving(one, f)),
        ledger.keeps_leaving(one),
    )
}

#[test]
fn a_plain_router_uses_nothing() {
    assert_eq!(judge(&router(), &[]).entries, []);
    assert_eq!(kept(&judge(&router(), &[])), ([false; 2], [false; 2], false));
}

#[test]
fn each_item_keeps_what_it_concerns() {
    for case in cases() {
        let ledger = judge(&with(case.events), &[]);
        let found: Vec<&str> = ledger.entries.iter().map(|e| e.item.name).collect();
        assert!(found.iter().all(|i| *i == case.item) && !found.is_empty(), "{found:?}");
        assert_eq!(kept(&ledger), (case.stays, case.arriving, case.leaving), "{}", case.item);
    }
}

#[test]
fn what_may_be_bypassed_keeps_nothing_then() {
    for case in cases() {
        let item = item(case.item).unwrap();
        let m = with(case.events);
        for bypass in <Bypass as clap::ValueEnum>::value_variants() {
            let ledger = judge(&m, &[*bypass]);
            let bypassed = item.bypass.is_some_and(|b| bypass.covers(b));
            assert!(ledger.entries.iter().all(|e| e.bypassed == bypassed), "{}", item.name);
            assert_eq!(ledger.entries.len(), judge(&m, &[]).entries.len(), "still shown");
            if bypassed {
                assert_eq!(kept(&ledger), ([false; 2], [false; 2], false), "{}", item.name);
                assert!(ledger.entries.iter().all(|e| e.status() == "bypassed"));
            } else {
                assert_eq!(kept(&ledger), kept(&judge(&m, &[])), "{}", item.name);
            }
        }
    }
}

/// Of each item that a mirror can show there is a case above; a bypass means items.
#[test]
fn nothing_is_left_out() {
    // Found by compile, route by route, or nowhere to be seen.
    let routes = |i: &Item| i.scope == Scope::Routes;
    let always = ["force-forwarding", "local", "scoped", "options", "ttl", "not-ip"];
    let always = |i: &Item| always.contains(&i.name);
    for item in ITEMS.iter().filter(|i| i.status == Status::Kernel && !routes(i) && !always(i)) {
        assert!(cases().iter().any(|c| c.item == item.name), "{item:?}");
    }
    for bypass in <Bypass as clap::ValueEnum>::value_variants() {
        assert!(ITEMS.iter().any(|i| i.bypass == Some(*bypass)), "{bypass:?}");
    }
    let mut names: Vec<&str> = ITEMS.iter().map(|i| i.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), ITEMS.len());
    assert!(ITEMS.iter().all(|i| !i.what.is_empty() && !i.reason.is_empty()));
}

/// Tracking is netfilter's, but not the other way round.
#[test]
fn who_passes_netfilter_by_passes_tracking_by() {
    let both = || vec![hooks(HookSource::Nftables, None), hooks(HookSource::Conntrack, None)];
    let kept_by = |bypass: &[Bypass]| {
        let ledger = judge(&with(both()), bypass);
        ledger.entries.iter().filter(|e| e.binds()).map(|e| e.item.name).collect::<Vec<_>>()
    };
    assert_eq!(kept_by(&[Bypass::Netfilter]), Vec::<&str>::new());
    assert_eq!(kept_by(&[Bypass::Conntrack]), ["netfilter"]);
}

#[test]
fn local_prefixes_that_come_with_a_namespace_do_not_count() {
    let loopback = Route { dst: prefix("127.0.0.0/8"), ..local("127.0.0.0", 1) };
    let broadcast = Route { kind: RouteKind::Broadcast, ..local("10.0.0.255", 1) };
    let routes = [loopback, broadcast, local("10.0.0.1", 1), route("10.0.0.0/24", &[hop(1, None)])];
    let m = with(routes.into_iter().map(|r| Event::Route(r, Insert::First)).collect());
    assert_eq!(judge(&m, &[]).entries, []);
}

#[test]
fn what_is_still_unreadable_after_a_dump_keeps_its_family() {
    let mut m = with(vec![Event::Unreadable(Family::V6)]);
    m.lost = false;
    assert_eq!(kept(&judge(&m, &[])).0, [false, true]);
}

#[test]
fn redirects_matter_where_something_forwards() {
    let mut m = with(vec![Event::Switch(Switch::Redirects, true)]);
    for i in [1, 2] {
        let _ = m.apply(set(Family::V4, device(i), |n| n.forwarding = Some(false)));
    }
    assert_eq!(judge(&m, &[]).stays(Family::V4), None);
}

#[test]
fn a_forced_device_is_the_kernels() {
    let mut m = with(vec![set(Family::V6, device(1), |n| n.force_forwarding = Some(true))]);
    assert_eq!(judge(&m, &[]).entries, [], "it makes no difference");
    let _ = m.apply(set(Family::V6, netlink::Scope::All, |n| n.forwarding = Some(false)));
    let ledger = judge(&m, &[]);
    assert!(ledger.entries.iter().any(|e| e.item.name == "force-forwarding"));
    assert!(ledger.keeps_arriving(IfIndex(1), Family::V6));
    assert!(!ledger.keeps_arriving(IfIndex(1), Family::V4));
}

#[test]
fn rows_say_who_forwards() {
    let row = |events, bypass: &[Bypass]| {
        let ledger = judge(&with(events), bypass);
        let row = ledger.rows("blue").next().unwrap();
        (row.scope, row.status, row.tier)
    };
    let words = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
    let nft = || vec![hooks(HookSource::Nftables, None)];
    assert_eq!(row(nft(), &[]), words("IPv4, IPv6", "kernel", "kernel"));
    let bypassed = row(nft(), &[Bypass::Netfilter]);
    assert_eq!(bypassed, words("IPv4, IPv6", "bypassed", "userspace"));
    let tbf = row(vec![qdisc(ROOT, "tbf")], &[]);
    assert_eq!(tbf, words("v1, leaving", "kernel", "kernel"));
    let rp = row(vec![set(Family::V4, device(1), |n| n.rp_filter = Some(2))], &[]);
    assert_eq!(rp, words("v1 IPv4, arriving", "converted", "userspace"));
    let off = row(vec![set(Family::V4, device(1), |n| n.forwarding = Some(false))], &[]);
    assert_eq!(off, words("v1 IPv4, arriving", "converted", "kernel"));
    // One is bypassed, another keeps one family.
    let two = vec![hooks(HookSource::Nftables, None), hooks(HookSource::Xfrm, Some(Family::V4))];
    assert_eq!(row(two, &[Bypass::Netfilter]).2, "IPv4 kernel, IPv6 userspace");
}

#[test]
fn what_is_not_in_use_can_be_listed() {
    let ledger = judge(&with(vec![hooks(HookSource::Xfrm, None)]), &[]);
    let rows: Vec<_> = ledger.rows("blue").collect();
    let unused: Vec<_> = unused("blue", &rows).collect();
    assert_eq!(unused.len(), ITEMS.len() - 1);
    assert!(unused.iter().all(|r| r.item != "xfrm" && r.tier.is_empty()));
}

/// docs/ledger.md has the table that the code has.
#[test]
fn the_docs_have_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/ledger.md");
    let docs = std::fs::read_to_string(path).unwrap();
    assert!(docs.contains(&markdown()), "docs/ledger.md needs this table:\n{}", markdown());
}
