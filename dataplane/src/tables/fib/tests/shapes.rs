//! Tables of shapes that make a structure large, deep or full.

use super::*;

/// The same in each form, bulk and one by one, and down to nothing.
fn in_each_form(routes: &[Route<u32>], ask: &[u32]) {
    let mut rib = v4::Rib4::of_tiers(Vec::new(), (50, 20));
    for &(addr, len, value) in routes {
        rib.insert(addr, len, value);
    }
    let forms = [
        v4::Rib4::of_tiers(routes.to_vec(), (0, 0)).snapshot(),
        v4::Rib4::of_tiers(routes.to_vec(), (usize::MAX, 0)).snapshot(),
        rib.snapshot(),
    ];
    for &addr in ask {
        let wanted = scan(routes, addr).unwrap_or(NO_MATCH);
        assert!(forms.iter().all(|f| f.lookup(addr) == wanted), "{addr:x}");
    }
    let mut all = vec![0; ask.len()];
    for form in &forms {
        lanes::all(form, ask, &mut all);
        assert!(ask.iter().zip(&all).all(|(a, v)| form.lookup(*a) == *v));
    }
    for &(addr, len, value) in routes {
        assert_eq!(rib.remove(addr, len), Some(value));
    }
    assert_eq!((rib.len(), rib.snapshot().lookup(routes[0].0)), (0, NO_MATCH));
}

#[test]
fn every_second_address() {
    let routes: Vec<_> = (0..2_000).map(|n| ((10 << 24) + 2 * n, 32, n % 3)).collect();
    in_each_form(&routes, &(0..800).map(|n| (10 << 24) - 4 + n * 7).collect::<Vec<_>>());
}

#[test]
fn every_length_around_one_address_and_beside_it() {
    let around = (0..=32_u8).map(|len| prefix(0xa5a5_a5a5_u32, len));
    let beside = (1..=32_u8).map(|len| prefix(0xa5a5_a5a5 ^ 1 << (32 - u32::from(len)), len));
    let prefixes: Vec<_> = around.chain(beside).collect();
    let routes: Vec<_> = (0..).zip(&prefixes).map(|(n, p)| (p.0, p.1, n)).collect();
    in_each_form(&routes, &edges(&routes));
}

#[test]
fn a_24_with_few_ranges_and_with_many() {
    for hosts in 1..60_u32 {
        let host = |n| (0x0a00_0100 + (n * 37) % 256, 32, n % 4);
        let routes: Vec<_> = (0..hosts).map(host).chain([(0x0a00_0000, 16, 9)]).collect();
        in_each_form(&routes, &(0x0a00_00ff..=0x0a00_0200).collect::<Vec<_>>());
    }
}

#[test]
fn more_next_hops_than_a_short_word_can_number() {
    let routes: Vec<_> = (0..200).map(|n| (n << 20, 14, n * 400)).collect();
    in_each_form(&routes, &edges(&routes));
    // One that no word can number: blocks can.
    let routes = [(0, 1, u32::MAX - 1), (1 << 31, 1, 5)];
    in_each_form(&routes, &edges(&routes));
}

#[test]
fn more_in_one_place_than_a_short_word_can_number() {
    // A /10 with so many host routes that its page has more than 32,767 lines.
    let routes: Vec<Route<u32>> = (0..1_050_000).map(|n| (2 * n, 32, n % 5)).collect();
    assert!(matches!(Routes::<u16>::of(&routes), Err(direct::routes::TooMany)));
    let mut rib = v4::Rib4::of(routes);
    let table = rib.snapshot();
    assert!(matches!(table, v4::Table4::Wide(_)));
    for n in (0..1_050_000).step_by(777) {
        assert_eq!((table.lookup(2 * n), table.lookup(2 * n + 1)), (n % 5, NO_MATCH));
    }
}

#[test]
fn long_and_short_ipv6_prefixes_in_one_place() {
    let near = |len| prefix(0x2001_0db8_0000_0001_8000_0000_0000_0001_u128, len);
    for lens in [60..=66_u8, 120..=128, 0..=128] {
        for most in [2, MOST] {
            let routes: Vec<_> = lens.clone().map(|l| (near(l).0, l, u32::from(l))).collect();
            check(&Rib::of(routes.clone(), most).snapshot(), &routes);
        }
    }
    let highest: Vec<Route<u128>> = vec![(u128::MAX, 128, 1), (u128::MAX << 64, 64, 2)];
    check(&Rib::of(highest.clone(), MOST).snapshot(), &highest);
    let highest: Vec<Route<u128>> = vec![(u128::MAX << 64, 64, 2), (0, 0, 3)];
    check(&Rib::of(highest.clone(), MOST).snapshot(), &highest);
}
