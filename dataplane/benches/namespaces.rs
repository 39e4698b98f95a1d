//! 10,000 namespaces, as far as no devices are needed: their state, what is compiled
//! of it, the plan for the program's maps, and the world that workers see.

use std::net::IpAddr;
use std::sync::Arc;

use divan::Bencher;
use nsplane::control::compile::{Compiled, Source, Which, compile};
use nsplane::control::ledger::judge;
use nsplane::control::mirror::{Mirror, TABLE_LOCAL, TABLE_MAIN};
use nsplane::control::plan;
use nsplane::id::{IfIndex, Mac, NsId, PortId};
use nsplane::netlink::{
    Event, Family, Hop, Insert, Link, LinkKind, Neighbor, Prefix, Route, RouteKind, Rule, XdpMode,
};
use nsplane::sync::Publisher;
use nsplane::tables::{Namespace, World};

const NAMESPACES: usize = 10_000;

fn main() {
    divan::main();
}

fn link(index: u32) -> Event {
    Event::Link(Link {
        ifindex: IfIndex(index),
        name: format!("eth{index}"),
        mac: Some(Mac([2, 0, 0, 0, 0, index as u8])),
        mtu: 1500,
        mtu6: Some(1500),
        up: true,
        carrier: true,
        kind: LinkKind::Veth,
        master: None,
        peer: None,
        peer_nsid: None,
        group: 0,
        rx_queues: 1,
        tx_queues: 1,
        xdp: XdpMode::None,
        part: None,
        xdp_prog: 0,
    })
}

fn route(table: u32, kind: RouteKind, dst: [u8; 4], len: u8, oif: u32) -> Event {
    let hop = Hop { oif: Some(IfIndex(oif)), gateway: None, encap: false, weight: 1, dead: false };
    let route = Route {
        table,
        dst: Prefix { addr: dst.into(), len },
        source: None,
        tos: 0,
        priority: 0,
        kind,
        prefsrc: None,
        mtu: None,
        nexthop: None,
        hops: vec![hop],
        expires: false,
        unknown: false,
    };
    Event::Route(route, Insert::Last)
}

/// A tenant's router: two devices, 40 routes, 10 neighbours.
fn mirror() -> Mirror {
    let mut events = vec![link(1), link(2)];
    for (priority, table) in [(0, 255), (32766, 254), (32767, 253)] {
        events.push(Event::Rule(Rule::to_table(Family::V4, priority, table)));
    }
    for n in 1..3 {
        events.push(route(TABLE_LOCAL, RouteKind::Local, [10, n, 0, 1], 32, u32::from(n)));
        events.push(route(TABLE_LOCAL, RouteKind::Broadcast, [10, n, 0, 255], 32, u32::from(n)));
    }
    for n in 0..40 {
        events.push(route(TABLE_MAIN, RouteKind::Unicast, [10, 9, n, 0], 24, 1 + u32::from(n % 2)));
    }
    for n in 0..10 {
        events.push(Event::Neighbor(Neighbor {
            ifindex: IfIndex(1),
            addr: IpAddr::from([10, 1, 0, 10 + n]),
            mac: Some(Mac([2, 0, 0, 0, 1, n])),
            state: 2,
        }));
    }
    Mirror::from_dump(events)
}

fn ports(ns: usize) -> [(PortId, IfIndex); 2] {
    let port = |n| PortId((2 * ns + n) as u16);
    [(port(0), IfIndex(1)), (port(1), IfIndex(2))]
}

fn source<'a>(mirror: &'a Mirror, ports: &'a [(PortId, IfIndex)]) -> Source<'a> {
    Source { mirror, bypass: &[], ports }
}

fn states() -> Vec<(Mirror, Compiled)> {
    let mirror = mirror();
    let one = |ns| (mirror.clone(), compile(source(&mirror, &ports(ns))));
    (0..NAMESPACES).map(one).collect()
}

#[divan::bench(sample_size = 1, sample_count = 5)]
fn compile_all(bencher: Bencher<'_, '_>) {
    let states = states();
    bencher.bench_local(|| {
        let all = states.iter().enumerate();
        all.map(|(ns, (mirror, _))| compile(source(mirror, &ports(ns))).v4.len()).sum::<usize>()
    });
}

/// A neighbour changes in one of them: compile what it concerns.
#[divan::bench]
fn one_neighbour(bencher: Bencher<'_, '_>) {
    let mut states = states();
    let what = Which { neighbors: true, ..Which::default() };
    let mut at = 0;
    bencher.bench_local(|| {
        at = (at + 1) % NAMESPACES;
        let (mirror, compiled) = &mut states[at];
        compiled.update(source(mirror, &ports(at)), what)
    });
}

/// A route changes in one of them.
#[divan::bench]
fn one_route(bencher: Bencher<'_, '_>) {
    let mut states = states();
    let what = Which { v4: true, ..Which::default() };
    let mut at = 0;
    bencher.bench_local(|| {
        at = (at + 1) % NAMESPACES;
        let (mirror, compiled) = &mut states[at];
        compiled.update(source(mirror, &ports(at)), what)
    });
}

/// What of one of them the ledger keeps with the kernel.
#[divan::bench]
fn judge_one(bencher: Bencher<'_, '_>) {
    let mirrors = vec![mirror(); NAMESPACES];
    let mut at = 0;
    bencher.bench_local(|| {
        at = (at + 1) % NAMESPACES;
        judge(&mirrors[at], &[])
    });
}

/// What a publication costs that replaces one of 10,000 namespaces.
#[divan::bench]
fn publish_one(bencher: Bencher<'_, '_>) {
    let id = |n| NsId { index: n as u16, generation: 1 };
    let namespace = |n| Arc::new(Namespace { id: Some(id(n)), ..Namespace::default() });
    let namespaces = (0..NAMESPACES).map(|n| Some(namespace(n))).collect();
    let mut world = World { namespaces, ports: vec![None; 2 * NAMESPACES], ..World::default() };
    let mut publisher = Publisher::new(Arc::new(world.clone()));
    let mut at = 0;
    bencher.bench_local(|| {
        at = (at + 1) % NAMESPACES;
        world.namespaces[at] = Some(namespace(at));
        publisher.publish(Arc::new(world.clone()));
    });
}

/// The program's map entries of one namespace, compared and found the same.
#[divan::bench]
fn plan_one(bencher: Bencher<'_, '_>) {
    let ns = NsId { index: 7, generation: 1 };
    let compiled = compile(source(&mirror(), &ports(7)));
    let state = plan::State {
        locals: compiled.locals.iter().map(|a| (ns, *a)).collect(),
        ..plan::State::default()
    };
    let other = state.clone();
    bencher.bench_local(|| plan::diff(&state, &other).len());
}
