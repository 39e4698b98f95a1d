//! Memory in cache lines, each aligned to one, that is read as numbers one after the other.

/// A cache line of `N` numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Line<W, const N: usize>(pub [W; N]);

impl<W: Copy + Default, const N: usize> Default for Line<W, N> {
    fn default() -> Self {
        Self([W::default(); N])
    }
}

/// The numbers of all lines.
#[inline(always)]
#[must_use]
pub fn flat<W, const N: usize>(lines: &[Line<W, N>]) -> &[W] {
    const { assert!(size_of::<Line<W, N>>() == N * size_of::<W>(), "a line is its numbers") };
    // SAFETY: each line is N numbers and nothing between or behind them, and lines follow
    // each other without a gap.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * N) }
}

/// The same, to be written to.
#[must_use]
pub fn flat_mut<W, const N: usize>(lines: &mut [Line<W, N>]) -> &mut [W] {
    const { assert!(size_of::<Line<W, N>>() == N * size_of::<W>(), "a line is its numbers") };
    // SAFETY: as above; any value of W is one of a line's numbers.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * N) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_each_other() {
        let mut lines = [Line([0_u16; 32]); 3];
        flat_mut(&mut lines)[33] = 7;
        assert_eq!(lines[1].0[1], 7);
        assert_eq!(flat(&lines).len(), 96);
        assert_eq!(flat(&lines)[33], 7);
        assert_eq!(lines.as_ptr().addr() % 64, 0);
    }
}
