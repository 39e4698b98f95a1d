//! Packets that are not simply their port's: a member's, and what crosses a stand-in.
//!
//! ```text
//!  from the port:     tag = ring = world, of port and member? ─► tags off ─► as any packet of
//!                         │ no                                               the member's namespace
//!                         └► Drop(Stale)
//!  from a stand-in:   tag = ring = world? ─► checksum completed ─► tags on ─► the member's port
//! ```
//! The worker does not believe the program's word for whose a packet is: the world
//! must have the member on that port, with those VLAN tags, in that namespace, and all
//! three in the generations that ring and tag name. Any disagreement drops.

use nsplane_abi::tag::{TAG_CROSS, TAG_PUNT};
use nsplane_abi::{MemberTag, Tag, vlan};

use super::{Decision, End, Forward, Stage, Verdict, complete_checksum, go_on};
use crate::id::{Generation, Mac, PortId};
use crate::stats::{DropReason, PuntReason};
use crate::tables::{Member, Namespace, Port, Role, World};
use crate::wire::ethernet;
use crate::wire::vlan::take_off;

const STALE: End = End::Drop(DropReason::Stale);
const GONE: End = End::Drop(DropReason::PortGone);

/// Decides on a packet whose tag has a bit of `TAG_ODD`, as `super::decide` does on
/// others. A member's packet is without its VLAN tags afterwards, and begins at
/// [`Decision::lead`].
pub fn decide(
    world: &World,
    port: PortId,
    generation: Generation,
    (tag, below): (&Tag, &MemberTag),
    frame: &mut [u8],
) -> Decision {
    decide_part(world, port, generation, (tag, below), (frame, 0))
}

/// The same of a packet whose first part is `frame`, as `super::decide_part`.
pub fn decide_part(
    world: &World,
    port: PortId,
    generation: Generation,
    (tag, below): (&Tag, &MemberTag),
    (frame, behind): (&mut [u8], usize),
) -> Decision {
    let ring = Ring { port, generation };
    let decided = if tag.flags & TAG_CROSS != 0 {
        cross(world, ring, tag, (frame, behind))
    } else {
        member(world, ring, (tag, below), (frame, behind))
    };
    decided.unwrap_or_else(|end| Decision {
        verdict: end.into(),
        ingress: port,
        lead: 0,
        csum_completed: false,
    })
}

/// What the ring proves.
#[derive(Clone, Copy)]
struct Ring {
    port: PortId,
    generation: Generation,
}

impl Ring {
    /// The port, if ring, tag and world agree on it.
    fn port<'w>(self, world: &'w World, tag: &Tag) -> Stage<&'w Port> {
        let port = entry(world, self.port)?;
        let agree = port.generation == self.generation
            && tag.port == self.port.0
            && tag.generation == self.generation.low();
        if agree { Ok(port) } else { Err(STALE) }
    }
}

fn entry(world: &World, port: PortId) -> Stage<&Port> {
    world.ports.get(port.index()).and_then(Option::as_ref).ok_or(GONE)
}

/// The member that a packet of the ring belongs to, and its namespace.
fn admit<'w>(
    world: &'w World,
    ring: Ring,
    (tag, below): (&Tag, &MemberTag),
) -> Stage<(&'w Port, &'w Member, &'w Namespace)> {
    let parent = ring.port(world, tag)?;
    let port = entry(world, PortId(tag.member))?;
    let ns = world.namespaces.get(usize::from(port.ns.index));
    let ns = ns.and_then(Option::as_deref).ok_or(GONE)?;
    let Role::Member(member) = &port.role else { return Err(STALE) };
    let agree = matches!(parent.role, Role::Device)
        && member.parent == ring.port
        && member.parent_generation == ring.generation
        && port.generation.0 == below.generation
        && ns.id == Some(port.ns)
        && tag.ns == port.ns.packed();
    if agree { Ok((port, member, ns)) } else { Err(STALE) }
}

fn member(
    world: &World,
    ring: Ring,
    (tag, below): (&Tag, &MemberTag),
    (frame, behind): (&mut [u8], usize),
) -> Stage<Decision> {
    let (port, member, ns) = admit(world, ring, (tag, below))?;
    let lead = tags_of(member, below, frame)?;
    take_off(frame, lead);
    let frame = &mut frame[lead..];
    // Counted from where the frame begins now; what lay before is no checksum's place.
    let csum_start = tag.csum_start.saturating_sub(lead as u16);
    let tag = Tag { csum_start, ..*tag };
    let ingress = PortId(tag.member);
    let decision = if tag.flags & TAG_PUNT == 0 {
        go_on(world, ns, (ingress, port), &tag, (frame, behind))
    } else {
        let csum_completed = complete_checksum(&tag, frame);
        Decision { verdict: Verdict::Punt(PuntReason::Member), ingress, lead: 0, csum_completed }
    };
    // At most the length of two tags.
    Ok(Decision { lead: lead as u8, ..decision })
}

/// Bytes of the tags that are in the frame. It must carry those of the member and no
/// others, in it or beside it.
fn tags_of(member: &Member, below: &MemberTag, frame: &[u8]) -> Stage<usize> {
    if member.tags.is_empty() {
        return if below.vlan_proto == 0 { Ok(0) } else { Err(STALE) };
    }
    let beside = (below.vlan_proto != 0).then_some((below.vlan_proto, below.vlan_tci));
    let worn = vlan::tags(frame, beside);
    let agree = worn.outer == member.tags.outer() && worn.inner == member.tags.inner();
    if agree { Ok(worn.in_packet * vlan::LEN) } else { Err(STALE) }
}

/// A frame that the kernel of a member's namespace sent out of the stand-in.
fn cross(
    world: &World,
    ring: Ring,
    tag: &Tag,
    (frame, behind): (&mut [u8], usize),
) -> Stage<Decision> {
    let far = ring.port(world, tag)?;
    let Role::Cross(to) = &far.role else { return Err(STALE) };
    if tag.ns != far.ns.packed() {
        return Err(STALE);
    }
    let (id, generation) = to.ok_or(GONE)?;
    let port = entry(world, id)?;
    let Role::Member(member) = &port.role else { return Err(STALE) };
    if port.generation != generation {
        return Err(STALE);
    }
    let parent = way_out(world, member).ok_or(End::Drop(DropReason::EgressGone))?;
    let csum_completed = complete_checksum(tag, frame);
    let too_long = End::Drop(DropReason::NoRoom);
    let whole = frame.len() + behind;
    let len = u16::try_from(whole).map_err(|_| too_long)?;
    if whole > ethernet::LEN + parent.mtu as usize {
        return Err(too_long);
    }
    let forward = Forward {
        ingress: id,
        port: member.parent,
        generation: member.parent_generation,
        tags: member.tags,
        len,
        dst: Mac::default(),
        src: Mac::default(),
        sample: None,
    };
    Ok(Decision { verdict: Verdict::Send(forward), ingress: id, lead: 0, csum_completed })
}

/// The port that a member's frames leave by, if they can.
#[inline]
pub(super) fn way_out<'w>(world: &'w World, member: &Member) -> Option<&'w Port> {
    let parent = world.ports.get(member.parent.index())?.as_ref()?;
    let usable = parent.generation == member.parent_generation
        && matches!(parent.role, Role::Device)
        && parent.up;
    usable.then_some(parent)
}

#[cfg(test)]
mod tests;
