//! Ports: devices become them and stop being them.
//!
//! Becoming a port, in this order, each step undone if a later one fails:
//! sockets on all queues, a program instance attached (it passes everything, for
//! the port's entry in the map is still empty), sockets into the XSKMAP, queues to
//! the workers. Only then `refresh` publishes the port and switches its entry on.
//!
//! Ceasing is the reverse: entry off and sockets out of the XSKMAP first, so that
//! packets go to the kernel from there on; then the workers give the queues back.

use std::os::fd::RawFd;

use tracing::{info, warn};

use super::Control;
use super::devices::check_device;
use super::error::Error;
use super::targets::Target;
use super::totals::Totals;
use crate::bpf;
use crate::id::{Generation, IfIndex, NsId, PortId, QueueId};
use crate::netlink::{Link, LinkKind};
use crate::netns::Netns;
use crate::port::owner;
use crate::xsk;

/// A device that is a port.
pub struct PortState {
    /// The use of the port's slot.
    pub generation: Generation,
    /// Its namespace.
    pub ns: NsId,
    /// Its number there.
    pub ifindex: IfIndex,
    /// Its name when it became a port.
    pub name: String,
    /// Its queues.
    pub queues: Vec<QueueState>,
    /// The attached program; detaches when dropped.
    pub attached: bpf::Attached,
    /// Counters of the slot when the device became a port.
    pub base: Totals,
}

/// One queue of a port.
#[derive(Clone, Copy, Debug)]
pub struct QueueState {
    /// Which.
    pub queue: QueueId,
    /// Its socket; valid while the port lives.
    pub fd: RawFd,
    /// What the kernel gave.
    pub mode: xsk::Mode,
}

/// Sockets and program of a device, made but not yet used by anyone.
struct Made {
    bound: Vec<xsk::Bound>,
    attached: bpf::Attached,
}

impl Control {
    /// Makes a device a port.
    ///
    /// # Errors
    /// What kept it from becoming one; nothing is left behind.
    pub(super) fn add_port(&mut self, ns: NsId, link: &Link) -> Result<PortId, Error> {
        let state = self.namespace(ns).expect("the caller has the namespace");
        let netns = state.netns.clone();
        let queues = check_device(&netns, link, &self.settings.memory)?;
        let full = Error::PortsFull(usize::from(self.settings.max_ports));
        let (index, generation) = self.ports.next().ok_or(full)?;
        let (id, generation) = (PortId(index as u16), Generation(generation));
        self.bpf.clear_counters(id).map_err(Error::Map)?;
        let base = self.totals_of(id)?;
        let made = self.make(&netns, link, queues, (id, generation, ns))?;

        let states = made.bound.iter().enumerate();
        let states: Vec<QueueState> = states
            .map(|(q, b)| QueueState { queue: QueueId(q as u16), fd: b.fd, mode: b.mode })
            .collect();
        for q in &states {
            if let Err(e) = self.bpf.set_socket(id, q.queue, &q.fd) {
                self.unmake(id, &states, made);
                return Err(Error::Map(e));
            }
        }
        info!(
            netns = netns.name(),
            device = link.name,
            port = id.0,
            xdp = made.attached.mode().name(),
            bind = states.first().map_or("", |q| q.mode.name()),
            queues,
            "port"
        );
        let target = Target { generation, netns: netns.clone(), ifindex: link.ifindex };
        self.targets.set(id, target);
        // Each queue may hold a share of the memory, so that many ports fit into it.
        let in_use: usize = self.ports.iter().map(|(_, p)| p.queues.len()).sum();
        let share = self.settings.memory.frames / (2 * (in_use + states.len()) as u32);
        for (q, mut bound) in states.iter().zip(made.bound) {
            bound.queue.set_fill_target(share.max(64));
            let worker = owner(id, q.queue, self.workers.count());
            self.workers.add_queue(worker, id, generation, q.queue, bound.queue);
        }
        self.ports.put(PortState {
            generation,
            ns,
            ifindex: link.ifindex,
            name: link.name.clone(),
            queues: states,
            attached: made.attached,
            base,
        });
        Ok(id)
    }

