//! What is decided on many at once is what is decided on one.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::id::Mac;
use crate::tables::neigh::Neigh;
use crate::worker::sim::scene::{self, GENERATION, host_mac, host4, host6};
use crate::worker::stages::{Decision, Verdict};

const IN: PortId = PortId(0);

/// What becomes of a packet here; None: nothing is said of it.
fn many<F: Family>(
    world: &World,
    ways: &mut Ways,
    tag: &Tag,
    frame: &[u8],
) -> Option<(Way, Vec<u8>)> {
    let ring = Ring::new(world, IN, GENERATION).filter(Ring::takes::<F>)?;
    let mut heads = Heads::<F>::default();
    let mut head = Some((7, ring.head::<F>(tag, frame)?));
    heads.fill(|| head.take());
    let mut hops = [0; MOST];
    ring.routes(&heads, &mut hops);
    let (at, (dst, len)) = heads.nth(0);
    assert_eq!((heads.len(), at), (1, 7));
    let way = *ring.way::<F>(ways, (dst, len), hops[0])?;
    let mut frame = frame.to_vec();
    F::rewrite(&mut frame, &way.addresses);
    frame.truncate(ethernet::LEN + usize::from(len));
    Some((way, frame))
}

/// What becomes of it by `decide`.
fn single(world: &World, tag: &Tag, frame: &[u8]) -> (Decision, Vec<u8>) {
    let mut frame = frame.to_vec();
    let decision = super::super::decide(world, IN, GENERATION, tag, &mut frame);
    if let Verdict::Forward(how) = decision.verdict {
        super::super::rewrite(&mut frame, &how);
        frame.truncate(how.len.into());
    }
    (decision, frame)
}

/// A world in which a packet may meet anything.
fn world(gateway: bool, filter: RpFilter, mtu: u32) -> World {
    let mut world = scene::world(2, 1);
    for port in world.ports.iter_mut().flatten() {
        port.rp_filter = filter;
    }
    let ns = Arc::get_mut(world.namespaces[0].as_mut().expect("one")).expect("nobody has it yet");
    if gateway {
        let gateway = Some(host4(1).into());
        ns.next_hops =
            vec![ns.next_hops[0], NextHop::Forward { port: PortId(1), gateway, mtu }].into();
    } else {
        let hop = NextHop::Forward { port: PortId(1), gateway: None, mtu };
        ns.next_hops = vec![ns.next_hops[0], hop].into();
    }
    world
}

/// A packet between hosts, some of which there are not.
fn packet(v6: bool, from: u8, to: u8, last: u8, len: usize) -> Vec<u8> {
    let payload = vec![0x5a; len];
    if v6 {
        let to = host6(to).to_bits() & !0xff | u128::from(last);
        scene::udp(IN, host6(from).into(), std::net::Ipv6Addr::from_bits(to).into(), &payload)
    } else {
        let to = host4(to).to_bits() & !0xff | u32::from(last);
        scene::udp(IN, host4(from).into(), std::net::Ipv4Addr::from_bits(to).into(), &payload)
    }
}

/// Both agree, or nothing is said.
fn compare(world: &World, ways: &mut Ways, tag: &Tag, frame: &[u8]) -> Result<bool, TestCaseError> {
    let (decision, wanted) = single(world, tag, frame);
    let found = [many::<V4>(world, ways, tag, frame), many::<V6>(world, ways, tag, frame)];
    prop_assert!(found[0].is_none() || found[1].is_none());
    let Some((way, sent)) = found.into_iter().flatten().next() else { return Ok(false) };
    let Verdict::Forward(how) = decision.verdict else {
        return Err(TestCaseError::fail(format!("{way:?} and {decision:?}")));
    };
    prop_assert_eq!(way.leave, Leave::new(IN, how.port, how.generation));
    prop_assert!(how.tags.is_empty() && how.sample.is_none() && how.ingress == IN);
    prop_assert_eq!((decision.lead, decision.csum_completed), (0, false));
    prop_assert_eq!(sent, wanted);
    Ok(true)
}

