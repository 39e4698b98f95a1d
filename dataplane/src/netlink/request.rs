//! Requests to the kernel, as bytes.

use std::net::IpAddr;
use std::os::fd::RawFd;

use super::decode::rtm;
use super::event::Family;
use super::question::RouteQuestion;
use crate::id::IfIndex;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE: u16 = 0x400;
/// `NTF_USE`: as if the kernel itself had a packet for the neighbour.
const NTF_USE: u8 = 1;
const NDA_DST: u16 = 1;
const NETNSA_FD: u16 = 3;
/// `RTA_*` of a question about a route.
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_IIF: u16 = 3;
const RTA_IP_PROTO: u16 = 27;
const RTA_SPORT: u16 = 28;
const RTA_DPORT: u16 = 29;
/// `RTM_F_LOOKUP_TABLE`: say which table the answer is from.
const LOOKUP_TABLE: u32 = 0x1000;
/// `RTM_F_FIB_MATCH`: answer with the route instead of what it leads to.
const FIB_MATCH: u32 = 0x2000;

/// Something to be dumped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dump {
    /// Its name in errors.
    pub(super) what: &'static str,
    rtm: u16,
    family: Option<Family>,
    /// Bytes of the family's fixed part.
    head: usize,
}

/// Everything, in the order that the module's head asks for: links and next-hop
/// objects, whose dumps wait for the kernel's lock, before routes.
pub(super) const DUMPS: [Dump; 13] = [
    Dump { what: "links", rtm: rtm::LINK, family: None, head: 16 },
    Dump { what: "queueing disciplines", rtm: rtm::QDISC, family: None, head: 20 },
    Dump { what: "next hops", rtm: rtm::NEXTHOP, family: None, head: 8 },
    Dump { what: "IPv4 settings", rtm: rtm::NETCONF, family: Some(Family::V4), head: 1 },
    Dump { what: "IPv6 settings", rtm: rtm::NETCONF, family: Some(Family::V6), head: 1 },
    Dump { what: "IPv4 rules", rtm: rtm::RULE, family: Some(Family::V4), head: 12 },
    Dump { what: "IPv6 rules", rtm: rtm::RULE, family: Some(Family::V6), head: 12 },
    Dump { what: "IPv4 addresses", rtm: rtm::ADDR, family: Some(Family::V4), head: 8 },
    Dump { what: "IPv6 addresses", rtm: rtm::ADDR, family: Some(Family::V6), head: 8 },
    Dump { what: "IPv4 routes", rtm: rtm::ROUTE, family: Some(Family::V4), head: 12 },
    Dump { what: "IPv6 routes", rtm: rtm::ROUTE, family: Some(Family::V6), head: 12 },
    Dump { what: "IPv4 neighbours", rtm: rtm::NEIGH, family: Some(Family::V4), head: 12 },
    Dump { what: "IPv6 neighbours", rtm: rtm::NEIGH, family: Some(Family::V6), head: 12 },
];

fn af(family: Option<Family>) -> u8 {
    let af = match family {
        None => libc::AF_UNSPEC,
        Some(Family::V4) => libc::AF_INET,
        Some(Family::V6) => libc::AF_INET6,
    };
    // Their numbers are 0, 2 and 10.
    af as u8
}

fn message(rtm: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(16 + body.len()).unwrap_or(u32::MAX);
    let mut out = Vec::with_capacity(len as usize);
    out.extend(len.to_ne_bytes());
    out.extend(rtm.to_ne_bytes());
    out.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    out.extend(sequence.to_ne_bytes());
    out.extend(0_u32.to_ne_bytes());
    out.extend(body);
    out
}

/// Asks for all of something.
pub(super) fn dump(dump: Dump, sequence: u32) -> Vec<u8> {
    let mut body = vec![0; dump.head];
    body[0] = af(dump.family);
    message(dump.rtm + 2, NLM_F_DUMP, sequence, &body)
}

/// Asks for all chains of nftables, of all families: `NFT_MSG_GETCHAIN`.
pub(super) fn chains(sequence: u32) -> Vec<u8> {
    message(10 << 8 | 4, NLM_F_DUMP, sequence, &[0; 4])
}

/// Asks for all flowtables of nftables, of all families: `NFT_MSG_GETFLOWTABLE`.
pub(super) fn flowtables(sequence: u32) -> Vec<u8> {
    message(10 << 8 | 23, NLM_F_DUMP, sequence, &[0; 4])
}

