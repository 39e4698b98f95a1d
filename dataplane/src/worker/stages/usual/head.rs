//! What counts of a packet, read at once where it is as nearly all are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::headers;
use crate::id::Mac;
use crate::tables::{Namespace, Port};
use crate::wire::ethernet;
use crate::wire::ipv4;
use crate::wire::ipv6;

/// What counts of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<A> {
    /// Source.
    pub src: A,
    /// Destination.
    pub dst: A,
    /// Bytes of the IP packet.
    pub len: u16,
}

/// An address family.
pub trait Family {
    /// An address.
    type Addr: Copy;
    /// Some address.
    const NONE: Self::Addr;
    /// The kernel has a reverse-path filter for it.
    const HAS_FILTER: bool;

    /// The head of a frame to the port with this address: one that `super::super::headers`
    /// would let go on too.
    fn head(port: MacWord, frame: &[u8]) -> Option<Head<Self::Addr>>;
    /// The port forwards it.
    fn forwarding(port: &Port) -> bool;
    /// The namespace has rules for it.
    fn has_policy(ns: &Namespace) -> bool;
    /// The next hops' indices.
    fn lookup_all(ns: &Namespace, addrs: &[Self::Addr], out: &mut [u32]);
    /// An address that may be routed, as a number that is no other family's and not 0.
    fn key(addr: Self::Addr) -> u128;
    /// The address.
    fn addr(addr: Self::Addr) -> IpAddr;
    /// Makes a frame whose head was found the one that leaves, as `super::super::rewrite`.
    fn rewrite(frame: &mut [u8], addresses: &[u8; 12]);
}

/// IPv4.
pub struct V4;
/// IPv6.
pub struct V6;

const V4_LEN: usize = ethernet::LEN + ipv4::MIN_LEN;
const V6_LEN: usize = ethernet::LEN + ipv6::LEN;

/// The `N` bytes of a header from `AT` on.
#[inline(always)]
fn bytes<const AT: usize, const N: usize, const LEN: usize>(header: &[u8; LEN]) -> [u8; N] {
    // One load, and not N, as the compiler makes of other ways to say this.
    header[AT..].first_chunk().copied().unwrap_or([0; N])
}

/// Eight bytes from `AT` on, as they lie in memory.
#[inline(always)]
fn eight<const AT: usize, const LEN: usize>(header: &[u8; LEN]) -> u64 {
    u64::from_le_bytes(bytes::<AT, 8, _>(header))
}

/// Likewise four.
#[inline(always)]
fn four<const AT: usize, const LEN: usize>(header: &[u8; LEN]) -> u32 {
    u32::from_le_bytes(bytes::<AT, 4, _>(header))
}

/// An Ethernet address as eight bytes of a header begin with it.
#[derive(Clone, Copy, Debug)]
pub struct MacWord(u64);

impl MacWord {
    /// Of an address.
    #[must_use]
    pub fn of(mac: Mac) -> Self {
        let [a, b, c, d, e, f] = mac.0;
        Self(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]) << 16)
    }

    /// The frame is for it.
    #[inline(always)]
    fn is_dst<const LEN: usize>(self, header: &[u8; LEN]) -> bool {
        eight::<0, _>(header) << 16 == self.0
    }
}

/// Ethertype of IPv4, version 4, no options; and what of four bytes that is.
const V4_BEGINS: (u32, u32) = {
    let [a, b] = ethernet::IPV4.to_be_bytes();
    (u32::from_le_bytes([a, b, 0x45, 0]), 0x00ff_ffff)
};

/// Ethertype of IPv6, version 6; likewise.
const V6_BEGINS: (u32, u32) = {
    let [a, b] = ethernet::IPV6.to_be_bytes();
    (u32::from_le_bytes([a, b, 0x60, 0]), 0x00f0_ffff)
};

/// By an IPv4 address' first byte: it may perhaps not be routed.
const DOUBTFUL: [u8; 256] = {
    let mut first = [1; 256];
    let mut at = 1;
    while at < 224 {
        first[at] = (at == 127 || at == 169) as u8;
        at += 1;
    }
    first
};

/// As `headers::routable_v4` of both addresses, as they lie in memory.
#[inline(always)]
fn routable_v4(src: u32, dst: u32) -> bool {
    let both = DOUBTFUL[src as usize & 0xff] | DOUBTFUL[dst as usize & 0xff];
    both == 0 || in_doubt(src, dst)
}

#[cold]
fn in_doubt(src: u32, dst: u32) -> bool {
    [src, dst].iter().all(|addr| headers::routable_v4(addr.to_le_bytes().into()))
}

/// Addresses a frame anew.
#[inline(always)]
fn address(frame: &mut [u8], addresses: &[u8; 12]) {
    if let Some(old) = frame.first_chunk_mut() {
        *old = *addresses;
    }
}

impl Family for V4 {
    type Addr = Ipv4Addr;
    const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
    const HAS_FILTER: bool = true;

