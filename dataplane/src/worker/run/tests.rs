//! The whole worker over simulated ports.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::id::NsId;
use crate::stats::{DropReason, PuntReason};
use crate::tables::neigh::Neigh;
use crate::tables::{Namespace, NextHop};
use crate::worker::idle::{Idle, Sleep, run_loop};
use crate::worker::sim::scene::{
    GENERATION, Scene, Setup, host_mac, host4, host6, port_mac, tag, tenant_ns, udp, world,
};
use crate::worker::sim::{SimFrame, SimMemory, SimWire, Sizes};

mod events;
mod fairness;
mod long;

fn quiet(_: WorkerId) -> Doorbell {
    Doorbell::new(Box::new(|| ()))
}

fn scene(tenants: u16, setup: &Setup) -> Scene {
    scene_of(world(tenants, setup.queues), setup)
}

/// Tenants whose links take 9,000 bytes.
fn long_links(tenants: u16, queues: u16) -> World {
    let mut world = world(tenants, queues);
    for port in world.ports.iter_mut().flatten() {
        port.mtu = 9000;
    }
    for ns in world.namespaces.iter_mut().flatten() {
        let ns = Arc::get_mut(ns).expect("nobody has it yet");
        let hops = ns.next_hops.iter().map(|hop| match *hop {
            NextHop::Forward { port, gateway, .. } => NextHop::Forward { port, gateway, mtu: 9000 },
            other => other,
        });
        ns.next_hops = hops.collect();
    }
    world
}

fn scene_of(world: World, setup: &Setup) -> Scene {
    let mut scene = Scene::new(world, setup, quiet);
    rounds(&mut scene, 1, 0);
    scene.wires.iter().flatten().for_each(SimWire::record);
    scene
}

fn rounds(scene: &mut Scene, count: usize, now: u64) {
    for _ in 0..count {
        for worker in &mut scene.workers {
            let _ = worker.round(now);
        }
    }
}

/// Rounds until nobody has anything to do.
fn work_off(scene: &mut Scene, now: u64) {
    while scene.workers.iter_mut().map(|worker| worker.round(now).packets).sum::<usize>() > 0 {}
}

/// From the host behind a port to the host on the other side of its tenant.
fn across(port: PortId, v6: bool, payload: &[u8]) -> Vec<u8> {
    let (from, to) = ((port.0 % 2) as u8, 1 - (port.0 % 2) as u8);
    if v6 {
        udp(port, host6(from).into(), host6(to).into(), payload)
    } else {
        udp(port, host4(from).into(), host4(to).into(), payload)
    }
}

fn drops(scene: &Scene, port: PortId, reason: DropReason) -> u64 {
    scene.stats.iter().map(|stats| stats.port(port).drops[reason as usize].get()).sum()
}

fn punts(scene: &Scene, port: PortId, reason: PuntReason) -> u64 {
    scene.stats.iter().map(|stats| stats.port(port).punts[reason as usize].get()).sum()
}

#[test]
fn both_families_are_forwarded_and_counted() {
    let setup = Setup::default();
    let mut scene = scene(1, &setup);
    let mut bytes = 0;
    for v6 in [false, true] {
        let packet = across(PortId(0), v6, b"hello");
        bytes += packet.len() as u64;
        assert!(scene.wires[0][0].deliver(tag(PortId(0)), &packet));
    }
    rounds(&mut scene, 1, 0);
    let sent = scene.wires[1][0].sent();
    assert_eq!(sent.len(), 2);
    for (packet, hops_at) in sent.iter().zip([22, 21]) {
        assert_eq!(packet[..6], host_mac(PortId(1)).0);
        assert_eq!(packet[6..12], port_mac(PortId(1)).0);
        assert_eq!(packet[hops_at], 63);
        assert!(packet.ends_with(b"hello"));
    }
    let (ingress, egress) = (scene.stats[0].port(PortId(0)), scene.stats[0].port(PortId(1)));
    assert_eq!((ingress.rx_packets.get(), ingress.rx_bytes.get()), (2, bytes));
    assert_eq!((ingress.forwarded_packets.get(), ingress.forwarded_bytes.get()), (2, bytes));
    assert_eq!((egress.tx_packets.get(), egress.rx_packets.get()), (2, 0));
    assert_eq!((scene.stats[0].packets.get(), scene.stats[0].kicks.get()), (2, 1));
    assert_eq!(scene.held(), setup.frames);
}

