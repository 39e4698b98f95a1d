//! Header readers: may this packet be routed by the dataplane at all?
//!
//! [`classify`] looks at headers only; what needs a map (local addresses, the
//! namespace's forwarding switch, kernel routes) is asked by its callers. It errs
//! on one side: whatever the kernel refuses or treats in a way of its own is the
//! kernel's, and so is an address nobody should route, even where the kernel would.
//!
//! Not looked at: the IPv4 header's checksum (the worker does), fragments (they are
//! routed like any packet), and whatever follows the IP header.

use crate::PassReason;

/// Bytes of an Ethernet header without a tag.
pub const ETH_LEN: usize = 14;
/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Offsets in an Ethernet header, from its first byte.
pub mod eth {
    /// Destination address, 6 bytes.
    pub const DST: usize = 0;
    /// Source address, 6 bytes.
    pub const SRC: usize = 6;
    /// EtherType, 2 bytes.
    pub const TYPE: usize = 12;
}

/// Offsets in an IPv4 header (RFC 791, section 3.1), from its first byte.
pub mod ipv4 {
    /// Bytes of a header without options.
    pub const LEN: usize = 20;
    /// Version in the upper four bits, header length in words in the lower.
    pub const VERSION_IHL: usize = 0;
    /// DSCP and ECN, 1 byte.
    pub const TOS: usize = 1;
    /// Header and payload, 2 bytes.
    pub const TOTAL_LEN: usize = 2;
    /// Flags in the upper three bits, then the fragment's offset, 2 bytes.
    pub const FRAGMENT: usize = 6;
    /// Time to live, 1 byte.
    pub const TTL: usize = 8;
    /// What follows, 1 byte.
    pub const PROTOCOL: usize = 9;
    /// The header's checksum, 2 bytes.
    pub const CHECKSUM: usize = 10;
    /// Source address, 4 bytes.
    pub const SRC: usize = 12;
    /// Destination address, 4 bytes.
    pub const DST: usize = 16;
}

/// Offsets in an IPv6 header (RFC 8200, section 3), from its first byte.
pub mod ipv6 {
    /// Bytes of the header.
    pub const LEN: usize = 40;
    /// Version in the upper four bits, then traffic class and flow label.
    pub const VERSION: usize = 0;
    /// Bytes after this header, 2 bytes.
    pub const PAYLOAD_LEN: usize = 4;
    /// What follows, 1 byte.
    pub const NEXT_HEADER: usize = 6;
    /// Hop limit, 1 byte.
    pub const HOP_LIMIT: usize = 7;
    /// Source address, 16 bytes.
    pub const SRC: usize = 8;
    /// Destination address, 16 bytes.
    pub const DST: usize = 24;
    /// `NEXT_HEADER` of hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
}

/// Bounds-checked reads from a packet. In userspace a slice, in the program a
/// pair of pointers that the verifier follows.
#[expect(clippy::len_without_is_empty, reason = "nobody asks: a read from an empty packet is None")]
pub trait Bytes {
    /// `N` bytes from offset `at`, or None where the packet ends before.
    fn load<const N: usize>(&self, at: usize) -> Option<[u8; N]>;

    /// Bytes of the whole frame, Ethernet header included.
    fn len(&self) -> usize;
}

impl Bytes for [u8] {
    #[inline(always)]
    fn load<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    #[inline(always)]
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }
}

/// A packet that headers alone do not keep from being routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Candidate {
    /// IPv4: source and destination, network byte order.
    V4 {
        /// Source address.
        src: [u8; 4],
        /// Destination address.
        dst: [u8; 4],
    },
    /// IPv6: source and destination, network byte order.
    V6 {
        /// Source address.
        src: [u8; 16],
        /// Destination address.
        dst: [u8; 16],
    },
}

/// Decides by headers alone whether a frame that came to `mac` may be routed.
///
/// # Errors
/// The reason why it goes to the kernel instead.
#[inline(always)]
pub fn classify<B: Bytes + ?Sized>(pkt: &B, mac: [u8; 6]) -> Result<Candidate, PassReason> {
    let ethertype = u16::from_be_bytes(field(pkt, eth::TYPE)?);
    if ethertype != ETHERTYPE_IPV4 && ethertype != ETHERTYPE_IPV6 {
        return Err(PassReason::NotIp);
    }
    let to: [u8; 6] = field(pkt, eth::DST)?;
    if to[0] & 1 != 0 {
        return Err(PassReason::Multicast);
    }
    if to != mac {
        return Err(PassReason::NotForUs);
    }
    if ethertype == ETHERTYPE_IPV4 { classify_v4(pkt) } else { classify_v6(pkt) }
}

