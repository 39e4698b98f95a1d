//! An address as a number.

use std::fmt::Debug;

/// What prefixes and ranges are made of.
pub(super) trait Address: Copy + Ord + Debug + Send + Sync + 'static {
    const BITS: u32;
    const ZERO: Self;
    /// The host bits of a prefix of `len` bits, all set.
    fn host_bits(len: u32) -> Self;
    /// The bit after the first `before`, alone.
    fn bit(before: u32) -> Self;
    fn and_not(self, other: Self) -> Self;
    fn or(self, other: Self) -> Self;
    fn xor(self, other: Self) -> Self;
    /// The next address; None after the last.
    fn next(self) -> Option<Self>;
    /// What is left when the lowest `shift` bits are cut off, of that the lowest 32.
    fn above(self, shift: u32) -> u32;
}

macro_rules! address {
    ($t:ty) => {
        impl Address for $t {
            const BITS: u32 = <$t>::BITS;
            const ZERO: Self = 0;
            fn host_bits(len: u32) -> Self {
                <$t>::MAX.checked_shr(len).unwrap_or(0)
            }
            fn bit(before: u32) -> Self {
                1 << (<$t>::BITS - 1 - before)
            }
            #[inline]
            fn and_not(self, other: Self) -> Self {
                self & !other
            }
            fn or(self, other: Self) -> Self {
                self | other
            }
            fn xor(self, other: Self) -> Self {
                self ^ other
            }
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
            #[inline]
            fn above(self, shift: u32) -> u32 {
                self.wrapping_shr(shift) as u32
            }
        }
    };
}
address!(u32);
address!(u128);