    fn make(
        &mut self,
        netns: &Netns,
        link: &Link,
        queues: u16,
        (port, generation, ns): (PortId, Generation, NsId),
    ) -> Result<Made, Error> {
        let at = |source| Error::Xsk { netns: netns.name().to_owned(), source };
        let memory = self.region.memory().clone();
        let name = link.name.as_str();
        let mut bound = Vec::new();
        let opened = netns.run(|| {
            for q in 0..queues {
                bound.push(xsk::open(&memory, name, q)?);
            }
            Ok(())
        })?;
        if let Err(e) = opened {
            self.close(bound);
            return Err(at(e));
        }
        let kind = match link.kind {
            LinkKind::Veth => bpf::DeviceKind::Veth,
            _ => bpf::DeviceKind::Other,
        };
        let (ifindex, name) = (link.ifindex, link.name.clone());
        let spec = bpf::AttachSpec { ifindex, name, kind, port, ns, generation };
        let (loader, mode) = (self.bpf.loader(), self.settings.xdp);
        let attached = netns.run(|| loader.attach(&spec, mode));
        match attached
            .map_err(Error::from)
            .and_then(|a| a.map_err(|source| Error::Bpf { netns: netns.name().to_owned(), source }))
        {
            Ok(attached) => Ok(Made { bound, attached }),
            Err(e) => {
                self.close(bound);
                Err(e)
            }
        }
    }

    fn unmake(&mut self, port: PortId, queues: &[QueueState], made: Made) {
        for q in queues {
            // What was not put in is not there to take out.
            let _ = self.bpf.clear_socket(port, q.queue);
        }
        drop(made.attached);
        self.close(made.bound);
    }

    fn close(&mut self, bound: Vec<xsk::Bound>) {
        for b in bound {
            let frames = b.queue.close();
            self.workers.free(frames);
        }
    }

    /// Stops driving a port. From the first step on its packets go to the kernel.
    ///
    /// # Errors
    /// A worker does not answer; then its queues stay with it until it ends.
    pub(super) fn remove_port(&mut self, id: PortId) -> Result<(), Error> {
        let Some(state) = self.ports.get(id.index()) else { return Ok(()) };
        let (ns, generation, ifindex) = (state.ns, state.generation, state.ifindex);
        let queues = state.queues.clone();
        if let Err(e) = self.bpf.clear_port(id) {
            warn!(port = id.0, error = %e, "switching the program off");
        }
        if let Some(n) = self.namespace_mut(ns) {
            n.maps.ports.remove(&id);
        }
        for q in &queues {
            if let Err(e) = self.bpf.clear_socket(id, q.queue) {
                warn!(port = id.0, error = %e, "taking the socket out of the map");
            }
        }
        self.targets.remove(id);
        self.withdraw(id);
        let state = self.ports.take(id.index()).expect("looked up above");
        info!(port = id.0, device = state.name, "no longer a port");
        let counted = self.totals_of(id)?.since(&state.base);
        // The link goes first: without a program nothing new comes in.
        drop(state.attached);
        if let Some(n) = self.namespace_mut(ns) {
            n.retired = std::mem::take(&mut n.retired).plus(&counted);
            n.ports.remove(&ifindex);
        }
        self.workers.remove_port(id, generation)
    }

    /// The counters of a port's slot as they stand.
    pub(super) fn totals_of(&self, port: PortId) -> Result<Totals, Error> {
        let program = self.bpf.counters(port).map_err(Error::Map)?;
        let workers = self.workers.all().iter().map(|w| &*w.stats);
        Ok(Totals::read(port, workers, &program, self.targets.failed(port).get()))
    }
}