#[test]
fn order_is_kept_for_each_egress_port() {
    let mut scene = scene(1, &Setup::default());
    for n in 0..60_u8 {
        // Every third one goes back out by the port it came in on.
        let to = host4(u8::from(n % 3 != 0));
        let packet = udp(PortId(0), host4(0).into(), to.into(), &[n]);
        assert!(scene.wires[0][0].deliver(tag(PortId(0)), &packet));
    }
    // Nothing of the first tenant, and no room.
    for n in 1..100 {
        while scene.punts.push(filler(tenant_ns(n))).is_ok() {}
    }
    work_off(&mut scene, 0);
    let last = |wire: usize| -> Vec<u8> {
        scene.wires[wire][0].sent().iter().map(|packet| *packet.last().unwrap()).collect()
    };
    assert_eq!(last(1), (0..60).filter(|n| n % 3 != 0).collect::<Vec<u8>>());
    assert_eq!(last(0), (0..60).filter(|n| n % 3 == 0).collect::<Vec<u8>>());
}

fn filler(ns: NsId) -> crate::port::Punted<SimFrame> {
    crate::port::Punted {
        frame: SimMemory::frames(1).pop().unwrap(),
        frames: 1,
        lead: 0,
        port: PortId(0),
        generation: GENERATION,
        reason: PuntReason::Header,
        account: Account::of(ns),
    }
}

#[test]
fn tenants_with_equal_tables_never_mix() {
    let mut scene = scene(3, &Setup::default());
    for tenant in 0..3_u8 {
        for side in 0..2_u16 {
            let port = PortId(u16::from(tenant) * 2 + side);
            for v6 in [false, true] {
                let packet = across(port, v6, &[tenant; 5]);
                assert!(scene.wires[port.index()][0].deliver(tag(port), &packet));
            }
        }
    }
    rounds(&mut scene, 2, 0);
    for tenant in 0..3_u8 {
        for side in 0..2 {
            let sent = scene.wires[usize::from(tenant) * 2 + side][0].sent();
            assert_eq!(sent.len(), 2);
            assert!(sent.iter().all(|packet| packet.ends_with(&[tenant; 5])));
        }
    }
}

#[test]
fn a_punted_packet_is_what_came_in() {
    let mut scene = scene(1, &Setup::default());
    let mut packet = udp(PortId(0), host4(0).into(), [10, 0, 1, 99].into(), b"who?");
    packet.resize(60, 7);
    assert!(scene.wires[0][0].deliver(tag(PortId(0)), &packet));
    rounds(&mut scene, 1, 0);
    let mut punted = scene.punts.pop().unwrap();
    assert_eq!((punted.port, punted.generation), (PortId(0), GENERATION));
    assert_eq!(punted.reason, PuntReason::NoNeighbor);
    assert_eq!(SimMemory.packet(&mut punted.frame), packet);
    assert_eq!(punts(&scene, PortId(0), PuntReason::NoNeighbor), 1);
}

