//! The Internet checksum (RFC 1071).

use std::ops::Add;

/// A one's-complement sum of 16-bit words in network byte order, folded.
///
/// Zero only where every word was zero; any other sum of zero shows as 0xffff,
/// as in the kernel's folded sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum(pub u16);

impl Sum {
    /// What a checksum field holds.
    #[must_use]
    pub fn complement(self) -> u16 {
        !self.0
    }
}

impl Add for Sum {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let (sum, carry) = self.0.overflowing_add(other.0);
        Self(sum + u16::from(carry))
    }
}

/// The sum of `bytes`, which begin at an even offset; an odd last byte counts as
/// followed by zero. At most 16 GiB, far above any packet.
///
/// Eight bytes a step, each half added to a 64-bit sum of its own so that no
/// carry is to be watched and the compiler may use vectors. Bytes are added as
/// they lie in memory: a one's-complement sum is the same in either byte order,
/// swapped (RFC 1071, 2.B).
#[must_use]
pub fn sum(bytes: &[u8]) -> Sum {
    let (words, rest) = bytes.as_chunks::<8>();
    let (mut low, mut high) = (0_u64, 0_u64);
    for word in words {
        let word = u64::from_ne_bytes(*word);
        low += word & 0xffff_ffff;
        high += word >> 32;
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let last = u64::from_ne_bytes(last);
    fold(low + high + (last & 0xffff_ffff) + (last >> 32))
}

/// Folds a sum of words as they lie in memory.
fn fold(sum: u64) -> Sum {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    Sum(u16::from_be(((sum & 0xffff) + (sum >> 16)) as u16))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, word by word.
    fn plain(bytes: &[u8]) -> Sum {
        bytes.chunks(2).fold(Sum(0), |sum, pair| {
            let low = pair.get(1).copied().unwrap_or(0);
            sum + Sum(u16::from_be_bytes([pair[0], low]))
        })
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(sum(&bytes), Sum(0xddf2));
    }

    #[test]
    fn only_zeros_sum_to_zero() {
        assert_eq!(sum(&[]), Sum(0));
        assert_eq!(sum(&[0; 64]), Sum(0));
        assert_eq!(sum(&[0xff; 64]), Sum(0xffff));
        assert_eq!(sum(&[0x80, 0, 0x7f, 0xff]), Sum(0xffff));
    }

    proptest! {
        #[test]
        fn fast_equals_plain(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(sum(&bytes), plain(&bytes));
        }

        #[test]
        fn fast_equals_plain_on_extreme_words(bytes in prop::collection::vec(prop_oneof![Just(0_u8), Just(0xff)], 0..4096)) {
            prop_assert_eq!(sum(&bytes), plain(&bytes));
        }
    }
}
