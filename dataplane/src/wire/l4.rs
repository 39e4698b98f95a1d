//! Completing TCP and UDP checksums that a local sender left to its device.
//!
//! Such a packet has only the pseudo header's sum in the field (the kernel's
//! `CHECKSUM_PARTIAL`). On a wire, or injected into a stack, it would be corrupt.

use super::checksum::{self, Sum};

/// Protocol number of UDP.
pub const UDP: u8 = 17;

/// What a field holds instead of 0 (the kernel's `CSUM_MANGLED_0`): in UDP a zero
/// field says that there is no checksum.
const MANGLED_ZERO: u16 = 0xffff;

/// Sums `packet` from `start` on and stores the complement at `start + offset`,
/// as the kernel's `skb_checksum_help` (net/core/dev.c) does: the field holds the
/// pseudo header's sum before, and takes part. False, and nothing done, where the
/// field would not lie within the packet.
#[must_use]
pub fn complete(packet: &mut [u8], start: usize, offset: usize) -> bool {
    let at = start.saturating_add(offset);
    if at.saturating_add(2) > packet.len() {
        return false;
    }
    let sum = checksum::sum(&packet[start..]);
    store(packet, at, sum);
    true
}

/// Stores the complement of a sum that the field at `at` took part in.
///
/// # Panics
/// If the field does not lie within `packet`: our bug.
pub fn store(packet: &mut [u8], at: usize, sum: Sum) {
    let field = match sum.complement() {
        0 => MANGLED_ZERO,
        sum => sum,
    };
    packet[at..at + 2].copy_from_slice(&field.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A UDP packet with pseudo sum in the field, as a sender with offload leaves it.
    fn unfinished(payload: &[u8], pseudo: Sum) -> Vec<u8> {
        let mut p = vec![0x12, 0x34, 0, 53, 0, 0, 0, 0];
        p[4..6].copy_from_slice(&((8 + payload.len()) as u16).to_be_bytes());
        p[6..8].copy_from_slice(&pseudo.0.to_be_bytes());
        p.extend_from_slice(payload);
        p
    }

    #[test]
    fn a_sum_of_zero_is_sent_as_all_ones() {
        // Words that sum to 0xffff: the complement is 0.
        let mut p = vec![0xff, 0xff, 0, 0, 0, 0, 0, 0];
        assert!(complete(&mut p, 0, 6));
        assert_eq!(p[6..8], [0xff, 0xff]);
    }

    #[test]
    fn a_field_outside_the_packet_is_left_alone() {
        let mut p = vec![1; 20];
        for (start, offset) in [(20, 0), (0, 19), (12, 7), (usize::MAX, usize::MAX), (65535, 6)] {
            assert!(!complete(&mut p, start, offset));
        }
        assert_eq!(p, vec![1; 20]);
        assert!(complete(&mut p, 12, 6));
    }

    proptest! {
        #[test]
        fn completing_gives_what_a_receiver_accepts(
            payload in prop::collection::vec(any::<u8>(), 0..100), pseudo in 1..=u16::MAX
        ) {
            let mut p = unfinished(&payload, Sum(pseudo));
            prop_assert!(complete(&mut p, 0, 6));
            prop_assert_eq!((checksum::sum(&p) + Sum(pseudo)).0, 0xffff);
        }
    }
}
