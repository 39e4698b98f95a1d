use proptest::prelude::*;

use super::*;
use crate::id::Mac;
use crate::netlink::{Insert, LinkKind, XdpMode};

impl Mirror {
    /// What acts upon packets of the family, if anything.
    pub(in super::super) fn hook(&self, family: Family) -> Option<&Hook> {
        self.hooks.values().flatten().find(|h| h.meets(family))
    }
}

pub(in super::super) fn link(index: u32, up: bool) -> Link {
    Link {
        ifindex: IfIndex(index),
        name: format!("v{index}"),
        mac: Some(Mac([2, 0, 0, 0, 0, u8::try_from(index).unwrap()])),
        mtu: 1500,
        mtu6: None,
        up,
        carrier: up,
        kind: LinkKind::Veth,
        master: None,
        peer: None,
        peer_nsid: None,
        group: 0,
        rx_queues: 1,
        tx_queues: 1,
        xdp: XdpMode::None,
        part: None,
        xdp_prog: 0,
    }
}

/// "10.0.0.0/24" and the like.
pub(in super::super) fn prefix(s: &str) -> Prefix {
    let (addr, len) = s.split_once('/').unwrap();
    Prefix { addr: addr.parse().unwrap(), len: len.parse().unwrap() }
}

pub(in super::super) fn hop(oif: u32, gateway: Option<&str>) -> Hop {
    let gateway = gateway.map(|g| g.parse().unwrap());
    Hop { oif: Some(IfIndex(oif)), gateway, encap: false, weight: 1, dead: false }
}

pub(in super::super) fn route(dst: &str, hops: &[Hop]) -> Route {
    Route {
        table: TABLE_MAIN,
        dst: prefix(dst),
        source: None,
        tos: 0,
        priority: 0,
        kind: RouteKind::Unicast,
        prefsrc: None,
        mtu: None,
        nexthop: None,
        hops: hops.to_vec(),
        expires: false,
        unknown: false,
    }
}

pub(in super::super) fn local(addr: &str, oif: u32) -> Route {
    let len = if addr.contains(':') { 128 } else { 32 };
    Route {
        table: TABLE_LOCAL,
        kind: RouteKind::Local,
        ..route(&format!("{addr}/{len}"), &[hop(oif, None)])
    }
}

fn add(r: Route) -> Event {
    Event::Route(r, Insert::First)
}

fn routes(m: &Mirror) -> Vec<Route> {
    m.routes.iter().cloned().collect()
}

fn two_links() -> Mirror {
    Mirror::from_dump(vec![Event::Link(link(1, true)), Event::Link(link(2, true))])
}

#[test]
fn a_device_that_goes_down_takes_ipv4_routes_silently() {
    let mut m = two_links();
    let stays = [
        local("10.0.0.1", 1),
        route("10.2.0.0/16", &[hop(2, None)]),
        route("10.3.0.0/16", &[hop(1, Some("10.0.0.9")), hop(2, Some("10.1.0.9"))]),
        route("fd00::/64", &[hop(1, None)]),
    ];
    let mut all = stays.to_vec();
    all.push(route("10.0.0.0/24", &[hop(1, None)]));
    all.push(Route { table: 100, ..route("10.9.0.0/16", &[hop(1, Some("10.0.0.9"))]) });
    for r in all {
        assert!(m.apply(add(r)).any());
    }
    let dirty = m.apply(Event::Link(link(1, false)));
    assert!(dirty.links && dirty.routes_v4 && !dirty.resync);
    assert_eq!(m.routes.len(), stays.len());
    let mut left = stays.clone();
    left[2].hops[0].dead = true;
    assert!(left.iter().all(|r| routes(&m).contains(r)));
    // The last device of several next hops.
    let dirty = m.apply(Event::Link(link(2, false)));
    assert!(dirty.resync);
    assert_eq!(routes(&m), [stays[3].clone(), stays[0].clone()], "by table");
}

