//! Tenants with equal addresses, packets between their hosts, and workers over
//! simulated queues.
//!
//! ```text
//!  10.0.0.2 ── port 2t [ 10.0.0.0/24 | tenant t | 10.0.1.0/24 ] port 2t+1 ── 10.0.1.2
//!  fd00::2 (fd00:0:0:0::/64)                       (fd00:0:0:1::/64) fd00:0:0:1::2
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use arrayvec::ArrayVec;
use crossbeam::channel::{Receiver, Sender, unbounded};
use nsplane_abi::Tag;

use super::{SimFrame, SimMemory, SimQueue, SimWire, Sizes};
use crate::id::{Generation, IfIndex, Mac, NsId, PortId, QueueId, WorkerId};
use crate::port::{BATCH, Depot, FromWorker, Mesh, PuntQueue, ToWorker, owner};
use crate::stats::WorkerStats;
use crate::sync::{Doorbell, Publisher};
use crate::tables::fib::{Fib4, Fib6};
use crate::tables::neigh::Neigh;
use crate::tables::{Namespace, NextHop, Port, Role, RpFilter, World};
use crate::wire::{checksum, ethernet, ipv4::Ipv4, ipv6::Ipv6, l4};
use crate::worker::{Config, Parts, Worker, long};

/// The generation of all ports here.
pub const GENERATION: Generation = Generation(1);

/// A port's own Ethernet address.
#[must_use]
pub fn port_mac(port: PortId) -> Mac {
    let [a, b] = port.0.to_be_bytes();
    Mac([2, 0, 0, 0, a, b])
}

/// The Ethernet address of the host behind a port.
#[must_use]
pub fn host_mac(port: PortId) -> Mac {
    let [a, b] = port.0.to_be_bytes();
    Mac([2, 0, 0, 1, a, b])
}

/// The host on side 0 or 1 of every tenant.
#[must_use]
pub fn host4(side: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, side, 2)
}

/// Likewise, IPv6.
#[must_use]
pub fn host6(side: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, side.into(), 0, 0, 0, 2)
}

/// Namespace of a tenant.
#[must_use]
pub fn tenant_ns(tenant: u16) -> NsId {
    NsId { index: tenant, generation: 3 }
}

/// A world of tenants with two ports each, every port with `queues` queues.
#[must_use]
pub fn world(tenants: u16, queues: u16) -> World {
    let mut world = World::default();
    for tenant in 0..tenants {
        let ports = [PortId(tenant * 2), PortId(tenant * 2 + 1)];
        world.namespaces.push(Some(Arc::new(namespace(tenant, ports))));
        world.ports.extend(ports.map(|id| Some(port(tenant, id, queues))));
    }
    world
}

fn port(tenant: u16, id: PortId, queues: u16) -> Port {
    Port {
        ns: tenant_ns(tenant),
        generation: GENERATION,
        ifindex: IfIndex(u32::from(id.0 % 2) + 2),
        mac: port_mac(id),
        mtu: 1500,
        forward_v4: true,
        forward_v6: true,
        rp_filter: RpFilter::Off,
        up: true,
        queues,
        role: Role::Device,
    }
}

fn namespace(tenant: u16, ports: [PortId; 2]) -> Namespace {
    let hop = |port| NextHop::Forward { port, gateway: None, mtu: 1500 };
    let sides = || [0_u8, 1].into_iter().zip(ports);
    let net4 = |side| (Ipv4Addr::new(10, 0, side, 0), 24, u32::from(side));
    let net6 = |side: u8| (Ipv6Addr::new(0xfd00, 0, 0, side.into(), 0, 0, 0, 0), 64, side.into());
    Namespace {
        id: Some(tenant_ns(tenant)),
        v4: Arc::new(Fib4::build([0, 1].map(net4))),
        v6: Arc::new(Fib6::build([0, 1].map(net6))),
        next_hops: ports.map(hop).into(),
        neighbors: Arc::new(
            sides()
                .flat_map(|(side, port)| {
                    [IpAddr::from(host4(side)), IpAddr::from(host6(side))]
                        .map(|addr| (port, addr, Neigh::fresh(host_mac(port))))
                })
                .collect(),
        ),
        ..Namespace::default()
    }
}