#[test]
fn punts_are_limited_for_each_namespace_and_come_back_with_time() {
    let setup = Setup { punt_depth: 8192, ..Setup::default() };
    let mut scene = scene(2, &setup);
    let unknown = |port| udp(port, host4(0).into(), [10, 9, 9, 9].into(), b"");
    let offer = |scene: &mut Scene, port: PortId, count: u32, now: u64| {
        for _ in 0..count.div_ceil(64) {
            for _ in 0..64 {
                assert!(scene.wires[port.index()][0].deliver(tag(port), &unknown(port)));
            }
            work_off(scene, now);
            scene.drain_punts();
        }
        punts(scene, port, PuntReason::NoRoute)
    };
    let burst = u64::from(Config::PUNT_BURST);
    assert_eq!(offer(&mut scene, PortId(0), 3200, 1), burst);
    assert_eq!(drops(&scene, PortId(0), DropReason::PuntLimit), 3200 - burst);
    assert_eq!(offer(&mut scene, PortId(2), 640, 1), 640, "another namespace");
    // A hundredth of a second later: 200 more.
    assert_eq!(offer(&mut scene, PortId(0), 640, 10_000_001), burst + 200);
    assert_eq!(scene.held(), setup.frames);
}

#[test]
fn hairpins_are_sampled_for_the_kernel_and_forwarded_beyond() {
    let setup = Setup { punt_depth: 8192, ..Setup::default() };
    let mut scene = scene(1, &setup);
    let back = udp(PortId(0), host4(1).into(), host4(0).into(), b"back");
    for _ in 0..50 {
        for _ in 0..64 {
            assert!(scene.wires[0][0].deliver(tag(PortId(0)), &back));
        }
        work_off(&mut scene, 0);
        scene.drain_punts();
    }
    let sampled = u64::from(Config::PUNT_BURST / 2);
    assert_eq!(punts(&scene, PortId(0), PuntReason::Hairpin), sampled);
    assert_eq!(scene.wires[0][0].sent_packets(), 3200 - sampled);
    assert_eq!(drops(&scene, PortId(0), DropReason::PuntLimit), 0);
}

#[test]
fn stale_neighbours_are_sampled_now_and_then() {
    let mut scene = scene(1, &Setup::default());
    let mut stale = world(1, 1);
    let ns = stale.namespaces[0].take().unwrap();
    let mut neighbors = (*ns.neighbors).clone();
    let neigh = Neigh { mac: host_mac(PortId(1)), stale: true };
    neighbors.insert(PortId(1), host4(1).into(), neigh);
    let (v4, v6, next_hops) = (ns.v4.clone(), ns.v6.clone(), ns.next_hops.clone());
    let ns = Namespace {
        id: ns.id,
        v4,
        v6,
        next_hops,
        neighbors: Arc::new(neighbors),
        ..Namespace::default()
    };
    stale.namespaces[0] = Some(Arc::new(ns));
    scene.world.publish(Arc::new(stale));
    for (now, sampled) in [(0, 1), (999_999_999, 1), (1_000_000_000, 2), (4_000_000_000, 3)] {
        for _ in 0..5 {
            assert!(scene.wires[0][0].deliver(tag(PortId(0)), &across(PortId(0), false, b"")));
        }
        rounds(&mut scene, 1, now);
        assert_eq!(punts(&scene, PortId(0), PuntReason::StaleNeighbor), sampled, "at {now} ns");
        scene.drain_punts();
    }
}

#[test]
fn a_full_punt_queue_drops_and_counts() {
    let setup = Setup { punt_depth: 4, ..Setup::default() };
    let mut scene = scene(1, &setup);
    let unknown = udp(PortId(0), host4(0).into(), [10, 9, 9, 9].into(), b"");
    (0..10).for_each(|_| assert!(scene.wires[0][0].deliver(tag(PortId(0)), &unknown)));
    rounds(&mut scene, 1, 0);
    assert_eq!(punts(&scene, PortId(0), PuntReason::NoRoute), 4);
    assert_eq!(drops(&scene, PortId(0), DropReason::PuntFull), 6);
    assert_eq!(scene.held(), setup.frames);
}

