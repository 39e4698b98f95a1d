//! What to do with one packet: pure, world and packet in, verdict out.
//!
//! ```text
//!  tag = ring = world? ─► checksum completed ─► headers ─► route ─► source ─► egress ─► neighbour
//!        │ no                                    │ anything but the common case
//!        └► Drop(Stale)                          └► Punt(reason): the kernel's stack of the
//!                                                   packet's own namespace does the right thing
//! ```
//!
//! Right before fast: what is not done exactly as the kernel would is punted.
//!
//! Invariants:
//! - A verdict to forward names a port of the ingress port's own namespace and
//!   generation, or there is none: the check is made on every packet, against the
//!   same world that the route came from, whatever the tables say.
//! - [`decide`] changes nothing of the packet but an unfinished L4 checksum. So a
//!   punted packet is, but for that, byte for byte what came in. [`rewrite`] is
//!   called when it is certain that the packet is forwarded here.
//!
//! A packet that would leave by the port it came in on is to be forwarded, with
//! [`Forward::sample`] set: the kernel would send a redirect too. The run loop
//! punts such packets while the namespace's budget is rich, so that the kernel
//! sends its redirects (which it limits itself) from this sample, and forwards the
//! rest, as the kernel would. Likewise a few packets to a stale neighbour: sending
//! one itself, the kernel has the neighbour confirmed, or finds that it is gone.

mod headers;
pub mod member;
mod route;
pub mod trace;
pub mod usual;

use std::net::IpAddr;

use nsplane_abi::Tag;
use nsplane_abi::tag::TAG_CSUM_PARTIAL;

use crate::id::{Generation, Mac, PortId};
use crate::plant::{self, Bug};
use crate::stats::{DropReason, PuntReason};
use crate::tables::{Namespace, Port, Role, World};
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::ipv4::Ipv4;
use crate::wire::ipv6::Ipv6;
use crate::wire::l4;
use crate::wire::vlan::Tags;
use headers::headers;
use route::Out;

/// What to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Rewrite it and send it.
    Forward(Forward),
    /// Send it as it is: it has been routed already.
    Send(Forward),
    /// Give it to the kernel's stack of its namespace.
    Punt(PuntReason),
    /// Drop it.
    Drop(DropReason),
}

/// How a packet leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The port or member that it came in on: the counters are theirs.
    pub ingress: PortId,
    /// The port to send by: the egress port, of the same namespace as the ingress port,
    /// or, where that is a member, its parent.
    pub port: PortId,
    /// The use of that port's slot.
    pub generation: Generation,
    /// VLAN tags to put on.
    pub tags: Tags,
    /// Bytes of the frame without these tags, and without the padding that may have
    /// come with it.
    pub len: u16,
    /// The next hop's Ethernet address.
    pub dst: Mac,
    /// The egress port's Ethernet address.
    pub src: Mac,
    /// The kernel should see such packets now and then, and why: it leaves by the
    /// port it came in on, or its neighbour is stale.
    pub sample: Option<PuntReason>,
}

/// A verdict, and what was done to the packet on the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Decision {
    /// What to do.
    pub verdict: Verdict,
    /// The port or member that the packet came in on.
    pub ingress: PortId,
    /// Bytes in front of the packet that are no longer part of it.
    pub lead: u8,
    /// The L4 checksum was unfinished and is complete now.
    pub csum_completed: bool,
}

/// Where a stage ends a packet's way early: a small word, so that what goes on can stay in
/// registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Punt(PuntReason),
    Drop(DropReason),
}

impl From<End> for Verdict {
    #[inline]
    fn from(end: End) -> Self {
        match end {
            End::Punt(reason) => Self::Punt(reason),
            End::Drop(reason) => Self::Drop(reason),
        }
    }
}

type Stage<T> = Result<T, End>;

/// What the headers say, whatever the family.
#[derive(Clone, Copy)]
struct Packet<'a> {
    src: IpAddr,
    dst: IpAddr,
    /// What of the IP packet is in its first frame, header included, without what may
    /// be behind the packet.
    here: &'a [u8],
    /// Bytes of the whole packet, header included.
    len: usize,
}

/// Decides on a packet that came in on `port`, in the use `generation` of its slot
/// (as the queue that received it knows, from which no sender can move it).
#[inline]
pub fn decide(
    world: &World,
    port: PortId,
    generation: Generation,
    tag: &Tag,
    frame: &mut [u8],
) -> Decision {
    decide_as(world, port, generation, tag, (frame, 0))
}