/// Asks for all rules of nftables, of all families: `NFT_MSG_GETRULE`.
pub(super) fn nft_rules(sequence: u32) -> Vec<u8> {
    message(10 << 8 | 7, NLM_F_DUMP, sequence, &[0; 4])
}

/// Asks for all sets of nftables, without their elements: `NFT_MSG_GETSET`.
pub(super) fn nft_sets(sequence: u32) -> Vec<u8> {
    message(10 << 8 | 10, NLM_F_DUMP, sequence, &[0; 4])
}

/// Asks for all objects of nftables: `NFT_MSG_GETOBJ`.
pub(super) fn nft_objects(sequence: u32) -> Vec<u8> {
    message(10 << 8 | 19, NLM_F_DUMP, sequence, &[0; 4])
}

/// Asks for all IPsec policies: `XFRM_MSG_GETPOLICY`.
pub(super) fn policies(sequence: u32) -> Vec<u8> {
    message(0x15, NLM_F_DUMP, sequence, &[0; 64])
}

/// Asks what is done with packets that no IPsec policy is for:
/// `XFRM_MSG_GETDEFAULT`, one answer and an acknowledgement.
pub(super) fn default_policies(sequence: u32) -> Vec<u8> {
    message(0x28, NLM_F_ACK, sequence, &[0; 4])
}

/// Asks by which number the socket's namespace knows the one of a descriptor:
/// `RTM_GETNSID`, one answer and an acknowledgement.
pub(super) fn nsid(fd: RawFd, sequence: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(8_u16.to_ne_bytes());
    body.extend(NETNSA_FD.to_ne_bytes());
    body.extend(fd.to_ne_bytes());
    message(rtm::NSID + 2, NLM_F_ACK, sequence, &body)
}

/// Asks for one device, with an acknowledgement.
pub(super) fn link(ifindex: IfIndex, sequence: u32) -> Vec<u8> {
    let mut body = vec![0; 16];
    body[4..8].copy_from_slice(&ifindex.0.to_ne_bytes());
    message(rtm::LINK + 2, NLM_F_ACK, sequence, &body)
}

/// Asks what becomes of a packet that arrives at a device; or, with `matched`, which
/// route it takes.
pub(super) fn route(q: &RouteQuestion, matched: bool, sequence: u32) -> Vec<u8> {
    let family = Family::of(q.dst);
    let mut body = vec![0; 12];
    (body[0], body[1], body[2], body[3]) = (af(Some(family)), family.bits(), family.bits(), q.tos);
    let flags = LOOKUP_TABLE | if matched { FIB_MATCH } else { 0 };
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    attribute(&mut body, RTA_DST, &octets(q.dst));
    attribute(&mut body, RTA_SRC, &octets(q.src));
    attribute(&mut body, RTA_IIF, &q.iif.0.to_ne_bytes());
    if let Some(protocol) = q.protocol {
        attribute(&mut body, RTA_IP_PROTO, &[protocol]);
    }
    for (kind, port) in [(RTA_SPORT, q.ports.0), (RTA_DPORT, q.ports.1)] {
        if port != 0 {
            attribute(&mut body, kind, &port.to_be_bytes());
        }
    }
    message(rtm::ROUTE + 2, NLM_F_ACK, sequence, &body)
}

/// Asks for one neighbour, with an acknowledgement.
pub(super) fn neighbor(ifindex: IfIndex, addr: IpAddr, sequence: u32) -> Vec<u8> {
    let mut body = vec![0; 12];
    body[0] = af(Some(Family::of(addr)));
    body[4..8].copy_from_slice(&ifindex.0.to_ne_bytes());
    attribute(&mut body, NDA_DST, &octets(addr));
    message(rtm::NEIGH + 2, NLM_F_ACK, sequence, &body)
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// Appends an attribute, padded. The value is a few bytes.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend((4 + value.len() as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// Makes the kernel resolve a neighbour, or confirm one that is stale.
pub(super) fn resolve(ifindex: IfIndex, addr: IpAddr) -> Vec<u8> {
    let mut body = vec![0; 12];
    body[0] = af(Some(Family::of(addr)));
    body[4..8].copy_from_slice(&ifindex.0.to_ne_bytes());
    body[10] = NTF_USE;
    attribute(&mut body, NDA_DST, &octets(addr));
    message(rtm::NEIGH, NLM_F_CREATE, 0, &body)
}
