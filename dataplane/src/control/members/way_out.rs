//! How a member's packets leave where the kernel has a device for it: by sockets on that
//! device, which only send.
//!
//! The kernel sends only for a socket whose device is where it was when the socket was
//! bound: what is written into the ring of a macvlan that has left its namespace goes
//! nowhere, whenever control and workers hear of that. It also brings a packet to another
//! macvlan of the same device without the wire, and puts a VLAN's tags on. Sent by the
//! port below instead, a packet would leave from a device that is no longer there.
//!
//! A stated member has no device to send by; nothing of the kernel's moves there.

use std::time::Duration;

use tracing::warn;

use super::wanted::Device;
use crate::control::Control;
use crate::control::error::{Error, told};
use crate::control::ports::{QueueState, REBIND};
use crate::id::{Generation, PortId, QueueId};
use crate::netlink::{self, Link};
use crate::netns::Netns;
use crate::port::owner;
use crate::xsk;

impl Control {
    /// Sockets on all queues of a member's device. None: it cannot be a member; why is
    /// said once.
    pub(super) fn open_way_out(
        &mut self,
        device: Device,
        netns: &Netns,
        link: &Link,
    ) -> Option<Vec<xsk::Bound>> {
        match self.try_way_out(device, netns, link) {
            Ok(bound) => {
                self.book.no_way_out.remove(&device);
                Some(bound)
            }
            Err(e) => {
                // The kernel may yet have to let go of a socket that was closed.
                self.members_stale = true;
                if self.book.no_way_out.insert(device) {
                    let (netns, link) = (netns.name(), &link.name);
                    warn!(netns, link, error = told(&e), "not a member");
                }
                None
            }
        }
    }

    fn try_way_out(
        &mut self,
        device: Device,
        netns: &Netns,
        link: &Link,
    ) -> Result<Vec<xsk::Bound>, Error> {
        let queues = netlink::channels(netns, &link.name)?.tx;
        let queues = queues.clamp(1, nsplane_abi::QUEUES_PER_PORT) as u16;
        let again = self.book.no_way_out.contains(&device);
        let patience = if again { Duration::ZERO } else { REBIND };
        let memory = self.region.memory().clone();
        let (name, ifindex) = (link.name.as_str(), link.ifindex);
        let mut bound = Vec::new();
        let opened = netns.run(|| {
            for queue in 0..queues {
                bound.push(xsk::open(&memory, xsk::At { device: name, ifindex, queue }, patience)?);
            }
            Ok(())
        })?;
        if let Err(source) = opened {
            self.close(bound, None);
            return Err(Error::Xsk { netns: netns.name().to_owned(), source });
        }
        for bound in &mut bound {
            // It receives nothing.
            self.workers.fill(bound, 0);
        }
        Ok(bound)
    }

    /// Gives the sockets of a new member to the workers.
    pub(super) fn hand_out(
        &mut self,
        (id, generation): (PortId, Generation),
        bound: Vec<xsk::Bound>,
    ) -> Vec<QueueState> {
        let mut states = Vec::new();
        for (queue, bound) in (0..).map(QueueId).zip(bound) {
            states.push(QueueState { queue, fd: bound.fd, mode: bound.mode, frames: 0 });
            let worker = owner(id, queue, self.workers.count());
            self.workers.add_queue(worker, id, generation, queue, bound.queue, bound.posted);
        }
        states
    }
}