/// The same of a packet whose first part is `frame`, with its headers; so many more bytes
/// lie elsewhere. Its checksum is complete.
#[inline(never)]
pub fn decide_part(
    world: &World,
    port: PortId,
    generation: Generation,
    tag: &Tag,
    part: (&mut [u8], usize),
) -> Decision {
    decide_as(world, port, generation, tag, part)
}

#[inline(always)]
fn decide_as(
    world: &World,
    port: PortId,
    generation: Generation,
    tag: &Tag,
    (frame, behind): (&mut [u8], usize),
) -> Decision {
    let (ingress, ns) = match admit(world, port, generation, tag) {
        Ok(admitted) => admitted,
        Err(end) => {
            let verdict = end.into();
            return Decision { verdict, ingress: port, lead: 0, csum_completed: false };
        }
    };
    go_on(world, ns, (port, ingress), tag, (frame, behind))
}

/// Decides on a packet of which it is certain whose it is.
///
/// Always inlined: to hand the decision back through memory costs more than a lookup.
#[inline(always)]
fn go_on(
    world: &World,
    ns: &Namespace,
    (port, ingress): (PortId, &Port),
    tag: &Tag,
    (frame, behind): (&mut [u8], usize),
) -> Decision {
    let csum_completed = complete_checksum(tag, frame);
    let verdict = match headers(ingress, frame, behind)
        .and_then(|packet| forward(world, ns, port, ingress, &packet))
    {
        Ok(forward) => Verdict::Forward(forward),
        Err(end) => end.into(),
    };
    Decision { verdict, ingress: port, lead: 0, csum_completed }
}

/// Ring, tag and world must agree on namespace, port and generation.
#[inline]
fn admit<'w>(
    world: &'w World,
    port: PortId,
    generation: Generation,
    tag: &Tag,
) -> Stage<(&'w Port, &'w Namespace)> {
    let (ingress, ns) = ring(world, port, generation)?;
    if agrees(tag, port, ingress) { Ok((ingress, ns)) } else { Err(End::Drop(DropReason::Stale)) }
}

/// What the ring proves: it is this port's, in this use of its slot, if the world says so too.
#[inline]
fn ring(world: &World, port: PortId, generation: Generation) -> Stage<(&Port, &Namespace)> {
    let Some(ingress) = world.ports.get(port.index()).and_then(Option::as_ref) else {
        return Err(End::Drop(DropReason::PortGone));
    };
    let Some(ns) = world.namespaces.get(usize::from(ingress.ns.index)).and_then(Option::as_deref)
    else {
        return Err(End::Drop(DropReason::PortGone));
    };
    let agree = ingress.generation == generation
        && ns.id == Some(ingress.ns)
        && matches!(ingress.role, Role::Device);
    if agree { Ok((ingress, ns)) } else { Err(End::Drop(DropReason::Stale)) }
}

/// The tag names the port, its namespace and its generation.
#[inline]
fn agrees(tag: &Tag, port: PortId, ingress: &Port) -> bool {
    tag.ns == ingress.ns.packed()
        && tag.port == port.0
        && tag.generation == ingress.generation.low()
}

/// Completes an L4 checksum that the sender left to its device; true if it did.
///
/// Before anything else is decided, since a packet that is punted needs it too:
/// it is injected with nothing said of its checksum. The tag's word is taken for any
/// protocol. A place outside the packet is left alone: the kernel would not have set
/// it, and the receiver rejects the packet.
#[inline]
fn complete_checksum(tag: &Tag, frame: &mut [u8]) -> bool {
    if tag.flags & TAG_CSUM_PARTIAL == 0 {
        return false;
    }
    let end = ethernet::LEN + ip_len(frame).unwrap_or(0);
    // Padding behind the packet is not summed; a header that makes no sense says
    // nothing of padding.
    let end = if end > ethernet::LEN { end } else { frame.len() };
    let (start, offset) = (usize::from(tag.csum_start), usize::from(tag.csum_offset));
    start >= ethernet::LEN && l4::complete(&mut frame[..end], start, offset)
}

/// Bytes of the IP packet in the frame, if its header makes sense.
fn ip_len(frame: &[u8]) -> Option<usize> {
    let eth = Ethernet::parse(frame).ok()?;
    match eth.ethertype() {
        ethernet::IPV4 => Ipv4::parse(&frame[ethernet::LEN..]).ok().map(|ip| ip.total_len()),
        ethernet::IPV6 => Ipv6::parse(&frame[ethernet::LEN..]).ok().map(|ip| ip.total_len()),
        _ => None,
    }
}

