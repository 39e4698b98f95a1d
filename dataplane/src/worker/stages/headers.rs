//! What headers alone say of a packet.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{End, Packet, Stage};
use crate::stats::PuntReason;
use crate::tables::Port;
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Ipv6};

/// Everything that headers alone can keep from being routed.
#[inline]
pub(super) fn headers<'a>(ingress: &Port, frame: &'a [u8], behind: usize) -> Stage<Packet<'a>> {
    let Ok(eth) = Ethernet::parse(frame) else {
        return Err(End::Punt(PuntReason::Header));
    };
    let family = match eth.ethertype() {
        ethernet::IPV4 => ingress.forward_v4,
        ethernet::IPV6 => ingress.forward_v6,
        _ => false,
    };
    if !family || eth.dst() != ingress.mac {
        return Err(End::Punt(PuntReason::NotRouted));
    }
    let packet = &frame[ethernet::LEN..];
    if eth.ethertype() == ethernet::IPV4 {
        headers_v4(packet, behind)
    } else {
        headers_v6(packet, behind)
    }
}

#[inline]
fn headers_v4(packet: &[u8], behind: usize) -> Stage<Packet<'_>> {
    let header = Err(End::Punt(PuntReason::Header));
    let Ok(ip) = Ipv4::parse_part(packet, behind) else {
        return header;
    };
    let (src, dst) = (ip.src(), ip.dst());
    let options = ip.header_len() != ipv4::MIN_LEN;
    if options || !ip.checksum_ok() || !routable_v4(src) || !routable_v4(dst) {
        return header;
    }
    if ip.ttl() <= 1 {
        return Err(End::Punt(PuntReason::Ttl));
    }
    let len = ip.total_len();
    let here = &packet[..len.min(packet.len())];
    Ok(Packet { src: src.into(), dst: dst.into(), here, len })
}

#[inline]
fn headers_v6(packet: &[u8], behind: usize) -> Stage<Packet<'_>> {
    let header = Err(End::Punt(PuntReason::Header));
    let Ok(ip) = Ipv6::parse_part(packet, behind) else {
        return header;
    };
    let (src, dst) = (ip.src(), ip.dst());
    let options = ip.next_header() == ipv6::HOP_BY_HOP;
    if options || !routable_v6(src) || !routable_v6(dst) {
        return header;
    }
    if ip.hop_limit() <= 1 {
        return Err(End::Punt(PuntReason::Ttl));
    }
    let len = ip.total_len();
    let here = &packet[..len.min(packet.len())];
    Ok(Packet { src: src.into(), dst: dst.into(), here, len })
}

/// An address that may cross a router without a second thought: not "this
/// network", loopback, link-local, multicast, or reserved.
pub(in crate::worker::stages) fn routable_v4(addr: Ipv4Addr) -> bool {
    let [a, b, ..] = addr.octets();
    a != 0 && a != 127 && a < 224 && (a, b) != (169, 254)
}

/// Likewise: not unspecified, loopback or an embedded IPv4 address (::/64),
/// link-local (fe80::/10), multicast (ff00::/8).
pub(in crate::worker::stages) fn routable_v6(addr: Ipv6Addr) -> bool {
    let bits = addr.to_bits();
    bits >> 64 != 0 && bits >> 118 != 0xfe80 >> 6 && bits >> 120 != 0xff
}
