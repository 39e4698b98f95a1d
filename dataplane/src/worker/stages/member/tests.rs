//! Two tenants alike, whose ports towards the hosts at side 0 are VLANs of one trunk.
//!
//! ```text
//!  trunk 4 ── VLAN 100 ── member 0 [ tenant 0 ] port 1
//!         └── VLAN 200 ── member 2 [ tenant 1 ] port 3         far end 5 of member 0's stand-in
//! ```

use nsplane_abi::tag::TAG_MEMBER;
use nsplane_abi::vlan::{DOT1AD, DOT1Q};

use super::super::{decide as decide_plain, rewrite};
use super::*;
use crate::id::{IfIndex, NsId};
use crate::tables::RpFilter;
use crate::wire::vlan::{Tags, put_on};
use crate::worker::sim::scene::{self, GENERATION, host_mac, host4, host6, port_mac, tenant_ns};

const STALE: Verdict = Verdict::Drop(DropReason::Stale);
const GONE: Verdict = Verdict::Drop(DropReason::PortGone);

const TRUNK: PortId = PortId(4);
const FAR: PortId = PortId(5);
const INFRA: NsId = NsId { index: 2, generation: 1 };

fn tags_of_tenant(tenant: u16) -> Tags {
    Tags::new((DOT1Q, 100 * (tenant + 1)), None)
}

fn device(ns: NsId, role: Role) -> Port {
    Port {
        ns,
        generation: GENERATION,
        ifindex: IfIndex(9),
        mac: port_mac(TRUNK),
        mtu: 1500,
        forward_v4: false,
        forward_v6: false,
        rp_filter: RpFilter::Off,
        up: true,
        queues: 1,
        role,
    }
}

fn world() -> World {
    let mut world = scene::world(2, 1);
    for tenant in 0..2 {
        let member = world.ports[usize::from(tenant) * 2].as_mut().unwrap();
        member.role = Role::Member(Box::new(Member {
            parent: TRUNK,
            parent_generation: GENERATION,
            tags: tags_of_tenant(tenant),
        }));
        member.queues = 0;
    }
    world.ports.push(Some(device(INFRA, Role::Device)));
    world.ports.push(Some(device(INFRA, Role::Cross(Some((PortId(0), GENERATION))))));
    world
}

fn with(change: impl FnOnce(&mut World)) -> World {
    let mut world = world();
    change(&mut world);
    world
}

fn member_of(world: &mut World, port: usize) -> &mut Member {
    match &mut world.ports[port].as_mut().unwrap().role {
        Role::Member(member) => member,
        other => panic!("{other:?}"),
    }
}

fn tag_of_tenant(tenant: u16) -> Tag {
    Tag {
        ns: tenant_ns(tenant).packed(),
        port: TRUNK.0,
        member: tenant * 2,
        flags: TAG_MEMBER,
        ..scene::tag(PortId(tenant * 2))
    }
}

fn below() -> MemberTag {
    MemberTag { generation: GENERATION.0, ..MemberTag::default() }
}

/// What the host at side 0 of a tenant sends to the one at side 1, without tags.
fn bare(tenant: u16, v6: bool) -> Vec<u8> {
    let port = PortId(tenant * 2);
    if v6 {
        scene::udp(port, host6(0).into(), host6(1).into(), b"payload")
    } else {
        scene::udp(port, host4(0).into(), host4(1).into(), b"payload")
    }
}

fn tagged(tags: &[(u16, u16)], frame: &[u8]) -> Vec<u8> {
    let bytes = tags.iter().flat_map(|(a, b)| [a.to_be_bytes(), b.to_be_bytes()].concat());
    [&frame[..12], &bytes.collect::<Vec<u8>>(), &frame[12..]].concat()
}

fn verdict(world: &World, tag: &Tag, below: &MemberTag, frame: &[u8]) -> Verdict {
    decide(world, TRUNK, GENERATION, (tag, below), &mut frame.to_vec()).verdict
}