/// Route, egress port, length, neighbour.
#[inline]
fn forward(
    world: &World,
    ns: &Namespace,
    port: PortId,
    ingress: &Port,
    packet: &Packet<'_>,
) -> Stage<Forward> {
    let Some(out) = route::out(ns, port, packet)? else {
        return Err(End::Punt(PuntReason::KernelRoute));
    };
    route::check_source(ns, port, ingress, packet, out.port)?;
    leave(world, ns, (port, ingress), (&packet.dst, packet.len), out).map(|(forward, _)| forward)
}

/// Egress port, length, neighbour of a packet with this destination and length. Beside how
/// it leaves, the longest IP packet that does so.
#[inline(always)]
fn leave(
    world: &World,
    ns: &Namespace,
    (port, ingress): (PortId, &Port),
    (dst, len): (&IpAddr, usize),
    Out { port: to, gateway, mtu }: Out<'_>,
) -> Stage<(Forward, u32)> {
    let punt = |reason| Err(End::Punt(reason));
    let Some(egress) = egress(world, ingress, to) else {
        return punt(PuntReason::KernelRoute);
    };
    let mtu = if plant::is(Bug::Mtu) { mtu.min(egress.mtu) + 4 } else { mtu.min(egress.mtu) };
    // No MTU says more than what the length field of a packet can.
    if len > mtu as usize {
        return punt(PuntReason::TooBig);
    }
    // Two calls: a reference to one or the other would keep the packet's in memory.
    let neigh = match gateway {
        Some(gateway) => ns.neighbors.get(to, gateway),
        None => ns.neighbors.get(to, dst),
    };
    let Some(neigh) = neigh else {
        return punt(PuntReason::NoNeighbor);
    };
    let Ok(len) = u16::try_from(ethernet::LEN + len) else {
        return punt(PuntReason::TooBig);
    };
    let (by, generation, tags) = match &egress.role {
        Role::Device => (to, egress.generation, Tags::NONE),
        // One with a device of the kernel leaves by that, which does what is to be done.
        Role::Member(_) if egress.queues > 0 => (to, egress.generation, Tags::NONE),
        Role::Member(m) if member::way_out(world, m).is_some() => {
            (m.parent, m.parent_generation, planted_tags(m.tags))
        }
        Role::Member(_) | Role::Cross(_) => return punt(PuntReason::KernelRoute),
    };
    let sample = if to == port {
        Some(PuntReason::Hairpin)
    } else {
        neigh.stale.then_some(PuntReason::StaleNeighbor)
    };
    let (dst, src) = (neigh.mac, egress.mac);
    Ok((Forward { ingress: port, port: by, generation, tags, len, dst, src, sample }, mtu))
}

/// The tags themselves.
fn planted_tags(tags: Tags) -> Tags {
    if !plant::is(Bug::Vlan) || tags.is_empty() {
        return tags;
    }
    let (ethertype, vlan) = tags.outer();
    Tags::new((ethertype, vlan ^ 1), Some(tags.inner()))
}

/// The egress port, if packets of the ingress port's namespace may leave there.
///
/// This is the isolation guarantee: a port that has moved to another namespace, or
/// that a table names by mistake, is no way out, and the packet goes back to the
/// kernel's stack of its own namespace.
#[inline]
fn egress<'w>(world: &'w World, ingress: &Port, to: PortId) -> Option<&'w Port> {
    let egress = world.ports.get(to.index())?.as_ref()?;
    (egress.ns == ingress.ns && egress.up).then_some(egress)
}

/// Makes the packet the one that leaves: addresses, one hop less, IPv4's checksum.
/// The frame's length is the caller's to cut to [`Forward::len`]. Of a packet in several
/// frames it takes the first.
///
/// For a frame that [`decide`] said to forward; on another it does nothing.
#[inline]
pub fn rewrite(frame: &mut [u8], how: &Forward) {
    let Ok(mut eth) = Ethernet::parse(&mut *frame) else {
        return;
    };
    let ethertype = eth.ethertype();
    eth.set_addresses(how.dst, how.src);
    if plant::is(Bug::Ttl) {
        return;
    }
    let packet = &mut frame[ethernet::LEN..];
    // The packet's end may lie in another frame; that it is there has been seen.
    let behind = usize::from(how.len);
    if ethertype == ethernet::IPV4 {
        if let Ok(mut ip) = Ipv4::parse_part(packet, behind) {
            ip.decrement_ttl();
        }
    } else if let Ok(mut ip) = Ipv6::parse_part(packet, behind) {
        ip.decrement_hop_limit();
    }
}

#[cfg(test)]
mod tests;
