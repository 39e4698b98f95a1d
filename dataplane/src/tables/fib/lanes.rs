//! Many lookups at once: what one waits for from memory comes while others go on.

use super::address::Address;
use crate::sys::cpu::{self, Task};

/// Lookups that are under way at a time, and where there are not as many.
const LANES: usize = 32;
const FEW: usize = 8;

/// A table that can be looked up so.
pub(super) trait Lanes<A> {
    /// To be `#[inline(always)]`, and all that it calls ([`Task`]).
    fn some<const N: usize>(&self, addrs: &[A; N], out: &mut [u32; N]);
}

/// Looks up all addresses for which there is room.
#[inline]
pub(super) fn all<A, X, T>(table: &T, addrs: &[X], out: &mut [u32])
where
    A: Address,
    X: Copy + Into<A>,
    T: Lanes<A>,
{
    cpu::run(All { table, addrs, out, bits: X::into });
}

struct All<'a, T, X, F> {
    table: &'a T,
    addrs: &'a [X],
    out: &'a mut [u32],
    bits: F,
}

impl<A, X, T, F> Task for All<'_, T, X, F>
where
    A: Address,
    X: Copy,
    T: Lanes<A>,
    F: Fn(X) -> A,
{
    type Out = ();

    #[inline(always)]
    fn run(self) {
        let n = self.addrs.len().min(self.out.len());
        let left = (&self.addrs[..n], &mut self.out[..n]);
        let left = chunks::<LANES, _, _, _>(self.table, left, &self.bits);
        let left = chunks::<FEW, _, _, _>(self.table, left, &self.bits);
        chunks::<1, _, _, _>(self.table, left, &self.bits);
    }
}

/// Looks up so many at a time; returns what is left.
#[inline(always)]
fn chunks<'a, const N: usize, A: Address, X: Copy, T: Lanes<A>>(
    table: &T,
    (addrs, out): (&'a [X], &'a mut [u32]),
    bits: &impl Fn(X) -> A,
) -> (&'a [X], &'a mut [u32]) {
    let (addrs, addrs_left) = addrs.as_chunks::<N>();
    let (out, out_left) = out.as_chunks_mut::<N>();
    for (addrs, out) in addrs.iter().zip(out) {
        let mut wanted = [A::ZERO; N];
        for i in 0..N {
            wanted[i] = bits(addrs[i]);
        }
        table.some(&wanted, out);
    }
    (addrs_left, out_left)
}
