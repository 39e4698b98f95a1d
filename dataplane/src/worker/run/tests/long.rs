//! Packets of several frames through the whole worker.

use super::*;
use crate::worker::long;

/// Bytes of a frame of memory, as large as the kernel fills it.
const ROOM: usize = 1792;

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + (i >> 8)) as u8).collect()
}

fn deliver(scene: &Scene, port: PortId, packet: &[u8]) -> bool {
    let parts: Vec<&[u8]> = packet.chunks(ROOM).collect();
    scene.wires[port.index()][0].deliver_in(tag(port), &parts, true)
}

/// What leaves by the other port of the tenant.
fn forwarded(packet: &[u8], out: PortId, v6: bool) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[..6].copy_from_slice(&host_mac(out).0);
    packet[6..12].copy_from_slice(&port_mac(out).0);
    if v6 {
        packet[21] -= 1;
    } else {
        packet[22] -= 1;
        packet[24..26].fill(0);
        let sum = crate::wire::checksum::sum(&packet[14..34]).complement();
        packet[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

#[test]
fn every_length_is_forwarded_whole_and_counted_as_one() {
    for workers in [1, 2] {
        let setup = Setup { workers, ..Setup::default() };
        let mut scene = scene_of(long_links(1, 1), &setup);
        let (mut count, mut bytes) = (0, 0);
        for len in (1700..9000 - 48).step_by(41).chain([1749, 1750, 1751, 1752, 8952]) {
            for v6 in [false, true] {
                let packet = across(PortId(0), v6, &payload(len));
                let padded = [&packet[..], &[0xee; 9]].concat();
                // What is behind the packet does not leave, whichever frame it is in.
                assert!(deliver(&scene, PortId(0), &padded));
                work_off(&mut scene, 0);
                let sent = scene.wires[1][0].sent();
                assert_eq!(sent, [forwarded(&packet, PortId(1), v6)], "{len}");
                count += 1;
                bytes += packet.len() as u64;
                assert_eq!(scene.held(), setup.frames);
            }
        }
        let sum = |count: &dyn Fn(&WorkerStats) -> u64| -> u64 {
            scene.stats.iter().map(|stats| count(stats)).sum()
        };
        assert_eq!(sum(&|s| s.port(PortId(0)).rx_packets.get()), count);
        assert_eq!(sum(&|s| s.port(PortId(0)).rx_bytes.get()), bytes + 9 * count);
        assert_eq!(sum(&|s| s.port(PortId(0)).forwarded_bytes.get()), bytes);
        assert_eq!(sum(&|s| s.port(PortId(1)).tx_packets.get()), count);
    }
}

#[test]
fn a_packet_cut_short_by_the_rings_end_waits_for_its_rest() {
    let setup = Setup::default();
    let mut scene = scene_of(long_links(1, 1), &setup);
    let packet = across(PortId(0), false, &payload(8000));
    let short = across(PortId(0), true, b"short");
    let parts: Vec<&[u8]> = packet.chunks(ROOM).collect();
    let wire = scene.wires[0][0].clone();
    assert!(wire.deliver(tag(PortId(0)), &short));
    for (n, part) in parts.iter().enumerate() {
        assert!(wire.deliver_in(tag(PortId(0)), &[part], n + 1 == parts.len()));
        rounds(&mut scene, 2, 0);
        assert_eq!(scene.held(), setup.frames);
    }
    assert!(wire.deliver(tag(PortId(0)), &short));
    work_off(&mut scene, 0);
    let sent = scene.wires[1][0].sent();
    let short = forwarded(&short, PortId(1), true);
    assert_eq!(sent, [short.clone(), forwarded(&packet, PortId(1), false), short]);
}

#[test]
fn a_ring_takes_all_frames_of_a_packet_or_none() {
    let setup = Setup { sizes: Sizes { tx: 16, ..Sizes::all(256) }, ..Setup::default() };
    let mut scene = scene_of(long_links(1, 1), &setup);
    scene.wires[1][0].set_budget(0);
    let packet = across(PortId(0), false, &payload(8000));
    for _ in 0..6 {
        assert!(deliver(&scene, PortId(0), &packet));
    }
    rounds(&mut scene, 1, 0);
    // Five frames each: three packets, and one place is left.
    assert_eq!(drops(&scene, PortId(0), DropReason::TxFull), 3);
    // The kernel may stop anywhere, and go on from there.
    for budget in [1, 3, 2, 4, 9] {
        scene.wires[1][0].set_budget(budget);
        rounds(&mut scene, 1, 0);
        assert_eq!(scene.held(), setup.frames);
    }
    assert_eq!(scene.wires[1][0].sent(), vec![forwarded(&packet, PortId(1), false); 3]);
    let ingress = scene.stats[0].port(PortId(0));
    assert_eq!(ingress.forwarded_bytes.get(), 3 * packet.len() as u64);
}

#[test]
fn a_namespaces_share_of_transmit_rings_is_counted_in_frames() {
    let setup = Setup { frames: 4096, ..Setup::default() };
    let mut scene = scene_of(long_links(1, 1), &setup);
    scene.wires[1][0].set_budget(0);
    let packet = across(PortId(0), false, &payload(8000));
    for _ in 0..100 {
        if !deliver(&scene, PortId(0), &packet) {
            break;
        }
        rounds(&mut scene, 1, 0);
    }
    assert!(drops(&scene, PortId(0), DropReason::TxShare) > 0);
    // Two thirds of seven eighths of 256.
    let sent = scene.stats[0].port(PortId(0)).forwarded_packets.get();
    assert!((25..=30).contains(&sent), "{sent} packets of five frames");
    assert_eq!(scene.held(), setup.frames);
}

#[test]
fn a_handed_over_packet_stays_together_and_takes_a_place_for_each_frame() {
    let setup = Setup { workers: 2, mesh_depth: 64, ..Setup::default() };
    let mut scene = scene_of(long_links(1, 1), &setup);
    let packet = across(PortId(0), false, &payload(8000));
    for _ in 0..12 {
        assert!(deliver(&scene, PortId(0), &packet));
        let _ = scene.workers[0].round(0);
    }
    let handed = scene.stats[0].handed_over.get();
    assert_eq!(drops(&scene, PortId(0), DropReason::HandoverShare), 12 - handed);
    assert_eq!(u64::from(scene.mesh.waiting(WorkerId(1)).taken()), 5 * handed);
    assert!((1..12).contains(&handed), "{handed}");
    assert_eq!(scene.held(), setup.frames);
    work_off(&mut scene, 0);
    let whole = forwarded(&packet, PortId(1), false);
    assert_eq!(scene.wires[1][0].sent(), vec![whole; handed as usize]);
    assert_eq!(scene.mesh.waiting(WorkerId(1)).taken(), 0);
}

#[test]
fn what_is_punted_or_dropped_is_whole_too() {
    let setup = Setup { punt_depth: 6, ..Setup::default() };
    let mut scene = scene_of(long_links(1, 1), &setup);
    let unknown = udp(PortId(0), host4(0).into(), [10, 0, 1, 99].into(), &payload(8000));
    assert!(deliver(&scene, PortId(0), &unknown) && deliver(&scene, PortId(0), &unknown));
    rounds(&mut scene, 1, 0);
    // Five places, and one that is left.
    assert_eq!(drops(&scene, PortId(0), DropReason::PuntFull), 1);
    assert_eq!(scene.punts.frames(), 5);
    assert_eq!(scene.held(), setup.frames);
    let mut punted = scene.punts.pop().unwrap();
    let mut bytes = Vec::new();
    long::each(&SimMemory, &mut punted.frame, |part| bytes.extend(part));
    assert_eq!((bytes, punted.reason), (unknown, PuntReason::NoNeighbor));
    // Longer than the link: the kernel is to say so.
    let mut scene = scene_of(long_links(1, 1), &setup);
    let long = across(PortId(0), false, &payload(8973));
    assert!(deliver(&scene, PortId(0), &long));
    rounds(&mut scene, 1, 0);
    assert_eq!(punts(&scene, PortId(0), PuntReason::TooBig), 1);
    // Longer than anything that the program lets through.
    let endless = vec![1_u8; 15_000];
    assert!(deliver(&scene, PortId(0), &endless));
    rounds(&mut scene, 1, 0);
    assert_eq!(drops(&scene, PortId(0), DropReason::Stale), 1);
    assert_eq!(scene.held(), setup.frames);
}

#[test]
fn a_long_packet_costs_a_turn_what_its_frames_do() {
    let setup = Setup { sizes: Sizes::all(1024), ..Setup::default() };
    let mut scene = scene_of(long_links(2, 1), &setup);
    let long = across(PortId(0), false, &payload(8000));
    let short = across(PortId(2), false, b"");
    for _ in 0..100 {
        assert!(deliver(&scene, PortId(0), &long));
        assert!(scene.wires[2][0].deliver(tag(PortId(2)), &short));
    }
    // Both have work for several turns, of as many frames each; of the one they are packets.
    let done = |scene: &Scene, port| scene.stats[0].port(PortId(port)).rx_packets.get();
    while done(&scene, 2) < 96 {
        rounds(&mut scene, 1, 0);
    }
    let (long, short) = (done(&scene, 0), done(&scene, 2));
    assert!(long > 0 && long * 2 <= short, "{long} long ones, {short} short ones");
}

#[test]
fn who_has_more_long_packets_than_a_turn_takes_is_known_to_have_work() {
    // So many queues that it takes ten rounds to look at all of them, and a flood from the
    // first, so that they are not all looked at in one.
    let setup = Setup { frames: 40_000, sizes: Sizes::all(64), ..Setup::default() };
    let mut scene = scene_of(long_links(300, 1), &setup);
    let (flood, last) = (PortId(0), PortId(598));
    let packet = across(last, false, &payload(5000));
    (0..21).for_each(|_| assert!(deliver(&scene, last, &packet)));
    let done = |scene: &Scene| scene.stats[0].port(last).rx_packets.get();
    let mut turns = 0;
    while done(&scene) < 21 && turns < 20 {
        while scene.wires[0][0].deliver(tag(flood), &across(flood, false, b"flood")) {}
        rounds(&mut scene, 1, 0);
        turns += usize::from(done(&scene) > 0);
    }
    // 32 frames and the last one's rest, the others' turn, and what was left.
    assert!(turns <= 3, "{turns} rounds");
    assert_eq!(scene.held(), setup.frames);
}

#[test]
fn a_sample_that_finds_too_few_places_is_forwarded() {
    let setup = Setup { punt_depth: 4, ..Setup::default() };
    let mut scene = scene_of(long_links(1, 1), &setup);
    let back = udp(PortId(0), host4(1).into(), host4(0).into(), &payload(8000));
    assert!(deliver(&scene, PortId(0), &back));
    work_off(&mut scene, 0);
    assert_eq!(scene.wires[0][0].sent(), [forwarded(&back, PortId(0), false)]);
    assert_eq!(drops(&scene, PortId(0), DropReason::PuntFull), 0);
    assert_eq!(scene.held(), setup.frames);
}

#[test]
fn tags_that_a_full_frame_has_no_room_for_take_another() {
    let mut world = long_links(1, 1);
    let tags = crate::wire::vlan::Tags::new((0x8100, 7), None);
    // The way out of the second port is a VLAN of itself.
    let port = world.ports[1].as_mut().expect("a port");
    let how = crate::tables::Member { parent: PortId(1), parent_generation: GENERATION, tags };
    let member = crate::tables::Port {
        queues: 0,
        role: crate::tables::Role::Member(Box::new(how)),
        ..port.clone()
    };
    world.ports.push(Some(member));
    let ns = Arc::get_mut(world.namespaces[0].as_mut().expect("one")).expect("nobody has it yet");
    let hop = NextHop::Forward { port: PortId(2), gateway: None, mtu: 9000 };
    ns.next_hops = vec![ns.next_hops[0], hop].into();
    let neighbor = (PortId(2), host4(1).into(), Neigh::fresh(host_mac(PortId(1))));
    ns.neighbors = Arc::new([neighbor].into_iter().collect());
    let setup = Setup::default();
    let mut scene = scene_of(world, &setup);
    // Up to 2,048 bytes a frame of the simulated memory has room.
    for len in [1000, 2001, 2002, 2003, 2006, 2007, 5000] {
        let packet = across(PortId(0), false, &payload(len));
        let parts: Vec<&[u8]> = packet.chunks(2048).collect();
        assert!(scene.wires[0][0].deliver_in(tag(PortId(0)), &parts, true));
        work_off(&mut scene, 0);
        let bare = forwarded(&packet, PortId(1), false);
        let tagged = [&bare[..12], &[0x81, 0, 0, 7], &bare[12..]].concat();
        assert_eq!(scene.wires[1][0].sent(), [tagged], "{len}");
        assert_eq!(scene.held(), setup.frames);
    }
}
