//! A worker's whole round over simulated ports: what a packet costs without a kernel.
//!
//! `cargo bench -p nsplane --bench worker` prints the time a round of 256 packets
//! takes, and packets a second; delivery of the packets is not in it.

use std::cell::RefCell;

use divan::Bencher;
use divan::counter::ItemsCount;
use nsplane::id::{PortId, WorkerId};
use nsplane::sync::Doorbell;
use nsplane::worker::sim::Sizes;
use nsplane::worker::sim::scene::{self, Scene, Setup};
use nsplane::worker::stages;

fn main() {
    divan::main();
}

/// Two tenants, four ports, 64 packets on each: one full batch a queue.
#[divan::bench(args = ["ipv4", "ipv6"], sample_size = 1, sample_count = 4000)]
fn round_of_256(bencher: Bencher<'_, '_>, family: &str) {
    let bell = |_: WorkerId| Doorbell::new(Box::new(|| ()));
    let scene = RefCell::new(Scene::new(scene::world(2, 1), &Setup::default(), bell));
    let _ = scene.borrow_mut().workers[0].round(0);
    let packets: Vec<_> = (0..4).map(|port| packet(PortId(port), family)).collect();
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
    let packet = packet(PortId(0), "ipv4");
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
    let packet = packet(PortId(0), "ipv4");
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
    let mut packet = packet(PortId(0), family);
    let tag = scene::tag(PortId(0));
    bencher.bench_local(|| {
        stages::decide(&world, PortId(0), scene::GENERATION, &tag, divan::black_box(&mut packet))
    });
}

/// A 60-byte frame from one side of a tenant to the other.
fn packet(port: PortId, family: &str) -> Vec<u8> {
    let (from, to) = ((port.0 % 2) as u8, 1 - (port.0 % 2) as u8);
    if family == "ipv4" {
        scene::udp(port, scene::host4(from).into(), scene::host4(to).into(), &[0; 18])
    } else {
        scene::udp(port, scene::host6(from).into(), scene::host6(to).into(), b"")
    }
}
