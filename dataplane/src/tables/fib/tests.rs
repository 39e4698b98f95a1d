mod shapes;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::address::Address;
use super::direct::Direct;
use super::direct::routes::Routes;
use super::lanes::Lanes;
use super::ranges::Route;
use super::rib::{MOST, Rib};
use super::table::Table;
use super::*;
use crate::sync::Publisher;

/// The definition: of the routes that match, the longest, and of equals the last.
fn scan<A: Address>(routes: &[Route<A>], addr: A) -> Option<u32> {
    let matches = |&&(prefix, len, _): &&Route<A>| {
        let host = A::host_bits(u32::from(len));
        prefix.and_not(host) == addr.and_not(host)
    };
    routes.iter().filter(matches).max_by_key(|&&(_, len, _)| len).map(|&(_, _, hop)| hop)
}

/// The addresses at which a table could go wrong: around each route's ends.
fn edges<A: Address>(routes: &[Route<A>]) -> Vec<A> {
    let mut out = vec![A::ZERO, A::host_bits(0)];
    for &(prefix, len, _) in routes {
        let host = A::host_bits(u32::from(len));
        let (first, last) = (prefix.and_not(host), prefix.or(host));
        // Of one address before, the last bit differs and those that it carries over.
        let before = |a: A| if a == A::ZERO { a } else { a.xor(A::bit(A::BITS - 1)) };
        out.extend([before(first), first, prefix, before(last), last]);
        out.extend(last.next());
    }
    out
}

/// Prefixes that often nest and collide: few distinct bits.
fn addr4() -> impl Strategy<Value = u32> + Clone {
    prop_oneof![any::<u32>(), any::<u32>().prop_map(|a| a & 0x8181_0181)]
}

fn addr6() -> impl Strategy<Value = u128> + Clone {
    let few = 0x8000_0000_0000_0001_0000_0000_0000_0003;
    prop_oneof![any::<u128>(), any::<u128>().prop_map(move |a| a & few)]
}

fn routes4() -> impl Strategy<Value = Vec<(u32, u8, u32)>> {
    prop::collection::vec((addr4(), 0..=32_u8, 0..6_u32), 0..60)
}

fn routes6() -> impl Strategy<Value = Vec<(u128, u8, u32)>> {
    prop::collection::vec((addr6(), 0..=128_u8, 0..6_u32), 0..60)
}

/// What is done to a table.
#[derive(Clone, Debug)]
enum Step<A> {
    Insert(A, u8, u32),
    Remove(A, u8),
    /// Takes out the nth of those that there are.
    RemoveNth(usize),
    Snapshot,
}

fn steps<A: Address>(
    addr: impl Strategy<Value = A> + Clone,
) -> impl Strategy<Value = Vec<Step<A>>> {
    let len = 0..=A::BITS as u8;
    let step = prop_oneof![
        6 => (addr.clone(), len.clone(), 0..6_u32).prop_map(|(a, l, v)| Step::Insert(a, l, v)),
        1 => (addr, len).prop_map(|(a, l)| Step::Remove(a, l)),
        4 => any::<usize>().prop_map(Step::RemoveNth),
        1 => Just(Step::Snapshot),
    ];
    prop::collection::vec(step, 0..250)
}

/// The writer's side of a table, in any of its forms.
trait Writer<A>: Clone {
    type Seen: Seen<A>;
    fn of(&self, routes: Vec<Route<A>>) -> Self;
    fn insert(&mut self, addr: A, len: u8, value: u32) -> Option<u32>;
    fn remove(&mut self, addr: A, len: u8) -> Option<u32>;
    fn get(&self, addr: A, len: u8) -> Option<u32>;
    fn has_inside(&self, addr: A, len: u8) -> bool;
    fn len(&self) -> usize;
    fn all(&self) -> Vec<Route<A>>;
    fn snapshot(&mut self) -> Self::Seen;
}

/// The readers' side.
trait Seen<A> {
    fn one(&self, addr: A) -> u32;
    fn many(&self, addrs: &[A], out: &mut [u32]);
}

