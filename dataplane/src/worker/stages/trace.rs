//! What the stages find on a packet's way: for `nsplane explain`, off the hot path.
//!
//! The verdict is [`decide`](super::decide)'s own, and what leads to it is asked of the
//! functions that it asks: none of them is here a second time.

use std::net::IpAddr;

use nsplane_abi::{MemberTag, Tag};

use super::route::{self, Out};
use super::{Decision, Packet};
use crate::id::{Generation, PortId};
use crate::tables::neigh::Neigh;
use crate::tables::policy::Found;
use crate::tables::{NextHop, Port, Role, RpFilter, World};
use crate::wire::vlan;

/// A packet's way, as far as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// What is done with it.
    pub decision: Decision,
    /// The rule that it met, where the namespace has more than the usual ones.
    pub rule: Option<Found>,
    /// Where the tables lead; None where they say nothing, or it did not come so far.
    pub next_hop: Option<NextHop>,
    /// The way that it takes, if it is one of ours; of several next hops the chosen one.
    pub way: Option<Way>,
    /// The reverse-path filter that it met.
    pub source: Option<SourceCheck>,
    /// Who it is sent to on the egress port's link.
    pub neighbor: Option<Neigh>,
}

/// What the reverse-path filter said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceCheck {
    /// The filter.
    pub filter: RpFilter,
    /// Where the way back leads.
    pub way_back: Option<NextHop>,
    /// It let the packet pass.
    pub passed: bool,
}

/// A way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The port or member that the packet leaves by.
    pub port: PortId,
    /// The router that it is sent to, if not to its destination.
    pub gateway: Option<IpAddr>,
    /// Longest packet that may take it.
    pub mtu: u32,
}

/// Follows a frame that came in on `port`, without VLAN tags, if it is one of a port or a
/// member in this world. The frame is the packet's own from its first byte.
#[must_use]
pub fn trace(world: &World, port: PortId, frame: &[u8]) -> Option<Trace> {
    let ingress = world.ports.get(port.index())?.as_ref()?;
    let decision = decided(world, port, frame)?;
    let mut found =
        Trace { decision, rule: None, next_hop: None, way: None, source: None, neighbor: None };
    if let Ok(packet) = super::headers(ingress, frame, 0) {
        found.follow(world, (port, ingress), &packet);
    }
    Some(found)
}

impl Trace {
    fn follow(
        &mut self,
        world: &World,
        (port, ingress): (PortId, &Port),
        packet: &Packet<'_>,
    ) -> Option<()> {
        let ns = world.namespaces.get(usize::from(ingress.ns.index))?.as_deref()?;
        self.rule = route::rule(ns, port, packet);
        self.next_hop = route::lookup(ns, port, packet).copied();
        let Out { port: to, gateway, mtu } = route::out(ns, port, packet).ok()??;
        self.way = Some(Way { port: to, gateway: gateway.copied(), mtu });
        if ingress.rp_filter != RpFilter::Off && packet.src.is_ipv4() {
            self.source = Some(SourceCheck {
                filter: ingress.rp_filter,
                way_back: route::way_back(ns, port, packet, to).copied(),
                passed: route::check_source(ns, port, ingress, packet, to).is_ok(),
            });
        }
        self.neighbor = ns.neighbors.get(to, gateway.unwrap_or(&packet.dst));
        Some(())
    }
}

/// The worker's decision on a frame that the program redirected.
fn decided(world: &World, port: PortId, frame: &[u8]) -> Option<Decision> {
    let ingress = world.ports.get(port.index())?.as_ref()?;
    let mut tag = Tag { ns: ingress.ns.packed(), port: port.0, ..Tag::default() };
    let mut frame = frame.to_vec();
    match &ingress.role {
        Role::Device => {
            tag.generation = ingress.generation.low();
            Some(super::decide(world, port, ingress.generation, &tag, &mut frame))
        }
        Role::Member(member) => {
            let parent = (member.parent, member.parent_generation);
            let below = MemberTag { generation: ingress.generation.0, ..MemberTag::default() };
            let len = frame.len();
            frame.resize(len + member.tags.len(), 0);
            if !vlan::put_on(&mut frame, 0, len, member.tags) {
                return None;
            }
            tag = Tag { member: port.0, flags: nsplane_abi::tag::TAG_MEMBER, ..tag };
            Some(as_member(world, parent, (tag, below), &mut frame))
        }
        Role::Cross(_) => None,
    }
}

