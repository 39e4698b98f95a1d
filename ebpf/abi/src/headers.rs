//! Header readers: may this packet be routed by the dataplane at all?
//!
//! [`classify`] looks at headers only; what needs a map (local addresses, the
//! namespace's forwarding switch, kernel routes) is asked by its callers. It errs
//! on one side: whatever the kernel refuses or treats in a way of its own is the
//! kernel's, and so is an address nobody should route, even where the kernel would.
//!
//! Not looked at: the IPv4 header's checksum (the worker does), fragments (they are
//! routed like any packet), and whatever follows the IP header, but for
//! [`may_be_unfinished`], which is asked where the kernel's own word is not to be had.

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

/// What may follow an IP header: protocol numbers, and offsets in such headers.
pub mod l4 {
    /// ICMP over IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// An encrypted payload (IPsec).
    pub const ESP: u8 = 50;
    /// ICMP over IPv6.
    pub const ICMPV6: u8 = 58;
    /// Bytes of a TCP header without options (RFC 9293, section 3.1).
    pub const TCP_LEN: u16 = 20;
    /// The checksum in a TCP header, 2 bytes.
    pub const TCP_CHECKSUM: usize = 16;
    /// Bytes of a UDP header (RFC 768).
    pub const UDP_LEN: u16 = 8;
    /// The destination port in a UDP header, 2 bytes.
    pub const UDP_DST: usize = 2;
    /// The checksum in a UDP header, 2 bytes.
    pub const UDP_CHECKSUM: usize = 6;
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

/// Whether the sender may have left a checksum of this packet to its device, or the
/// packet be several that are to be cut apart (GSO, GRO): judged by its bytes, for
/// where the kernel's own notes cannot be read.
///
/// An unfinished TCP or UDP checksum, and that of a packet to be cut, is the sum of
/// the pseudo header: so `udp_send_skb`, `tcp_v4_send_check`, `udp4_gro_complete` and
/// `tcp4_gro_complete` (net/ipv4) and their IPv6 kin leave it. A finished one may have
/// that value by chance; then true is said of a packet that was whole. True as well
/// for whatever may hide such a packet (tunnels) or has a sum of another kind (SCTP's
/// CRC), for IPv6 with an extension header, behind which nobody looks, and for an L4
/// header cut short.
///
/// Fragments are whole: the kernel finishes a checksum before it cuts.
#[inline(always)]
pub fn may_be_unfinished<B: Bytes + ?Sized>(pkt: &B, candidate: Candidate) -> bool {
    let unfinished = match candidate {
        Candidate::V4 { src, dst } => unfinished_v4(pkt, src, dst),
        Candidate::V6 { src, dst } => unfinished_v6(pkt, src, dst),
    };
    unfinished.unwrap_or(true)
}

/// As [`may_be_unfinished`]; None where a header is cut short.
#[inline(always)]
fn unfinished_v4<B: Bytes + ?Sized>(pkt: &B, src: [u8; 4], dst: [u8; 4]) -> Option<bool> {
    let fragment = u16::from_be_bytes(pkt.load(ETH_LEN + ipv4::FRAGMENT)?);
    // More to come, or an offset.
    if fragment & 0x3fff != 0 {
        return Some(false);
    }
    let total = u16::from_be_bytes(pkt.load(ETH_LEN + ipv4::TOTAL_LEN)?);
    let [protocol] = pkt.load(ETH_LEN + ipv4::PROTOCOL)?;
    let addresses = u64::from(u32::from_be_bytes(src)) + u64::from(u32::from_be_bytes(dst));
    let len = total.checked_sub(ipv4::LEN as u16)?;
    unfinished_l4(pkt, ETH_LEN + ipv4::LEN, Segment { protocol, len, addresses })
}

/// As [`may_be_unfinished`]; None where a header is cut short.
#[inline(always)]
fn unfinished_v6<B: Bytes + ?Sized>(pkt: &B, src: [u8; 16], dst: [u8; 16]) -> Option<bool> {
    let len = u16::from_be_bytes(pkt.load(ETH_LEN + ipv6::PAYLOAD_LEN)?);
    let [protocol] = pkt.load(ETH_LEN + ipv6::NEXT_HEADER)?;
    let addresses = words(src) + words(dst);
    unfinished_l4(pkt, ETH_LEN + ipv6::LEN, Segment { protocol, len, addresses })
}

/// What a pseudo header says (RFC 768, RFC 8200 section 8.1).
struct Segment {
    protocol: u8,
    /// Bytes behind the IP header.
    len: u16,
    /// Sum of the addresses' 32-bit words.
    addresses: u64,
}

impl Segment {
    /// The field's value before the payload is summed; also where a sender left the
    /// length out, as is the habit for packets that a device is to cut.
    #[inline(always)]
    fn is_bare(&self, checksum: u16) -> bool {
        let without_len = self.addresses + u64::from(self.protocol);
        checksum == fold(without_len + u64::from(self.len)) || checksum == fold(without_len)
    }
}

/// As [`may_be_unfinished`], of what is at offset `at`; None where that is cut short.
#[inline(always)]
fn unfinished_l4<B: Bytes + ?Sized>(pkt: &B, at: usize, segment: Segment) -> Option<bool> {
    match segment.protocol {
        l4::TCP if segment.len >= l4::TCP_LEN => {
            let checksum = u16::from_be_bytes(pkt.load(at + l4::TCP_CHECKSUM)?);
            Some(segment.is_bare(checksum))
        }
        l4::UDP if segment.len >= l4::UDP_LEN => {
            let checksum = u16::from_be_bytes(pkt.load(at + l4::UDP_CHECKSUM)?);
            let port = u16::from_be_bytes(pkt.load(at + l4::UDP_DST)?);
            // Tunnels: without a checksum of their own, or with one that counts on
            // the inner one being finished later (`udp_set_csum`, net/ipv4/udp.c).
            Some(checksum == 0 || is_tunnel(port) || segment.is_bare(checksum))
        }
        l4::ICMP | l4::ICMPV6 | l4::ESP => Some(false),
        _ => Some(true),
    }
}

/// UDP ports of VXLAN (the assigned one, and Linux' default) and Geneve.
#[inline(always)]
fn is_tunnel(port: u16) -> bool {
    matches!(port, 4789 | 8472 | 6081)
}

/// Sum of an IPv6 address' 32-bit words.
#[inline(always)]
fn words(addr: [u8; 16]) -> u64 {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = addr;
    u64::from(u32::from_be_bytes([a, b, c, d]))
        + u64::from(u32::from_be_bytes([e, f, g, h]))
        + u64::from(u32::from_be_bytes([i, j, k, l]))
        + u64::from(u32::from_be_bytes([m, n, o, p]))
}

/// Folds a sum of less than 2^36 to 16 bits, in one's complement (RFC 1071).
#[inline(always)]
fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
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
mod tests;
