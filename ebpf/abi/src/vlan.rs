//! VLAN tags (IEEE 802.1Q, clause 9) in front of a packet.
//!
//! ```text
//!  │ dst │ src │ 0x88a8 TCI │ 0x8100 TCI │ type │ payload     two tags, the outer one first
//! ```
//! At most two are read. The outer one may lie beside the packet, where a driver or
//! the kernel took it out; then only what is left is in it.

use crate::headers::{Bytes, eth};

/// Bytes of a tag: Ethertype and TCI.
pub const LEN: usize = 4;
/// Ethertype of an 802.1Q tag.
pub const DOT1Q: u16 = 0x8100;
/// Ethertype of an 802.1ad tag.
pub const DOT1AD: u16 = 0x88a8;
/// The bits of a TCI that are the VLAN; the rest is priority.
pub const VID: u16 = 0x0fff;

/// Which tags a frame carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// Ethertype and VLAN of the outer tag; zeros where there is none.
    pub outer: (u16, u16),
    /// The same of the inner tag.
    pub inner: (u16, u16),
    /// Tags that are in the packet's bytes.
    pub in_packet: usize,
}

/// True of an Ethertype that is a VLAN tag's.
#[inline(always)]
#[must_use]
pub const fn is_tag(ethertype: u16) -> bool {
    ethertype == DOT1Q || ethertype == DOT1AD
}

/// Reads a frame's tags. `beside` is the Ethertype and TCI of one that was taken out.
#[inline(always)]
pub fn tags<B: Bytes + ?Sized>(pkt: &B, beside: Option<(u16, u16)>) -> Tags {
    let first = at(pkt, eth::TYPE);
    let Some((proto, tci)) = beside else {
        let Some(outer) = first else { return Tags::default() };
        return match at(pkt, eth::TYPE + LEN) {
            Some(inner) => Tags { outer, inner, in_packet: 2 },
            None => Tags { outer, inner: (0, 0), in_packet: 1 },
        };
    };
    let outer = (proto, tci & VID);
    match first {
        Some(inner) => Tags { outer, inner, in_packet: 1 },
        None => Tags { outer, inner: (0, 0), in_packet: 0 },
    }
}

#[inline(always)]
fn at<B: Bytes + ?Sized>(pkt: &B, offset: usize) -> Option<(u16, u16)> {
    let proto = u16::from_be_bytes(pkt.load(offset)?);
    let tci = u16::from_be_bytes(pkt.load(offset + 2)?);
    if is_tag(proto) { Some((proto, tci & VID)) } else { None }
}

/// A frame as it is without the `SKIP` bytes of tags behind its addresses.
pub struct Without<'a, B: ?Sized, const SKIP: usize>(pub &'a B);

impl<B: Bytes + ?Sized, const SKIP: usize> Bytes for Without<'_, B, SKIP> {
    #[inline(always)]
    fn load<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        if at < eth::TYPE { self.0.load(at) } else { self.0.load(at + SKIP) }
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.0.len().saturating_sub(SKIP)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    fn frame(tags: &[(u16, u16)]) -> Vec<u8> {
        let mut out = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]].concat();
        for (proto, tci) in tags {
            out.extend(proto.to_be_bytes());
            out.extend(tci.to_be_bytes());
        }
        out.extend([0x08, 0x00, 0x45]);
        out
    }

    #[test]
    fn reads_up_to_two_tags_without_their_priority() {
        let none = frame(&[]);
        assert_eq!(tags(&none[..], None), Tags::default());
        let one = frame(&[(DOT1Q, 0xe064)]);
        let q100 = Tags { outer: (DOT1Q, 100), inner: (0, 0), in_packet: 1 };
        assert_eq!(tags(&one[..], None), q100);
        let two = frame(&[(DOT1AD, 10), (DOT1Q, 0x2064)]);
        let both = Tags { outer: (DOT1AD, 10), inner: (DOT1Q, 100), in_packet: 2 };
        assert_eq!(tags(&two[..], None), both);
        // A third one stays in: what is behind two is then not IP.
        let three = frame(&[(DOT1AD, 10), (DOT1Q, 100), (DOT1Q, 7)]);
        assert_eq!(tags(&three[..], None), both);
        let rest = Without::<_, 8>(&three[..]);
        assert_eq!(rest.load(eth::TYPE), Some(DOT1Q.to_be_bytes()));
        assert_eq!(rest.len(), three.len() - 8);
    }

    #[test]
    fn a_tag_beside_the_packet_is_the_outer_one() {
        let none = frame(&[]);
        let beside = Some((DOT1Q, 0x6064));
        let q100 = Tags { outer: (DOT1Q, 100), inner: (0, 0), in_packet: 0 };
        assert_eq!(tags(&none[..], beside), q100);
        let one = frame(&[(DOT1Q, 7)]);
        let both = Tags { outer: (DOT1AD, 10), inner: (DOT1Q, 7), in_packet: 1 };
        assert_eq!(tags(&one[..], Some((DOT1AD, 10))), both);
    }

    #[test]
    fn a_tag_cut_short_is_none() {
        assert_eq!(tags(&frame(&[(DOT1Q, 1)])[..15], None), Tags::default());
        let two = frame(&[(DOT1AD, 10), (DOT1Q, 100)]);
        assert_eq!(tags(&two[..19], None).in_packet, 1);
    }

    #[test]
    fn addresses_are_read_as_they_are() {
        let one = frame(&[(DOT1Q, 1)]);
        let rest = Without::<_, 4>(&one[..]);
        assert_eq!(rest.load(eth::SRC), Some([2_u8, 0, 0, 0, 0, 2]));
        assert_eq!(rest.load(eth::TYPE), Some([0x08_u8, 0x00]));
        assert_eq!(rest.load::<1>(rest.len()), None);
    }
}