#[test]
fn a_full_tx_ring_is_kicked_once_then_drops() {
    let setup = Setup { sizes: Sizes { tx: 16, ..Sizes::all(256) }, ..Setup::default() };
    let mut scene = scene(1, &setup);
    scene.wires[1][0].set_budget(8);
    let packet = across(PortId(0), false, b"");
    (0..32).for_each(|_| assert!(scene.wires[0][0].deliver(tag(PortId(0)), &packet)));
    let round = scene.workers[0].round(0);
    // 16 in the ring, 8 sent by the first kick and replaced, 8 by the last.
    assert_eq!(drops(&scene, PortId(0), DropReason::TxFull), 32 - 24);
    assert_eq!(scene.stats[0].port(PortId(0)).forwarded_packets.get(), 24);
    assert_eq!((round.packets, round.pending), (32, true));
    // What is pending is kicked again without new packets.
    assert!(!scene.workers[0].round(0).pending);
    assert_eq!(scene.wires[1][0].sent_packets(), 24);
    scene.wires[1][0].refuse(3);
    (0..8).for_each(|_| assert!(scene.wires[0][0].deliver(tag(PortId(0)), &packet)));
    rounds(&mut scene, 1, 0);
    assert_eq!(scene.stats[0].port(PortId(1)).tx_refused.get(), 3);
    assert_eq!(scene.wires[1][0].sent_packets(), 24 + 5);
    assert_eq!(scene.held(), setup.frames);
}

#[test]
fn a_queue_without_frames_is_looked_after() {
    let setup = Setup { frames: 64, ..Setup::default() };
    let mut scene = scene(1, &setup);
    // One queue got all frames; the other must not sleep until it has some.
    assert_eq!((scene.wires[0][0].held(), scene.wires[1][0].held()), (64, 0));
    assert!(scene.workers[0].round(0).pending);
    let packet = across(PortId(0), false, b"");
    (0..64).for_each(|_| assert!(scene.wires[0][0].deliver(tag(PortId(0)), &packet)));
    work_off(&mut scene, 0);
    assert_eq!(scene.wires[1][0].sent_packets(), 64);
    assert_eq!(scene.held(), 64);
}

#[test]
fn a_queue_that_only_sends_keeps_nobody_awake() {
    let setup = Setup { sizes: Sizes { fill: 0, ..Sizes::all(256) }, ..Setup::default() };
    let mut scene = scene(1, &setup);
    assert!(!scene.workers[0].round(0).pending);
}

#[test]
fn a_queue_that_only_sends_is_neither_watched_nor_looked_at() {
    let setup = Setup { frames: 20_000, sizes: Sizes::all(64), ..Setup::default() };
    let mut scene = scene(60, &setup);
    // The first and the last tenant receive by one port each, the others only send.
    let sends = Setup { sizes: Sizes { fill: 0, ..setup.sizes }, ..setup };
    let (flood, quiet) = (PortId(0), PortId(118));
    for port in (0..120).map(PortId).filter(|&port| port != flood && port != quiet) {
        let remove = ToWorker::RemovePort { port, generation: GENERATION };
        scene.inboxes[0].send(remove).unwrap();
        scene.add_port(port, &sends);
    }
    (0..120).for_each(|port| scene.wires[port][0].set_fd(port as i32));
    rounds(&mut scene, 1, 0);
    assert_eq!(scene.workers[0].sockets().map(|s| s.fd).collect::<Vec<_>>(), [0, 118]);
    // Beside a flood the quiet one is heard in the next round, and again in each.
    for n in 1..20 {
        while scene.wires[0][0].deliver(tag(flood), &across(flood, false, b"flood")) {}
        assert!(scene.wires[118][0].deliver(tag(quiet), &across(quiet, false, b"psst")));
        rounds(&mut scene, 1, 0);
        assert_eq!(scene.wires[119][0].sent_packets(), n);
    }
}