#[test]
fn a_members_packet_is_forwarded_by_its_own_namespace() {
    for (tenant, v6) in [(0, false), (0, true), (1, false), (1, true)] {
        // Priority and all.
        let bare = bare(tenant, v6);
        let mut frame = tagged(&[(DOT1Q, 0xe000 | (100 * (tenant + 1)))], &bare);
        let tags = (&tag_of_tenant(tenant), &below());
        let decision = decide(&world(), TRUNK, GENERATION, tags, &mut frame);
        let Verdict::Forward(how) = decision.verdict else { panic!("{decision:?}") };
        assert_eq!((decision.lead, decision.ingress), (4, PortId(tenant * 2)));
        assert_eq!((how.port, how.ingress), (PortId(tenant * 2 + 1), PortId(tenant * 2)));
        assert_eq!((how.tags, usize::from(how.len)), (Tags::NONE, bare.len()));
        assert_eq!(frame[4..], bare, "the tag is off");
    }
}

#[test]
fn what_leaves_by_a_member_leaves_by_its_port_with_its_tags() {
    let port = PortId(3);
    let mut frame = scene::udp(port, host4(1).into(), host4(0).into(), b"payload");
    let bare = frame.clone();
    let decision = decide_plain(&world(), port, GENERATION, &scene::tag(port), &mut frame);
    let Verdict::Forward(how) = decision.verdict else { panic!("{decision:?}") };
    assert_eq!((how.port, how.tags, decision.lead), (TRUNK, tags_of_tenant(1), 0));
    rewrite(&mut frame, &how);
    let len = frame.len();
    frame.resize(len + 4, 0);
    assert!(put_on(&mut frame, 0, len, how.tags));
    let mut expected = tagged(&[(DOT1Q, 200)], &bare);
    expected[0..6].copy_from_slice(&host_mac(PortId(2)).0);
    expected[6..12].copy_from_slice(&port_mac(PortId(2)).0);
    expected[26] = 63;
    expected[28..30].copy_from_slice(&frame[28..30]);
    assert_eq!(frame, expected);
}

#[test]
fn from_one_vlan_of_a_trunk_to_another_of_the_same_namespace() {
    // Tenant 0's other port is a VLAN of the trunk too, in a VLAN.
    let inner = Tags::new((DOT1AD, 7), Some((DOT1Q, 8)));
    let world = with(|w| {
        let role = w.ports[0].as_ref().unwrap().role.clone();
        let port = w.ports[1].as_mut().unwrap();
        (port.role, port.queues) = (role, 0);
        member_of(w, 1).tags = inner;
    });
    let frame = tagged(&[(DOT1Q, 100)], &bare(0, false));
    let Verdict::Forward(how) = verdict(&world, &tag_of_tenant(0), &below(), &frame) else {
        panic!("not forwarded")
    };
    assert_eq!((how.port, how.tags, how.sample), (TRUNK, inner, None));
}

