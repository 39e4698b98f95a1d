//! A worker in steady state allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use nsplane::id::{PortId, WorkerId};
use nsplane::sync::Doorbell;
use nsplane::worker::sim::scene::{self, Scene, Setup};

/// The system's allocator, counting what this thread asks of it.
struct Counting;

thread_local! {
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // Without a destructor and initialised at compile time: reading it allocates nothing.
    ASKED.with(|asked| asked.set(asked.get() + 1));
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are the system allocator's conditions.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller's promises are the system allocator's conditions.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are the system allocator's conditions.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn the_counter_counts() {
    let before = ASKED.get();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(ASKED.get() - before, 2);
}

#[test]
fn steady_state_allocates_nothing() {
    let setup = Setup { workers: 2, ..Setup::default() };
    let mut scene =
        Scene::new(scene::world(2, 1), &setup, |_: WorkerId| Doorbell::new(Box::new(|| ())));
    // Both families, a packet to punt, a hairpin; across the workers and within one.
    let packet = |port: u16, to: u8| {
        let id = PortId(port);
        let (src, dst) = (scene::host4(0).into(), scene::host4(to).into());
        (id, scene::udp(id, src, dst, b"payload"))
    };
    let mut packets = vec![packet(0, 1), packet(1, 0), packet(0, 0)];
    let v6 = (scene::host6(0).into(), scene::host6(1).into());
    packets.push((PortId(2), scene::udp(PortId(2), v6.0, v6.1, b"payload")));
    let lost = scene::udp(PortId(3), scene::host4(1).into(), [10, 9, 9, 9].into(), b"");
    packets.push((PortId(3), lost));
    // Long ones too: to forward within the worker, to hand over, and to punt as too long.
    let mut long = Vec::new();
    for (port, len) in [(0, 1400), (1, 1400), (0, 4000)] {
        let id = PortId(port);
        let (src, dst) = (scene::host4(0).into(), scene::host4(1 - port as u8).into());
        long.push((id, scene::udp(id, src, dst, &vec![7; len])));
    }
    let steps = |scene: &mut Scene, from: u64, to: u64| {
        for step in from..to {
            for (port, packet) in &long {
                let mut parts = [&packet[..0]; 8];
                let count = packet.chunks(600).zip(&mut parts).map(|(part, slot)| *slot = part);
                let count = count.count();
                let wire = &scene.wires[port.index()][0];
                wire.deliver_in(scene::tag(*port), &parts[..count], true);
            }
            for _ in 0..20 {
                for (port, packet) in &packets {
                    scene.wires[port.index()][0].deliver(scene::tag(*port), packet);
                }
            }
            for _ in 0..4 {
                for worker in &mut scene.workers {
                    let _ = worker.round(step * 100_000);
                }
            }
            scene.drain_punts();
        }
    };
    steps(&mut scene, 0, 50);
    let before = ASKED.get();
    steps(&mut scene, 50, 1050);
    assert_eq!(ASKED.get() - before, 0, "allocations in 4,000 rounds of two workers");
    let forwarded = |port| -> u64 {
        scene.stats.iter().map(|s| s.port(PortId(port)).forwarded_packets.get()).sum()
    };
    assert!((0..3).all(|port| forwarded(port) > 10_000));
    let bytes = |port| -> u64 {
        scene.stats.iter().map(|s| s.port(PortId(port)).forwarded_bytes.get()).sum()
    };
    // The short ones have 49.
    assert!((0..2).all(|port| bytes(port) > forwarded(port) * 49 + 500 * 1400));
}
