//! Routes and addresses that look like those of the Internet, and of tenants; the same in
//! each run.

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A few hundred next hops, as a router has.
const HOPS: u32 = 200;

/// Numbers that look random, the same in each run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() >> 32) as usize % n
    }
}

/// In a thousand, how many prefixes have each length.
const LENGTHS_V4: [(u8, u32); 14] = [
    (8, 1),
    (12, 1),
    (14, 2),
    (15, 3),
    (16, 14),
    (17, 9),
    (18, 15),
    (19, 26),
    (20, 45),
    (21, 52),
    (22, 115),
    (23, 105),
    (24, 602),
    (32, 10),
];
const LENGTHS_V6: [(u8, u32); 9] =
    [(28, 5), (29, 30), (32, 130), (36, 40), (40, 80), (44, 100), (46, 25), (48, 560), (64, 30)];

fn length(random: &mut Random, of: &[(u8, u32)]) -> u8 {
    let mut left = random.below(1000) as u32;
    for (len, share) in of {
        if left < *share {
            return *len;
        }
        left -= share;
    }
    24
}

/// Prefixes in clusters, as addresses are handed out.
pub(crate) fn routes4(count: usize) -> Vec<(Ipv4Addr, u8, u32)> {
    let mut random = Random(7);
    let mut seen = HashSet::new();
    let mut out = Vec::with_capacity(count);
    while out.len() < count {
        // 80,000 of the blocks of 16,384 addresses have any.
        let block = (random.below(80_000) as u32).wrapping_mul(0x9e37_79b1) >> 14 << 14;
        let (first, len) = (block >> 24, length(&mut random, &LENGTHS_V4));
        let addr = block | (random.next() as u32 & 0x3fff);
        let addr = addr & u32::MAX << (32 - len);
        if (1..224).contains(&first) && first != 127 && seen.insert((addr, len)) {
            out.push((Ipv4Addr::from_bits(addr), len, random.below(HOPS as usize) as u32));
        }
    }
    out
}

pub(crate) fn routes6(count: usize) -> Vec<(Ipv6Addr, u8, u32)> {
    let mut random = Random(11);
    let mut seen = HashSet::new();
    let mut out = Vec::with_capacity(count);
    let tops = [0x2001_u128, 0x2400, 0x2600, 0x2800, 0x2a00, 0x2a02, 0x2a0a, 0x2c0f];
    while out.len() < count {
        let top = tops[random.below(8)] << 112;
        let block = top | u128::from(random.below(6000) as u32) << 96;
        let len = length(&mut random, &LENGTHS_V6);
        let addr = block | u128::from(random.next() as u32) << 64;
        let addr = addr & u128::MAX << (128 - len);
        if seen.insert((addr, len)) {
            out.push((Ipv6Addr::from_bits(addr), len, random.below(HOPS as usize) as u32));
        }
    }
    out
}

/// Addresses to look up, by how they are chosen.
pub(crate) fn addrs4(routes: &[(Ipv4Addr, u8, u32)], how: &str) -> Vec<Ipv4Addr> {
    let mut random = Random(3);
    let under = |random: &mut Random, (addr, len, _): (Ipv4Addr, u8, u32)| {
        let host = random.next() as u32 & u32::MAX.checked_shr(u32::from(len)).unwrap_or(0);
        Ipv4Addr::from_bits(addr.to_bits() | host)
    };
    let one = |_| match how {
        "under" => {
            let at = random.below(routes.len());
            under(&mut random, routes[at])
        }
        "random" => Ipv4Addr::from_bits(random.next() as u32),
        _ => {
            // Of a million ranks, the chance falls as one over the rank.
            let u = (random.next() >> 11) as f64 / (1_u64 << 53) as f64;
            let rank = (routes.len() as f64).powf(u) as usize - 1;
            under(&mut random, routes[rank.min(routes.len() - 1)])
        }
    };
    (0..1 << 20).map(one).collect()
}

pub(crate) fn addrs6(routes: &[(Ipv6Addr, u8, u32)]) -> Vec<Ipv6Addr> {
    let mut random = Random(5);
    let one = |_| {
        let (addr, len, _) = routes[random.below(routes.len())];
        let noise = u128::from(random.next()) << 64 | u128::from(random.next());
        Ipv6Addr::from_bits(addr.to_bits() | noise & u128::MAX >> len)
    };
    (0..1 << 18).map(one).collect()
}

/// A tenant's routes: subnets and a few hosts, inside of 10.0.0.0/8, over a few next hops.
pub(crate) fn tenant4(random: &mut Random, count: usize) -> Vec<(Ipv4Addr, u8, u32)> {
    let mut seen = HashSet::new();
    let mut out = Vec::with_capacity(count);
    while out.len() < count {
        let len = [16, 20, 22, 24, 24, 24, 24, 28, 32][random.below(9)];
        let addr = (10 << 24) + (random.next() as u32 & 0x00ff_ffff & (u32::MAX << (32 - len)));
        if seen.insert((addr, len)) {
            out.push((Ipv4Addr::from_bits(addr), len as u8, random.below(8) as u32));
        }
    }
    out
}

/// A million host routes, each second address of a /11: no two are together.
pub(crate) fn alternating4(count: usize) -> Vec<(Ipv4Addr, u8, u32)> {
    let addr = |n: usize| Ipv4Addr::from_bits((10 << 24) + 2 * n as u32);
    (0..count).map(|n| (addr(n), 32, n as u32 % HOPS)).collect()
}

/// Host routes all over the space.
pub(crate) fn hosts4(count: usize) -> Vec<(Ipv4Addr, u8, u32)> {
    let addr = |n: usize| Ipv4Addr::from_bits((n as u32).wrapping_mul(0x9e37_79b1));
    (0..count).map(|n| (addr(n), 32, n as u32 % HOPS)).collect()
}