#[test]
fn the_last_ipv4_address_takes_ipv4_routes_silently() {
    let mut m = two_links();
    let address = |a: &str| Address { ifindex: IfIndex(1), prefix: prefix(a) };
    let both = [hop(1, Some("10.0.0.9")), hop(2, Some("10.1.0.9"))];
    for e in [
        Event::Address(address("10.0.0.1/24")),
        Event::Address(address("10.0.5.1/24")),
        Event::Address(address("fd00::1/64")),
        add(route("10.2.0.0/16", &[hop(1, Some("10.0.0.9"))])),
        add(route("10.3.0.0/16", &both)),
        add(Route { nexthop: Some(5), ..route("10.4.0.0/16", &[]) }),
    ] {
        assert!(m.apply(e).any());
    }
    assert!(!m.apply(Event::AddressGone(address("10.0.5.1/24"))).routes_v4, "not the last");
    let dirty = m.apply(Event::AddressGone(address("10.0.0.1/24")));
    assert!(dirty.routes_v4 && dirty.addresses && !dirty.resync);
    let dead = [Hop { dead: true, ..both[0] }, both[1]];
    assert_eq!(routes(&m)[0], route("10.3.0.0/16", &dead));
    assert_eq!(m.routes.len(), 2, "that of an object stays");
    assert!(m.apply(Event::Address(address("10.0.0.1/24"))).routes_v4);
    assert_eq!(routes(&m)[0], route("10.3.0.0/16", &both));
}

#[test]
fn a_deleted_device_takes_all_that_is_its_own() {
    let mut m = two_links();
    let address = Address { ifindex: IfIndex(1), prefix: prefix("10.0.0.1/24") };
    let neighbor = Neighbor {
        ifindex: IfIndex(1),
        addr: "10.0.0.9".parse().unwrap(),
        mac: Some(Mac([2; 6])),
        state: 2,
    };
    let scope = Scope::Device(IfIndex(1));
    let on = Netconf {
        family: Family::V4,
        scope,
        forwarding: Some(true),
        rp_filter: None,
        ..Netconf::silent(Family::V4)
    };
    for e in [
        Event::Address(address),
        Event::Neighbor(neighbor),
        Event::Netconf(on),
        add(local("10.0.0.1", 1)),
        add(route("fd00::/64", &[hop(1, None)])),
        add(route("fd01::/64", &[hop(1, Some("fe80::1")), hop(2, Some("fe80::1"))])),
    ] {
        assert!(m.apply(e).any());
    }
    assert!(m.forwards_v4(IfIndex(1)));
    let dirty = m.apply(Event::LinkGone(IfIndex(1)));
    assert!(dirty.links && dirty.addresses && dirty.neighbors && dirty.netconf);
    let left = route("fd01::/64", &[hop(2, Some("fe80::1"))]);
    let expected = Mirror::from_dump(vec![Event::Link(link(2, true)), add(left)]);
    assert_eq!(m, expected);
    assert!(!m.apply(Event::LinkGone(IfIndex(1))).any());
}

#[test]
fn a_next_hop_object_takes_its_routes_along() {
    let mut m = two_links();
    let object = NextHopObject { id: 5, kind: NextHopKind::Hop(hop(1, Some("10.0.0.9"))) };
    let by_object = |dst: &str| Route { nexthop: Some(5), ..route(dst, &[]) };
    for e in [Event::NextHop(object), add(by_object("10.5.0.0/16")), add(by_object("fd05::/64"))] {
        assert!(m.apply(e).any());
    }
    let mut lost_carrier = link(1, true);
    lost_carrier.carrier = false;
    assert!(m.apply(Event::Link(lost_carrier)).resync, "the object may be gone");
    assert_eq!(m.routes.len(), 2);
    assert!(m.apply(Event::Link(link(1, false))).routes_v6);
    assert!(m.routes.is_empty() && m.nexthops.is_empty());
}

#[test]
fn an_address_takes_routes_along_that_prefer_it() {
    let mut m = two_links();
    let prefers = Route {
        prefsrc: Some("10.0.0.7".parse().unwrap()),
        ..route("10.5.0.0/16", &[hop(1, None)])
    };
    assert!(m.apply(add(local("10.0.0.7", 1))).any());
    assert!(m.apply(add(prefers)).any());
    assert!(m.apply(Event::RouteGone(local("10.0.0.7", 1))).any());
    assert!(m.routes.is_empty());
}

#[test]
fn ipv4_routes_of_one_key_keep_the_kernels_order() {
    let mut m = two_links();
    let r = |gw: &str| route("10.5.0.0/16", &[hop(1, Some(gw))]);
    let (a, b, c, d) = (r("10.0.0.1"), r("10.0.0.2"), r("10.0.0.3"), r("10.0.0.4"));
    for (r, how) in [(&a, Insert::First), (&b, Insert::Last), (&c, Insert::First)] {
        assert!(m.apply(Event::Route(r.clone(), how)).any());
        let _ =
            m.apply(Event::Route(r.clone(), if how == Insert::First { Insert::Last } else { how }));
    }
    assert_eq!(routes(&m), [c, a.clone(), b.clone()]);
    assert!(m.apply(Event::Route(d.clone(), Insert::Replace)).any());
    assert_eq!(routes(&m), [d.clone(), a.clone(), b.clone()]);
    assert!(m.apply(Event::RouteGone(a.clone())).any());
    assert!(!m.apply(Event::RouteGone(a)).any(), "another route of the key is not taken for it");
    assert_eq!(routes(&m), [d, b]);
}

