//! Routes: `struct rtmsg`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::event::{Event, Family, Hop, Insert, Prefix, Route, RouteKind};
use super::Skip;
use super::attrs::{Value, family, split, word};
use crate::id::IfIndex;

/// `NLM_F_REPLACE`, `NLM_F_APPEND`: how the kernel put a route in.
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_APPEND: u16 = 0x800;
/// `RTNH_F_DEAD`: the kernel does not send by this next hop, one of several. A route of one
/// next hop says so only while its device is without carrier
/// (`ignore_routes_with_linkdown`): else it goes.
const RTNH_F_DEAD: u8 = 1;
/// `RTM_F_CLONED`: an entry of the routing cache, no route.
const RTM_F_CLONED: u32 = 0x200;

/// `RTA_*` of include/uapi/linux/rtnetlink.h.
mod rta {
    pub(super) const DST: u16 = 1;
    pub(super) const SRC: u16 = 2;
    pub(super) const OIF: u16 = 4;
    pub(super) const GATEWAY: u16 = 5;
    pub(super) const PRIORITY: u16 = 6;
    pub(super) const PREFSRC: u16 = 7;
    pub(super) const METRICS: u16 = 8;
    pub(super) const MULTIPATH: u16 = 9;
    pub(super) const FLOW: u16 = 11;
    pub(super) const CACHEINFO: u16 = 12;
    pub(super) const TABLE: u16 = 15;
    pub(super) const VIA: u16 = 18;
    pub(super) const PREF: u16 = 20;
    pub(super) const ENCAP_TYPE: u16 = 21;
    pub(super) const ENCAP: u16 = 22;
    pub(super) const PAD: u16 = 24;
    pub(super) const NH_ID: u16 = 30;
}
/// `RTAX_MTU`, inside of `rta::METRICS`.
const RTAX_MTU: u16 = 2;
/// Offset of `rta_expires` in `struct rta_cacheinfo`.
const CACHEINFO_EXPIRES: usize = 8;

/// A route message.
pub(super) fn route(payload: &[u8], nlm_flags: u16, gone: bool) -> Result<Event, Skip> {
    let (head, rest) = split::<12>(payload)?;
    let family = family(head[0])?;
    if word(&head, 8)? & RTM_F_CLONED != 0 {
        return Err(Skip::Ignored);
    }
    let [_, dst_len, src_len, tos, table, _, _, kind, ..] = head;
    if dst_len > family.bits() || src_len > family.bits() {
        return Err(Skip::Malformed);
    }
    let any = unspecified(family);
    let mut route = Route {
        table: u32::from(table),
        dst: Prefix { addr: any, len: dst_len },
        source: (src_len > 0).then_some(Prefix { addr: any, len: src_len }),
        tos,
        priority: 0,
        kind: route_kind(kind),
        prefsrc: None,
        mtu: None,
        nexthop: None,
        hops: Vec::new(),
        expires: false,
        unknown: false,
    };
    let mut hop = Hop { oif: None, gateway: None, encap: false, weight: 1, dead: false };
    for attr in rest.attrs() {
        let (kind, value) = attr?;
        match kind {
            rta::OIF | rta::GATEWAY | rta::VIA | rta::ENCAP | rta::ENCAP_TYPE => {
                fill_hop(&mut hop, family, kind, value)?;
            }
            _ => fill_route(&mut route, family, kind, value)?,
        }
    }
    if route.nexthop.is_some() {
        // The object says where it leads; what the message repeats may be outdated.
        route.hops.clear();
    } else if route.hops.is_empty() && hop.oif.is_some() {
        route.hops = vec![hop];
    }
    if gone {
        return Ok(Event::RouteGone(route));
    }
    let insert = match nlm_flags {
        f if f & NLM_F_REPLACE != 0 => Insert::Replace,
        f if f & NLM_F_APPEND != 0 => Insert::Last,
        _ => Insert::First,
    };
    Ok(Event::Route(route, insert))
}