/// The tag that the program of a port writes.
#[must_use]
pub fn tag(port: PortId) -> Tag {
    Tag {
        ns: tenant_ns(port.0 / 2).packed(),
        port: port.0,
        generation: GENERATION.low(),
        ..Tag::default()
    }
}

/// A UDP packet, as it arrives at a port, with all checksums right.
///
/// # Panics
/// If one address is IPv4 and the other is not.
#[must_use]
pub fn udp(port: PortId, src: IpAddr, dst: IpAddr, payload: &[u8]) -> Vec<u8> {
    let len = 8 + payload.len() as u16;
    let mut frame = vec![0; ethernet::LEN];
    let header = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut ip = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, l4::UDP, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            ip[2..4].copy_from_slice(&(20 + len).to_be_bytes());
            ip[12..16].copy_from_slice(&src.octets());
            ip[16..20].copy_from_slice(&dst.octets());
            let sum = checksum::sum(&ip).complement();
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            frame[12..14].copy_from_slice(&ethernet::IPV4.to_be_bytes());
            frame.extend(ip);
            ip.len()
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut ip = [0; 40];
            ip[0] = 0x60;
            ip[4..6].copy_from_slice(&len.to_be_bytes());
            (ip[6], ip[7]) = (l4::UDP, 64);
            ip[8..24].copy_from_slice(&src.octets());
            ip[24..40].copy_from_slice(&dst.octets());
            frame[12..14].copy_from_slice(&ethernet::IPV6.to_be_bytes());
            frame.extend(ip);
            ip.len()
        }
        _ => panic!("addresses of two families"),
    };
    frame[0..6].copy_from_slice(&port_mac(port).0);
    frame[6..12].copy_from_slice(&host_mac(port).0);
    frame.extend([0x30, 0x39, 0, 9]);
    frame.extend(len.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    let start = ethernet::LEN + header;
    let pseudo = pseudo_sum(&frame);
    frame[start + 6..start + 8].copy_from_slice(&pseudo.to_be_bytes());
    assert!(l4::complete(&mut frame, start, 6));
    frame
}

/// The pseudo header's sum of a frame that [`udp`] made.
///
/// # Panics
/// If it is no such frame.
#[must_use]
pub fn pseudo_sum(frame: &[u8]) -> u16 {
    let packet = &frame[ethernet::LEN..];
    match Ipv4::parse(packet) {
        Ok(ip) => ip.pseudo_sum().0,
        Err(_) => Ipv6::parse(packet).expect("one of the two").pseudo_sum().0,
    }
}

/// Workers over simulated queues, and all that they share.
pub struct Scene {
    /// The workers.
    pub workers: Vec<Worker<SimQueue>>,
    /// By port and queue: the device's side.
    pub wires: Vec<Vec<SimWire>>,
    /// To each worker.
    pub inboxes: Vec<Sender<ToWorker<SimQueue>>>,
    /// From all workers.
    pub outbox: Receiver<FromWorker<SimQueue>>,
    /// Publishes worlds.
    pub world: Publisher<World>,
    /// What was punted.
    pub punts: Arc<PuntQueue<SimFrame>>,
    /// Free frames.
    pub depot: Arc<Depot<SimFrame>>,
    /// Rings between the workers.
    pub mesh: Arc<Mesh<SimFrame>>,
    /// Each worker's counters.
    pub stats: Vec<Arc<WorkerStats>>,
    /// Frames of punted packets, not yet a magazine.
    spare: ArrayVec<SimFrame, BATCH>,
}

/// What a [`Scene`] is made of.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Workers.
    pub workers: u16,
    /// Queues a port.
    pub queues: u16,
    /// Ring sizes.
    pub sizes: Sizes,
    /// Frames in all.
    pub frames: usize,
    /// Packets that a ring between workers holds.
    pub mesh_depth: usize,
    /// Packets that the punt queue holds.
    pub punt_depth: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            workers: 1,
            queues: 1,
            sizes: Sizes::all(256),
            frames: 8192,
            mesh_depth: 1024,
            punt_depth: 256,
        }
    }
}