#[test]
fn ipv6_merges_next_hops_and_takes_them_out() {
    let mut m = two_links();
    let r = |hops: &[Hop]| route("fd05::/64", hops);
    let (a, b, c) = (hop(1, Some("fe80::1")), hop(2, Some("fe80::2")), hop(2, Some("fe80::3")));
    for hops in [&[a][..], &[b, a], &[c, a, b]] {
        assert!(m.apply(Event::Route(r(hops), Insert::Last)).any());
    }
    assert_eq!(routes(&m), [r(&[c, a, b])]);
    assert!(m.apply(Event::RouteGone(r(&[a]))).any());
    assert_eq!(routes(&m), [r(&[c, b])]);
    assert!(m.apply(Event::Route(r(&[a]), Insert::Replace)).any());
    assert_eq!(routes(&m), [r(&[a])]);
    assert!(m.apply(Event::RouteGone(r(&[a]))).any());
    assert!(m.routes.is_empty());
}

#[test]
fn ipv6_routes_on_links_stand_side_by_side() {
    let mut m = two_links();
    let r = |oif| route("fe80::/64", &[hop(oif, None)]);
    assert!(m.apply(Event::Route(r(1), Insert::First)).any());
    assert!(m.apply(Event::Route(r(2), Insert::First)).any());
    assert_eq!(m.routes.len(), 2);
    assert!(m.apply(Event::RouteGone(r(1))).any());
    assert_eq!(routes(&m), [r(2)]);
}

#[test]
fn only_what_is_sent_by_dirties_neighbours() {
    let mut m = two_links();
    let n = |state, mac| {
        let addr = "10.0.0.9".parse().unwrap();
        Event::Neighbor(Neighbor { ifindex: IfIndex(1), addr, mac, state })
    };
    let mac = Some(Mac([2; 6]));
    assert!(!m.apply(n(0x01, None)).any(), "incomplete");
    assert!(m.apply(n(0x02, mac)).neighbors, "reachable");
    assert!(!m.apply(n(0x10, mac)).any(), "probe: as good as reachable");
    assert!(m.apply(n(0x04, mac)).neighbors, "stale");
    assert!(!m.apply(n(0x04, mac)).any(), "stale still");
    assert!(m.apply(n(0x20, None)).neighbors, "failed");
}

#[test]
fn settings_merge_and_the_stricter_filter_counts() {
    let mut m = two_links();
    let dev = Scope::Device(IfIndex(1));
    let set = |scope, forwarding, rp_filter| {
        Event::Netconf(Netconf {
            family: Family::V4,
            scope,
            forwarding,
            rp_filter,
            ..Netconf::silent(Family::V4)
        })
    };
    assert!(m.apply(set(dev, Some(true), Some(0))).netconf);
    assert!(m.apply(set(dev, None, Some(2))).netconf);
    assert!(m.forwards_v4(IfIndex(1)));
    assert_eq!(m.rp_filter(IfIndex(1)), 2);
    assert!(m.apply(set(Scope::All, Some(false), Some(1))).netconf);
    assert_eq!((m.rp_filter(IfIndex(1)), m.rp_filter(IfIndex(2))), (2, 1));
    assert!(!m.forwards_v6());
}

#[test]
fn what_cannot_be_read_or_was_lost_asks_for_a_dump() {
    let mut m = two_links();
    assert!(m.apply(Event::Overrun).resync);
    assert!(m.apply(Event::Unreadable(Family::V6)).resync);
    assert!(m.unreadable_v6 && !m.unreadable_v4);
}

#[test]
fn a_dump_and_what_changed_meanwhile() {
    let routed = |dst: &str| Event::Route(route(dst, &[hop(1, None)]), Insert::Replace);
    let dump = || vec![Event::Link(link(1, true)), routed("10.1.0.0/16")];
    let gone = Event::RouteGone(route("10.1.0.0/16", &[hop(1, None)]));
    let m = Mirror::from_dump_and(dump(), vec![gone.clone()]);
    assert!(!m.lost);
    assert_eq!(m, Mirror::from_dump(vec![Event::Link(link(1, true))]));
    assert!(Mirror::from_dump_and(dump(), vec![gone, Event::Overrun]).lost);
}

