//! The control thread's part: from kernel state to what workers and program forward by.
//!
//! ```text
//!  netlink events ─► mirror (pure: the namespace as the kernel has it)
//!                      └► compile (pure: tables, ports' settings, map entries)
//!                            ├► World, published to the workers
//!                            └► plan (pure: wanted - actual = actions) ─► the program's maps
//! ```
//!
//! What decides is pure and tested as such: [`mirror`], [`compile`], [`plan`].
//! [`Control`] is the thin rest: it holds the namespaces and ports, and applies.
//! It runs on one thread; nothing here is called by a worker.

pub mod closer;
pub mod compile;
pub mod devices;
pub mod error;
pub mod explain;
pub mod following;
pub mod ledger;
mod lengths;
pub mod links;
pub mod members;
pub mod mirror;
pub mod namespaces;
pub mod plan;
pub mod ports;

pub mod settings;
pub mod slots;
mod snapshot;
pub mod targets;
pub mod totals;
pub mod view;

mod allot;
mod parts;
mod query;
mod refresh;
mod rules;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;
use tracing::warn;

pub use devices::{Seen, check, first_namespace};
pub use error::Error;
pub use rules::{Driven, PortChanges};
pub use settings::Settings;

use crate::bpf::Bpf;
use crate::id::{NetnsCookie, NsId, PortId};
use crate::netns::Netns;
use crate::sync::Publisher;
use crate::tables::World;
use crate::xsk::Region;
use closer::{Closer, Ticket};
use links::Workers;
use namespaces::NamespaceState;
use ports::{ClosingPort, PortState};
use slots::Slots;
use targets::Targets;

/// Everything that the control thread holds.
pub struct Control {
    settings: Settings,
    bpf: Bpf,
    region: Region,
    workers: Workers,
    publisher: Publisher<World>,
    targets: Arc<Targets>,
    /// What was published last.
    world: World,
    namespaces: Slots<NamespaceState>,
    ports: Slots<PortState>,
    /// What is remembered of members.
    book: members::Book,
    /// Which namespace another means by a number.
    known: members::Known,
    /// Something changed that decides which members there are.
    members_stale: bool,
    /// The namespaces by what the kernel knows them by.
    by_cookie: HashMap<NetnsCookie, NsId>,
    closer: Closer,
    /// Ports that are being closed.
    closing: BTreeMap<Ticket, ClosingPort>,
    /// Namespaces that have to wait for that.
    waiting: Vec<NsId>,
    /// Which part of the ports was looked at last.
    looks: usize,
}

/// Ticks in which each port's sockets are looked at once.
const LOOKS: usize = 16;

/// What [`Control`] is made from.
pub struct Parts {
    /// What the operator asked for.
    pub settings: Settings,
    /// The program, loaded.
    pub bpf: Bpf,
    /// The memory, registered.
    pub region: Region,
    /// The workers, running.
    pub workers: Workers,
    /// The workers' source of tables.
    pub publisher: Publisher<World>,
    /// The punt thread's source of targets.
    pub targets: Arc<Targets>,
    /// What closes sockets and links.
    pub closer: Closer,
}

impl Control {
    /// Control without any namespace.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { settings, bpf, region, workers, publisher, targets, closer } = parts;
        Self {
            ports: Slots::new(usize::from(settings.max_ports), u32::MAX),
            // As `NsId` holds them.
            namespaces: Slots::new(usize::from(u16::MAX), u32::from(u16::MAX)),
            settings,
            bpf,
            region,
            workers,
            publisher,
            targets,
            world: World::default(),
            book: members::Book::default(),
            known: members::Known::default(),
            members_stale: true,
            by_cookie: HashMap::new(),
            closer,
            closing: BTreeMap::new(),
            waiting: Vec::new(),
            looks: 0,
        }
    }

    /// Number of namespaces, ports and workers.
    #[must_use]
    pub fn size(&self) -> (usize, usize, u16) {
        (self.namespaces.count(), self.ports.count(), self.workers.count())
    }

    /// Housekeeping, a few times a second: frees tables that no worker reads any
    /// more, and lets ports go whose sockets died, whatever netlink says. Returns
    /// the namespaces whose devices are to be looked at again ([`Self::grow`]).
    pub fn tick(&mut self, now: Instant) -> Vec<NsId> {
        self.publisher.collect();
        let mut again = self.due(now);
        again.extend(self.unsettled_by_members());
        let reported = self.workers.dead_ports().into_iter();
        // Read with these: what a worker gave back after nobody waited for it any more.
        let late = self.workers.returned();
        self.close_late(late);
        let current = |(port, generation): (PortId, _)| {
            let state = self.ports.get(port.index())?;
            (state.generation == generation).then_some(port)
        };
        let mut dead: Vec<PortId> = reported.filter_map(current).collect();
        dead.extend(self.some_ports().filter(|p| self.is_lost(*p)));
        for port in dead {
            // Reported by several queues, it may be gone already.
            let Some(state) = self.ports.get(port.index()) else { continue };
            let ns = state.ns;
            warn!(port = port.0, device = state.name, "its socket lost the device");
            self.remove_ports(&[port]);
            if !again.contains(&ns) {
                again.push(ns);
            }
        }
        again
    }

    /// Of all ports another part at each call, so that looking at each socket costs
    /// little: netlink tells sooner than this in all cases known.
    fn some_ports(&mut self) -> impl Iterator<Item = PortId> + use<> {
        self.looks = (self.looks + 1) % LOOKS;
        let mine = |i: &usize| i % LOOKS == self.looks;
        let ports: Vec<_> = self.ports.iter().map(|(i, _)| i).filter(mine).collect();
        ports.into_iter().map(|i| PortId(i as u16))
    }

    /// Gives everything back: programs off the devices first, so that the kernel
    /// forwards, then the workers and their sockets.
    ///
    /// # Errors
    /// A worker does not answer: its thread cannot be joined.
    pub fn shut_down(&mut self) -> Result<(), Error> {
        self.close_members();
        let ports: Vec<PortId> = self.ports.iter().map(|(i, _)| PortId(i as u16)).collect();
        self.remove_ports(&ports);
        let all: Vec<NsId> = self.namespaces.iter().map(|(i, _)| self.ns_id(i)).collect();
        for ns in all {
            self.remove_namespace(ns);
        }
        let stopped = self.workers.stop();
        for queue in self.workers.returned() {
            self.closer.close(closer::Job { queues: vec![queue.io], attached: None });
        }
        for closed in self.closer.finish() {
            self.reclaim(closed);
        }
        stopped
    }

    /// A namespace's handle.
    #[must_use]
    pub fn netns(&self, ns: NsId) -> Option<Arc<Netns>> {
        Some(self.namespace(ns)?.netns.clone())
    }

    fn ns_id(&self, index: usize) -> NsId {
        NsId { index: index as u16, generation: self.namespaces.generation(index) as u16 }
    }

    fn by_cookie(&self, cookie: NetnsCookie) -> Option<NsId> {
        self.by_cookie.get(&cookie).copied()
    }

    fn namespace(&self, ns: NsId) -> Option<&NamespaceState> {
        let current = self.ns_id(usize::from(ns.index)) == ns;
        self.namespaces.get(usize::from(ns.index)).filter(|_| current)
    }

    fn namespace_mut(&mut self, ns: NsId) -> Option<&mut NamespaceState> {
        let current = self.ns_id(usize::from(ns.index)) == ns;
        self.namespaces.get_mut(usize::from(ns.index)).filter(|_| current)
    }
}
