//! What a worker over simulated ports is given to do, for the benches of this folder.
//!
//! | load | |
//! |---|---|
//! | `ipv4`, `ipv6` | one namespace, two ports, 32 packets on each: all that they touch is in the cache |
//! | `namespaces` | 1,000 namespaces, 32 packets for each, one after the other |
//! | `routes` | a million routes over 64 routers, 16,384 packets to random addresses, no header in the cache |
//! | `rings` | as `ipv4`, without the worker: what its moves from ring to ring cost |

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::sync::Arc;

use nsplane::id::{Mac, PortId, WorkerId};
use nsplane::sync::Doorbell;
use nsplane::tables::fib::Fib4;
use nsplane::tables::neigh::Neigh;
use nsplane::tables::{Namespace, NextHop, World};
use nsplane::worker::io::{Frames, Queue};
use nsplane::worker::sim::scene::{self, Scene, Setup};
use nsplane::worker::sim::{SimFrame, SimMemory, SimQueue, SimWire, Sizes, queue};

/// The loads' names.
pub(crate) const NAMES: [&str; 5] = ["ipv4", "ipv6", "namespaces", "routes", "rings"];

/// Packets that a port has at a time: a turn of its namespace.
const TURN: usize = 32;
/// Packets of the load `routes`, and its routers.
const MANY: usize = 16_384;
const ROUTERS: u32 = 64;

/// A load, ready to be done again and again.
pub(crate) struct Load {
    how: How,
    wires: Vec<(SimWire, PortId, Vec<Vec<u8>>)>,
    packets: usize,
    /// Packets that have arrived.
    delivered: Cell<u64>,
}

enum How {
    Worker(Box<Scene>),
    Rings(Rings),
}

impl Load {
    /// The load of that name.
    pub(crate) fn new(name: &str) -> Self {
        match name {
            "ipv6" => Self::of(1, 2, |port| across(port, true)),
            // The first port of each namespace.
            "namespaces" => Self::of(1000, 1, |port| across(port, false)),
            "routes" => Self::routes(),
            "rings" => Self::rings(),
            _ => Self::of(1, 2, |port| across(port, false)),
        }
    }

    /// So many namespaces, packets for the first so many ports of each.
    fn of(tenants: u16, ports: u16, packet: impl Fn(PortId) -> Vec<u8>) -> Self {
        let frames = usize::from(tenants) * 2 * TURN + 4096;
        let setup = Setup { sizes: Sizes::all(TURN), frames, ..Setup::default() };
        let scene = Scene::new(scene::world(tenants, 1), &setup, |_: WorkerId| bell());
        let ports = (0..tenants).flat_map(|tenant| (0..ports).map(move |n| tenant * 2 + n));
        let packets = ports.map(PortId).map(|port| (port, vec![packet(port); TURN])).collect();
        Self::over(scene, packets)
    }

    fn routes() -> Self {
        let sizes = Sizes::all(MANY);
        let setup = Setup { sizes, frames: 3 * MANY, ..Setup::default() };
        let scene = Scene::new(with_routes(), &setup, |_: WorkerId| bell());
        let mut random = Random(7);
        let from = scene::host4(0).into();
        let mut packet = || scene::udp(PortId(0), from, random.address().into(), &[0; 18]);
        Self::over(scene, vec![(PortId(0), (0..MANY).map(|_| packet()).collect())])
    }

    fn over(mut scene: Scene, packets: Vec<(PortId, Vec<Vec<u8>>)>) -> Self {
        let _ = scene.workers[0].round(0);
        let count = packets.iter().map(|(_, packets)| packets.len()).sum();
        let wire = |port: PortId| scene.wires[port.index()][0].clone();
        let wires =
            packets.into_iter().map(|(port, packets)| (wire(port), port, packets)).collect();
        Self {
            how: How::Worker(Box::new(scene)),
            wires,
            packets: count,
            delivered: Cell::default(),
        }
    }

    fn rings() -> Self {
        let ports = [PortId(0), PortId(1)];
        let (queues, wires): (Vec<_>, Vec<_>) =
            ports.map(|_| queue(Sizes::all(TURN))).into_iter().unzip();
        let mut rings =
            Rings { queues, pool: SimMemory::frames(256), list: Vec::with_capacity(64) };
        rings.work(&mut 0);
        let packets = ports.map(|port| (port, vec![across(port, false); TURN]));
        let wires =
            wires.into_iter().zip(packets).map(|(wire, (port, packets))| (wire, port, packets));
        Self {
            how: How::Rings(rings),
            wires: wires.collect(),
            packets: 2 * TURN,
            delivered: Cell::default(),
        }
    }

