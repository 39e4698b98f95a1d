//! Route tables: time to load, change and look up, and memory; beside crates that do the
//! same. `cargo bench -p nsplane --bench fib`; each figure is the median of interleaved runs.
//!
//! A million IPv4 prefixes with the lengths that the Internet's have, 200,000 IPv6 ones.

mod data;
mod dir24;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use data::{Random, addrs4, addrs6, alternating4, hosts4, routes4, routes6, tenant4};
use dir24::Dir24;
use ip_network::{Ipv4Network, Ipv6Network};
use ip_network_table::IpNetworkTable;
use nsplane::sync::Publisher;
use nsplane::tables::fib::{Fib4, Fib6, Rib4, Rib6};
use prefix_trie::PrefixMap;

/// Addresses looked up at a time, as a worker's turn has them.
const BATCH: usize = 32;
const RUNS: usize = 7;

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
    println!("  DIR-24-8: {} KB", dir.bytes() / 1000);
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

/// Tables of few routes: one for itself, and many of them in turn.
fn few(quick: bool) {
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
    let mut random = Random(99);
    for (tenants, routes) in [(1_000, 100), (10_000, 10)] {
        let tenants = if quick { tenants / 100 } else { tenants };
        let routes: Vec<_> = (0..tenants).map(|_| tenant4(&mut random, routes)).collect();
        let fibs: Vec<_> =
            routes.iter().map(|r| Arc::new(Fib4::build(r.iter().copied()))).collect();
        let bytes = fibs.iter().map(|f| f.bytes()).sum::<usize>() / tenants;
        let ask = |_| {
            let tenant = random.below(tenants);
            let (addr, len, _) = routes[tenant][random.below(routes[tenant].len())];
            let host = random.next() as u32 & u32::MAX.checked_shr(len.into()).unwrap_or(0);
            (tenant, Ipv4Addr::from_bits(addr.to_bits() | host))
        };
        let asked: Vec<_> = (0..1 << 18).map(ask).collect();
        let one = || asked.iter().filter_map(|(t, a)| fibs[*t].lookup(*a)).map(u64::from).sum();
        println!("{tenants} tenants with {} routes: readers' part {bytes} B each", routes[0].len());
        let what = format!("{tenants} tenants in turn, {} routes", routes[0].len());
        rows(&what, asked.len(), &[("nsplane, one by one", Box::new(one))]);
    }
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
    few(quick);
    let many = if quick { 20_000 } else { 1_000_000 };
    for (what, routes) in [("alternating /32", alternating4(many)), ("/32 anywhere", hosts4(many))]
    {
        let fib = Fib4::build(routes.iter().copied());
        println!("{many} {what}: readers' part {} KB", fib.bytes() / 1000);
        let addrs = addrs4(&routes, "under");
        let all = || batches(&addrs, |a, o| fib.lookup_all(a, o));
        let what = format!("{many} {what}, under");
        rows(&what, addrs.len(), &[("nsplane, 32 at a time", Box::new(all))]);
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