#[test]
fn hooks_of_a_source_are_replaced_whole() {
    let mut m = two_links();
    let hook = |family, name: &str| Hook { family, name: name.to_owned(), on_device: false };
    let v6 = hook(Some(Family::V6), "a");
    assert!(m.apply(Event::Hooks(HookSource::Nftables, vec![v6.clone()])).hooks);
    assert!(!m.apply(Event::Hooks(HookSource::Nftables, vec![v6.clone()])).any());
    assert!(!m.apply(Event::Hooks(HookSource::Xfrm, Vec::new())).any());
    assert_eq!((m.hook(Family::V4), m.hook(Family::V6)), (None, Some(&v6)));
    let both = hook(None, "b");
    assert!(m.apply(Event::Hooks(HookSource::Xfrm, vec![both.clone()])).hooks);
    assert_eq!((m.hook(Family::V4), m.hook(Family::V6)), (Some(&both), Some(&v6)));
    for source in [HookSource::Nftables, HookSource::Xfrm] {
        let _ = m.apply(Event::Hooks(source, Vec::new()));
    }
    assert_eq!(m, two_links());
}

#[test]
fn another_root_takes_the_disciplines_below_along() {
    let mut m = two_links();
    let q = |parent, kind: &str| Qdisc { ifindex: IfIndex(1), parent, kind: kind.to_owned() };
    assert!(!m.apply(Event::Qdisc(q(ROOT, "fq_codel"))).any());
    for discipline in [q(ROOT, "htb"), q(0x1_0010, "netem"), q(INGRESS, "clsact")] {
        assert!(m.apply(Event::Qdisc(discipline.clone())).hooks);
        assert!(!m.apply(Event::Qdisc(discipline)).any());
    }
    assert_eq!(m.qdiscs(IfIndex(1)).count(), 3);
    assert!(m.apply(Event::QdiscGone(q(ROOT, "htb"))).hooks);
    assert_eq!(m.qdiscs(IfIndex(1)).collect::<Vec<_>>(), [&q(INGRESS, "clsact")]);
    assert!(m.apply(Event::LinkGone(IfIndex(1))).links);
    assert_eq!(m.qdiscs.len(), 0);
}

/// A kernel that is simple enough to be right: one route a key, and it tells every
/// change that it makes but for those that the real one does not tell.
#[derive(Clone, Default)]
struct Kernel {
    /// Devices that exist, and whether they are up.
    links: BTreeMap<u32, bool>,
    routes: BTreeMap<(u32, u8), (u32, bool)>,
}

#[derive(Clone, Debug)]
enum Act {
    Add { key: (u32, u8), oif: u32, local: bool },
    Del { key: (u32, u8) },
    Link { index: u32, up: bool },
    Unlink { index: u32 },
}

impl Kernel {
    fn event(&self, key: (u32, u8)) -> Route {
        let (oif, local) = self.routes[&key];
        let kind = if local { RouteKind::Local } else { RouteKind::Unicast };
        Route { table: key.0, kind, ..route(&format!("10.{}.0.0/16", key.1), &[hop(oif, None)]) }
    }

    fn act(&mut self, act: &Act) -> Vec<Event> {
        match *act {
            Act::Add { key, oif, local } => {
                if self.links.get(&oif) != Some(&true) {
                    return Vec::new();
                }
                let replace = self.routes.insert(key, (oif, local)).is_some();
                let how = if replace { Insert::Replace } else { Insert::First };
                vec![Event::Route(self.event(key), how)]
            }
            Act::Del { key } => {
                if !self.routes.contains_key(&key) {
                    return Vec::new();
                }
                let event = Event::RouteGone(self.event(key));
                self.routes.remove(&key);
                vec![event]
            }
            Act::Link { index, up } => {
                self.links.insert(index, up);
                if !up {
                    self.routes.retain(|_, (oif, local)| *oif != index || *local);
                }
                vec![Event::Link(link(index, up))]
            }
            Act::Unlink { index } => {
                if self.links.remove(&index).is_none() {
                    return Vec::new();
                }
                self.routes.retain(|_, (oif, _)| *oif != index);
                vec![Event::LinkGone(IfIndex(index))]
            }
        }
    }

