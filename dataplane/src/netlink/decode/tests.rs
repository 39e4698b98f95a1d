mod mutated;

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_REPLACE, NetlinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteLwEnCapType, RouteMessage, RouteMetric,
    RouteNextHop, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use proptest::prelude::*;

use super::super::event::*;
use super::*;
use crate::id::{IfIndex, Mac};
use crate::netlink::{NextHopKind, NextHopObject, Ports, Rule, RuleAction, Suppress};

/// A message as another implementation writes it.
fn bytes(message: RouteNetlinkMessage, flags: u16) -> Vec<u8> {
    let mut m = NetlinkMessage::from(message);
    m.header.flags = flags;
    m.finalize();
    let mut out = vec![0; m.buffer_len()];
    m.serialize(&mut out);
    out
}

/// A message of ours: type, fixed part, attributes.
pub(super) fn raw(kind: u16, head: &[u8], attrs: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = head.to_vec();
    for (kind, value) in attrs {
        body.extend(u16::try_from(value.len() + 4).unwrap().to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(*value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let mut out = u32::try_from(body.len() + 16).unwrap().to_ne_bytes().to_vec();
    out.extend(kind.to_ne_bytes());
    out.extend([0; 10]);
    out.extend(body);
    out
}

fn one(datagram: &[u8]) -> Event {
    let (mut events, mut tally) = (Vec::new(), Tally::default());
    decode(datagram, &mut events, &mut tally);
    assert_eq!(tally, Tally::default());
    assert_eq!(events.len(), 1);
    events.remove(0)
}

fn v4_route(attributes: Vec<RouteAttribute>) -> RouteMessage {
    let mut m = RouteMessage::default();
    m.header = RouteHeader {
        address_family: AddressFamily::Inet,
        destination_prefix_length: 24,
        table: 254,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    m.attributes = vec![RouteAttribute::Destination(RouteAddress::Inet([10, 1, 2, 0].into()))];
    m.attributes.extend(attributes);
    m
}

fn decoded(m: RouteMessage) -> Route {
    match one(&bytes(RouteNetlinkMessage::NewRoute(m), 0)) {
        Event::Route(route, Insert::First) => route,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_plain_route() {
    let route = decoded(v4_route(vec![
        RouteAttribute::Table(1000),
        RouteAttribute::Priority(7),
        RouteAttribute::Oif(3),
        RouteAttribute::Gateway(RouteAddress::Inet([10, 0, 0, 9].into())),
        RouteAttribute::Metrics(vec![RouteMetric::Mtu(1400), RouteMetric::Advmss(1300)]),
    ]));
    assert_eq!(route.table, 1000);
    assert_eq!(route.dst, Prefix { addr: [10, 1, 2, 0].into(), len: 24 });
    assert_eq!((route.priority, route.mtu, route.unknown), (7, Some(1400), false));
    let gateway = Some(IpAddr::from([10, 0, 0, 9]));
    assert_eq!(
        route.hops,
        [Hop { oif: Some(IfIndex(3)), gateway, encap: false, weight: 1, dead: false }]
    );
}

#[test]
fn via_another_family_and_tunnels() {
    let via = RouteVia::Inet6("fe80::1".parse().unwrap());
    let route = decoded(v4_route(vec![RouteAttribute::Oif(3), RouteAttribute::Via(via)]));
    assert_eq!(route.hops[0].gateway, Some("fe80::1".parse().unwrap()));
    let tunnel = RouteAttribute::EncapType(RouteLwEnCapType::Ip);
    let route = decoded(v4_route(vec![RouteAttribute::Oif(3), tunnel]));
    assert!(route.hops[0].encap);
}

#[test]
fn several_next_hops_and_objects() {
    let hop = |index: u32, gw: [u8; 4]| {
        let mut hop = RouteNextHop::default();
        hop.interface_index = index;
        hop.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet(gw.into()))];
        hop
    };
    let hops = vec![hop(3, [10, 0, 0, 1]), hop(4, [10, 0, 1, 1])];
    let route = decoded(v4_route(vec![RouteAttribute::MultiPath(hops)]));
    assert_eq!(route.hops.len(), 2);
    assert_eq!(route.hops[1].oif, Some(IfIndex(4)));
    let route = decoded(v4_route(vec![RouteAttribute::NhId(12), RouteAttribute::Oif(3)]));
    assert_eq!((route.nexthop, route.hops.len()), (Some(12), 0));
}

#[test]
fn a_dead_next_hop_says_so() {
    // `struct rtnexthop`: length, flags, weight less one, device.
    let hops = [8, 0, 1, 0, 3, 0, 0, 0, 8, 0, 16, 0, 4, 0, 0, 0];
    let mut head = [0; 12];
    for af in [2, 10] {
        (head[0], head[4], head[7]) = (af, 254, 1);
        let one = one(&raw(24, &head, &[(9, &hops)]));
        let Event::Route(route, _) = one else { panic!("no route") };
        assert_eq!(route.hops.iter().map(|h| h.dead).collect::<Vec<_>>(), [true, false]);
    }
}

#[test]
fn the_flags_tell_how_a_route_went_in() {
    let m = RouteNetlinkMessage::NewRoute(v4_route(vec![RouteAttribute::Oif(3)]));
    for (flags, insert) in
        [(NLM_F_REPLACE, Insert::Replace), (NLM_F_APPEND, Insert::Last), (0, Insert::First)]
    {
        assert!(matches!(one(&bytes(m.clone(), flags)), Event::Route(_, i) if i == insert));
    }
}

#[test]
fn a_route_with_what_we_do_not_know_says_so() {
    let mut head = [0; 12];
    (head[0], head[4], head[7]) = (2, 254, 1);
    let Event::Route(route, _) = one(&raw(24, &head, &[(4, &3_u32.to_ne_bytes()), (99, &[1])]))
    else {
        panic!()
    };
    assert!(route.unknown);
}

#[test]
fn what_cannot_be_read_is_told() {
    for (kind, family, told) in [
        (24, 2, &[Family::V4][..]),
        (33, 10, &[Family::V6]),
        (80, 2, &[Family::V4]),
        (104, 0, &[Family::V4, Family::V6]),
        (36, 0, &[Family::V4, Family::V6]),
        // Merely not used, but they may have changed.
        (16, 0, &[]),
        (20, 2, &[]),
        (28, 2, &[]),
    ] {
        let (mut events, mut tally) = (Vec::new(), Tally::default());
        decode(&raw(kind, &[family], &[]), &mut events, &mut tally);
        let told = told.iter().copied().map(Event::Unreadable);
        assert_eq!(events, told.chain([Event::Overrun]).collect::<Vec<_>>(), "{kind}");
        assert_eq!(tally.malformed, 1);
    }
}

fn link_head(flags: u32) -> [u8; 16] {
    let mut head = [0; 16];
    head[2..4].copy_from_slice(&1_u16.to_ne_bytes());
    head[4..8].copy_from_slice(&9_u32.to_ne_bytes());
    head[8..12].copy_from_slice(&flags.to_ne_bytes());
    head
}

#[test]
fn a_link_with_its_kind_and_program() {
    let info = [9, 0, 1, 0, b'v', b'e', b't', b'h', 0, 0, 0, 0];
    let xdp = [5, 0, 2, 0, 1, 0, 0, 0, 8, 0, 4, 0, 42, 0, 0, 0];
    let mtu = 1500_u32.to_ne_bytes();
    let attrs: &[(u16, &[u8])] = &[
        (3, b"veth0\0"),
        (4, &mtu),
        (1, &[2, 0, 0, 0, 0, 7]),
        (0x8000 | 18, &info),
        (0x8000 | 43, &xdp),
    ];
    let Event::Link(link) = one(&raw(16, &link_head(1 | 0x40 | 0x10000), attrs)) else { panic!() };
    assert_eq!((link.name.as_str(), link.ifindex, link.mtu), ("veth0", IfIndex(9), 1500));
    assert_eq!((link.kind, link.mac), (LinkKind::Veth, Some(Mac([2, 0, 0, 0, 0, 7]))));
    assert_eq!((link.up, link.carrier), (true, true));
    assert_eq!((link.xdp, link.xdp_prog), (XdpMode::Native, 42));
}

#[test]
fn a_port_leaving_a_bridge_is_no_dead_link() {
    let (mut events, mut tally) = (Vec::new(), Tally::default());
    let mut head = link_head(0);
    head[0] = 7;
    decode(&raw(17, &head, &[]), &mut events, &mut tally);
    assert_eq!((events.len(), tally.ignored), (0, 1));
    assert_eq!(one(&raw(17, &link_head(0), &[])), Event::LinkGone(IfIndex(9)));
}

#[test]
fn settings_of_all_and_of_a_device() {
    let all = (-1_i32).to_ne_bytes();
    let on = 1_i32.to_ne_bytes();
    let event = one(&raw(80, &[2, 0, 0, 0], &[(1, &all), (2, &on)]));
    let Event::Netconf(n) = event else { panic!() };
    assert_eq!((n.family, n.scope), (Family::V4, Scope::All));
    assert_eq!((n.forwarding, n.rp_filter), (Some(true), None));
    let event = one(&raw(81, &[10, 0, 0, 0], &[(1, &7_i32.to_ne_bytes())]));
    assert_eq!(event, Event::NetconfGone(Family::V6, Scope::Device(IfIndex(7))));
}

#[test]
fn rules_say_what_they_ask_for() {
    let mut head = [0; 12];
    (head[0], head[4], head[7]) = (2, 254, 1);
    let (prio, all) = (32766_u32.to_ne_bytes(), u32::MAX.to_ne_bytes());
    let Event::Rule(main) = one(&raw(32, &head, &[(6, &prio), (14, &all), (21, &[2])])) else {
        panic!()
    };
    let plain = Rule { identity: main.identity.clone(), ..Rule::to_table(Family::V4, 32766, 254) };
    assert_eq!(main, plain);
    let marked: (u16, &[u8]) = (10, &[1, 0, 0, 0]);
    let Event::Rule(rule) = one(&raw(32, &head, &[marked, (16, &[0xff; 4])])) else { panic!() };
    assert_eq!(rule.selector.mark, (1, u32::MAX));
    let Event::Rule(rule) = one(&raw(32, &head, &[(14, &[0; 4])])) else { panic!() };
    assert_eq!(rule.suppress.prefixlen, Some(0));
    for strange in [12, 20, 26, 99] {
        let Event::Rule(rule) = one(&raw(32, &head, &[(strange, &[0; 8])])) else { panic!() };
        assert!(rule.unknown.is_some(), "{strange}");
    }
    // Lookups of a rule whose device came or went stay the same rule.
    head[8] = 8;
    let Event::RuleGone(gone) = one(&raw(33, &head, &[(6, &prio), (14, &all), (21, &[2])])) else {
        panic!()
    };
    assert_eq!(gone.identity, main.identity);
}

#[test]
fn a_rule_with_all_that_it_may_ask_for() {
    let head = [2, 8, 24, 8, 100, 0, 0, 1, 2, 0, 0, 0];
    let attrs: &[(u16, &[u8])] = &[
        (1, &[10, 0, 0, 0]),
        (2, &[192, 168, 1, 0]),
        (3, b"v1\0"),
        (17, b"v2\0"),
        (15, &[0, 1, 0, 0]),
        (19, &[0]),
        (22, &[17]),
        (23, &[1, 0, 2, 0]),
        (24, &[80, 0, 80, 0]),
        (29, &[0xff, 0xff]),
        (13, &[3, 0, 0, 0]),
    ];
    let Event::Rule(rule) = one(&raw(32, &head, attrs)) else { panic!() };
    let prefix = |a: [u8; 4], len| Some(Prefix { addr: a.into(), len });
    assert_eq!((rule.action, rule.unknown), (RuleAction::Table(256), None));
    assert_eq!(rule.suppress, Suppress { prefixlen: None, ifgroup: Some(3) });
    let s = rule.selector;
    assert_eq!((s.invert, s.l3mdev, s.tos, s.proto), (true, false, (8, 0x1c), 17));
    assert_eq!((s.dst, s.src), (prefix([10, 0, 0, 0], 8), prefix([192, 168, 1, 0], 24)));
    assert_eq!((s.iif.as_deref(), s.oif.as_deref()), (Some("v1"), Some("v2")));
    assert_eq!(s.sport, Ports { start: 1, end: 2, mask: 0 });
    assert_eq!(s.dport, Ports { start: 80, end: 80, mask: 0xffff });
}

#[test]
fn groups_of_next_hops_name_their_members() {
    let (id, oif) = (5_u32.to_ne_bytes(), 3_u32.to_ne_bytes());
    let single = one(&raw(104, &[2, 0, 0, 0, 0, 0, 0, 0], &[(1, &id), (5, &oif)]));
    assert!(matches!(single, Event::NextHop(NextHopObject { id: 5, kind: NextHopKind::Hop(_) })));
    let members = [[7, 0, 0, 0, 2, 0, 0, 0], [8, 0, 0, 0, 0, 1, 0, 0]].concat();
    let group =
        |kind: u8| match one(&raw(104, &[0; 8], &[(1, &id), (2, &members), (3, &[kind, 0])])) {
            Event::NextHop(object) => object.kind,
            _ => panic!(),
        };
    assert_eq!(group(0), NextHopKind::Group([(7, 3), (8, 257)].into()));
    assert_eq!(group(1), NextHopKind::Other, "resilient");
    let Event::NextHop(end) = one(&raw(104, &[2; 8], &[(1, &id), (4, &[])])) else { panic!() };
    assert_eq!(end.kind, NextHopKind::Blackhole);
    assert_eq!(one(&raw(105, &[0; 8], &[(1, &id)])), Event::NextHopGone(5));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        decode(&bytes, &mut Vec::new(), &mut Tally::default());
    }

    /// Framed as a message, so that the attribute readers are reached too.
    #[test]
    fn random_messages_never_panic(
        kind in prop::sample::select(vec![16_u16, 17, 20, 21, 24, 25, 28, 29, 32, 33, 36, 37, 80, 81, 104, 105, 2, 3]),
        family in prop::sample::select(vec![0_u8, 2, 10, 7]),
        head in prop::collection::vec(any::<u8>(), 0..16),
        attrs in prop::collection::vec(
            (0_u16..60, prop::collection::vec(any::<u8>(), 0..24)), 0..8),
        cut in 0_usize..40,
    ) {
        let mut head = head;
        if let Some(first) = head.first_mut() {
            *first = family;
        }
        let attrs: Vec<(u16, &[u8])> = attrs.iter().map(|(k, v)| (*k, v.as_slice())).collect();
        let mut datagram = raw(kind, &head, &attrs);
        datagram.truncate(datagram.len().saturating_sub(cut / 2));
        decode(&datagram, &mut Vec::new(), &mut Tally::default());
    }
}