    /// Packets of it.
    pub(crate) fn packets(&self) -> usize {
        self.packets
    }

    /// Has the packets arrive, when all that did before have left.
    pub(crate) fn deliver(&self) {
        assert_eq!(self.sent(), self.delivered.get(), "all left");
        self.delivered.set(self.delivered.get() + self.packets as u64);
        for (wire, port, packets) in &self.wires {
            let tag = scene::tag(*port);
            assert!(packets.iter().all(|packet| wire.deliver(tag, packet)), "a frame for each");
        }
    }

    /// Does all that was delivered.
    #[inline(never)]
    pub(crate) fn work(&mut self) {
        let mut done = 0;
        while done < self.packets {
            match &mut self.how {
                How::Worker(scene) => done += scene.workers[0].round(1).packets,
                How::Rings(rings) => rings.work(&mut done),
            }
        }
    }

    /// Packets that left, all in all.
    fn sent(&self) -> u64 {
        match &self.how {
            How::Worker(scene) => scene.wires.iter().flatten().map(SimWire::sent_packets).sum(),
            How::Rings(_) => self.wires.iter().map(|(wire, ..)| wire.sent_packets()).sum(),
        }
    }
}

/// Two queues, each of which sends what the other one receives.
struct Rings {
    queues: Vec<SimQueue>,
    pool: Vec<SimFrame>,
    list: Frames<SimFrame>,
}

impl Rings {
    fn work(&mut self, done: &mut usize) {
        for at in 0..2 {
            *done += self.queues[at].receive(&mut self.list, TURN);
            let to = &mut self.queues[1 - at];
            to.transmit(&mut self.list);
            let _ = to.kick();
            to.reap(&mut self.pool);
            self.queues[at].refill(&mut self.pool);
        }
    }
}

fn bell() -> Doorbell {
    Doorbell::new(Box::new(|| ()))
}

/// From one side of a tenant to the other, in 60 bytes or a little more.
pub(crate) fn across(port: PortId, v6: bool) -> Vec<u8> {
    let (from, to) = ((port.0 % 2) as u8, 1 - (port.0 % 2) as u8);
    if v6 {
        scene::udp(port, scene::host6(from).into(), scene::host6(to).into(), b"")
    } else {
        scene::udp(port, scene::host4(from).into(), scene::host4(to).into(), &[0; 18])
    }
}

/// One tenant with a million routes, to routers behind its second port.
fn with_routes() -> World {
    let mut world = scene::world(1, 1);
    let mut random = Random(1);
    let mut route = |_| {
        let len = match random.next() % 16 {
            0..10 => 24,
            10..12 => 23,
            12..14 => 22,
            14 => 20,
            _ => 16,
        };
        (random.address(), len, random.next() % ROUTERS)
    };
    // With a default route: every packet leaves.
    let default = (Ipv4Addr::UNSPECIFIED, 0, 0);
    let v4 = Fib4::build((0..1_000_000).map(&mut route).chain([default]));
    let router = |n: u32| Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 1, 100).to_bits() + n);
    let hop = |n| NextHop::Forward { port: PortId(1), gateway: Some(router(n).into()), mtu: 1500 };
    let mac = |n: u32| Mac([2, 0, 0, 2, 0, n as u8]);
    let neighbor = |n| (PortId(1), router(n).into(), Neigh::fresh(mac(n)));
    world.namespaces[0] = Some(Arc::new(Namespace {
        id: Some(scene::tenant_ns(0)),
        v4: Arc::new(v4),
        next_hops: (0..ROUTERS).map(hop).collect(),
        neighbors: Arc::new((0..ROUTERS).map(neighbor).collect()),
        ..Namespace::default()
    }));
    world
}

/// Numbers that are the same in each run (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z >> 32) as u32
    }

    /// An address that may be routed.
    fn address(&mut self) -> Ipv4Addr {
        loop {
            let addr = Ipv4Addr::from_bits(self.next());
            let [a, b, ..] = addr.octets();
            if (1..224).contains(&a) && a != 127 && (a, b) != (169, 254) && a != 10 {
                return addr;
            }
        }
    }
}
