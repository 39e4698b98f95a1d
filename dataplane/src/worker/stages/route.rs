//! Where a packet goes: rules, table, next hop; and whether its source is believed.

use std::net::{IpAddr, Ipv4Addr};

use super::{End, Packet, Stage};
use crate::id::PortId;
use crate::plant::{self, Bug};
use crate::stats::PuntReason;
use crate::tables::multipath::{Fields, FlowKey, Group};
use crate::tables::policy::{Found, Key};
use crate::tables::{Namespace, NextHop, Port, RpFilter};
use crate::wire::flow;

/// The protocol whose packets IPv6 chooses a next hop for before it looks for a route.
const ICMPV6: u8 = 58;

/// The way that a packet takes. What is an address stays where it is: copied in pieces and
/// read as a whole, it would hold up the processor for longer than the lookup takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Out<'a> {
    /// The port.
    pub(super) port: PortId,
    /// The router to send to, if not to the destination.
    pub(super) gateway: Option<&'a IpAddr>,
    /// Longest packet that may take it.
    pub(super) mtu: u32,
}

/// The way of a packet that came in on `iif`; None: only the kernel can follow it.
#[inline]
pub(super) fn out<'a>(
    ns: &'a Namespace,
    iif: PortId,
    packet: &Packet<'_>,
) -> Stage<Option<Out<'a>>> {
    match lookup(ns, iif, packet) {
        Some(&NextHop::Forward { port, ref gateway, mtu }) => {
            Ok(Some(Out { port, gateway: gateway.as_ref(), mtu }))
        }
        Some(&NextHop::Group(index)) => Ok(choose(ns, index, *packet)),
        Some(_) => Ok(None),
        None => Err(End::Punt(PuntReason::NoRoute)),
    }
}

/// The route of a packet.
#[inline]
pub(super) fn lookup<'a>(
    ns: &'a Namespace,
    iif: PortId,
    packet: &Packet<'_>,
) -> Option<&'a NextHop> {
    let index = match packet.dst {
        IpAddr::V4(_) if ns.policy_v4.is_some() => by_rules(ns, iif, *packet),
        IpAddr::V6(_) if ns.policy_v6.is_some() => by_rules(ns, iif, *packet),
        IpAddr::V4(dst) if plant::is(Bug::Prefix) => {
            ns.v4.lookup(Ipv4Addr::from_bits(dst.to_bits() & !(1 << 16)))
        }
        IpAddr::V4(dst) => ns.v4.lookup(dst),
        IpAddr::V6(dst) => ns.v6.lookup(dst),
    };
    ns.next_hops.get(index? as usize)
}

/// Apart, so that the common case is short; and by value, so that there the packet's fields
/// need be nowhere in memory.
#[inline(never)]
fn by_rules(ns: &Namespace, iif: PortId, packet: Packet<'_>) -> Option<u32> {
    rule(ns, iif, &packet).map(|found| found.index)
}

/// What rules say of a packet, where there are more than the usual ones.
pub(super) fn rule(ns: &Namespace, iif: PortId, packet: &Packet<'_>) -> Option<Found> {
    match (&ns.policy_v4, &ns.policy_v6, packet.src, packet.dst) {
        (Some(policy), _, IpAddr::V4(src), IpAddr::V4(dst)) => {
            policy.find(&ns.next_hops, &key_v4(src.to_bits(), dst.to_bits(), iif, packet.here))
        }
        (_, Some(policy), IpAddr::V6(src), IpAddr::V6(dst)) => {
            let flow = flow::v6(packet.here);
            let tos = packet.here.get(..2).map_or(0, |b| b[0] << 4 | b[1] >> 4);
            let (proto, (sport, dport)) = (flow.proto, flow.ports);
            let (src, dst) = (src.to_bits(), dst.to_bits());
            policy.find(&ns.next_hops, &Key { src, dst, iif, tos, proto, sport, dport })
        }
        _ => None,
    }
}

fn key_v4(src: u32, dst: u32, iif: PortId, bytes: &[u8]) -> Key<u32> {
    let flow = flow::v4(bytes);
    let tos = bytes.get(1).copied().unwrap_or_default();
    let (proto, (sport, dport)) = (flow.proto, flow.ports);
    Key { src, dst, iif, tos, proto, sport, dport }
}

/// The reverse-path filter, which the kernel has for IPv4 only. It is the kernel that
/// drops and logs what does not pass.
///
/// The way back is looked for as for an answer that comes in where the packet goes out
/// (`__fib_validate_source`): rules may ask for that.
#[inline]
pub(super) fn check_source(
    ns: &Namespace,
    port: PortId,
    ingress: &Port,
    packet: &Packet<'_>,
    to: PortId,
) -> Stage<()> {
    if ingress.rp_filter == RpFilter::Off || packet.src.is_ipv6() {
        return Ok(());
    }
    let back = way_back(ns, port, packet, to);
    if believed(ns, port, ingress, back) { Ok(()) } else { Err(End::Punt(PuntReason::SourceCheck)) }
}