#[test]
fn usual_packets_are_done_here() {
    for gateway in [false, true] {
        for filter in [RpFilter::Off, RpFilter::Loose, RpFilter::Strict] {
            let world = world(gateway, filter, 1500);
            let mut ways = Ways::default();
            for v6 in [false, true] {
                for len in [0, 1, 18, 1400] {
                    let packet = packet(v6, 0, 1, 2, len);
                    assert!(compare(&world, &mut ways, &scene::tag(IN), &packet).unwrap());
                    // Padded, and again: the way is known now.
                    let packet = [&packet[..], &[9; 4]].concat();
                    assert!(compare(&world, &mut ways, &scene::tag(IN), &packet).unwrap());
                }
            }
        }
    }
}

#[test]
fn a_way_is_of_its_world() {
    let mut world = world(false, RpFilter::Off, 1500);
    let mut ways = Ways::default();
    let frame = packet(false, 0, 1, 2, 9);
    let tag = scene::tag(IN);
    let (way, _) = many::<V4>(&world, &mut ways, &tag, &frame).unwrap();
    assert_eq!(way.addresses[..6], host_mac(PortId(1)).0);
    let other = Mac([2, 9, 9, 9, 9, 9]);
    let ns = Arc::get_mut(world.namespaces[0].as_mut().unwrap()).unwrap();
    let neighbor = (PortId(1), host4(1).into(), Neigh::fresh(other));
    ns.neighbors = Arc::new([neighbor].into_iter().collect());
    ways.forget();
    let (way, _) = many::<V4>(&world, &mut ways, &tag, &frame).unwrap();
    assert_eq!(way.addresses[..6], other.0);
    // The port is another's now: nothing leaves by it, though it was found before.
    world.ports[1].as_mut().unwrap().ns = scene::tenant_ns(1);
    ways.forget();
    assert_eq!(many::<V4>(&world, &mut ways, &tag, &frame), None);
}

#[test]
fn ways_that_share_a_place_are_told_apart() {
    let world = world(false, RpFilter::Off, 1500);
    let mut ways = Ways::default();
    let tag = scene::tag(IN);
    // Whatever place the ways take, the answer is the same.
    for _ in 0..3 {
        for v6 in [false, true] {
            assert!(compare(&world, &mut ways, &tag, &packet(v6, 0, 1, 2, 9)).unwrap());
            let key = |hop| Key::new(IN, hop, 0);
            let leave = Leave::new(IN, PortId(9), Generation(9));
            let way = Way { leave, addresses: [0xee; 12], longest: 9000 };
            for hop in 0..2000 {
                ways.put(ways.place(&key(hop)), key(hop), way);
            }
        }
    }
}

proptest! {
    /// Whatever a packet is, and wherever it would go.
    #[test]
    fn what_many_come_to_is_what_one_comes_to(
        (v6, gateway) in any::<(bool, bool)>(),
        filter in prop_oneof![Just(RpFilter::Off), Just(RpFilter::Loose), Just(RpFilter::Strict)],
        (from, to) in (0_u8..3, 0_u8..3),
        last in prop_oneof![4 => Just(2_u8), 1 => any::<u8>()],
        (len, mtu) in (0_usize..100, prop_oneof![Just(1500_u32), 60_u32..120]),
        (at, byte) in (0_usize..70, any::<u8>()),
        (change, fix) in any::<(bool, bool)>(),
        cut in 0_usize..120,
        flags in prop_oneof![6 => Just(0_u16), 1 => 0_u16..16],
        generation in prop_oneof![9 => Just(GENERATION.low()), 1 => any::<u16>()],
    ) {
        let world = world(gateway, filter, mtu);
        let mut frame = packet(v6, from, to, last, len);
        if change && at < frame.len() {
            frame[at] = byte;
            if fix && !v6 && frame.len() >= 34 {
                frame[24..26].fill(0);
                let sum = crate::wire::checksum::sum(&frame[14..34]).complement();
                frame[24..26].copy_from_slice(&sum.to_be_bytes());
            }
        }
        if cut > 90 {
            frame.truncate(cut - 90);
        }
        let tag = Tag { flags, generation, ..scene::tag(IN) };
        let mut ways = Ways::default();
        let first = compare(&world, &mut ways, &tag, &frame)?;
        prop_assert_eq!(first, compare(&world, &mut ways, &tag, &frame)?);
    }
}