impl<A: Address, T: Lanes<A> + One<A>> Seen<A> for T {
    fn one(&self, addr: A) -> u32 {
        One::one(self, addr)
    }
    fn many(&self, addrs: &[A], out: &mut [u32]) {
        lanes::all(self, addrs, out);
    }
}

/// One lookup, where the type has more than one way to be looked up.
trait One<A> {
    fn one(&self, addr: A) -> u32;
}

macro_rules! writer {
    ($bits:ty, $rib:ty, $seen:ty, $of:expr, $insert:expr, $snapshot:expr) => {
        impl One<$bits> for $seen {
            fn one(&self, addr: $bits) -> u32 {
                self.lookup(addr)
            }
        }
        impl Writer<$bits> for $rib {
            type Seen = $seen;
            fn of(&self, routes: Vec<Route<$bits>>) -> Self {
                $of(self, routes)
            }
            fn insert(&mut self, addr: $bits, len: u8, value: u32) -> Option<u32> {
                $insert(<$rib>::insert(self, addr, len, value))
            }
            fn remove(&mut self, addr: $bits, len: u8) -> Option<u32> {
                <$rib>::remove(self, addr, len)
            }
            fn get(&self, addr: $bits, len: u8) -> Option<u32> {
                <$rib>::get(self, addr, len)
            }
            fn has_inside(&self, addr: $bits, len: u8) -> bool {
                <$rib>::has_inside(self, addr, len)
            }
            fn len(&self) -> usize {
                <$rib>::len(self)
            }
            fn all(&self) -> Vec<Route<$bits>> {
                self.iter().collect()
            }
            fn snapshot(&mut self) -> $seen {
                $snapshot(<$rib>::snapshot(self))
            }
        }
    };
}
fn same<T>(it: T) -> T {
    it
}
fn in_order<A: Address>(mut routes: Vec<Route<A>>) -> Vec<Route<A>> {
    rib::sort(&mut routes);
    routes
}
writer!(u32, Rib<u32>, Table<u32>, |r: &Self, all| Rib::of(all, r.most()), same, same);
writer!(u128, Rib<u128>, Table<u128>, |r: &Self, all| Rib::of(all, r.most()), same, same);
writer!(
    u32,
    Routes<u16>,
    Direct<u16>,
    |_, all| Routes::of(&in_order(all)).unwrap(),
    Result::unwrap,
    Result::unwrap
);
writer!(
    u32,
    Routes<u32>,
    Direct<u32>,
    |_, all| Routes::of(&in_order(all)).unwrap(),
    Result::unwrap,
    Result::unwrap
);
writer!(u32, v4::Rib4, v4::Table4, |r: &Self, all| v4::Rib4::of_tiers(all, r.tiers()), same, same);

/// Goes through the steps, and compares after each snapshot with a linear scan, and at the
/// end each snapshot with what it was when it was made.
fn follows<A: Address, W: Writer<A>>(steps: &[Step<A>], empty: &W) {
    let mut rib = empty.clone();
    let mut oracle: BTreeMap<(A, u8), u32> = BTreeMap::new();
    let mut snapshots = Vec::new();
    let list = |o: &BTreeMap<(A, u8), u32>| -> Vec<Route<A>> {
        o.iter().map(|(k, v)| (k.0, k.1, *v)).collect()
    };
    for step in steps.iter().chain([&Step::Snapshot]) {
        match *step {
            Step::Insert(addr, len, value) => {
                let (addr, len) = prefix(addr, len);
                assert_eq!(rib.insert(addr, len, value), oracle.insert((addr, len), value));
            }
            Step::Remove(addr, len) => {
                let (addr, len) = prefix(addr, len);
                let last = addr.or(A::host_bits(u32::from(len)));
                let mut inside = oracle.range((addr, 0)..=(last, u8::MAX)).map(|(k, _)| k.1);
                assert_eq!(rib.has_inside(addr, len), inside.any(|l| l > len));
                assert_eq!(rib.remove(addr, len), oracle.remove(&(addr, len)));
            }
            Step::RemoveNth(n) => {
                let Some(&(addr, len)) = oracle.keys().nth(n % oracle.len().max(1)) else {
                    continue;
                };
                assert_eq!(rib.get(addr, len), oracle.get(&(addr, len)).copied());
                assert_eq!(rib.remove(addr, len), oracle.remove(&(addr, len)));
            }
            Step::Snapshot => snapshots.push((rib.snapshot(), list(&oracle))),
        }
        assert_eq!(rib.len(), oracle.len());
    }
    assert_eq!(in_order(rib.all()), list(&oracle));
    for (table, routes) in snapshots {
        check(&table, &routes);
        check(&empty.of(routes.clone()).snapshot(), &routes);
    }
    // Down to nothing.
    for &(addr, len) in oracle.keys() {
        assert!(rib.remove(addr, len).is_some());
    }
    assert_eq!(rib.len(), 0);
    check(&rib.snapshot(), &[]);
}

