//! Which members follow from what namespaces show and what is stated.

use super::*;
use crate::control::mirror::tests::link;
use crate::netlink::{Event, INGRESS, Tcx};

const INFRA: NsId = NsId { index: 0, generation: 1 };
const BLUE: NsId = NsId { index: 1, generation: 1 };
const RED: NsId = NsId { index: 2, generation: 1 };
/// By which number each namespace knows `INFRA`; of others nobody knows.
const OF_INFRA: i32 = 7;

fn part(index: u32, part: LinkPart, peer: u32) -> Link {
    let kind = match part {
        LinkPart::Macvlan { .. } => LinkKind::Macvlan,
        LinkPart::Vlan { .. } => LinkKind::Vlan,
    };
    let (peer, peer_nsid) = (Some(IfIndex(peer)), Some(OF_INFRA));
    Link { kind, peer, peer_nsid, part: Some(part), ..link(index, true) }
}

fn macvlan(mode: u32) -> LinkPart {
    LinkPart::Macvlan { mode }
}

fn vlan(proto: u16, id: u16) -> LinkPart {
    LinkPart::Vlan { proto, id, priorities: false }
}

fn with(links: impl IntoIterator<Item = Link>) -> Mirror {
    Mirror::from_dump(links.into_iter().map(Event::Link).collect())
}

fn find(mirrors: [&Mirror; 3], stated: &[config::Member]) -> Vec<Wanted> {
    let rule = config::Namespace::of("x".parse().unwrap());
    let names = [(INFRA, "infra"), (BLUE, "blue"), (RED, "red")];
    let seen: Vec<Seen<'_>> = names
        .into_iter()
        .zip(mirrors)
        .map(|((ns, name), mirror)| Seen { ns, name, mirror, rule: &rule })
        .collect();
    wanted(&seen, stated, &mut |ns, link| match link.peer_nsid {
        None => Some(ns),
        Some(OF_INFRA) => Some(INFRA),
        Some(_) => None,
    })
}

fn shown(blue: Link) -> Option<Wanted> {
    let mut found = find([&with([link(2, true)]), &with([blue]), &Mirror::default()], &[]);
    assert!(found.len() < 2, "{found:?}");
    found.pop()
}

fn stated(netns: &str, matches: Match) -> config::Member {
    let port = config::PortRef { netns: "infra".to_owned(), device: "v2".to_owned() };
    config::Member { netns: netns.to_owned(), link: "v5".to_owned(), port, matches }
}

#[test]
fn macvlans_and_vlans_of_a_device_elsewhere_are_members_of_it() {
    let mac = link(5, true).mac.unwrap();
    for mode in [MACVLAN_BRIDGE, MACVLAN_PRIVATE, MACVLAN_VEPA] {
        let expected = Wanted {
            link: Some((BLUE, IfIndex(5))),
            parent: (INFRA, IfIndex(2)),
            how: How::Mac(mac),
            stated: false,
            far: None,
        };
        assert_eq!(shown(part(5, macvlan(mode), 2)), Some(expected));
    }
    let how = shown(part(5, vlan(DOT1AD, 9), 2)).map(|w| w.how);
    assert_eq!(how, Some(How::Vlan(Tags::new((DOT1AD, 9), None))));
}

#[test]
fn what_is_not_told_apart_so_or_is_not_up_is_none() {
    let macvlan5 = || part(5, macvlan(MACVLAN_BRIDGE), 2);
    // Passthru and source; priorities that are mapped; another namespace; no such device.
    assert_eq!(shown(part(5, macvlan(8), 2)), None);
    assert_eq!(shown(part(5, macvlan(16), 2)), None);
    let mapped = LinkPart::Vlan { proto: DOT1Q, id: 1, priorities: true };
    assert_eq!(shown(part(5, mapped, 2)), None);
    assert_eq!(shown(Link { peer_nsid: Some(1), ..macvlan5() }), None);
    assert_eq!(shown(Link { peer: Some(IfIndex(3)), ..macvlan5() }), None);
    assert_eq!(shown(Link { up: false, ..macvlan5() }), None);
    assert_eq!(shown(Link { mac: None, ..macvlan5() }), None);
    assert_eq!(shown(Link { master: Some(IfIndex(9)), ..macvlan5() }), None);
}

