//! A worker's whole round over simulated ports: what a packet costs without a kernel.
//!
//! `cargo bench -p nsplane --bench worker` prints the time that loads take, and packets a
//! second; delivery of the packets is not in it. What they cost in instructions and
//! allocations says `cargo xtask count`.

use std::cell::RefCell;

use divan::Bencher;
use divan::counter::ItemsCount;
use nsplane::id::{PortId, WorkerId};
use nsplane::sync::Doorbell;
use nsplane::worker::sim::Sizes;
use nsplane::worker::sim::scene::{self, Scene, Setup};
use nsplane::worker::stages;

mod loads;

use loads::{Load, NAMES, across};

fn main() {
    divan::main();
}

/// The loads of [`loads`].
#[divan::bench(args = NAMES, sample_size = 1, sample_count = 2000, max_time = 10)]
fn load(bencher: Bencher<'_, '_>, name: &str) {
    let load = RefCell::new(Load::new(name));
    let packets = load.borrow().packets();
    bencher
        .counter(ItemsCount::new(packets))
        .with_inputs(|| load.borrow().deliver())
        .bench_local_values(|()| load.borrow_mut().work());
}

/// Two tenants, four ports, 64 packets on each: one full batch a queue.
#[divan::bench(args = ["ipv4", "ipv6"], sample_size = 1, sample_count = 4000)]
fn round_of_256(bencher: Bencher<'_, '_>, family: &str) {
    let bell = |_: WorkerId| Doorbell::new(Box::new(|| ()));
    let scene = RefCell::new(Scene::new(scene::world(2, 1), &Setup::default(), bell));
    let _ = scene.borrow_mut().workers[0].round(0);
    let packets: Vec<_> = (0..4).map(|port| across(PortId(port), family == "ipv6")).collect();
    bencher
        .counter(ItemsCount::new(256_u64))
        .with_inputs(|| {
            let scene = scene.borrow();
            for (port, packet) in (0..).map(PortId).zip(&packets) {
                for _ in 0..64 {
                    assert!(scene.wires[port.index()][0].deliver(scene::tag(port), packet));
                }
            }
        })
        .bench_local_values(|()| {
            let mut done = 0;
            while done < 256 {
                done += scene.borrow_mut().workers[0].round(1).packets;
            }
        });
}

/// As above between two workers: one receives and hands over, the other sends.
#[divan::bench(args = [1, 64], sample_size = 1, sample_count = 4000)]
fn handed_over_256(bencher: Bencher<'_, '_>, at_once: usize) {
    let bell = |_: WorkerId| Doorbell::new(Box::new(|| ()));
    let setup = Setup { workers: 2, mesh_depth: 1024, ..Setup::default() };
    let scene = RefCell::new(Scene::new(scene::world(1, 1), &setup, bell));
    for worker in &mut scene.borrow_mut().workers {
        let _ = worker.round(0);
    }
    let packet = across(PortId(0), false);
    bencher.counter(ItemsCount::new(256_u64)).bench_local(|| {
        let mut scene = scene.borrow_mut();
        for _ in 0..256 / at_once {
            for _ in 0..at_once {
                assert!(scene.wires[0][0].deliver(scene::tag(PortId(0)), &packet));
            }
            while scene.workers[0].round(1).packets > 0 {}
        }
        while scene.workers[1].round(1).packets > 0 {}
    });
}

/// A round that finds nothing, over so many tenants of two ports.
#[divan::bench(args = [1, 10, 100, 500])]
fn idle_round(bencher: Bencher<'_, '_>, tenants: u16) {
    let mut scene = idle_scene(tenants);
    bencher.bench_local(|| scene.workers[0].round(1));
}

/// A batch of one tenant among so many idle ones.
#[divan::bench(args = [1, 10, 100, 500], sample_size = 1, sample_count = 4000)]
fn batch_of_64_among(bencher: Bencher<'_, '_>, tenants: u16) {
    let scene = RefCell::new(idle_scene(tenants));
    let packet = across(PortId(0), false);
    bencher
        .counter(ItemsCount::new(64_u64))
        .with_inputs(|| {
            let wire = &scene.borrow().wires[0][0];
            (0..64).for_each(|_| assert!(wire.deliver(scene::tag(PortId(0)), &packet)));
        })
        .bench_local_values(|()| {
            let mut done = 0;
            while done < 64 {
                done += scene.borrow_mut().workers[0].round(1).packets;
            }
        });
}

fn idle_scene(tenants: u16) -> Scene {
    let bell = |_: WorkerId| Doorbell::new(Box::new(|| ()));
    let setup = Setup { sizes: Sizes::all(64), frames: 160 * 1024, ..Setup::default() };
    let mut scene = Scene::new(scene::world(tenants, 1), &setup, bell);
    let _ = scene.workers[0].round(0);
    scene
}

/// The decision alone, on a packet in the cache.
#[divan::bench(args = ["ipv4", "ipv6"])]
fn decide(bencher: Bencher<'_, '_>, family: &str) {
    let world = scene::world(2, 1);
    let mut packet = across(PortId(0), family == "ipv6");
    let tag = scene::tag(PortId(0));
    bencher.bench_local(|| {
        stages::decide(&world, PortId(0), scene::GENERATION, &tag, divan::black_box(&mut packet))
    });
}