/// One by one and in batches of any number.
fn check<A: Address>(table: &impl Seen<A>, routes: &[Route<A>]) {
    let addrs = edges(routes);
    let mut all = vec![0; addrs.len()];
    table.many(&addrs, &mut all);
    for (addr, seen) in addrs.into_iter().zip(all) {
        let wanted = scan(routes, addr).unwrap_or(NO_MATCH);
        assert_eq!(table.one(addr), wanted, "{addr:?}");
        assert_eq!(seen, wanted, "{addr:?} in a batch");
    }
}

#[test]
fn an_empty_table_matches_nothing() {
    assert_eq!(Fib4::default().lookup(Ipv4Addr::UNSPECIFIED), None);
    assert_eq!(Fib6::build([]).lookup(Ipv6Addr::LOCALHOST), None);
    let mut out = [0; 3];
    Fib4::default().lookup_all(&[Ipv4Addr::LOCALHOST; 2], &mut out);
    assert_eq!(out, [NO_MATCH, NO_MATCH, 0]);
}

#[test]
fn a_default_route_matches_to_both_ends() {
    let fib = Fib4::build([(Ipv4Addr::UNSPECIFIED, 0, 7)]);
    assert_eq!(fib.lookup(Ipv4Addr::UNSPECIFIED), Some(7));
    assert_eq!(fib.lookup(Ipv4Addr::BROADCAST), Some(7));
}

#[test]
fn tens_of_routes_take_some_hundred_bytes() {
    let fib = Fib4::build((0..40).map(|i| (Ipv4Addr::new(10, 0, i, 0), 24, u32::from(i))));
    assert!(fib.bytes() < 450, "{}", fib.bytes());
}

/// A multiplicative sequence spreads prefixes over all of the space.
fn spread(i: u32) -> Route<u32> {
    let (addr, len) = prefix(i.wrapping_mul(2_654_435_761), 12 + (i % 17) as u8);
    (addr, len, i % 100)
}

#[test]
fn a_large_table_is_in_buckets_and_right() {
    let routes: Vec<Route<u32>> = (0..100_000).map(spread).collect();
    let mut rib = Rib::of(routes.clone(), MOST);
    let bulk = rib.snapshot();
    assert!(matches!(bulk, Table::Many(_)));
    assert!(bulk.bytes() < 2_000_000, "{}", bulk.bytes());
    let mut one_by_one = Rib::<u32>::default();
    for &(addr, len, value) in &routes {
        one_by_one.insert(addr, len, value);
    }
    let one_by_one = one_by_one.snapshot();
    for addr in (0..40_u32).map(|i| i.wrapping_mul(0x0765_4321)) {
        assert_eq!(bulk.lookup(addr), scan(&routes, addr).unwrap_or(NO_MATCH));
        assert_eq!(one_by_one.lookup(addr), scan(&routes, addr).unwrap_or(NO_MATCH));
    }
    for &(addr, len, _) in &routes {
        rib.remove(addr, len);
    }
    assert!(matches!(rib.snapshot(), Table::Empty), "shrunk to nothing");
    assert_eq!(Some(bulk.lookup(routes[7].0)), scan(&routes, routes[7].0), "as it was");
}

