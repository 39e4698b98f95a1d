//! Every rule of the stages, and what must hold for any bytes and any world.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::id::{IfIndex, NsId};
use crate::tables::Member;
use crate::tables::fib::{Fib4, Fib6};
use crate::tables::neigh::Neigh;
use crate::tables::{NextHop, RpFilter};
use crate::wire::checksum;
use crate::worker::sim::scene::{self, GENERATION, host_mac, host4, host6, port_mac, tenant_ns};

const IN: PortId = PortId(0);
const OUT: PortId = PortId(1);

fn packet4() -> Vec<u8> {
    scene::udp(IN, host4(0).into(), host4(1).into(), b"payload")
}

fn packet6() -> Vec<u8> {
    scene::udp(IN, host6(0).into(), host6(1).into(), b"payload")
}

fn verdict(world: &World, packet: &[u8]) -> Verdict {
    let mut packet = packet.to_vec();
    let before = packet.clone();
    let decision = decide(world, IN, GENERATION, &scene::tag(IN), &mut packet);
    assert_eq!(packet, before, "decided without a change");
    assert!(!decision.csum_completed);
    decision.verdict
}

fn how(len: u16) -> Forward {
    Forward {
        ingress: IN,
        port: OUT,
        generation: GENERATION,
        tags: Tags::NONE,
        len,
        dst: host_mac(OUT),
        src: port_mac(OUT),
        sample: None,
    }
}

fn punt(reason: PuntReason) -> Verdict {
    Verdict::Punt(reason)
}

/// The world with its first namespace changed.
fn with_ns(change: impl FnOnce(&mut Namespace)) -> World {
    let mut world = scene::world(2, 1);
    let ns = world.namespaces[0].take().unwrap();
    let mut ns = Arc::into_inner(ns).unwrap();
    change(&mut ns);
    world.namespaces[0] = Some(Arc::new(ns));
    world
}

fn with_port(port: PortId, change: impl FnOnce(&mut Port)) -> World {
    let mut world = scene::world(2, 1);
    change(world.ports[port.index()].as_mut().unwrap());
    world
}