#[test]
fn tag_ring_and_world_must_agree_on_the_member() {
    let good = tagged(&[(DOT1Q, 100)], &bare(0, false));
    let (tag, other) = (tag_of_tenant(0), NsId { generation: 9, ..tenant_ns(0) });
    let stale = [
        // What the program says.
        (Tag { ns: tenant_ns(1).packed(), ..tag }, below(), world()),
        (Tag { ns: INFRA.packed(), ..tag }, below(), world()),
        (Tag { ns: other.packed(), ..tag }, below(), world()),
        (Tag { port: 1, ..tag }, below(), world()),
        (Tag { generation: 9, ..tag }, below(), world()),
        (Tag { member: 1, ..tag }, below(), world()),
        (Tag { member: 2, ..tag }, below(), world()),
        (tag, MemberTag { generation: 9, ..below() }, world()),
        (tag, MemberTag { vlan_proto: DOT1Q, vlan_tci: 100, ..below() }, world()),
        // What the world says.
        (tag, below(), with(|w| w.ports[0].as_mut().unwrap().ns = tenant_ns(1))),
        (tag, below(), with(|w| w.ports[0].as_mut().unwrap().generation = Generation(9))),
        (tag, below(), with(|w| w.ports[0].as_mut().unwrap().role = Role::Device)),
        (tag, below(), with(|w| w.ports[4].as_mut().unwrap().generation = Generation(9))),
        (tag, below(), with(|w| w.ports[4].as_mut().unwrap().role = Role::Cross(None))),
        (tag, below(), with(|w| member_of(w, 0).parent = FAR)),
        (tag, below(), with(|w| member_of(w, 0).parent_generation = Generation(9))),
        (tag, below(), with(|w| member_of(w, 0).tags = tags_of_tenant(1))),
        (tag, below(), with(|w| member_of(w, 0).tags = Tags::new((DOT1AD, 100), None))),
    ];
    for (i, (tag, below, world)) in stale.iter().enumerate() {
        assert_eq!(verdict(world, tag, below, &good), STALE, "{i}");
    }
    let gone = [
        (Tag { member: 77, ..tag }, world()),
        (Tag { member: TRUNK.0, ..tag }, world()),
        (tag, with(|w| w.ports[0] = None)),
        (tag, with(|w| w.ports[4] = None)),
        (tag, with(|w| w.namespaces[0] = None)),
    ];
    for (i, (tag, world)) in gone.iter().enumerate() {
        assert_eq!(verdict(world, tag, &below(), &good), GONE, "{i}");
    }
    // Frames that are not the member's, whatever the program said of them.
    for tags in [&[][..], &[(DOT1Q, 200)], &[(DOT1AD, 100)], &[(DOT1Q, 100), (DOT1Q, 1)]] {
        let frame = tagged(tags, &bare(0, false));
        assert_eq!(verdict(&world(), &tag, &below(), &frame), STALE, "{tags:?}");
    }
    // A member's packet that claims to be the trunk's own, and the reverse.
    let plain = Tag { flags: 0, ..tag };
    let mut frame = good.clone();
    let as_trunks = decide_plain(&world(), TRUNK, GENERATION, &plain, &mut frame).verdict;
    assert!(matches!(as_trunks, Verdict::Drop(_)), "{as_trunks:?}");
    let own = scene::tag(PortId(0));
    let mut frame = bare(0, false);
    let by_member = decide_plain(&world(), PortId(0), GENERATION, &own, &mut frame);
    assert_eq!(by_member.verdict, STALE, "a member has no ring");
}

#[test]
fn a_tag_beside_the_packet_counts_as_in_it() {
    let bare = bare(0, false);
    let beside = MemberTag { vlan_proto: DOT1Q, vlan_tci: 0x2064, ..below() };
    let mut frame = bare.clone();
    let decision = decide(&world(), TRUNK, GENERATION, (&tag_of_tenant(0), &beside), &mut frame);
    assert!(matches!(decision.verdict, Verdict::Forward(_)), "{decision:?}");
    assert_eq!((decision.lead, frame), (0, bare.clone()));
    let world = with(|w| member_of(w, 0).tags = Tags::new((DOT1Q, 100), Some((DOT1Q, 5))));
    let frame = tagged(&[(DOT1Q, 5)], &bare);
    assert!(matches!(verdict(&world, &tag_of_tenant(0), &beside, &frame), Verdict::Forward(_)));
}

#[test]
fn an_unfinished_checksum_is_found_behind_the_tags() {
    let finished = bare(0, false);
    let mut frame = finished.clone();
    let pseudo = scene::pseudo_sum(&frame);
    frame[40..42].copy_from_slice(&pseudo.to_be_bytes());
    let mut frame = tagged(&[(DOT1Q, 100)], &frame);
    let flags = TAG_MEMBER | nsplane_abi::tag::TAG_CSUM_PARTIAL;
    let tag = Tag { flags, csum_start: 38, csum_offset: 6, ..tag_of_tenant(0) };
    let decision = decide(&world(), TRUNK, GENERATION, (&tag, &below()), &mut frame);
    assert!(decision.csum_completed);
    assert_eq!(frame[4..], finished);
}