/// IPv4, as `ip_rcv_core` and `ip_route_input_slow` (net/ipv4) judge it.
#[inline(always)]
fn classify_v4<B: Bytes + ?Sized>(pkt: &B) -> Result<Candidate, PassReason> {
    // The last field first: after it the whole header is known to be there.
    let dst: [u8; 4] = field(pkt, ETH_LEN + ipv4::DST)?;
    let src: [u8; 4] = field(pkt, ETH_LEN + ipv4::SRC)?;
    let [version_ihl] = field(pkt, ETH_LEN + ipv4::VERSION_IHL)?;
    if version_ihl != 0x45 {
        let options = version_ihl >> 4 == 4 && version_ihl & 0xf > 5;
        return Err(if options { PassReason::Options } else { PassReason::Malformed });
    }
    let total = usize::from(u16::from_be_bytes(field(pkt, ETH_LEN + ipv4::TOTAL_LEN)?));
    if total < ipv4::LEN || ETH_LEN + total > pkt.len() {
        return Err(PassReason::Malformed);
    }
    if is_multicast_v4(dst) {
        return Err(PassReason::Multicast);
    }
    if is_multicast_v4(src) || is_scoped_v4(src) || is_scoped_v4(dst) {
        return Err(PassReason::Scope);
    }
    let [ttl] = field(pkt, ETH_LEN + ipv4::TTL)?;
    if ttl <= 1 {
        return Err(PassReason::Ttl);
    }
    Ok(Candidate::V4 { src, dst })
}

/// IPv6, as `ip6_rcv_core` and `ip6_forward` (net/ipv6) judge it.
#[inline(always)]
fn classify_v6<B: Bytes + ?Sized>(pkt: &B) -> Result<Candidate, PassReason> {
    let dst: [u8; 16] = field(pkt, ETH_LEN + ipv6::DST)?;
    let src: [u8; 16] = field(pkt, ETH_LEN + ipv6::SRC)?;
    let [version] = field(pkt, ETH_LEN + ipv6::VERSION)?;
    if version >> 4 != 6 {
        return Err(PassReason::Malformed);
    }
    // A jumbo payload's length (RFC 2675) is a hop-by-hop option too.
    let [next] = field(pkt, ETH_LEN + ipv6::NEXT_HEADER)?;
    if next == ipv6::HOP_BY_HOP {
        return Err(PassReason::HopByHop);
    }
    let payload = usize::from(u16::from_be_bytes(field(pkt, ETH_LEN + ipv6::PAYLOAD_LEN)?));
    if ETH_LEN + ipv6::LEN + payload > pkt.len() {
        return Err(PassReason::Malformed);
    }
    if dst[0] == 0xff {
        return Err(PassReason::Multicast);
    }
    if src[0] == 0xff || is_scoped_v6(src) || is_scoped_v6(dst) {
        return Err(PassReason::Scope);
    }
    let [hop_limit] = field(pkt, ETH_LEN + ipv6::HOP_LIMIT)?;
    if hop_limit <= 1 {
        return Err(PassReason::Ttl);
    }
    Ok(Candidate::V6 { src, dst })
}

#[inline(always)]
fn field<const N: usize, B: Bytes + ?Sized>(pkt: &B, at: usize) -> Result<[u8; N], PassReason> {
    pkt.load(at).ok_or(PassReason::Malformed)
}

/// 224.0.0.0/4 and the limited broadcast address.
#[inline(always)]
fn is_multicast_v4(addr: [u8; 4]) -> bool {
    addr[0] & 0xf0 == 0xe0 || addr == [255; 4]
}

/// "This network", loopback, link-local and reserved: 0/8, 127/8, 169.254/16, 240/4.
#[inline(always)]
fn is_scoped_v4(addr: [u8; 4]) -> bool {
    let [a, b, ..] = addr;
    a == 0 || a == 127 || (a == 169 && b == 254) || a >= 240
}

