//! The table of IPv6 routes.

use std::net::Ipv6Addr;

use super::lanes;
use super::ranges::Route;
use super::rib::{MOST, Rib};
use super::table::Table;

#[derive(Clone, Debug, Default)]
pub(super) struct Table6(Table<u128>);

impl Table6 {
    #[inline]
    pub(super) fn lookup(&self, addr: u128) -> u32 {
        self.0.lookup(addr)
    }

    #[inline]
    pub(super) fn lookup_all(&self, addrs: &[Ipv6Addr], out: &mut [u32]) {
        lanes::all(&self.0, addrs, out);
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

/// The writer's side.
#[derive(Clone, Debug, Default)]
pub(super) struct Rib6(Rib<u128>);

impl Rib6 {
    pub(super) fn of(routes: Vec<Route<u128>>) -> Self {
        Self(Rib::of(routes, MOST))
    }

    pub(super) fn insert(&mut self, addr: u128, len: u8, value: u32) -> Option<u32> {
        self.0.insert(addr, len, value)
    }

    pub(super) fn remove(&mut self, addr: u128, len: u8) -> Option<u32> {
        self.0.remove(addr, len)
    }

    pub(super) fn get(&self, addr: u128, len: u8) -> Option<u32> {
        self.0.get(addr, len)
    }

    pub(super) fn has_inside(&self, addr: u128, len: u8) -> bool {
        self.0.has_inside(addr, len)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Route<u128>> {
        self.0.iter()
    }

    pub(super) fn snapshot(&mut self) -> Table6 {
        Table6(self.0.snapshot())
    }
}
