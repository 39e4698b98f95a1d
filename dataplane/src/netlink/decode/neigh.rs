//! Addresses, neighbours, settings: `struct ifaddrmsg`, `ndmsg`, `netconfmsg`.

use super::super::event::{Address, Event, Neighbor, Netconf, Prefix, Scope};
use super::Skip;
use super::attrs::{family, split, word};
use crate::id::{IfIndex, Mac};

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// `NTF_PROXY`: we answer for the address; it is nobody's neighbour.
const NTF_PROXY: u8 = 1 << 3;

const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
const NETCONFA_RP_FILTER: u16 = 3;
const NETCONFA_MC_FORWARDING: u16 = 4;
const NETCONFA_PROXY_NEIGH: u16 = 5;
const NETCONFA_FORCE_FORWARDING: u16 = 9;
/// `NETCONFA_IFINDEX_ALL` and `_DEFAULT`.
const IFINDEX_ALL: i32 = -1;
const IFINDEX_DEFAULT: i32 = -2;

/// An address message. On a point-to-point link `IFA_ADDRESS` is the other end's
/// and `IFA_LOCAL` ours; elsewhere they are the same or there is only the first.
pub(super) fn address(payload: &[u8], gone: bool) -> Result<Event, Skip> {
    let (head, rest) = split::<8>(payload)?;
    let family = family(head[0])?;
    let (mut address, mut local) = (None, None);
    for attr in rest.attrs() {
        match attr? {
            (IFA_ADDRESS, v) => address = Some(v.addr(family)?),
            (IFA_LOCAL, v) => local = Some(v.addr(family)?),
            _ => {}
        }
    }
    let addr = local.or(address).ok_or(Skip::Malformed)?;
    let len = head[1];
    if len > family.bits() {
        return Err(Skip::Malformed);
    }
    let address = Address { ifindex: IfIndex(word(&head, 4)?), prefix: Prefix { addr, len } };
    Ok(if gone { Event::AddressGone(address) } else { Event::Address(address) })
}

/// A neighbour message. A bridge's forwarding entries come as neighbours of
/// another family and are ignored with it.
pub(super) fn neighbor(payload: &[u8], gone: bool) -> Result<Event, Skip> {
    let (head, rest) = split::<12>(payload)?;
    let family = family(head[0])?;
    if head[10] & NTF_PROXY != 0 {
        return Err(Skip::Ignored);
    }
    let (mut addr, mut mac) = (None, None);
    for attr in rest.attrs() {
        match attr? {
            (NDA_DST, v) => addr = Some(v.addr(family)?),
            (NDA_LLADDR, v) => mac = v.0.try_into().ok().map(Mac),
            _ => {}
        }
    }
    let addr = addr.ok_or(Skip::Malformed)?;
    if addr.is_multicast() {
        // Made from the group's number, never resolved, never announced.
        return Err(Skip::Ignored);
    }
    let ifindex = IfIndex(word(&head, 4)?);
    if gone {
        return Ok(Event::NeighborGone(ifindex, addr));
    }
    let state = u16::from_ne_bytes([head[8], head[9]]);
    Ok(Event::Neighbor(Neighbor { ifindex, addr, mac, state }))
}

/// A settings message: names those that changed, or all of them in a dump.
pub(super) fn netconf(payload: &[u8], gone: bool) -> Result<Event, Skip> {
    // netconfmsg is one byte; attributes start at the next multiple of four.
    let family = family(*payload.first().ok_or(Skip::Malformed)?)?;
    let (_, rest) = split::<4>(payload)?;
    let mut scope = None;
    let mut said = Netconf::silent(family);
    for attr in rest.attrs() {
        match attr? {
            (NETCONFA_IFINDEX, v) => {
                scope = match v.i32()? {
                    IFINDEX_ALL => Some(Scope::All),
                    IFINDEX_DEFAULT => Some(Scope::Default),
                    i => {
                        Some(Scope::Device(IfIndex(u32::try_from(i).map_err(|_| Skip::Malformed)?)))
                    }
                }
            }
            (NETCONFA_FORWARDING, v) => said.forwarding = Some(v.i32()? != 0),
            (NETCONFA_RP_FILTER, v) => {
                said.rp_filter = Some(u8::try_from(v.i32()?).unwrap_or(u8::MAX));
            }
            (NETCONFA_MC_FORWARDING, v) => said.mc_forwarding = Some(v.i32()? != 0),
            (NETCONFA_PROXY_NEIGH, v) => said.proxy_neigh = Some(v.i32()? != 0),
            (NETCONFA_FORCE_FORWARDING, v) => said.force_forwarding = Some(v.i32()? != 0),
            _ => {}
        }
    }
    let scope = scope.ok_or(Skip::Malformed)?;
    if gone {
        return Ok(Event::NetconfGone(family, scope));
    }
    Ok(Event::Netconf(Netconf { scope, ..said }))
}
