//! DIR-24-8 (Gupta, Lin, McKeown, 1998), built once: what a lookup costs where memory and
//! changes cost nothing. A yardstick.

use std::net::Ipv4Addr;

/// A cell of the first table that names one of the second.
const LONG: u16 = 1 << 15;
pub(crate) const NO_MATCH: u16 = LONG - 1;

pub(crate) struct Dir24 {
    first: Box<[u16]>,
    second: Vec<[u16; 256]>,
}

impl Dir24 {
    pub(crate) fn build(routes: &[(Ipv4Addr, u8, u32)]) -> Self {
        let mut routes = routes.to_vec();
        routes.sort_by_key(|r| r.1);
        let mut table = Self { first: vec![NO_MATCH; 1 << 24].into(), second: Vec::new() };
        for (addr, len, hop) in routes {
            let (at, hop) = (addr.to_bits() as usize >> 8, hop as u16);
            if len <= 24 {
                table.first[at..at + (1 << (24 - len))].fill(hop);
                continue;
            }
            if table.first[at] & LONG == 0 {
                table.second.push([table.first[at]; 256]);
                table.first[at] = LONG | (table.second.len() - 1) as u16;
            }
            let low = addr.to_bits() as usize & 255;
            let long = &mut table.second[usize::from(table.first[at] & !LONG)];
            long[low..low + (1 << (32 - len))].fill(hop);
        }
        table
    }

    pub(crate) fn lookup_all(&self, addrs: &[Ipv4Addr], out: &mut [u32]) {
        let mut cells = [0; 64];
        for (addrs, out) in addrs.chunks(64).zip(out.chunks_mut(64)) {
            for (cell, addr) in cells.iter_mut().zip(addrs) {
                *cell = self.first[addr.to_bits() as usize >> 8];
            }
            for ((out, cell), addr) in out.iter_mut().zip(cells).zip(addrs) {
                *out = match cell & LONG {
                    0 => cell,
                    _ => self.second[usize::from(cell & !LONG)][addr.to_bits() as usize & 255],
                }
                .into();
            }
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.first) + self.second.len() * 512
    }
}