/// The packet with a header byte changed and IPv4's checksum right again.
fn with_byte(mut packet: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    packet[14 + at] = byte;
    if packet[12] == 0x08 {
        packet[24..26].fill(0);
        let sum = checksum::sum(&packet[14..34]).complement();
        packet[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

#[test]
fn forwards_and_rewrites_ipv4() {
    let mut packet = packet4();
    assert_eq!(verdict(&scene::world(2, 1), &packet), Verdict::Forward(how(49)));
    let before = packet.clone();
    rewrite(&mut packet, &how(49));
    let mut expected = with_byte(before, 8, 63);
    expected[0..6].copy_from_slice(&host_mac(OUT).0);
    expected[6..12].copy_from_slice(&port_mac(OUT).0);
    assert_eq!(packet, expected);
}

#[test]
fn forwards_and_rewrites_ipv6() {
    let mut packet = packet6();
    assert_eq!(verdict(&scene::world(2, 1), &packet), Verdict::Forward(how(69)));
    let mut expected = packet.clone();
    rewrite(&mut packet, &how(69));
    expected[21] = 63;
    expected[0..6].copy_from_slice(&host_mac(OUT).0);
    expected[6..12].copy_from_slice(&port_mac(OUT).0);
    assert_eq!(packet, expected);
}

#[test]
fn padding_is_not_forwarded() {
    let mut packet = packet4();
    packet.resize(60, 0);
    assert_eq!(verdict(&scene::world(2, 1), &packet), Verdict::Forward(how(49)));
}

#[test]
fn ring_tag_and_world_must_agree() {
    let world = scene::world(2, 1);
    let drop_of = |world: &World, port, generation, tag: Tag| {
        decide(world, port, generation, &tag, &mut packet4()).verdict
    };
    let tag = scene::tag(IN);
    let stale = Verdict::Drop(DropReason::Stale);
    let gone = Verdict::Drop(DropReason::PortGone);
    assert_eq!(drop_of(&world, IN, GENERATION, Tag { ns: tag.ns + 1, ..tag }), stale);
    assert_eq!(drop_of(&world, IN, GENERATION, Tag { port: 1, ..tag }), stale);
    assert_eq!(drop_of(&world, IN, GENERATION, Tag { generation: 9, ..tag }), stale);
    assert_eq!(drop_of(&world, IN, Generation(2), tag), stale);
    assert_eq!(drop_of(&world, PortId(99), GENERATION, tag), gone);
    let mut empty = world.clone();
    empty.namespaces[0] = None;
    assert_eq!(drop_of(&empty, IN, GENERATION, tag), gone);
    // The namespace's slot has another owner now.
    let reused = with_ns(|ns| ns.id = Some(NsId { index: 0, generation: 4 }));
    assert_eq!(drop_of(&reused, IN, GENERATION, tag), stale);
}

#[test]
fn headers_that_are_not_the_common_case_are_punted() {
    let world = scene::world(2, 1);
    let header = punt(PuntReason::Header);
    for cut in 0..packet4().len() {
        assert_eq!(verdict(&world, &packet4()[..cut]), header, "cut to {cut}");
    }
    for cut in 0..packet6().len() {
        assert_eq!(verdict(&world, &packet6()[..cut]), header, "cut to {cut}");
    }
    assert_eq!(verdict(&world, &with_byte(packet4(), 0, 0x46)), header);
    assert_eq!(verdict(&world, &with_byte(packet4(), 0, 0x55)), header);
    let mut corrupt = packet4();
    corrupt[14 + 1] ^= 4;
    assert_eq!(verdict(&world, &corrupt), header);
    for (at, byte) in [(12, 127), (12, 0), (12, 224), (16, 127), (16, 255), (16, 0)] {
        assert_eq!(verdict(&world, &with_byte(packet4(), at, byte)), header);
    }
    for (at, byte) in [(6, 0), (8, 0xff), (24, 0xff), (0, 0x40), (4, 1)] {
        assert_eq!(verdict(&world, &with_byte(packet6(), at, byte)), header, "byte {at}");
    }
    let local = scene::udp(IN, host6(0).into(), "fe80::2".parse().unwrap(), b"");
    assert_eq!(verdict(&world, &local), header);
    let loopback = scene::udp(IN, host6(0).into(), "::1".parse().unwrap(), b"");
    assert_eq!(verdict(&world, &loopback), header);
}

#[test]
fn used_up_hops_are_the_kernels_to_answer() {
    let world = scene::world(2, 1);
    for hops in [0, 1] {
        assert_eq!(verdict(&world, &with_byte(packet4(), 8, hops)), punt(PuntReason::Ttl));
        assert_eq!(verdict(&world, &with_byte(packet6(), 7, hops)), punt(PuntReason::Ttl));
    }
    assert_eq!(verdict(&world, &with_byte(packet4(), 8, 2)), Verdict::Forward(how(49)));
}

#[test]
fn what_the_port_does_not_route_is_punted() {
    let not_routed = punt(PuntReason::NotRouted);
    let off = with_port(IN, |port| port.forward_v4 = false);
    assert_eq!(verdict(&off, &packet4()), not_routed);
    assert_eq!(verdict(&off, &packet6()), Verdict::Forward(how(69)));
    let off = with_port(IN, |port| port.forward_v6 = false);
    assert_eq!(verdict(&off, &packet6()), not_routed);
    let world = scene::world(2, 1);
    let mut packet = packet4();
    packet[5] ^= 1;
    assert_eq!(verdict(&world, &packet), not_routed, "to another host");
    let mut packet = packet4();
    packet[13] = 6;
    assert_eq!(verdict(&world, &packet), not_routed, "ARP");
}

#[test]
fn routes_that_lead_nowhere_of_ours_are_punted() {
    let world = scene::world(2, 1);
    let far = scene::udp(IN, host4(0).into(), [10, 9, 0, 1].into(), b"");
    assert_eq!(verdict(&world, &far), punt(PuntReason::NoRoute));
    let kernel = with_ns(|ns| ns.next_hops = [NextHop::Kernel; 2].into());
    assert_eq!(verdict(&kernel, &packet4()), punt(PuntReason::KernelRoute));
    let lacking = with_ns(|ns| ns.next_hops = [].into());
    assert_eq!(verdict(&lacking, &packet4()), punt(PuntReason::NoRoute));
    let stranger = scene::udp(IN, host4(0).into(), [10, 0, 1, 77].into(), b"");
    assert_eq!(verdict(&world, &stranger), punt(PuntReason::NoNeighbor));
    let down = with_port(OUT, |port| port.up = false);
    assert_eq!(verdict(&down, &packet4()), punt(PuntReason::KernelRoute));
    let mut gone = scene::world(2, 1);
    gone.ports[OUT.index()] = None;
    assert_eq!(verdict(&gone, &packet4()), punt(PuntReason::KernelRoute));
}

#[test]
fn a_port_of_another_namespace_is_no_way_out() {
    // The table names the other tenant's port, which has such a neighbour and all.
    let other = PortId(3);
    let leak = with_ns(|ns| {
        ns.next_hops = [NextHop::Forward { port: other, gateway: None, mtu: 1500 }; 2].into();
        Arc::make_mut(&mut ns.neighbors).insert(
            other,
            host4(1).into(),
            Neigh::fresh(host_mac(other)),
        );
    });
    assert_eq!(verdict(&leak, &packet4()), punt(PuntReason::KernelRoute));
    // The port has moved, the table not yet.
    let moved = with_port(OUT, |port| port.ns = tenant_ns(1));
    assert_eq!(verdict(&moved, &packet4()), punt(PuntReason::KernelRoute));
    // The same index, but the namespace before.
    let before = with_port(OUT, |port| port.ns.generation -= 1);
    assert_eq!(verdict(&before, &packet4()), punt(PuntReason::KernelRoute));
}

#[test]
fn gateways_are_asked_for_instead_of_the_destination() {
    let gateway: IpAddr = "fe80::9".parse().unwrap();
    let world = with_ns(|ns| {
        ns.v4 = Arc::new(Fib4::build([(Ipv4Addr::UNSPECIFIED, 0, 0)]));
        ns.next_hops =
            [NextHop::Forward { port: OUT, gateway: Some(gateway), mtu: 1500 }; 1].into();
        Arc::make_mut(&mut ns.neighbors).insert(OUT, gateway, Neigh::fresh(Mac([9; 6])));
    });
    let expected = Forward { dst: Mac([9; 6]), ..how(49) };
    assert_eq!(verdict(&world, &packet4()), Verdict::Forward(expected));
}

#[test]
fn longer_than_route_or_port_allows_is_the_kernels() {
    let too_big = punt(PuntReason::TooBig);
    let route = |mtu| {
        with_ns(|ns| {
            ns.next_hops = [NextHop::Forward { port: OUT, gateway: None, mtu }; 2].into();
        })
    };
    assert_eq!(verdict(&route(34), &packet4()), too_big);
    assert_eq!(verdict(&route(35), &packet4()), Verdict::Forward(how(49)));
    assert_eq!(verdict(&with_port(OUT, |port| port.mtu = 54), &packet6()), too_big);
    assert_eq!(
        verdict(&with_port(OUT, |port| port.mtu = 55), &packet6()),
        Verdict::Forward(how(69))
    );
}

#[test]
fn the_source_must_be_believed() {
    let filter = |rp_filter, src: [u8; 4]| {
        let world = with_port(IN, |port| port.rp_filter = rp_filter);
        verdict(&world, &scene::udp(IN, src.into(), host4(1).into(), b"payload"))
    };
    let (here, there, nowhere) = ([10, 0, 0, 7], [10, 0, 1, 7], [10, 7, 7, 7]);
    let (pass, check) = (Verdict::Forward(how(49)), punt(PuntReason::SourceCheck));
    for (rp_filter, results) in [
        (RpFilter::Off, [pass, pass, pass]),
        (RpFilter::Loose, [pass, pass, check]),
        (RpFilter::Strict, [pass, check, check]),
    ] {
        assert_eq!([here, there, nowhere].map(|src| filter(rp_filter, src)), results);
    }
    // IPv6 has no such filter.
    let strict = with_port(IN, |port| port.rp_filter = RpFilter::Strict);
    let odd = scene::udp(IN, "2001:db8::1".parse().unwrap(), host6(1).into(), b"payload");
    assert_eq!(verdict(&strict, &odd), Verdict::Forward(how(69)));
    // A source that only the kernel knows how to reach is the kernel's to judge.
    let mut kernel = with_ns(|ns| {
        let out = ns.next_hops[1];
        ns.next_hops = [NextHop::Kernel, out].into();
    });
    kernel.ports[0].as_mut().unwrap().rp_filter = RpFilter::Loose;
    assert_eq!(verdict(&kernel, &packet4()), check);
}

#[test]
fn leaving_where_it_came_in_is_marked() {
    let back = scene::udp(IN, host4(1).into(), host4(0).into(), b"payload");
    let expected = Forward {
        port: IN,
        dst: host_mac(IN),
        src: port_mac(IN),
        sample: Some(PuntReason::Hairpin),
        ..how(49)
    };
    assert_eq!(verdict(&scene::world(2, 1), &back), Verdict::Forward(expected));
}

#[test]
fn a_stale_neighbour_is_sent_to_and_marked() {
    let world = with_ns(|ns| {
        let stale = Neigh { mac: host_mac(OUT), stale: true };
        Arc::make_mut(&mut ns.neighbors).insert(OUT, host4(1).into(), stale);
    });
    let sample = Some(PuntReason::StaleNeighbor);
    assert_eq!(verdict(&world, &packet4()), Verdict::Forward(Forward { sample, ..how(49) }));
}

#[test]
fn unfinished_checksums_are_completed_for_every_verdict() {
    for (whole, start) in [(packet4(), 34), (packet6(), 54)] {
        let partial =
            Tag { flags: TAG_CSUM_PARTIAL, csum_start: start, csum_offset: 6, ..scene::tag(IN) };
        let field = usize::from(start) + 6;
        for world in [scene::world(2, 1), with_ns(|ns| ns.next_hops = [].into())] {
            let mut packet = whole.clone();
            packet[field..field + 2].copy_from_slice(&scene::pseudo_sum(&whole).to_be_bytes());
            // Padding of any content takes no part.
            packet.extend([0xaa; 9]);
            let decision = decide(&world, IN, GENERATION, &partial, &mut packet);
            assert!(decision.csum_completed);
            assert_eq!(packet[..whole.len()], whole);
            assert_eq!(packet[whole.len()..], [0xaa; 9]);
        }
        // The tag says nothing: whatever the field holds is left alone.
        let mut packet = whole.clone();
        packet[field..field + 2].copy_from_slice(&scene::pseudo_sum(&whole).to_be_bytes());
        let before = packet.clone();
        let decision = decide(&scene::world(2, 1), IN, GENERATION, &scene::tag(IN), &mut packet);
        assert!(!decision.csum_completed);
        assert_eq!(packet, before);
    }
}

/// A world of a few namespaces whose tables name any port at all.
fn any_world() -> impl Strategy<Value = World> {
    let port =
        (0..3_u16, 0..2_u16, any::<bool>(), 0..6_u8).prop_map(|(ns, generation, up, rp)| Port {
            ns: NsId { index: ns, generation },
            generation: GENERATION,
            ifindex: IfIndex(2),
            mac: port_mac(IN),
            mtu: 1500,
            forward_v4: true,
            forward_v6: true,
            rp_filter: [RpFilter::Off, RpFilter::Loose, RpFilter::Strict][usize::from(rp % 3)],
            up,
            queues: u16::from(rp / 3),
            role: Role::Device,
        });
    // Every third a member of one of the others, or of itself.
    let port = (port, 0..18_u16).prop_map(|(port, parent)| {
        let tags = Tags::new((0x8100, parent + 1), None);
        let member = Member { parent: PortId(parent), parent_generation: GENERATION, tags };
        let role = if parent < 6 { Role::Member(Box::new(member)) } else { Role::Device };
        Port { role, ..port }
    });
    let hop = prop_oneof![
        1 => Just(NextHop::Kernel),
        9 => (0..8_u16).prop_map(|port| NextHop::Forward { port: PortId(port), gateway: None, mtu: 1500 }),
    ];
    let ns = (0..2_u16, prop::collection::vec(hop, 1..4), 0..6_u32);
    (
        prop::collection::vec(prop::option::weighted(0.9, port), 6),
        prop::collection::vec(prop::option::weighted(0.9, ns), 3),
    )
        .prop_map(|(ports, namespaces)| World {
            weights: Vec::new(),
            punt_rates: Vec::new(),
            ports,
            namespaces: namespaces
                .into_iter()
                .enumerate()
                .map(|(index, ns)| {
                    let (generation, hops, hop) = ns?;
                    Some(Arc::new(Namespace {
                        id: Some(NsId { index: index as u16, generation }),
                        v4: Arc::new(Fib4::build([(Ipv4Addr::UNSPECIFIED, 0, hop)])),
                        v6: Arc::new(Fib6::build([(Ipv6Addr::UNSPECIFIED, 0, hop)])),
                        next_hops: hops.into(),
                        neighbors: Arc::new(
                            (0..8)
                                .flat_map(|port| {
                                    [host4(1).into(), host6(1).into()]
                                        .map(|addr| (PortId(port), addr, Neigh::fresh(Mac([7; 6]))))
                                })
                                .collect(),
                        ),
                        ..Namespace::default()
                    }))
                })
                .collect(),
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_the_tables_say_no_packet_leaves_its_namespace(
        world in any_world(), port in 0..6_u16, v6: bool
    ) {
        let mut packet = if v6 { packet6() } else { packet4() };
        let Some(ingress) = world.ports[usize::from(port)].clone() else { return Ok(()) };
        let tag = Tag { ns: ingress.ns.packed(), port, generation: GENERATION.low(), ..Tag::default() };
        if let Verdict::Forward(how) =
            decide(&world, PortId(port), GENERATION, &tag, &mut packet).verdict
        {
            let egress = world.ports[how.port.index()].as_ref().expect("an existing port");
            let sends = egress.queues > 0 && egress.ns == ingress.ns;
            prop_assert!(egress.role == Role::Device || sends);
            prop_assert_eq!(&ingress.role, &Role::Device);
            // By a port of its own namespace, or as a member of it leaves.
            let by_member = |p: &Port| {
                let Role::Member(m) = &p.role else { return false };
                p.ns == ingress.ns && m.parent == how.port && m.tags == how.tags
            };
            let own = how.tags.is_empty() && egress.ns == ingress.ns;
            prop_assert!(own || world.ports.iter().flatten().any(by_member));
            prop_assert_eq!(how.sample.is_some(), own && how.port.0 == port);
        }
    }

    #[test]
    fn no_bytes_and_no_tag_are_too_odd(
        bytes in prop::collection::vec(any::<u8>(), 0..120),
        flags in 0..4_u16, csum_start: u16, csum_offset: u16, near: bool, kind in 0..3,
    ) {
        let mut packet = bytes;
        // Often enough something that gets past the first checks.
        let real = [packet4(), packet6(), Vec::new()][kind as usize].clone();
        let n = packet.len().min(real.len().min(30));
        packet[..n].copy_from_slice(&real[..n]);
        let (csum_start, csum_offset) =
            if near { (csum_start % 130, csum_offset % 130) } else { (csum_start, csum_offset) };
        let tag = Tag { flags, csum_start, csum_offset, ..scene::tag(IN) };
        let decision = decide(&scene::world(1, 1), IN, GENERATION, &tag, &mut packet);
        if let Verdict::Forward(how) = decision.verdict {
            prop_assert!(usize::from(how.len) <= packet.len());
            rewrite(&mut packet, &how);
        }
        // Not for such packets, but it must not panic either.
        rewrite(&mut packet, &how(20));
    }
}
