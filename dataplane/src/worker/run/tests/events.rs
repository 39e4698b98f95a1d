//! Any sequence of events: nothing panics and no frame is lost.

use proptest::prelude::*;

use super::*;

/// What may happen to a scene.
#[derive(Clone, Debug)]
enum Event {
    Deliver {
        port: u16,
        queue: u16,
        kind: u8,
        count: usize,
    },
    Random {
        port: u16,
        bytes: Vec<u8>,
        flags: u16,
    },
    /// A packet of several frames, or only the first of them.
    Long {
        port: u16,
        kind: u8,
        len: usize,
        room: usize,
        all: bool,
    },
    Round {
        worker: usize,
    },
    Budget {
        port: u16,
        budget: usize,
    },
    Remove {
        port: u16,
    },
    Add {
        port: u16,
    },
    DrainPunts,
}

fn event() -> impl Strategy<Value = Event> {
    let bytes = prop::collection::vec(any::<u8>(), 0..100);
    prop_oneof![
        6 => (0..4_u16, 0..2_u16, 0..4_u8, 1..80_usize)
            .prop_map(|(port, queue, kind, count)| Event::Deliver { port, queue, kind, count }),
        2 => (0..4_u16, bytes, 0..4_u16)
            .prop_map(|(port, bytes, flags)| Event::Random { port, bytes, flags }),
        3 => (0..4_u16, 0..4_u8, 0..9000_usize, 64..2048_usize, prop::bool::weighted(0.9))
            .prop_map(|(port, kind, len, room, all)| Event::Long { port, kind, len, room, all }),
        8 => (0..2_usize).prop_map(|worker| Event::Round { worker }),
        1 => (0..4_u16, 0..20_usize).prop_map(|(port, budget)| Event::Budget { port, budget }),
        1 => (0..4_u16).prop_map(|port| Event::Remove { port }),
        1 => (0..4_u16).prop_map(|port| Event::Add { port }),
        1 => Just(Event::DrainPunts),
    ]
}

/// Plays an event; `present` says which ports have queues.
fn play(scene: &mut Scene, setup: &Setup, event: Event, present: &mut [bool; 4]) {
    match event {
        Event::Deliver { port, queue, kind, count } => {
            let id = PortId(port);
            let packet = packet(id, kind, b"a");
            let wire = &scene.wires[id.index()][usize::from(queue % setup.queues)];
            let taken = (0..count).filter(|_| wire.deliver(tag(id), &packet)).count();
            assert!(taken <= setup.sizes.rx);
        }
        Event::Random { port, bytes, flags } => {
            let tag =
                nsplane_abi::Tag { flags, csum_start: 34, csum_offset: 6, ..tag(PortId(port)) };
            let _ = scene.wires[usize::from(port)][0].deliver(tag, &bytes);
        }
        Event::Long { port, kind, len, room, all } => {
            let id = PortId(port);
            let packet = packet(id, kind, &vec![7; len]);
            let parts: Vec<&[u8]> = packet.chunks(room).collect();
            let _ = scene.wires[id.index()][0].deliver_in(tag(id), &parts, all);
        }
        Event::Round { worker } => {
            let count = scene.workers.len();
            let _ = scene.workers[worker % count].round(0);
        }
        Event::Budget { port, budget } => scene.wires[usize::from(port)][0].set_budget(budget),
        Event::Remove { port } if present[usize::from(port)] => {
            present[usize::from(port)] = false;
            for inbox in &scene.inboxes {
                let remove = ToWorker::RemovePort { port: PortId(port), generation: GENERATION };
                inbox.send(remove).unwrap();
            }
            rounds(scene, 1, 0);
            let wires = scene.wires[usize::from(port)].clone();
            recycle(scene, wires.iter().flat_map(SimWire::reclaim).collect());
        }
        Event::Add { port } if !present[usize::from(port)] => {
            present[usize::from(port)] = true;
            scene.add_port(PortId(port), setup);
        }
        Event::DrainPunts => {
            let _ = scene.drain_punts();
        }
        Event::Remove { .. } | Event::Add { .. } => {}
    }
}

/// To forward, of either family, to hairpin, or to punt.
fn packet(id: PortId, kind: u8, payload: &[u8]) -> Vec<u8> {
    match kind {
        0 => across(id, false, payload),
        1 => across(id, true, payload),
        2 => udp(id, host4(0).into(), host4(0).into(), payload),
        _ => udp(id, host4(0).into(), [10, 0, 1, 99].into(), payload),
    }
}

fn recycle(scene: &Scene, mut frames: Vec<SimFrame>) {
    while !frames.is_empty() {
        let from = frames.len().saturating_sub(64);
        assert!(scene.depot.push(frames.drain(from..).collect()).is_ok());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn no_frame_is_lost_whatever_happens(
        workers in 1..3_u16, queues in 1..3_u16, depth in 1..200_usize, punt_depth in 1..50_usize,
        (fill, rx, tx, completion) in (1..80_usize, 1..80_usize, 1..80_usize, 1..80_usize),
        frames in 64..1200_usize,
        events in prop::collection::vec(event(), 0..80),
    ) {
        let setup = Setup {
            workers, queues, frames, punt_depth,
            sizes: Sizes { fill, rx, tx, completion },
            mesh_depth: depth,
        };
        let mut scene = scene_of(long_links(2, queues), &setup);
        let mut present = [true; 4];
        for event in events {
            play(&mut scene, &setup, event, &mut present);
            prop_assert_eq!(scene.held(), frames);
        }
    }
}