#[test]
fn a_filter_on_the_device_below_keeps_all_with_the_kernel() {
    let blue = with([part(5, macvlan(MACVLAN_BRIDGE), 2)]);
    let mut infra = with([link(2, true)]);
    assert_eq!(find([&infra, &blue, &Mirror::default()], &[]).len(), 1);
    let filter = Qdisc { ifindex: IfIndex(2), parent: INGRESS, kind: "clsact".to_owned() };
    let _ = infra.apply(Event::Qdisc(filter));
    assert_eq!(find([&infra, &blue, &Mirror::default()], &[]), []);
    for (at, ingress, egress) in [(2, true, false), (2, false, true), (3, true, true)] {
        let mut infra = with([link(2, true)]);
        let _ = infra.apply(Event::Tcx(vec![Tcx { ifindex: IfIndex(at), ingress, egress }]));
        let found = find([&infra, &blue, &Mirror::default()], &[]);
        assert_eq!(found.len(), usize::from(at == 3));
    }
}

#[test]
fn a_second_of_one_link_is_nobodys_and_not_the_ports() {
    let (infra, blue) = (with([link(2, true)]), with([link(5, true)]));
    let members = [stated("blue", Match::Queue(0)), stated("blue", Match::Queue(1))];
    let found = find([&infra, &blue, &Mirror::default()], &members);
    let seen: Vec<_> = found.iter().map(|w| (w.how, w.link, w.far)).collect();
    let first = (How::Queue(0), Some((BLUE, IfIndex(5))), None);
    assert_eq!(seen, [first, (How::Queue(1), None, None)]);
}

#[test]
fn a_vlan_in_a_vlan_carries_both_tags() {
    let lower = Link { peer_nsid: None, ..part(3, vlan(DOT1AD, 10), 2) };
    let infra = with([link(2, true), lower]);
    let blue = with([part(5, vlan(DOT1Q, 100), 3)]);
    let found = find([&infra, &blue, &Mirror::default()], &[]);
    let both = How::Vlan(Tags::new((DOT1AD, 10), Some((DOT1Q, 100))));
    let of_blue = found.iter().find(|w| w.link == Some((BLUE, IfIndex(5)))).unwrap();
    assert_eq!((of_blue.how, of_blue.parent), (both, (INFRA, IfIndex(2))));
    // The outer VLAN is a member too, of its own namespace.
    assert_eq!(found.len(), 2);
}

#[test]
fn what_is_stated_is_wanted_with_its_far_end() {
    let vlan = Match::Vlan(vec![config::VlanTag { proto: VlanProto::Dot1Q, id: 100 }]);
    let stand_in = Link { peer: Some(IfIndex(6)), peer_nsid: Some(OF_INFRA), ..link(5, true) };
    let infra = with([link(2, true), link(6, true)]);
    let blue = with([stand_in.clone()]);
    let none = Mirror::default();
    let member = stated("blue", vlan.clone());
    let expected = [Wanted {
        link: Some((BLUE, IfIndex(5))),
        parent: (INFRA, IfIndex(2)),
        how: How::Vlan(Tags::new((DOT1Q, 100), None)),
        stated: true,
        far: Some((INFRA, IfIndex(6))),
    }];
    let only = std::slice::from_ref(&member);
    assert_eq!(find([&infra, &blue, &none], only), expected);
    // Down, or not there: its frames are nobody's, but they are not the port's.
    let nobodys = [Wanted { link: None, far: None, ..expected[0].clone() }];
    let down = with([Link { up: false, ..stand_in }]);
    assert_eq!(find([&infra, &down, &none], only), nobodys);
    assert_eq!(find([&infra, &none, &none], only), nobodys);
    // No port, no member.
    assert_eq!(find([&none, &blue, &none], only), []);
    // Of two with the same frames the first counts.
    let second = stated("red", vlan);
    let red = with([link(5, true)]);
    assert_eq!(find([&infra, &blue, &red], &[member, second]), expected);
}

#[test]
fn keys_tell_frames_of_one_port_apart() {
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    let hows = [
        How::Mac(mac),
        How::Queue(1),
        How::Vlan(Tags::new((DOT1Q, 1), None)),
        How::Vlan(Tags::new((DOT1AD, 1), None)),
        How::Vlan(Tags::new((DOT1AD, 1), Some((DOT1Q, 1)))),
    ];
    for (i, a) in hows.iter().enumerate() {
        for (j, b) in hows.iter().enumerate() {
            assert_eq!(a.key(PortId(1)) == b.key(PortId(1)), i == j);
            assert_ne!(a.key(PortId(1)), b.key(PortId(2)));
        }
    }
    assert_eq!(hows[4].to_string(), "VLAN 802.1ad 1 802.1Q 1");
}
