//! VLAN tags in front of a packet: off and on, in place.
//!
//! ```text
//!  0      6      12         16         20
//!  │ dst  │ src  │ outer    │ inner    │ type │ payload ...
//! ```
//! Taking tags off moves only the addresses, towards the payload: the frame then begins
//! later in its bytes. Putting on as many moves them back; another number moves the
//! payload too, since a frame of the memory begins where it was received.
//!
//! What tags a frame carries is read by `nsplane_abi::vlan`, as the XDP program does.

use nsplane_abi::headers::eth;
use nsplane_abi::vlan::LEN;

/// The tags that frames of a VLAN carry, the outer one first: Ethertype and VLAN.
/// Their priority is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tags {
    outer: (u16, u16),
    inner: (u16, u16),
}

impl Tags {
    /// No tag.
    pub const NONE: Self = Self { outer: (0, 0), inner: (0, 0) };

    /// One tag, or two. An Ethertype is never 0.
    #[must_use]
    pub fn new(outer: (u16, u16), inner: Option<(u16, u16)>) -> Self {
        Self { outer, inner: inner.unwrap_or((0, 0)) }
    }

    /// No tag.
    #[must_use]
    #[inline]
    pub fn is_empty(self) -> bool {
        self.outer.0 == 0
    }

    /// Bytes of all tags.
    #[must_use]
    #[inline]
    pub fn len(self) -> usize {
        LEN * (usize::from(self.outer.0 != 0) + usize::from(self.inner.0 != 0))
    }

    /// Ethertype and VLAN of the outer tag, zeros where there is none.
    #[must_use]
    pub fn outer(self) -> (u16, u16) {
        self.outer
    }

    /// Likewise of the inner tag.
    #[must_use]
    pub fn inner(self) -> (u16, u16) {
        self.inner
    }

    fn bytes(self) -> [u8; 2 * LEN] {
        let [a, b] = self.outer.0.to_be_bytes();
        let [c, d] = self.outer.1.to_be_bytes();
        let [e, f] = self.inner.0.to_be_bytes();
        let [g, h] = self.inner.1.to_be_bytes();
        [a, b, c, d, e, f, g, h]
    }
}

/// Takes `tagged` bytes of tags off: the frame then begins that many bytes later.
/// A frame that is too short for that is left alone.
pub fn take_off(frame: &mut [u8], tagged: usize) {
    if tagged > 0 && frame.len() >= eth::TYPE + tagged {
        frame.copy_within(..eth::TYPE, tagged);
    }
}

/// Puts tags on a frame that begins at `lead` and is `len` bytes long; then it begins
/// at 0 and is `len + tags.len()` bytes long. False, and nothing done, where there is
/// no room for that.
#[must_use]
pub fn put_on(buffer: &mut [u8], lead: usize, len: usize, tags: Tags) -> bool {
    let tagged = tags.len();
    if len < eth::TYPE || lead + len > buffer.len() || tagged + len > buffer.len() {
        return false;
    }
    let mut addresses = [0; eth::TYPE];
    addresses.copy_from_slice(&buffer[lead..lead + eth::TYPE]);
    if tagged != lead {
        buffer.copy_within(lead + eth::TYPE..lead + len, tagged + eth::TYPE);
    }
    buffer[..eth::TYPE].copy_from_slice(&addresses);
    buffer[eth::TYPE..eth::TYPE + tagged].copy_from_slice(&tags.bytes()[..tagged]);
    true
}

#[cfg(test)]
mod tests {
    use nsplane_abi::vlan::{DOT1AD, DOT1Q};

    use super::*;

    const BARE: [u8; 18] = [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 8, 0, 9, 8, 7, 6];

    fn all() -> [(Tags, Vec<u8>); 3] {
        let wear = |tags: &[u8]| [&BARE[..12], tags, &BARE[12..]].concat();
        [
            (Tags::NONE, wear(&[])),
            (Tags::new((DOT1Q, 100), None), wear(&[0x81, 0, 0, 100])),
            (
                Tags::new((DOT1AD, 0x123), Some((DOT1Q, 4094))),
                wear(&[0x88, 0xa8, 1, 0x23, 0x81, 0, 0x0f, 0xfe]),
            ),
        ]
    }

    #[test]
    fn from_any_number_of_tags_to_any_other() {
        for (before, frame) in all() {
            for (after, wanted) in all() {
                let mut buffer = frame.clone();
                take_off(&mut buffer, before.len());
                assert_eq!(buffer[before.len()..], BARE);
                buffer.resize(frame.len().max(wanted.len()), 0xee);
                assert!(put_on(&mut buffer, before.len(), BARE.len(), after));
                assert_eq!(buffer[..wanted.len()], wanted, "{before:?} to {after:?}");
            }
        }
    }

    #[test]
    fn without_room_nothing_is_done() {
        let mut frame = BARE;
        assert!(!put_on(&mut frame, 0, BARE.len(), Tags::new((DOT1Q, 1), None)));
        assert!(!put_on(&mut frame, 4, BARE.len(), Tags::NONE));
        assert!(!put_on(&mut frame, 0, 11, Tags::NONE));
        take_off(&mut frame[..15], 4);
        assert_eq!(frame, BARE);
    }
}