#[test]
fn a_dead_socket_is_told_of_once() {
    let mut scene = scene(1, &Setup::default());
    scene.wires[1][0].kill();
    let packet = across(PortId(0), false, b"");
    for _ in 0..3 {
        assert!(scene.wires[0][0].deliver(tag(PortId(0)), &packet));
        rounds(&mut scene, 1, 0);
    }
    let dead = |message: &FromWorker<_>| {
        matches!(message, FromWorker::QueueDead { port: PortId(1), generation: GENERATION, .. })
    };
    assert_eq!(scene.outbox.try_iter().filter(dead).count(), 1);
    assert_eq!(drops(&scene, PortId(0), DropReason::EgressGone), 2);
}

#[test]
fn a_removed_port_gives_its_queues_and_frames_back() {
    let setup = Setup { queues: 2, ..Setup::default() };
    let mut scene = scene(1, &setup);
    // Another use of the slot is not meant.
    for generation in [Generation(9), GENERATION] {
        let remove = ToWorker::RemovePort { port: PortId(1), generation };
        scene.inboxes[0].send(remove).unwrap();
    }
    assert!(scene.workers[0].round(0).queues_changed);
    let messages: Vec<_> = scene.outbox.try_iter().collect();
    let [
        FromWorker::PortRemoved { generation: Generation(9), .. },
        FromWorker::QueueRemoved { queue: QueueId(0), .. },
        FromWorker::QueueRemoved { queue: QueueId(1), .. },
        FromWorker::PortRemoved { port: PortId(1), generation: GENERATION, .. },
    ] = &messages[..]
    else {
        panic!("other messages");
    };
    // The world still has the port: what would leave by it has no way.
    assert!(scene.wires[0][0].deliver(tag(PortId(0)), &across(PortId(0), false, b"")));
    rounds(&mut scene, 1, 0);
    assert_eq!(drops(&scene, PortId(0), DropReason::EgressGone), 1);
    assert_eq!(scene.held(), setup.frames);
}

#[test]
fn stop_gives_everything_back() {
    let setup = Setup { workers: 2, ..Setup::default() };
    let mut scene = scene(2, &setup);
    scene.inboxes.iter().for_each(|inbox| inbox.send(ToWorker::Stop).unwrap());
    assert!(scene.workers.iter_mut().all(|worker| worker.round(0).stopped));
    let messages: Vec<_> = scene.outbox.try_iter().collect();
    let queues = messages.iter().filter(|m| matches!(m, FromWorker::QueueRemoved { .. })).count();
    let stops = messages.iter().filter(|m| matches!(m, FromWorker::Stopped { .. })).count();
    assert_eq!((queues, stops), (4, 2));
    assert!(scene.workers.iter().all(|worker| worker.free_frames() == 0));
    assert_eq!(scene.held(), setup.frames);
}

#[test]
fn a_new_world_counts_from_the_next_round() {
    let mut scene = scene(1, &Setup::default());
    let mut without = world(1, 1);
    without.ports[0] = None;
    scene.world.publish(Arc::new(without));
    assert!(scene.wires[0][0].deliver(tag(PortId(0)), &across(PortId(0), false, b"")));
    rounds(&mut scene, 1, 0);
    assert_eq!(drops(&scene, PortId(0), DropReason::PortGone), 1);
    scene.world.collect();
    assert_eq!(scene.world.retired(), 0);
}