impl Scene {
    /// Workers over `world`, with queues for all of its ports. `bell` makes each
    /// worker's bell.
    #[must_use]
    pub fn new(world: World, setup: &Setup, bell: impl Fn(WorkerId) -> Doorbell) -> Self {
        let ports = world.ports.len();
        let ids = || (0..setup.workers).map(WorkerId);
        let publisher = Publisher::new(Arc::new(world));
        let depot = Arc::new(Depot::new(setup.frames / BATCH + 256));
        let mut frames = SimMemory::frames(setup.frames);
        while !frames.is_empty() {
            let from = frames.len().saturating_sub(BATCH);
            assert!(depot.push(frames.drain(from..).collect()).is_ok(), "sized for all");
        }
        let (outbox_tx, outbox) = unbounded();
        let mut scene = Self {
            workers: Vec::new(),
            wires: Vec::new(),
            inboxes: Vec::new(),
            outbox,
            world: publisher,
            punts: Arc::new(PuntQueue::new(setup.punt_depth)),
            depot,
            mesh: Arc::new(Mesh::new(ids().map(bell).collect(), setup.mesh_depth)),
            spare: ArrayVec::new(),
            stats: ids().map(|_| Arc::new(WorkerStats::new(ports))).collect(),
        };
        let punt_bell = Arc::new(Doorbell::new(Box::new(|| ())));
        for id in ids() {
            let (inbox_tx, inbox) = unbounded();
            let mut config = Config::new(id, setup.workers, ports, setup.frames);
            (config.pool_low, config.pool_high) = (64, 256);
            let parts = Parts {
                memory: SimMemory,
                inbox,
                outbox: outbox_tx.clone(),
                world: scene.world.reader(),
                stats: Arc::clone(&scene.stats[id.index()]),
                punts: Arc::clone(&scene.punts),
                punt_bell: Arc::clone(&punt_bell),
                depot: Arc::clone(&scene.depot),
                mesh: Arc::clone(&scene.mesh),
            };
            scene.workers.push(Worker::new(&config, parts));
            scene.inboxes.push(inbox_tx);
        }
        for port in 0..ports as u16 {
            scene.add_port(PortId(port), setup);
        }
        scene
    }

    /// Gives a port's queues to the workers that own them.
    ///
    /// # Panics
    /// If the workers are gone.
    pub fn add_port(&mut self, port: PortId, setup: &Setup) {
        let mut wires = Vec::new();
        for queue in (0..setup.queues).map(QueueId) {
            let (io, wire) = super::queue(setup.sizes);
            let add = ToWorker::AddQueue { port, generation: GENERATION, queue, io, posted: 0 };
            let inbox = &self.inboxes[owner(port, queue, setup.workers).index()];
            inbox.send(add).expect("the worker is there");
            wires.push(wire);
        }
        if port.index() < self.wires.len() {
            self.wires[port.index()] = wires;
        } else {
            self.wires.push(wires);
        }
    }

    /// Takes what was punted, and gives its frames to the depot by full magazines;
    /// returns how many packets it was.
    ///
    /// # Panics
    /// If the depot is full, which has room for every frame.
    pub fn drain_punts(&mut self) -> usize {
        let mut count = 0;
        while let Some(punted) = self.punts.pop() {
            count += 1;
            self.punts.done(punted.account, punted.frames);
            let (spare, depot) = (&mut self.spare, &self.depot);
            long::give(&SimMemory, punted.frame, |frame| {
                spare.push(frame);
                if spare.is_full() {
                    assert!(depot.push(std::mem::take(spare)).is_ok(), "a depot for every frame");
                }
            });
        }
        count
    }

    /// Frames in queues, pools, depot, and rings: with nothing in a worker's hands
    /// these are all that there are. Looks at the shared rings by emptying and
    /// refilling them: nobody else may use them meanwhile.
    #[must_use]
    pub fn held(&self) -> usize {
        let rings: usize = self.wires.iter().flatten().map(SimWire::held).sum();
        let pools: usize = self.workers.iter().map(Worker::free_frames).sum();
        let mut shared = self.spare.len() + self.punts.frames();
        for _ in 0..self.depot.len() {
            let magazine = self.depot.pop().expect("counted");
            shared += magazine.len();
            assert!(self.depot.push(magazine).is_ok());
        }
        // A place there is a frame.
        let handed = (0..self.mesh.workers()).map(|to| self.mesh.waiting(WorkerId(to)).taken());
        rings + pools + shared + handed.sum::<u32>() as usize
    }
}