/// The filter lets a source pass to which this is the way back.
#[inline]
pub(super) fn believed(
    ns: &Namespace,
    port: PortId,
    ingress: &Port,
    back: Option<&NextHop>,
) -> bool {
    let (known, by_port) = match back {
        Some(&NextHop::Forward { port: back, .. }) => (true, back == port),
        Some(&NextHop::Elsewhere { port: back }) => (true, back == Some(port)),
        Some(&NextHop::Group(i)) => (true, group(ns, i).is_some_and(|g| g.uses(port))),
        Some(NextHop::Kernel | NextHop::Refused | NextHop::Throw) | None => (false, false),
    };
    by_port || (known && ingress.rp_filter == RpFilter::Loose)
}

/// Where the kernel would send an answer that comes in on `to`.
#[inline]
pub(super) fn way_back<'a>(
    ns: &'a Namespace,
    port: PortId,
    packet: &Packet<'_>,
    to: PortId,
) -> Option<&'a NextHop> {
    let index = match (&ns.policy_v4, packet.src, packet.dst) {
        (None, IpAddr::V4(src), _) => ns.v4.lookup(src),
        (Some(policy), IpAddr::V4(src), IpAddr::V4(dst)) => {
            let key = key_v4(src.to_bits(), dst.to_bits(), port, packet.here).of_answer(to);
            policy.lookup(&ns.next_hops, &key)
        }
        _ => None,
    };
    ns.next_hops.get(index? as usize)
}

fn group(ns: &Namespace, index: u32) -> Option<&Group> {
    ns.groups.get(index as usize)
}

/// One of several next hops.
#[inline(never)]
fn choose<'a>(ns: &'a Namespace, index: u32, packet: Packet<'_>) -> Option<Out<'a>> {
    let group = group(ns, index)?;
    let member = group.choose(hash(group, &packet))?;
    Some(Out { port: member.port, gateway: member.gateway.as_ref(), mtu: member.mtu })
}

/// `fib_multipath_hash` and `rt6_multipath_hash` (net/ipv4/route.c, net/ipv6/route.c).
fn hash(group: &Group, packet: &Packet<'_>) -> u32 {
    let (seed, bytes) = (group.how.seed, packet.here);
    match (group.how.fields, packet.src, packet.dst) {
        (Fields::Ports, IpAddr::V4(src), IpAddr::V4(dst)) => {
            let flow = flow::v4(bytes);
            let key = FlowKey { proto: flow.proto, label: 0, ports: flow.ports };
            key.hash_v4(seed, src.octets(), dst.octets())
        }
        (Fields::Ports, IpAddr::V6(src), IpAddr::V6(dst)) => {
            let flow = flow::v6(bytes);
            let key = FlowKey { proto: flow.proto, label: 0, ports: flow.ports };
            key.hash_v6(seed, src.octets(), dst.octets())
        }
        (_, IpAddr::V4(src), IpAddr::V4(dst)) => {
            let own = || (src.octets(), dst.octets());
            let inner = |p: &[u8]| Some((octets(p, 12)?, octets(p, 16)?));
            let (src, dst) = flow::about_v4(bytes).and_then(inner).unwrap_or_else(own);
            FlowKey::default().hash_v4(seed, src, dst)
        }
        (fields, IpAddr::V6(src), IpAddr::V6(dst)) => {
            let flow = || flow::v6(bytes);
            let dissected = fields == Fields::AddressesDissected && flow().proto == ICMPV6;
            // As a number where it was dissected, else as it is in the packet.
            let in_packet = |p: &[u8]| u32::from_ne_bytes(flow::label(p).to_be_bytes());
            let inner = |p: &[u8]| {
                let key = FlowKey { proto: *p.get(6)?, label: in_packet(p), ports: (0, 0) };
                Some((key, octets(p, 8)?, octets(p, 24)?))
            };
            let own = || {
                let (proto, label) = match dissected {
                    true => (flow().proto, flow::label(bytes)),
                    false => (bytes.get(6).copied().unwrap_or_default(), in_packet(bytes)),
                };
                (FlowKey { proto, label, ports: (0, 0) }, src.octets(), dst.octets())
            };
            let (key, src, dst) = flow::about_v6(bytes).and_then(inner).unwrap_or_else(own);
            key.hash_v6(seed, src, dst)
        }
        // A packet is of one family.
        _ => 0,
    }
}

fn octets<const N: usize>(packet: &[u8], at: usize) -> Option<[u8; N]> {
    packet.get(at..at + N)?.try_into().ok()
}