#[test]
fn workers_hand_over_what_leaves_elsewhere() {
    let setup = Setup { workers: 2, mesh_depth: 64, ..Setup::default() };
    let mut scene = scene(1, &setup);
    // Port 0 is worker 0's, port 1 is worker 1's, one queue each.
    let packet = across(PortId(0), false, b"over");
    (0..128).for_each(|_| assert!(scene.wires[0][0].deliver(tag(PortId(0)), &packet)));
    while scene.workers[0].round(0).packets > 0 {}
    // Two thirds of seven eighths of the places; the rest is for others.
    let taken = scene.stats[0].handed_over.get();
    assert_eq!(taken, 38);
    assert_eq!(drops(&scene, PortId(0), DropReason::HandoverShare), 128 - taken);
    assert!(scene.workers[1].has_work());
    while scene.workers[1].round(0).packets > 0 {}
    assert_eq!(scene.wires[1][0].sent().len() as u64, taken);
    let sender = scene.stats[1].port(PortId(0));
    assert_eq!(sender.forwarded_packets.get(), taken);
    assert_eq!(sender.forwarded_bytes.get(), taken * packet.len() as u64);
    assert_eq!(scene.mesh.waiting(WorkerId(1)).taken(), 0);
    // A packet whose port goes away on its way.
    assert!(scene.wires[0][0].deliver(tag(PortId(0)), &packet));
    let _ = scene.workers[0].round(0);
    let remove = ToWorker::RemovePort { port: PortId(1), generation: GENERATION };
    scene.inboxes[1].send(remove).unwrap();
    let _ = scene.workers[1].round(0);
    assert_eq!(drops(&scene, PortId(0), DropReason::EgressGone), 1);
    assert_eq!(scene.held(), setup.frames);
}

#[test]
fn a_stalled_worker_loses_nothing_of_a_slow_stream() {
    let setup = Setup { workers: 2, mesh_depth: 2048, ..Setup::default() };
    let mut scene = scene(1, &setup);
    let packet = across(PortId(0), false, b"");
    // One packet a round, as at a low rate, while the other worker stands still.
    for _ in 0..1000 {
        assert!(scene.wires[0][0].deliver(tag(PortId(0)), &packet));
        let _ = scene.workers[0].round(0);
    }
    assert_eq!(scene.stats[0].handed_over.get(), 1000);
    work_off(&mut scene, 0);
    assert_eq!(scene.wires[1][0].sent_packets(), 1000);
    assert_eq!(drops(&scene, PortId(0), DropReason::HandoverFull), 0);
}

#[test]
fn a_million_packets_are_accounted_for() {
    let setup = Setup { workers: 2, queues: 2, mesh_depth: 128, ..Setup::default() };
    let mut scene = Scene::new(world(2, 2), &setup, quiet);
    rounds(&mut scene, 1, 0);
    let packets: Vec<_> = (0..4).map(|port| across(PortId(port), port % 2 == 1, b"")).collect();
    let lost = udp(PortId(0), host4(0).into(), [10, 9, 9, 9].into(), b"");
    scene.wires[3][1].set_budget(2);
    let (mut offered, mut taken) = (0_u64, 0_u64);
    while offered < 1_000_000 {
        for port in 0..4_u16 {
            let wires = &scene.wires[usize::from(port)];
            for n in 0..200 {
                let packet = if port == 0 && n == 7 { &lost } else { &packets[usize::from(port)] };
                taken += u64::from(wires[n % 2].deliver(tag(PortId(port)), packet));
                offered += 1;
            }
        }
        rounds(&mut scene, 8, offered * 1000);
        scene.drain_punts();
    }
    rounds(&mut scene, 400, u64::MAX / 2);
    scene.drain_punts();
    let port_stats = || scene.stats.iter().flat_map(|s| (0..4).map(|p| s.port(PortId(p))));
    let sum = |of: fn(&crate::stats::PortStats) -> u64| port_stats().map(of).sum::<u64>();
    let forwarded = sum(|s| s.forwarded_packets.get());
    let dropped = sum(|s| s.drops.iter().map(crate::stats::Count::get).sum());
    let punted = sum(|s| s.punts.iter().map(crate::stats::Count::get).sum());
    assert_eq!(sum(|s| s.rx_packets.get()), taken);
    assert_eq!(forwarded + dropped + punted, taken, "each packet is counted once");
    let sent: u64 = scene.wires.iter().flatten().map(SimWire::sent_packets).sum();
    assert_eq!(sent, forwarded);
    assert!(punted > 0 && dropped > 0 && forwarded > 500_000);
    assert_eq!(scene.held(), setup.frames);
}

/// A wait that ends when the thread is unparked.
struct Park;

