//! Prefixes of one bucket, in order, without a byte between them.

use super::address::Address;
use super::ranges::Route;

/// Prefixes and their values, each prefix before those inside of it.
#[derive(Clone, Debug)]
pub(super) struct Routes<A> {
    addrs: Vec<A>,
    lens: Vec<u8>,
    values: Vec<u32>,
}

impl<A> Default for Routes<A> {
    fn default() -> Self {
        Self { addrs: Vec::new(), lens: Vec::new(), values: Vec::new() }
    }
}

impl<A: Address> Routes<A> {
    pub(super) fn len(&self) -> usize {
        self.addrs.len()
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = Route<A>> {
        let keys = self.addrs.iter().zip(&self.lens);
        keys.zip(&self.values).map(|((&addr, &len), &value)| (addr, len, value))
    }

    pub(super) fn get(&self, addr: A, len: u8) -> Option<u32> {
        self.find(addr, len).ok().map(|at| self.values[at])
    }

    pub(super) fn insert(&mut self, addr: A, len: u8, value: u32) -> Option<u32> {
        match self.find(addr, len) {
            Ok(at) => Some(std::mem::replace(&mut self.values[at], value)),
            Err(at) => {
                self.reserve();
                self.addrs.insert(at, addr);
                self.lens.insert(at, len);
                self.values.insert(at, value);
                None
            }
        }
    }

    pub(super) fn remove(&mut self, addr: A, len: u8) -> Option<u32> {
        let at = self.find(addr, len).ok()?;
        self.addrs.remove(at);
        self.lens.remove(at);
        Some(self.values.remove(at))
    }

    /// A longer prefix starts within the addresses of this one.
    pub(super) fn has_inside(&self, addr: A, len: u8, last: A) -> bool {
        let from = self.addrs.partition_point(|a| *a < addr);
        let inside = self.addrs[from..].iter().zip(&self.lens[from..]);
        inside.take_while(|(a, _)| **a <= last).any(|(_, l)| *l > len)
    }

    /// Takes out what starts at an address or behind.
    pub(super) fn split_off(&mut self, from: A) -> Self {
        let at = self.addrs.partition_point(|a| *a < from);
        Self {
            addrs: self.addrs.split_off(at),
            lens: self.lens.split_off(at),
            values: self.values.split_off(at),
        }
    }

    /// Puts what starts behind all of these behind them.
    pub(super) fn append(&mut self, mut other: Self) {
        self.addrs.append(&mut other.addrs);
        self.lens.append(&mut other.lens);
        self.values.append(&mut other.values);
    }

    fn find(&self, addr: A, len: u8) -> Result<usize, usize> {
        let mut at = self.addrs.partition_point(|a| *a < addr);
        while self.addrs.get(at) == Some(&addr) {
            match self.lens[at].cmp(&len) {
                std::cmp::Ordering::Less => at += 1,
                std::cmp::Ordering::Equal => return Ok(at),
                std::cmp::Ordering::Greater => break,
            }
        }
        Err(at)
    }

    /// An eighth more, not twice as much: there may be a million.
    fn reserve(&mut self) {
        if self.addrs.len() == self.addrs.capacity() {
            let more = (self.addrs.len() / 8).max(4);
            self.addrs.reserve_exact(more);
            self.lens.reserve_exact(more);
            self.values.reserve_exact(more);
        }
    }
}

impl<A: Address> FromIterator<Route<A>> for Routes<A> {
    fn from_iter<I: IntoIterator<Item = Route<A>>>(routes: I) -> Self {
        let mut out = Self::default();
        for (addr, len, value) in routes {
            out.addrs.push(addr);
            out.lens.push(len);
            out.values.push(value);
        }
        out.addrs.shrink_to_fit();
        out.lens.shrink_to_fit();
        out.values.shrink_to_fit();
        out
    }
}
