//! Where the punt thread injects what came in on a port.
//!
//! Control writes, the punt thread reads a port's target for each packet. A
//! target holds its namespace open; removing the port drops it, so that no dead
//! namespace is kept alive.

use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;

use crate::bpf::XdpMode;
use crate::id::{Generation, IfIndex, PortId};
use crate::netns::Netns;
use crate::stats::Count;

/// A device to inject on.
#[derive(Clone, Debug)]
pub struct Target {
    /// The use of the port's slot.
    pub generation: Generation,
    /// The device's namespace.
    pub netns: Arc<Netns>,
    /// The device.
    pub ifindex: IfIndex,
    /// How its program is attached; native where it has none.
    pub mode: XdpMode,
}

/// Targets by port, and how many packets could not be injected on each.
#[derive(Debug)]
pub struct Targets {
    by_port: Mutex<HashMap<PortId, Target>>,
    failed: Box<[Count]>,
    /// Free frames that the punt thread holds; written by it only.
    pub free_frames: Count,
}

impl Targets {
    /// No target yet; room for `max_ports` counters.
    #[must_use]
    pub fn new(max_ports: usize) -> Self {
        Self {
            by_port: Mutex::new(HashMap::new()),
            failed: (0..max_ports).map(|_| Count::default()).collect(),
            free_frames: Count::default(),
        }
    }

    /// The port's target.
    #[must_use]
    pub fn get(&self, port: PortId) -> Option<Target> {
        self.lock().get(&port).cloned()
    }

    /// Sets the port's target.
    pub fn set(&self, port: PortId, target: Target) {
        self.lock().insert(port, target);
    }

    /// Forgets the port's target.
    pub fn remove(&self, port: PortId) {
        self.lock().remove(&port);
    }

    /// Packets of the port that could not be injected; written by the punt thread only.
    #[must_use]
    pub fn failed(&self, port: PortId) -> &Count {
        &self.failed[port.index()]
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PortId, Target>> {
        // Nothing that panics runs under the lock.
        self.by_port.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