impl Sleep for Park {
    fn watch(&mut self, fds: &mut dyn Iterator<Item = Watched>) {
        assert_eq!(fds.count(), 0);
    }

    fn wait(&mut self, timeout: Duration) {
        thread::park_timeout(timeout);
    }
}

#[test]
fn two_threads_hand_over_and_sleep() {
    let setup = Setup { workers: 2, ..Setup::default() };
    let threads: Arc<[std::sync::OnceLock<thread::Thread>; 2]> = Arc::default();
    let bell = |id: WorkerId| {
        let threads = Arc::clone(&threads);
        Doorbell::new(Box::new(move || {
            if let Some(thread) = threads[id.index()].get() {
                thread.unpark();
            }
        }))
    };
    let mut scene = Scene::new(world(1, 1), &setup, bell);
    let start = Instant::now();
    let running: Vec<_> = scene
        .workers
        .drain(..)
        .enumerate()
        .map(|(id, mut worker)| {
            let threads = Arc::clone(&threads);
            thread::spawn(move || {
                threads[id].set(thread::current()).unwrap();
                // A worker that misses its bell sleeps on and fails the test below.
                let idle =
                    Idle { spin_rounds: 2, timeout: Duration::from_secs(20), ..Idle::default() };
                run_loop(&mut worker, &mut Park, &idle, || start.elapsed().as_nanos() as u64);
                worker
            })
        })
        .collect();
    let late = || start.elapsed() > Duration::from_secs(10);
    let mut delivered = 0;
    while delivered < 20_000 && !late() {
        let packet = across(PortId(0), delivered % 2 == 1, b"");
        let burst = (0..32).take_while(|_| scene.wires[0][0].deliver(tag(PortId(0)), &packet));
        delivered += burst.count();
        scene.mesh.bell(WorkerId(0)).ring();
        if delivered % 7 == 0 {
            thread::sleep(Duration::from_micros(50));
        }
    }
    let done = |scene: &Scene| {
        let dropped: u64 = DropReason::ALL.map(|r| drops(scene, PortId(0), r)).iter().sum();
        scene.wires[1][0].sent_packets() + dropped == delivered as u64
    };
    while !done(&scene) && !late() {
        thread::sleep(Duration::from_millis(1));
    }
    assert!(done(&scene) && !late());
    for id in 0..2 {
        scene.inboxes[id].send(ToWorker::Stop).unwrap();
        scene.mesh.bell(WorkerId(id as u16)).ring();
    }
    scene.workers.extend(running.into_iter().map(|thread| thread.join().unwrap()));
    assert_eq!(scene.held(), setup.frames);
    assert!(scene.stats.iter().all(|stats| stats.sleeps.get() > 0));
}

#[test]
fn a_sleep_is_short_while_something_is_pending() {
    struct Log(Vec<Duration>, Arc<AtomicBool>);
    impl Sleep for Log {
        fn watch(&mut self, _: &mut dyn Iterator<Item = Watched>) {}
        fn wait(&mut self, timeout: Duration) {
            self.0.push(timeout);
            self.1.store(true, Ordering::Relaxed);
        }
    }
    for (budget, expected) in [(0, 1), (64, 1000)] {
        let mut scene = scene(1, &Setup::default());
        scene.wires[1][0].set_budget(budget);
        assert!(scene.wires[0][0].deliver(tag(PortId(0)), &across(PortId(0), false, b"")));
        let slept = Arc::new(AtomicBool::new(false));
        let mut log = Log(Vec::new(), Arc::clone(&slept));
        let inbox = scene.inboxes[0].clone();
        let now = || {
            if slept.swap(false, Ordering::Relaxed) {
                inbox.send(ToWorker::Stop).unwrap();
            }
            0
        };
        run_loop(&mut scene.workers[0], &mut log, &Idle::default(), now);
        assert_eq!(log.0, [Duration::from_millis(expected)]);
    }
}