    fn dump(&self) -> Vec<Event> {
        let links = self.links.iter().map(|(i, up)| Event::Link(link(*i, *up)));
        links.chain(self.routes.keys().map(|k| add(self.event(*k)))).collect()
    }
}

fn act() -> impl Strategy<Value = Act> {
    let key = (prop::sample::select(vec![TABLE_MAIN, 100]), 0_u8..4);
    prop_oneof![
        8 => (key.clone(), 0_u32..3, any::<bool>())
            .prop_map(|(key, oif, local)| Act::Add { key, oif, local }),
        4 => key.prop_map(|key| Act::Del { key }),
        3 => (0_u32..3, any::<bool>()).prop_map(|(index, up)| Act::Link { index, up }),
        1 => (0_u32..3).prop_map(|index| Act::Unlink { index }),
    ]
}

proptest! {
    /// Wherever the dump falls among the events, replaying all of them upon it
    /// gives what the kernel has in the end.
    #[test]
    fn replay_upon_a_dump_gives_the_kernels_state(
        acts in prop::collection::vec(act(), 0..40),
        at in any::<prop::sample::Index>(),
    ) {
        let links = (0..3).map(|i| (i, true)).collect();
        let mut kernel = Kernel { links, ..Kernel::default() };
        let dump_at = at.index(acts.len() + 1);
        let (mut dump, mut queue) = (kernel.dump(), Vec::new());
        for (i, act) in acts.iter().enumerate() {
            queue.extend(kernel.act(act));
            if i + 1 == dump_at {
                dump = kernel.dump();
            }
        }
        let mut mirror = Mirror::from_dump(dump);
        for event in queue {
            let _ = mirror.apply(event);
        }
        prop_assert_eq!(mirror, Mirror::from_dump(kernel.dump()));
    }
}

#[test]
fn rules_keep_the_kernels_order() {
    let rule = |family, priority, table| Rule::to_table(family, priority, table);
    let mut m = Mirror::default();
    let told = [(Family::V6, 5, 1), (Family::V4, 9, 1), (Family::V4, 5, 2), (Family::V4, 5, 1)];
    for (family, priority, table) in told {
        assert!(m.apply(Event::Rule(rule(family, priority, table))).rules);
        assert!(!m.apply(Event::Rule(rule(family, priority, table))).any(), "told again");
    }
    // Of one priority the first that was made comes first.
    let mut order = vec![
        rule(Family::V4, 5, 2),
        rule(Family::V4, 5, 1),
        rule(Family::V4, 9, 1),
        rule(Family::V6, 5, 1),
    ];
    assert_eq!(m.rules, order);
    let gone = order.remove(1);
    assert!(m.apply(Event::RuleGone(gone.clone())).rules);
    assert!(!m.apply(Event::RuleGone(gone)).any());
    assert_eq!(m.rules, order);
}

/// Next hops that die or live again without a word have the state read again.
#[test]
fn silent_deaths_ask_for_a_dump() {
    let groups = |i| Route { table: TABLE_LOCAL, ..route("ff00::/8", &[hop(i, None)]) };
    let on = |i| Event::Route(groups(i), Insert::First);
    let several = |dead| {
        let mut hops = [hop(1, Some("fd00::9")), hop(2, Some("fd00::8"))];
        hops[0].dead = dead;
        Event::Route(route("fd01::/64", &hops), Insert::Replace)
    };
    let mut m = Mirror::from_dump(vec![
        Event::Link(link(1, true)),
        Event::Link(link(2, true)),
        Event::Link(link(3, true)),
        on(1),
        on(2),
        on(3),
        several(false),
    ]);
    assert!(!m.apply(on(1)).resync, "it was on");
    assert!(!m.apply(Event::RouteGone(groups(3))).resync, "nothing goes by it");
    assert!(m.apply(Event::RouteGone(groups(1))).resync);
    let _ = m.apply(several(true));
    assert!(!m.apply(on(3)).resync);
    assert!(m.apply(on(1)).resync);
    // Carrier goes and comes.
    let carrier = |carrier| Event::Link(Link { carrier, ..link(1, true) });
    let _ = m.apply(several(false));
    assert!(!m.apply(carrier(false)).resync && !m.apply(carrier(true)).resync);
    assert!(!m.apply(carrier(false)).resync);
    let _ = m.apply(several(true));
    assert!(m.apply(carrier(true)).resync);
    // A device that goes down is told of first.
    let _ = m.apply(several(false));
    let _ = m.apply(Event::Link(link(1, false)));
    assert!(!m.apply(Event::RouteGone(groups(1))).resync);
}