#[test]
fn a_change_copies_little() {
    let mut rib = Rib::of((0..100_000).map(spread).collect(), MOST);
    let Table::Many(before) = rib.snapshot() else { panic!("large") };
    rib.insert(0x0a0b_0c00, 24, 5);
    let Table::Many(after) = rib.snapshot() else { panic!("large") };
    let same = before.pages.iter().zip(&after.pages).filter(|(a, b)| Arc::ptr_eq(a, b));
    assert_eq!(same.count(), before.pages.len() - 1);
    assert!(Arc::ptr_eq(&before.starts, &after.starts));
}

#[test]
fn prefixes_nested_as_deep_as_it_gets_and_single_addresses() {
    let nested: Vec<Route<u128>> = (0..=128_u8).map(|len| (0, len, u32::from(len))).collect();
    check(&Rib::of(nested.clone(), 4).snapshot(), &nested);
    let mut rib = Rib::of(Vec::new(), 2);
    for &(addr, len, value) in &nested {
        rib.insert(addr, len, value);
    }
    check(&rib.snapshot(), &nested);
    let single: Vec<Route<u32>> = (0..1000).map(|n| (n, 32, n % 7)).collect();
    check(&Rib::of(single.clone(), 4).snapshot(), &single);
}

#[test]
fn readers_see_whole_snapshots_while_the_writer_writes() {
    // Each snapshot has one value everywhere; a mixture would show two.
    let prefixes: Vec<(u32, u8)> = (0..2000).map(|n| (spread(n).0, spread(n).1)).collect();
    let fill = |rib: &mut Rib<u32>, value| {
        for &(addr, len) in &prefixes {
            rib.insert(addr, len, value);
        }
        Arc::new(rib.snapshot())
    };
    let mut rib = Rib::of(Vec::new(), 16);
    let mut publisher = Publisher::new(fill(&mut rib, 0));
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        for _ in 0..2 {
            let (mut reader, prefixes, done) = (publisher.reader(), &prefixes, &done);
            s.spawn(move || {
                let mut newest = 0;
                while !done.load(Ordering::Relaxed) {
                    reader.refresh();
                    let first = reader.get().lookup(prefixes[0].0);
                    assert!(first >= newest && first != NO_MATCH, "older than before");
                    newest = first;
                    let mut seen = prefixes.iter().map(|p| reader.get().lookup(p.0));
                    assert!(seen.all(|value| value == first));
                }
            });
        }
        for value in 1..200 {
            publisher.publish(fill(&mut rib, value));
        }
        done.store(true, Ordering::Relaxed);
    });
}

proptest! {
    #[test]
    fn ipv4_equals_a_linear_scan(routes in routes4()) {
        let table = Fib4::build(routes.iter().map(|r| (Ipv4Addr::from_bits(r.0), r.1, r.2)));
        for addr in edges(&routes) {
            prop_assert_eq!(table.lookup(Ipv4Addr::from_bits(addr)), scan(&routes, addr));
        }
    }

    #[test]
    fn ipv6_equals_a_linear_scan(routes in routes6()) {
        let table = Fib6::build(routes.iter().map(|r| (Ipv6Addr::from_bits(r.0), r.1, r.2)));
        for addr in edges(&routes) {
            prop_assert_eq!(table.lookup(Ipv6Addr::from_bits(addr)), scan(&routes, addr));
        }
    }

    #[test]
    fn ipv4_follows_changes(steps in steps(addr4()), most in 1..9_usize) {
        follows(&steps, &Rib::<u32>::of(Vec::new(), most));
    }

    #[test]
    fn ipv6_follows_changes(steps in steps(addr6()), most in 1..9_usize) {
        follows(&steps, &Rib::<u128>::of(Vec::new(), most));
    }
}

proptest! {
    // Each makes tables with all of their pages.
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn many_ipv4_follow_changes(steps in steps(addr4())) {
        follows(&steps, &Routes::<u16>::of(&[]).unwrap());
        follows(&steps, &Routes::<u32>::of(&[]).unwrap());
    }

    #[test]
    fn ipv4_follows_changes_from_tier_to_tier(steps in steps(addr4())) {
        follows(&steps, &v4::Rib4::of_tiers(Vec::new(), (20, 10)));
    }
}
