//! Route tables: time to load, change and look up, and memory; beside crates that do the
//! same. `cargo bench -p nsplane --bench fib`; each figure is the median of interleaved runs.
//!
//! A million IPv4 prefixes with the lengths that the Internet's have, 200,000 IPv6 ones.

mod dir24;

use std::collections::HashSet;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use dir24::Dir24;
use ip_network::{Ipv4Network, Ipv6Network};
use ip_network_table::IpNetworkTable;
use nsplane::sync::Publisher;
use nsplane::tables::fib::{Fib4, Fib6, Rib4, Rib6};
use prefix_trie::PrefixMap;

/// Addresses looked up at a time, as a worker's turn has them.
const BATCH: usize = 32;
const RUNS: usize = 7;
/// A few hundred next hops, as a router has.
const HOPS: u32 = 200;

/// Numbers that look random, the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
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
fn routes4(count: usize) -> Vec<(Ipv4Addr, u8, u32)> {
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

fn routes6(count: usize) -> Vec<(Ipv6Addr, u8, u32)> {
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
fn addrs4(routes: &[(Ipv4Addr, u8, u32)], how: &str) -> Vec<Ipv4Addr> {
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

fn addrs6(routes: &[(Ipv6Addr, u8, u32)]) -> Vec<Ipv6Addr> {
    let mut random = Random(5);
    let one = |_| {
        let (addr, len, _) = routes[random.below(routes.len())];
        let noise = u128::from(random.next()) << 64 | u128::from(random.next());
        Ipv6Addr::from_bits(addr.to_bits() | noise & u128::MAX >> len)
    };
    (0..1 << 18).map(one).collect()
}

fn ns(began: Instant, n: usize) -> f64 {
    began.elapsed().as_nanos() as f64 / n as f64
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

type Way<'a> = (&'static str, Box<dyn Fn() -> u64 + 'a>);

/// Runs each in turn, several times.
fn rows(what: &str, n: usize, ways: &[Way<'_>]) {
    let mut seen = vec![Vec::new(); ways.len()];
    for _ in 0..RUNS {
        for ((_, way), seen) in ways.iter().zip(&mut seen) {
            let began = Instant::now();
            black_box(way());
            seen.push(ns(began, n));
        }
    }
    for ((name, _), seen) in ways.iter().zip(seen) {
        println!("{what:<34} {name:<34} {:>8.1} ns", median(seen));
    }
}

fn batches<A>(addrs: &[A], lookup: impl Fn(&[A], &mut [u32])) -> u64 {
    let mut out = [0; BATCH];
    let mut sum = 0;
    for batch in addrs.chunks_exact(BATCH) {
        lookup(batch, &mut out);
        sum += out.iter().map(|v| u64::from(*v)).sum::<u64>();
    }
    sum
}

fn lookups4(routes: &[(Ipv4Addr, u8, u32)], fib: &Fib4) {
    let mut trie = PrefixMap::new();
    let mut tree = IpNetworkTable::new();
    for &(addr, len, hop) in routes {
        let net = Ipv4Network::new(addr, len).expect("no host bits");
        trie.insert((addr.to_bits(), len), hop);
        tree.insert(net, hop);
    }
    let dir = Dir24::build(routes);
    for how in ["under", "random", "zipf"] {
        let addrs = &addrs4(routes, how);
        let what = format!("{} IPv4, {how}", routes.len());
        let one = |f: &dyn Fn(Ipv4Addr) -> Option<u32>| {
            addrs.iter().filter_map(|a| f(*a)).map(u64::from).sum::<u64>()
        };
        rows(
            &what,
            addrs.len(),
            &[
                ("nsplane, 32 at a time", Box::new(|| batches(addrs, |a, o| fib.lookup_all(a, o)))),
                ("nsplane, one by one", Box::new(|| one(&|a| fib.lookup(a)))),
                ("DIR-24-8", Box::new(|| batches(addrs, |a, o| dir.lookup_all(a, o)))),
                (
                    "prefix-trie",
                    Box::new(|| one(&|a| trie.get_lpm(&(a.to_bits(), 32)).map(|(_, v)| *v))),
                ),
                (
                    "ip_network_table",
                    Box::new(|| one(&|a| tree.longest_match_ipv4(a).map(|(_, v)| *v))),
                ),
            ],
        );
    }
}

fn lookups6(routes: &[(Ipv6Addr, u8, u32)], fib: &Fib6) {
    let mut trie = PrefixMap::new();
    let mut tree = IpNetworkTable::new();
    for &(addr, len, hop) in routes {
        trie.insert((addr.to_bits(), len), hop);
        tree.insert(Ipv6Network::new(addr, len).expect("no host bits"), hop);
    }
    let addrs = &addrs6(routes);
    let one = |f: &dyn Fn(Ipv6Addr) -> Option<u32>| {
        addrs.iter().filter_map(|a| f(*a)).map(u64::from).sum::<u64>()
    };
    rows(
        &format!("{} IPv6, under", routes.len()),
        addrs.len(),
        &[
            ("nsplane, 32 at a time", Box::new(|| batches(addrs, |a, o| fib.lookup_all(a, o)))),
            ("nsplane, one by one", Box::new(|| one(&|a| fib.lookup(a)))),
            (
                "prefix-trie",
                Box::new(|| one(&|a| trie.get_lpm(&(a.to_bits(), 128)).map(|(_, v)| *v))),
            ),
            (
                "ip_network_table",
                Box::new(|| one(&|a| tree.longest_match(IpAddr::V6(a)).map(|(_, v)| *v))),
            ),
        ],
    );
}

/// Prefixes taken out and put back, readers running; `each` changes between two snapshots.
fn changes4(routes: &[(Ipv4Addr, u8, u32)], rib: &mut Rib4, each: usize) {
    let mut publisher = Publisher::new(Arc::new(rib.snapshot()));
    let addrs = addrs4(routes, "under");
    let stop = AtomicBool::new(false);
    let changed = (each * 20).clamp(2_000, 200_000);
    let (mut random, mut seen) = (Random(17), Vec::new());
    std::thread::scope(|scope| {
        let (mut reader, stop_ref) = (publisher.reader(), &stop);
        scope.spawn(move || {
            let mut out = [0; BATCH];
            for batch in addrs.chunks_exact(BATCH).cycle() {
                reader.refresh();
                reader.get().lookup_all(batch, &mut out);
                black_box(&out);
                if stop_ref.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        for _ in 0..RUNS {
            let picked: Vec<_> = (0..changed).map(|_| routes[random.below(routes.len())]).collect();
            let began = Instant::now();
            for (n, (addr, len, hop)) in picked.iter().enumerate() {
                match n % 2 {
                    0 => drop(black_box(rib.remove(*addr, *len).is_some())),
                    _ => drop(black_box(rib.insert(*addr, *len, hop + 1).is_some())),
                }
                if n % each == each - 1 {
                    publisher.publish(Arc::new(rib.snapshot()));
                }
            }
            seen.push(ns(began, changed));
            for (addr, len, hop) in picked {
                rib.insert(addr, len, hop);
            }
            publisher.publish(Arc::new(rib.snapshot()));
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!(
        "{:<34} {:<34} {:>8.1} ns",
        "a change, a reader running",
        format!("published every {each}"),
        median(seen)
    );
}

fn main() {
    // `cargo test --benches` only wants to know that it runs.
    let quick = !std::env::args().any(|a| a == "--bench");
    let (many4, many6) = if quick { (20_000, 10_000) } else { (1_000_000, 200_000) };
    let (all4, all6) = (routes4(many4), routes6(many6));
    let before = resident();
    let began = Instant::now();
    let mut rib4 = all4.iter().copied().collect::<Rib4>();
    let fib4 = rib4.snapshot();
    println!("{many4} IPv4 loaded in {:.0} ms, unsorted", began.elapsed().as_secs_f64() * 1e3);
    println!("  readers' part {} KB, all {} KB", fib4.bytes() / 1000, resident() - before);
    let before = resident();
    let mut sorted = all4.clone();
    sorted.sort_unstable();
    let began = Instant::now();
    let again = sorted.iter().copied().collect::<Rib4>().snapshot();
    println!("{many4} IPv4 loaded in {:.0} ms, sorted", began.elapsed().as_secs_f64() * 1e3);
    drop((again, before));
    let before = resident();
    let began = Instant::now();
    let mut rib6 = all6.iter().copied().collect::<Rib6>();
    let fib6 = rib6.snapshot();
    println!("{many6} IPv6 loaded in {:.0} ms, unsorted", began.elapsed().as_secs_f64() * 1e3);
    println!("  readers' part {} KB, all {} KB", fib6.bytes() / 1000, resident() - before);
    for few in [10, 100, 1_000, 10_000] {
        let fib = Fib4::build(routes4(few));
        println!("{few} IPv4 readers' part {} B", fib.bytes());
        let addrs = addrs4(&routes4(few), "under");
        let all = || batches(&addrs, |a, o| fib.lookup_all(a, o));
        rows(
            &format!("{few} IPv4, under"),
            addrs.len(),
            &[("nsplane, 32 at a time", Box::new(all))],
        );
    }
    for each in [1, 64, 4096] {
        changes4(&all4, &mut rib4, each);
    }
    lookups4(&all4, &fib4);
    lookups6(&all6, &fib6);
}

/// Kilobytes of memory that the process has.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().split(' ').next()?.parse().ok()).unwrap_or(0)
}