/// Link-local, and all of ::/64: unspecified, loopback, IPv4-mapped, IPv4-compatible.
#[inline(always)]
fn is_scoped_v6(addr: [u8; 16]) -> bool {
    let [a, b, c, d, e, f, g, h, ..] = addr;
    u64::from_be_bytes([a, b, c, d, e, f, g, h]) == 0 || (a == 0xfe && b & 0xc0 == 0x80)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    /// UDP from 10.0.0.2 to 10.0.1.2, one byte of payload.
    #[rustfmt::skip]
    const V4: [u8; 43] = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00,
        0x45, 0, 0, 29, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 2, 10, 0, 1, 2,
        0x10, 0, 0x20, 0, 0, 9, 0, 0, 7,
    ];

    /// UDP from fd00::2 to fd00:0:0:1::2, one byte of payload.
    #[rustfmt::skip]
    const V6: [u8; 63] = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd,
        0x60, 0, 0, 0, 0, 9, 17, 64,
        0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
        0xfd, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2,
        0x10, 0, 0x20, 0, 0, 9, 0, 0, 7,
    ];

    /// The packet with other bytes from `at` on.
    fn with(pkt: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut out = pkt.to_vec();
        out[at..at + bytes.len()].copy_from_slice(bytes);
        out
    }

    fn v4(at: usize, bytes: &[u8]) -> Result<Candidate, PassReason> {
        classify(&with(&V4, ETH_LEN + at, bytes)[..], MAC)
    }

    fn v6(at: usize, bytes: &[u8]) -> Result<Candidate, PassReason> {
        classify(&with(&V6, ETH_LEN + at, bytes)[..], MAC)
    }

    fn addr6(text: &str) -> [u8; 16] {
        text.parse::<std::net::Ipv6Addr>().unwrap().octets()
    }

    #[test]
    fn unicast_between_networks_is_a_candidate() {
        let v4 = Candidate::V4 { src: [10, 0, 0, 2], dst: [10, 0, 1, 2] };
        assert_eq!(classify(&V4[..], MAC), Ok(v4));
        let v6 = Candidate::V6 { src: addr6("fd00::2"), dst: addr6("fd00:0:0:1::2") };
        assert_eq!(classify(&V6[..], MAC), Ok(v6));
    }

    #[test]
    fn frames_that_are_not_ip_or_not_ours_are_passed() {
        let arp = with(&V4, eth::TYPE, &[0x08, 0x06]);
        assert_eq!(classify(&arp[..], MAC), Err(PassReason::NotIp));
        let tagged = with(&V4, eth::TYPE, &[0x81, 0x00]);
        assert_eq!(classify(&tagged[..], MAC), Err(PassReason::NotIp));
        assert_eq!(classify(&V4[..], [2, 0, 0, 0, 0, 9]), Err(PassReason::NotForUs));
        let broadcast = with(&V4, eth::DST, &[0xff; 6]);
        assert_eq!(classify(&broadcast[..], MAC), Err(PassReason::Multicast));
        let multicast = with(&V6, eth::DST, &[0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(classify(&multicast[..], MAC), Err(PassReason::Multicast));
    }

    #[test]
    fn a_frame_cut_anywhere_is_malformed() {
        for len in 0..V4.len() {
            assert_eq!(classify(&V4[..len], MAC), Err(PassReason::Malformed), "{len}");
        }
        for len in 0..V6.len() {
            assert_eq!(classify(&V6[..len], MAC), Err(PassReason::Malformed), "{len}");
        }
    }

    #[test]
    fn padding_after_the_packet_is_allowed() {
        let mut padded = V4.to_vec();
        padded.resize(60, 0);
        assert!(classify(&padded[..], MAC).is_ok());
    }

    #[test]
    fn ipv4_headers_are_judged() {
        assert_eq!(v4(ipv4::VERSION_IHL, &[0x65]), Err(PassReason::Malformed));
        assert_eq!(v4(ipv4::VERSION_IHL, &[0x44]), Err(PassReason::Malformed));
        assert_eq!(v4(ipv4::VERSION_IHL, &[0x46]), Err(PassReason::Options));
        assert_eq!(v4(ipv4::TOTAL_LEN, &[0, 19]), Err(PassReason::Malformed));
        assert!(v4(ipv4::TOTAL_LEN, &[0, 20]).is_ok());
        assert_eq!(v4(ipv4::TOTAL_LEN, &[0, 30]), Err(PassReason::Malformed));
        assert_eq!(v4(ipv4::TOTAL_LEN, &[0xff, 0xff]), Err(PassReason::Malformed));
        assert_eq!(v4(ipv4::TTL, &[1]), Err(PassReason::Ttl));
        assert_eq!(v4(ipv4::TTL, &[0]), Err(PassReason::Ttl));
        assert!(v4(ipv4::TTL, &[2]).is_ok());
    }

    #[test]
    fn ipv4_addresses_are_judged() {
        for dst in [[224, 0, 0, 1], [239, 255, 255, 255], [255, 255, 255, 255]] {
            assert_eq!(v4(ipv4::DST, &dst), Err(PassReason::Multicast), "{dst:?}");
        }
        let scoped = [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [169, 254, 1, 1], [240, 0, 0, 1]];
        for addr in scoped {
            assert_eq!(v4(ipv4::SRC, &addr), Err(PassReason::Scope), "{addr:?}");
            assert_eq!(v4(ipv4::DST, &addr), Err(PassReason::Scope), "{addr:?}");
        }
        assert_eq!(v4(ipv4::SRC, &[224, 0, 0, 1]), Err(PassReason::Scope));
        assert_eq!(v4(ipv4::SRC, &[255; 4]), Err(PassReason::Scope));
        for addr in [[1, 0, 0, 1], [126, 0, 0, 1], [128, 0, 0, 1], [169, 253, 0, 1], [223, 0, 0, 1]]
        {
            assert!(v4(ipv4::SRC, &addr).is_ok(), "{addr:?}");
            assert!(v4(ipv4::DST, &addr).is_ok(), "{addr:?}");
        }
    }

    #[test]
    fn ipv6_headers_are_judged() {
        assert_eq!(v6(ipv6::VERSION, &[0x40]), Err(PassReason::Malformed));
        assert!(v6(ipv6::VERSION, &[0x6f, 0xff]).is_ok());
        assert_eq!(v6(ipv6::NEXT_HEADER, &[0]), Err(PassReason::HopByHop));
        let jumbo = [0, 0, 0, 64];
        assert_eq!(v6(ipv6::PAYLOAD_LEN, &jumbo), Err(PassReason::HopByHop));
        assert_eq!(v6(ipv6::PAYLOAD_LEN, &[0, 10]), Err(PassReason::Malformed));
        assert_eq!(v6(ipv6::PAYLOAD_LEN, &[0xff, 0xff]), Err(PassReason::Malformed));
        assert!(v6(ipv6::PAYLOAD_LEN, &[0, 0]).is_ok());
        assert_eq!(v6(ipv6::HOP_LIMIT, &[1]), Err(PassReason::Ttl));
        assert_eq!(v6(ipv6::HOP_LIMIT, &[0]), Err(PassReason::Ttl));
        assert!(v6(ipv6::HOP_LIMIT, &[2]).is_ok());
    }

    #[test]
    fn ipv6_addresses_are_judged() {
        assert_eq!(v6(ipv6::DST, &addr6("ff02::1")), Err(PassReason::Multicast));
        assert_eq!(v6(ipv6::SRC, &addr6("ff02::1")), Err(PassReason::Scope));
        for text in ["::", "::1", "::ffff:10.0.0.1", "::10.0.0.1", "fe80::1", "febf::1"] {
            assert_eq!(v6(ipv6::SRC, &addr6(text)), Err(PassReason::Scope), "{text}");
            assert_eq!(v6(ipv6::DST, &addr6(text)), Err(PassReason::Scope), "{text}");
        }
        for text in ["fec0::1", "fe7f::1", "2001:db8::1", "64:ff9b::10.0.0.1"] {
            assert!(v6(ipv6::SRC, &addr6(text)).is_ok(), "{text}");
            assert!(v6(ipv6::DST, &addr6(text)).is_ok(), "{text}");
        }
    }
}