    #[inline(always)]
    fn head(port: MacWord, frame: &[u8]) -> Option<Head<Ipv4Addr>> {
        let header: &[u8; V4_LEN] = frame.first_chunk()?;
        if !port.is_dst(header) || four::<12, _>(header) & V4_BEGINS.1 != V4_BEGINS.0 {
            return None;
        }
        let len = u16::from_be_bytes(bytes::<16, 2, _>(header));
        let here = frame.len() - ethernet::LEN;
        let fits = usize::from(len) >= ipv4::MIN_LEN && usize::from(len) <= here;
        let (src, dst) = (four::<26, _>(header), four::<30, _>(header));
        if !fits || header[22] <= 1 || !routable_v4(src, dst) || !sum_ok(header) {
            return None;
        }
        let (src, dst) = (src.to_le_bytes().into(), dst.to_le_bytes().into());
        Some(Head { src, dst, len })
    }

    #[inline]
    fn forwarding(port: &Port) -> bool {
        port.forward_v4
    }

    #[inline]
    fn has_policy(ns: &Namespace) -> bool {
        ns.policy_v4.is_some()
    }

    #[inline]
    fn lookup_all(ns: &Namespace, addrs: &[Ipv4Addr], out: &mut [u32]) {
        ns.v4.lookup_all(addrs, out);
    }

    #[inline(always)]
    fn key(addr: Ipv4Addr) -> u128 {
        // Mapped into what IPv6 does not route.
        0xffff << 32 | u128::from(addr.to_bits())
    }

    #[inline]
    fn addr(addr: Ipv4Addr) -> IpAddr {
        addr.into()
    }

    #[inline(always)]
    fn rewrite(frame: &mut [u8], addresses: &[u8; 12]) {
        if let Some(header) = frame.first_chunk_mut::<V4_LEN>() {
            address(header, addresses);
            if let Some(header) = header[ethernet::LEN..].first_chunk_mut() {
                ipv4::decrement_ttl(header);
            }
        }
    }
}

/// The header's checksum verifies: all its words are together as zero, which their sum
/// itself is not, since the version is not. Any order of bytes will do (RFC 1071, 2.B).
#[inline(always)]
fn sum_ok(header: &[u8; V4_LEN]) -> bool {
    let (sum, carry) = eight::<14, _>(header).overflowing_add(eight::<22, _>(header));
    let (sum, again) = sum.overflowing_add(u64::from(four::<30, _>(header)) + u64::from(carry));
    // A carry out of the second sum leaves it far below the largest number.
    let sum = sum + u64::from(again);
    // Each half gets the other added; the upper one has the carry of both.
    let half = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    half.wrapping_add(half.rotate_left(16)) >> 16 == 0xffff
}

impl Family for V6 {
    type Addr = Ipv6Addr;
    const NONE: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
    const HAS_FILTER: bool = false;

    #[inline(always)]
    fn head(port: MacWord, frame: &[u8]) -> Option<Head<Ipv6Addr>> {
        let header: &[u8; V6_LEN] = frame.first_chunk()?;
        if !port.is_dst(header) || four::<12, _>(header) & V6_BEGINS.1 != V6_BEGINS.0 {
            return None;
        }
        let payload = u16::from_be_bytes(bytes::<18, 2, _>(header));
        let len = ipv6::LEN + usize::from(payload);
        let src = u128::from_be_bytes(bytes::<22, 16, _>(header));
        let dst = u128::from_be_bytes(bytes::<38, 16, _>(header));
        let fits = len <= frame.len() - ethernet::LEN;
        let plain = header[20] != ipv6::HOP_BY_HOP && header[21] > 1;
        let len = u16::try_from(len).ok().filter(|_| fits && plain)?;
        let (src, dst) = (Ipv6Addr::from_bits(src), Ipv6Addr::from_bits(dst));
        (headers::routable_v6(src) && headers::routable_v6(dst)).then_some(Head { src, dst, len })
    }

    #[inline]
    fn forwarding(port: &Port) -> bool {
        port.forward_v6
    }

    #[inline]
    fn has_policy(ns: &Namespace) -> bool {
        ns.policy_v6.is_some()
    }

    #[inline]
    fn lookup_all(ns: &Namespace, addrs: &[Ipv6Addr], out: &mut [u32]) {
        ns.v6.lookup_all(addrs, out);
    }

    #[inline(always)]
    fn key(addr: Ipv6Addr) -> u128 {
        addr.to_bits()
    }

    #[inline]
    fn addr(addr: Ipv6Addr) -> IpAddr {
        addr.into()
    }

    #[inline(always)]
    fn rewrite(frame: &mut [u8], addresses: &[u8; 12]) {
        if let Some(header) = frame.first_chunk_mut::<V6_LEN>() {
            address(header, addresses);
            header[21] = header[21].wrapping_sub(1);
        }
    }
}