fn as_member(
    world: &World,
    (port, generation): (PortId, Generation),
    (tag, below): (Tag, MemberTag),
    frame: &mut [u8],
) -> Decision {
    let tag = Tag { port: port.0, generation: generation.low(), ..tag };
    super::member::decide(world, port, generation, (&tag, &below), frame)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stats::{DropReason, PuntReason};
    use crate::tables::Member;
    use crate::wire::vlan::Tags;
    use crate::worker::sim::scene::{self, GENERATION, host_mac, host4, host6};
    use crate::worker::stages::Verdict;

    const IN: PortId = PortId(0);
    const OUT: PortId = PortId(1);

    #[test]
    fn it_tells_what_the_decision_used() {
        let world = scene::world(1, 1);
        for (src, dst) in [(host4(0).into(), host4(1).into()), (host6(0).into(), host6(1).into())] {
            let found = trace(&world, IN, &scene::udp(IN, src, dst, b"x")).unwrap();
            assert!(matches!(found.decision.verdict, Verdict::Forward(f) if f.port == OUT));
            assert_eq!(found.way, Some(Way { port: OUT, gateway: None, mtu: 1500 }));
            assert_eq!(found.neighbor, Some(Neigh::fresh(host_mac(OUT))));
            assert_eq!((found.source, found.rule), (None, None));
        }
        assert_eq!(trace(&world, PortId(9), &[]), None);
    }

    #[test]
    fn the_source_check_is_told() {
        let mut world = scene::world(1, 1);
        world.ports[0].as_mut().unwrap().rp_filter = RpFilter::Strict;
        let packet = |src| scene::udp(IN, src, host4(1).into(), b"x");
        let found = trace(&world, IN, &packet(host4(0).into())).unwrap();
        assert!(found.source.is_some_and(|s| s.passed && s.way_back.is_some()));
        let found = trace(&world, IN, &packet(host4(1).into())).unwrap();
        assert_eq!(found.decision.verdict, Verdict::Punt(PuntReason::SourceCheck));
        assert!(found.source.is_some_and(|s| !s.passed && s.filter == RpFilter::Strict));
    }

    /// A member's packet is decided on as it is when it comes in by the parent, with tags.
    #[test]
    fn a_member_in_its_vlan() {
        let mut world = scene::world(1, 1);
        world.ports.push(world.ports[0].clone());
        let member = Member {
            parent: IN,
            parent_generation: GENERATION,
            tags: Tags::new((0x8100, 7), Some((0x8100, 8))),
        };
        world.ports[2].as_mut().unwrap().role = Role::Member(Box::new(member));
        let packet = scene::udp(IN, host4(0).into(), host4(1).into(), b"x");
        let found = trace(&world, PortId(2), &packet).unwrap();
        assert!(matches!(found.decision.verdict, Verdict::Forward(f) if f.port == OUT));
        assert_eq!(found.decision.ingress, PortId(2));
        world.ports[0] = None;
        let found = trace(&world, PortId(2), &packet).unwrap();
        assert_eq!(found.decision.verdict, Verdict::Drop(DropReason::PortGone));
    }

    proptest! {
        /// Whatever the packet: the verdict is the worker's, and what is told of the way
        /// is what the verdict says.
        #[test]
        fn what_is_told_is_what_is_decided(
            v6: bool,
            at in 14_usize..60,
            byte: u8,
            from in 0_u8..4, to in 0_u8..4,
            strict: bool,
        ) {
            let mut world = scene::world(2, 1);
            if strict {
                world.ports[0].as_mut().unwrap().rp_filter = RpFilter::Strict;
            }
            let mut packet = if v6 {
                scene::udp(IN, host6(from).into(), host6(to).into(), b"payload")
            } else {
                scene::udp(IN, host4(from).into(), host4(to).into(), b"payload")
            };
            if let Some(b) = packet.get_mut(at) {
                *b = byte;
            }
            let wanted =
                super::super::decide(&world, IN, GENERATION, &scene::tag(IN), &mut packet.clone());
            let found = trace(&world, IN, &packet).unwrap();
            prop_assert_eq!(found.decision, wanted);
            if let Verdict::Forward(f) = wanted.verdict {
                prop_assert_eq!(found.way.map(|way| way.port), Some(f.port));
                prop_assert_eq!(found.neighbor.map(|n| n.mac), Some(f.dst));
            }
            if wanted.verdict == Verdict::Punt(PuntReason::NoRoute) {
                prop_assert_eq!((found.next_hop, found.way), (None, None));
            }
            let refused = wanted.verdict == Verdict::Punt(PuntReason::SourceCheck);
            prop_assert_eq!(refused, found.source.is_some_and(|s| !s.passed));
        }
    }
}