fn fill_route(route: &mut Route, family: Family, kind: u16, value: Value<'_>) -> Result<(), Skip> {
    match kind {
        rta::DST => route.dst.addr = value.addr(family)?,
        rta::SRC => {
            let addr = value.addr(family)?;
            // Without a length it is no condition of the route.
            if let Some(source) = &mut route.source {
                source.addr = addr;
            }
        }
        rta::PRIORITY => route.priority = value.u32()?,
        rta::PREFSRC => route.prefsrc = Some(value.addr(family)?),
        rta::METRICS => route.mtu = mtu(value)?,
        rta::MULTIPATH => {
            let (hops, unknown) = multipath(value.0, family)?;
            route.hops = hops;
            route.unknown |= unknown;
        }
        rta::TABLE => route.table = value.u32()?,
        rta::NH_ID => route.nexthop = Some(value.u32()?),
        rta::CACHEINFO => {
            let at = value.0.get(CACHEINFO_EXPIRES..).unwrap_or_default();
            route.expires = Value(at).i32()? != 0;
        }
        // A mark for accounting, a router preference, padding: not about where to.
        rta::FLOW | rta::PREF | rta::PAD => {}
        _ => route.unknown = true,
    }
    Ok(())
}

/// False: the attribute is one that we do not know.
fn fill_hop(hop: &mut Hop, family: Family, kind: u16, value: Value<'_>) -> Result<bool, Skip> {
    match kind {
        rta::OIF => hop.oif = Some(IfIndex(value.u32()?)),
        rta::GATEWAY => hop.gateway = Some(value.addr(family)?),
        rta::VIA => hop.gateway = Some(via(value)?),
        rta::ENCAP | rta::ENCAP_TYPE => hop.encap = true,
        rta::FLOW | rta::PAD => {}
        _ => return Ok(false),
    }
    Ok(true)
}

/// `struct rtvia`: an address with its family.
fn via(value: Value<'_>) -> Result<IpAddr, Skip> {
    let af = u8::try_from(value.u16()?).map_err(|_| Skip::Malformed)?;
    let addr = value.0.get(2..).unwrap_or_default();
    // A router of a family that we do not know is a route that we do not know.
    Value(addr).addr(family(af).map_err(|_| Skip::Malformed)?)
}

fn mtu(metrics: Value<'_>) -> Result<Option<u32>, Skip> {
    let mut mtu = None;
    for attr in metrics.attrs() {
        if let (RTAX_MTU, value) = attr? {
            mtu = Some(value.u32()?).filter(|m| *m != 0);
        }
    }
    Ok(mtu)
}

/// `struct rtnexthop`, one behind the other, each with attributes of its own. True: with
/// one that we do not know.
fn multipath(mut bytes: &[u8], family: Family) -> Result<(Vec<Hop>, bool), Skip> {
    const HEAD: usize = 8;
    let (mut hops, mut unknown) = (Vec::new(), false);
    while !bytes.is_empty() {
        let (head, _) = split::<HEAD>(bytes)?;
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let attrs = bytes.get(HEAD..len).ok_or(Skip::Malformed)?;
        // `rtnh_hops` is the weight less one.
        let (oif, weight) = (Some(IfIndex(word(&head, 4)?)), u16::from(head[3]) + 1);
        let dead = head[2] & RTNH_F_DEAD != 0;
        let mut hop = Hop { oif, gateway: None, encap: false, weight, dead };
        for attr in Value(attrs).attrs() {
            let (kind, value) = attr?;
            unknown |= !fill_hop(&mut hop, family, kind, value)?;
        }
        hops.push(hop);
        bytes = &bytes[len.next_multiple_of(4).min(bytes.len())..];
    }
    Ok((hops, unknown))
}

fn route_kind(kind: u8) -> RouteKind {
    match kind {
        1 => RouteKind::Unicast,
        2 => RouteKind::Local,
        3 => RouteKind::Broadcast,
        4 => RouteKind::Anycast,
        5 => RouteKind::Multicast,
        9 => RouteKind::Throw,
        other => RouteKind::Other(other),
    }
}

fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}
