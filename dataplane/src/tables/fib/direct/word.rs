//! Cache lines of words: a word is a next hop's number, or says where to go on.

use std::fmt::Debug;

use crate::sys::lines::{self, Line};

/// What cells and leaves are made of: two bytes, or four where there are too many next hops.
pub(in crate::tables::fib) trait Word:
    Copy + Eq + Debug + Send + Sync + 'static
{
    /// Words of one cache line.
    type Line: Copy + Debug + Default + Send + Sync + 'static;
    const PER_LINE: usize;
    /// The word is no next hop's number.
    const LINK: Self;
    /// No route.
    const NONE: Self;
    /// The most that can be counted in a page.
    const MOST: usize;
    /// A node's words before its leaves: 64 bits.
    const HEAD: usize;
    /// Of a leaf with few ranges, the smallest and a larger one: words with ranges'
    /// starts, and number of ranges.
    const TINY: (usize, usize);
    const SMALL: (usize, usize);

    fn words(lines: &[Self::Line]) -> &[Self];
    fn words_mut(lines: &mut [Self::Line]) -> &mut [Self];
    /// The 64 bits at the beginning of a node.
    fn bitmap(node: &[Self]) -> u64;
    fn set_bitmap(node: &mut [Self], bitmap: u64);
    /// The lower bits.
    fn of(number: usize) -> Self;
    fn number(self) -> usize;
    fn is_link(self) -> bool;
    /// How many of its bytes are not above another.
    fn bytes_up_to(self, most: u8) -> usize;
    fn set_byte(&mut self, at: usize, byte: u8);
}

macro_rules! word {
    ($word:ty, $tiny:expr, $small:expr) => {
        impl Word for $word {
            type Line = Line<$word, { 64 / size_of::<$word>() }>;
            const PER_LINE: usize = 64 / size_of::<$word>();
            const LINK: Self = 1 << (<$word>::BITS - 1);
            const NONE: Self = <$word>::MAX >> 1;
            const MOST: usize = Self::NONE as usize;
            const HEAD: usize = 8 / size_of::<$word>();
            const TINY: (usize, usize) = $tiny;
            const SMALL: (usize, usize) = $small;

            #[inline(always)]
            fn words(lines: &[Self::Line]) -> &[Self] {
                lines::flat(lines)
            }
            fn words_mut(lines: &mut [Self::Line]) -> &mut [Self] {
                lines::flat_mut(lines)
            }
            #[inline(always)]
            fn bitmap(node: &[Self]) -> u64 {
                let words = node[..Self::HEAD].iter().rev();
                words.fold(0, |all, word| all << (<$word>::BITS % 64) | u64::from(*word))
            }
            fn set_bitmap(node: &mut [Self], bitmap: u64) {
                for (i, word) in node[..Self::HEAD].iter_mut().enumerate() {
                    *word = (bitmap >> (i as u32 * <$word>::BITS)) as $word;
                }
            }
            #[inline(always)]
            fn of(number: usize) -> Self {
                number as $word
            }
            #[inline(always)]
            fn number(self) -> usize {
                self as usize
            }
            #[inline(always)]
            fn is_link(self) -> bool {
                self & Self::LINK != 0
            }
            #[inline(always)]
            fn bytes_up_to(self, most: u8) -> usize {
                self.to_le_bytes().iter().map(|b| usize::from(*b <= most)).sum()
            }
            fn set_byte(&mut self, at: usize, byte: u8) {
                let mut bytes = self.to_le_bytes();
                bytes[at] = byte;
                *self = Self::from_le_bytes(bytes);
            }
        }
    };
}
word!(u16, (2, 5), (10, 21));
word!(u32, (1, 3), (3, 13));
