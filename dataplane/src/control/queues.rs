//! Queues that a device gets or loses while it is a port (`ethtool -L`).
//!
//! No message says how many a device has now. A driver that changes them takes its
//! carrier away for that or switches its queues off, though, and so a message of the
//! link comes, perhaps one that says nothing new; then the driver is asked.
//!
//! Until the port is made anew a new queue has no socket: what arrives there passes
//! to the kernel ("no_socket"). Of a port's queues none can be taken away: the kernel
//! refuses that while sockets are bound to them. The device is set down for it, or
//! nsplane is told to let it go.

use tracing::{info, warn};

use super::Control;
use super::error::told;
use super::ports::Use;
use crate::id::{IfIndex, NsId, PortId};
use crate::netlink::{self, Event};

impl Control {
    /// Notes which of the namespace's ports a message was about; true if any was.
    pub(super) fn note_relinked(&mut self, ns: NsId, events: &[Event]) -> bool {
        let Some(n) = self.namespace_mut(ns) else { return false };
        let links = events.iter().filter_map(|event| match event {
            Event::Link(link) => Some(link.ifindex),
            _ => None,
        });
        let ours: Vec<IfIndex> = links.filter(|i| n.ports.contains_key(i)).collect();
        n.relinked.extend(&ours);
        !ours.is_empty()
    }

    /// Ports of the devices noted that have another number of queues now.
    pub(super) fn requeued(&mut self, ns: NsId) -> Vec<PortId> {
        let Some(n) = self.namespace_mut(ns) else { return Vec::new() };
        let noted = std::mem::take(&mut n.relinked);
        let Some(n) = self.namespace(ns) else { return Vec::new() };
        let ports = noted.iter().filter_map(|i| Some((n.mirror.links.get(i)?, *n.ports.get(i)?)));
        let changed = ports.filter(|(link, port)| {
            let Some(state) = self.ports.get(port.index()) else { return false };
            // A member's queues are its port's.
            if matches!(state.part, Use::Member(_)) {
                return false;
            }
            let (netns, device, before) = (n.netns.name(), &link.name, state.queues.len());
            match netlink::channels(&n.netns, device) {
                Ok(now) if now.rx as usize == before => false,
                Ok(now) => {
                    info!(netns, device, before, now = now.rx, "other queues: made anew");
                    true
                }
                // Gone or renamed meanwhile: that is told of too.
                Err(e) => {
                    warn!(netns, device, error = told(&e), "asking for its queues");
                    false
                }
            }
        });
        changed.map(|(_, port)| port).collect()
    }
}