#[test]
fn what_a_program_would_pass_is_punted_without_its_tags() {
    let arp = [&bare(0, false)[..12], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    let mut frame = tagged(&[(DOT1Q, 100)], &arp);
    let tag = Tag { flags: TAG_MEMBER | TAG_PUNT, ..tag_of_tenant(0) };
    let decision = decide(&world(), TRUNK, GENERATION, (&tag, &below()), &mut frame);
    assert_eq!(decision.verdict, Verdict::Punt(PuntReason::Member));
    assert_eq!((decision.ingress, decision.lead), (PortId(0), 4));
    assert_eq!(frame[4..], arp);
    // Punted or not, it has to be the member's.
    let frame = tagged(&[(DOT1Q, 200)], &arp);
    assert_eq!(verdict(&world(), &tag, &below(), &frame), STALE);
}

#[test]
fn a_member_with_a_device_leaves_by_that() {
    let port = PortId(1);
    let frame = scene::udp(port, host4(1).into(), host4(0).into(), b"payload");
    let how = |world: &World| {
        let tag = scene::tag(port);
        match decide_plain(world, port, GENERATION, &tag, &mut frame.clone()).verdict {
            Verdict::Forward(how) => (how.port, how.tags),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(how(&world()), (TRUNK, tags_of_tenant(0)));
    let device = |w: &mut World| w.ports[0].as_mut().unwrap().queues = 1;
    assert_eq!(how(&with(device)), (PortId(0), Tags::NONE));
    // Whatever is below it: the kernel knows.
    let alone = |w: &mut World| {
        device(w);
        w.ports[4] = None;
    };
    assert_eq!(how(&with(alone)), (PortId(0), Tags::NONE));
}

#[test]
fn a_parent_that_cannot_send_is_no_way_out() {
    let port = PortId(1);
    let frame = scene::udp(port, host4(1).into(), host4(0).into(), b"payload");
    let worlds = [
        with(|w| w.ports[4] = None),
        with(|w| w.ports[4].as_mut().unwrap().up = false),
        with(|w| w.ports[4].as_mut().unwrap().generation = Generation(9)),
        with(|w| w.ports[4].as_mut().unwrap().role = Role::Cross(None)),
        with(|w| w.ports[0].as_mut().unwrap().ns = tenant_ns(1)),
    ];
    for (i, world) in worlds.iter().enumerate() {
        let tag = scene::tag(port);
        let decision = decide_plain(world, port, GENERATION, &tag, &mut frame.clone());
        assert_eq!(decision.verdict, Verdict::Punt(PuntReason::KernelRoute), "{i}");
    }
}

#[test]
fn what_crosses_a_stand_in_leaves_as_it_is_in_the_members_vlan() {
    let tag = Tag { ns: INFRA.packed(), port: FAR.0, flags: TAG_CROSS, ..scene::tag(PortId(0)) };
    let frame = bare(0, false);
    let cross = |world: &World, tag: &Tag| {
        decide(world, FAR, GENERATION, (tag, &MemberTag::default()), &mut frame.clone())
    };
    let decision = cross(&world(), &tag);
    let Verdict::Send(how) = decision.verdict else { panic!("{decision:?}") };
    assert_eq!((how.port, how.tags), (TRUNK, tags_of_tenant(0)));
    assert_eq!((how.ingress, usize::from(how.len)), (PortId(0), frame.len()));
    let far = |w: &mut World, to| w.ports[5].as_mut().unwrap().role = Role::Cross(to);
    let drops = [
        (world(), Tag { ns: tenant_ns(0).packed(), ..tag }, DropReason::Stale),
        (world(), Tag { generation: 9, ..tag }, DropReason::Stale),
        (with(|w| far(w, Some((PortId(0), Generation(9))))), tag, DropReason::Stale),
        (with(|w| far(w, Some((PortId(1), GENERATION)))), tag, DropReason::Stale),
        (with(|w| far(w, None)), tag, DropReason::PortGone),
        (with(|w| w.ports[4] = None), tag, DropReason::EgressGone),
        (with(|w| w.ports[4].as_mut().unwrap().mtu = 20), tag, DropReason::NoRoom),
    ];
    for (i, (world, tag, reason)) in drops.iter().enumerate() {
        assert_eq!(cross(world, tag).verdict, Verdict::Drop(*reason), "{i}");
    }
    // Nothing that comes in there is ever the namespace's that it lies in.
    let plain = Tag { flags: 0, ..tag };
    let decision = decide_plain(&world(), FAR, GENERATION, &plain, &mut frame.clone());
    assert!(matches!(decision.verdict, Verdict::Drop(_)), "{decision:?}");
}
