//! The table of IPv4 routes: in blocks while they are few, direct when they are many.

use std::net::Ipv4Addr;

use super::direct::Direct;
use super::direct::routes::{Routes, TooMany};
use super::lanes::{self, Lanes};
use super::ranges::Route;
use super::rib::{self, MOST, Rib};
use super::table::Table;

/// With so many routes a table becomes direct, and with so few it is one no longer. A direct
/// table takes a megabyte for itself.
const TIERS: (usize, usize) = (16_384, 8_192);

impl Lanes<u32> for Table4 {
    #[inline(always)]
    fn some<const N: usize>(&self, addrs: &[u32; N], out: &mut [u32; N]) {
        match self {
            Self::Blocks(table) => table.some(addrs, out),
            Self::Direct(table) => table.some(addrs, out),
            Self::Wide(table) => table.some(addrs, out),
        }
    }
}

/// Routes as readers see them.
#[derive(Clone, Debug)]
pub(super) enum Table4 {
    Blocks(Table<u32>),
    Direct(Direct<u16>),
    /// More next hops, or more in one place, than the shorter words can number.
    Wide(Direct<u32>),
}

impl Default for Table4 {
    fn default() -> Self {
        Self::Blocks(Table::default())
    }
}

impl Table4 {
    #[inline]
    pub(super) fn lookup(&self, addr: u32) -> u32 {
        match self {
            Self::Blocks(table) => table.lookup(addr),
            Self::Direct(table) => table.lookup(addr),
            Self::Wide(table) => table.lookup(addr),
        }
    }

    #[inline]
    pub(super) fn lookup_all(&self, addrs: &[Ipv4Addr], out: &mut [u32]) {
        lanes::all(self, addrs, out);
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Blocks(table) => table.bytes(),
            Self::Direct(table) => table.bytes(),
            Self::Wide(table) => table.bytes(),
        }
    }
}

/// The writer's side.
#[derive(Clone, Debug)]
pub(super) struct Rib4 {
    form: Form,
    /// With how many routes it becomes direct, and with how few it is no longer.
    tiers: (usize, usize),
}

#[derive(Clone, Debug)]
enum Form {
    Blocks(Rib<u32>),
    Direct(Box<Routes<u16>>),
    Wide(Box<Routes<u32>>),
}

impl Default for Rib4 {
    fn default() -> Self {
        Self { form: Form::Blocks(Rib::default()), tiers: TIERS }
    }
}

/// The same for each form.
macro_rules! each {
    ($form:expr, $rib:ident => $do:expr) => {
        match $form {
            Form::Blocks($rib) => $do,
            Form::Direct($rib) => $do,
            Form::Wide($rib) => $do,
        }
    };
}

impl Form {
    fn blocks(routes: &[Route<u32>]) -> Self {
        Self::Blocks(Rib::of_sorted(routes, MOST))
    }

    fn direct(routes: &[Route<u32>]) -> Self {
        let short = Routes::of(routes).map(|r| Self::Direct(Box::new(r)));
        short.unwrap_or_else(|TooMany| Self::wide(routes))
    }

    /// Of next hops that are too many even so, blocks can tell.
    fn wide(routes: &[Route<u32>]) -> Self {
        let wide = Routes::of(routes).map(|r| Self::Wide(Box::new(r)));
        wide.unwrap_or_else(|TooMany| Self::blocks(routes))
    }
}

impl Rib4 {
    /// From prefixes without host bits; of equal ones the last counts.
    pub(super) fn of(routes: Vec<Route<u32>>) -> Self {
        Self::of_tiers(routes, TIERS)
    }

    pub(super) fn of_tiers(mut routes: Vec<Route<u32>>, tiers: (usize, usize)) -> Self {
        rib::sort(&mut routes);
        let many = routes.len() >= tiers.0;
        let form = if many { Form::direct(&routes) } else { Form::blocks(&routes) };
        Self { form, tiers }
    }

    #[cfg(test)]
    pub(super) fn tiers(&self) -> (usize, usize) {
        self.tiers
    }

    fn sorted(&self) -> Vec<Route<u32>> {
        let mut routes: Vec<_> = self.iter().collect();
        rib::sort(&mut routes);
        routes
    }

    /// The words are too short.
    fn widen(&mut self) {
        let routes = self.sorted();
        self.form = match self.form {
            Form::Direct(_) => Form::wide(&routes),
            _ => Form::blocks(&routes),
        };
    }

    pub(super) fn insert(&mut self, addr: u32, len: u8, value: u32) -> Option<u32> {
        let done = match &mut self.form {
            Form::Blocks(rib) => Ok(rib.insert(addr, len, value)),
            Form::Direct(rib) => rib.insert(addr, len, value),
            Form::Wide(rib) => rib.insert(addr, len, value),
        };
        let Ok(before) = done else {
            self.widen();
            return self.insert(addr, len, value);
        };
        // Only as it becomes so many: where that does not do, it would not with more.
        let more = before.is_none() && self.len() == self.tiers.0;
        if more && matches!(self.form, Form::Blocks(_)) {
            self.form = Form::direct(&self.sorted());
        }
        before
    }

    pub(super) fn remove(&mut self, addr: u32, len: u8) -> Option<u32> {
        let before = each!(&mut self.form, rib => rib.remove(addr, len))?;
        if self.len() == self.tiers.1 && !matches!(self.form, Form::Blocks(_)) {
            self.form = Form::blocks(&self.sorted());
        }
        Some(before)
    }

    pub(super) fn get(&self, addr: u32, len: u8) -> Option<u32> {
        each!(&self.form, rib => rib.get(addr, len))
    }

    pub(super) fn has_inside(&self, addr: u32, len: u8) -> bool {
        each!(&self.form, rib => rib.has_inside(addr, len))
    }

    pub(super) fn len(&self) -> usize {
        each!(&self.form, rib => rib.len())
    }

    pub(super) fn iter(&self) -> Box<dyn Iterator<Item = Route<u32>> + '_> {
        each!(&self.form, rib => Box::new(rib.iter()))
    }

    pub(super) fn snapshot(&mut self) -> Table4 {
        let made = match &mut self.form {
            Form::Blocks(rib) => Ok(Table4::Blocks(rib.snapshot())),
            Form::Direct(rib) => rib.snapshot().map(Table4::Direct),
            Form::Wide(rib) => rib.snapshot().map(Table4::Wide),
        };
        made.unwrap_or_else(|TooMany| {
            self.widen();
            self.snapshot()
        })
    }
}
