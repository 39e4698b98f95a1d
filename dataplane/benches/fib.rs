//! Route tables: time to build, time to look up.

use std::net::{Ipv4Addr, Ipv6Addr};

use divan::Bencher;
use nsplane::tables::fib::{Fib4, Fib6};

fn main() {
    divan::main();
}

/// Spreads prefixes and addresses over all of the space.
fn spread(n: u32) -> u32 {
    n.wrapping_mul(2_654_435_761)
}

fn fib4(routes: u32) -> Fib4 {
    let route = |n| (Ipv4Addr::from_bits(spread(n)), 16 + (n % 9) as u8, n % 200);
    Fib4::build((0..routes).map(route))
}

fn addr6(n: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits((0x2 << 124) | (u128::from(spread(n)) << 92))
}

fn fib6(routes: u32) -> Fib6 {
    Fib6::build((0..routes).map(|n| (addr6(n), 29 + (n % 20) as u8, n % 200)))
}

#[divan::bench(args = [40, 1_000_000], sample_size = 1, sample_count = 3)]
fn build_v4(routes: u32) -> Fib4 {
    fib4(routes)
}

#[divan::bench(args = [40, 1_000_000], sample_size = 1, sample_count = 3)]
fn build_v6(routes: u32) -> Fib6 {
    fib6(routes)
}

/// 1,000 lookups of addresses spread over all of the space.
#[divan::bench(args = [40, 1_000_000], max_time = 0.3)]
fn lookup_1000_v4(bencher: Bencher<'_, '_>, routes: u32) {
    let fib = fib4(routes);
    bencher.bench_local(|| {
        (0..1000).filter_map(|n| fib.lookup(Ipv4Addr::from_bits(spread(n * 77)))).sum::<u32>()
    });
}

/// Likewise.
#[divan::bench(args = [40, 1_000_000], max_time = 0.3)]
fn lookup_1000_v6(bencher: Bencher<'_, '_>, routes: u32) {
    let fib = fib6(routes);
    bencher.bench_local(|| (0..1000).filter_map(|n| fib.lookup(addr6(n * 77))).sum::<u32>());
}
