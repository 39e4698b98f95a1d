//! What counts of a packet, read at once where it is as nearly all are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
    fn head(port: Mac, frame: &[u8]) -> Option<Head<Self::Addr>>;
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
    std::array::from_fn(|i| header[AT + i])
}

/// By an IPv4 address' first byte: it may be routed, or what follows says so.
const FIRST: [bool; 256] = {
    let mut first = [false; 256];
    let mut at = 1;
    while at < 224 {
        first[at] = at != 127;
        at += 1;
    }
    first
};

/// As `super::super::routable_v4`.
#[inline(always)]
fn routable_v4([a, b, ..]: [u8; 4]) -> bool {
    FIRST[usize::from(a)] && (a, b) != (169, 254)
}

impl Family for V4 {
    type Addr = Ipv4Addr;
    const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
    const HAS_FILTER: bool = true;

    #[inline(always)]
    fn head(port: Mac, frame: &[u8]) -> Option<Head<Ipv4Addr>> {
        let header: &[u8; V4_LEN] = frame.first_chunk()?;
        let [a, b] = ethernet::IPV4.to_be_bytes();
        // Version 4, no options.
        if bytes::<0, 6, _>(header) != port.0 || bytes::<12, 3, _>(header) != [a, b, 0x45] {
            return None;
        }
        let len = u16::from_be_bytes(bytes::<16, 2, _>(header));
        let (least, here) = (ipv4::MIN_LEN, frame.len() - ethernet::LEN);
        let (src, dst) = (bytes::<26, 4, _>(header), bytes::<30, 4, _>(header));
        let fits = usize::from(len) >= least && usize::from(len) <= here;
        let hops = header[22] > 1;
        let usual = fits && hops && routable_v4(src) && routable_v4(dst);
        if !usual || !checksum_ok(header) {
            return None;
        }
        Some(Head { src: src.into(), dst: dst.into(), len })
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
            header[..12].copy_from_slice(addresses);
            if let Some(header) = header[ethernet::LEN..].first_chunk_mut() {
                ipv4::decrement_ttl(header);
            }
        }
    }
}

/// The header's checksum verifies: all words and it are together a multiple of 0xffff, and
/// not 0, since the version is not.
#[inline(always)]
fn checksum_ok(header: &[u8; V4_LEN]) -> bool {
    let words = [
        bytes::<14, 4, _>(header),
        bytes::<18, 4, _>(header),
        bytes::<22, 4, _>(header),
        bytes::<26, 4, _>(header),
        bytes::<30, 4, _>(header),
    ];
    let sum: u64 = words.map(|word| u64::from(u32::from_ne_bytes(word))).iter().sum();
    sum.is_multiple_of(0xffff)
}

impl Family for V6 {
    type Addr = Ipv6Addr;
    const NONE: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
    const HAS_FILTER: bool = false;

    #[inline(always)]
    fn head(port: Mac, frame: &[u8]) -> Option<Head<Ipv6Addr>> {
        let header: &[u8; V6_LEN] = frame.first_chunk()?;
        let ours = bytes::<0, 6, _>(header) == port.0
            && bytes::<12, 2, _>(header) == ethernet::IPV6.to_be_bytes();
        if !ours || header[14] >> 4 != 6 {
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
        (super::super::routable_v6(src) && super::super::routable_v6(dst)).then_some(Head {
            src,
            dst,
            len,
        })
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
            header[..12].copy_from_slice(addresses);
            header[21] = header[21].wrapping_sub(1);
        }
    }
}
