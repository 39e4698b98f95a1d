//! Ports: devices become them and stop being them.
//!
//! Becoming a port, in this order, each step undone if a later one fails:
//! sockets on all queues, frames to receive into, a program instance attached (it
//! passes everything, for the port's entry in the map is still empty), sockets into
//! the XSKMAP, queues to the workers. Only then `refresh` publishes the port and
//! switches its entry on.
//!
//! The frames come before the program, since attaching makes a zero-copy driver take
//! what it finds, and one that finds none need not look again: igb with vectors of
//! their own for RX and TX (seen on Linux 6.18.15) wakes only the latter.
//!
//! Ceasing is the reverse: entry off and sockets out of the XSKMAP first, so that
//! packets go to the kernel from there on; then the workers give the queues back; and
//! only then sockets and link are closed, by the closer's threads.

use std::os::fd::RawFd;
use std::time::Duration;

use tracing::{info, warn};

use super::Control;
use super::allot::{floor, shares};
use super::closer::{Closed, Job};
use super::compile::Which;
use super::devices::check_device;
use super::error::{Error, told};
use super::links::Returned;
use super::members::MemberState;
use super::targets::Target;
use super::totals::Totals;
use crate::bpf;
use crate::id::{Generation, IfIndex, NsId, PortId, QueueId};
use crate::netlink::{Link, LinkKind};
use crate::netns::Netns;
use crate::port::owner;
use crate::xsk;

/// How long a busy queue is waited for: one that was just given up may be busy for
/// up to 24 ms.
pub(super) const REBIND: Duration = Duration::from_millis(50);
/// The same where there is no later try; a killed nsplane may yet have to die.
const REBIND_STRICT: Duration = Duration::from_millis(300);

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
    /// The attached program; detaches when dropped. None: a member, which has its
    /// port's.
    pub attached: Option<bpf::Attached>,
    /// Counters of the slot when the device became a port.
    pub base: Totals,
    /// What the device is used as.
    pub part: Use,
}

/// What a device is used as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    /// A port, whole.
    Whole,
    /// A part of another port.
    Member(MemberState),
    /// The far end of the stand-in of a member, which is named: a link of a namespace.
    FarEnd((NsId, IfIndex)),
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
    /// Frames that it may hold to receive into.
    pub frames: u32,
}

/// A port whose sockets and link are being closed. Its slot and its frames are not
/// free until they are.
pub struct ClosingPort {
    id: PortId,
    ns: NsId,
    frames: u32,
    /// Its slot's counters when the workers had given it up.
    counted: Totals,
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
    pub(super) fn add_port(
        &mut self,
        ns: NsId,
        link: &Link,
        strict: bool,
    ) -> Result<PortId, Error> {
        let state = self.namespace(ns).expect("the caller has the namespace");
        let netns = state.netns.clone();
        let queues = check_device(&netns, link, &self.settings.memory)?;
        let full = Error::PortsFull(usize::from(self.settings.max_ports));
        let (index, generation) = self.ports.next().ok_or(full)?;
        let (id, generation) = (PortId(index as u16), Generation(generation));
        let frames = self.allot(queues)?;
        self.bpf.clear_counters(id).map_err(Error::Map)?;
        let base = self.totals_of(id)?;
        let part = self.use_of((ns, link.ifindex));
        let cross = part != Use::Whole;
        let made = self.make(&netns, link, (&frames, strict), (id, generation, ns), cross)?;

        let states = made.bound.iter().enumerate();
        let states: Vec<QueueState> = states
            .zip(frames)
            .map(|((q, b), frames)| QueueState {
                queue: QueueId(q as u16),
                fd: b.fd,
                mode: b.mode,
                frames,
            })
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
        let (ifindex, mode) = (link.ifindex, made.attached.mode());
        let target = Target { generation, netns: netns.clone(), ifindex, mode };
        self.targets.set(id, target);
        for (q, bound) in states.iter().zip(made.bound) {
            let worker = owner(id, q.queue, self.workers.count());
            let (io, posted) = (bound.queue, bound.posted);
            self.workers.add_queue(worker, id, generation, q.queue, io, posted);
        }
        self.ports.put(PortState {
            generation,
            ns,
            ifindex: link.ifindex,
            name: link.name.clone(),
            queues: states,
            attached: Some(made.attached),
            base,
            part,
        });
        self.members_stale = true;
        Ok(id)
    }

    /// How many frames each of a new port's queues may hold. The kernel gives back
    /// none that it has no packet for; so they are shared out once and for all.
    fn allot(&self, queues: u16) -> Result<Vec<u32>, Error> {
        let memory = self.settings.memory;
        let held: u32 = self.ports.iter().flat_map(|(_, p)| &p.queues).map(|q| q.frames).sum();
        let closing: u32 = self.closing.values().map(|c| c.frames).sum();
        // Each of those that may yet come is to find its floor.
        let later =
            u32::from(self.settings.max_ports).saturating_sub(self.ports.count() as u32 + 1);
        let floor = floor(&memory, self.settings.max_ports);
        let shares = shares(&memory, held + closing, queues, (later, floor));
        shares.ok_or(Error::MemoryFull { frames: memory.frames })
    }

    fn make(
        &mut self,
        netns: &Netns,
        link: &Link,
        (frames, strict): (&[u32], bool),
        (port, generation, ns): (PortId, Generation, NsId),
        cross: bool,
    ) -> Result<Made, Error> {
        let at = |source| Error::Xsk { netns: netns.name().to_owned(), source };
        let memory = self.region.memory().clone();
        let (device, ifindex) = (link.name.as_str(), link.ifindex);
        let patience = if strict { REBIND_STRICT } else { REBIND };
        let mut bound = Vec::new();
        let opened = netns.run(|| {
            for queue in 0..frames.len() as u16 {
                bound.push(xsk::open(&memory, xsk::At { device, ifindex, queue }, patience)?);
            }
            Ok(())
        })?;
        if let Err(e) = opened {
            self.close(bound, None);
            return Err(at(e));
        }
        for (bound, frames) in bound.iter_mut().zip(frames) {
            self.workers.fill(bound, *frames);
        }
        let kind = match link.kind {
            LinkKind::Veth => bpf::DeviceKind::Veth,
            _ => bpf::DeviceKind::Other,
        };
        let name = link.name.clone();
        let spec = bpf::AttachSpec { ifindex, name, kind, port, ns, generation, cross };
        // Only a driver's own packets show what is unfinished; here no stack could finish it.
        let mode = if cross { bpf::AttachMode::Native } else { self.settings.xdp };
        let loader = self.bpf.loader();
        let attached = netns.run(|| loader.attach(&spec, mode));
        match attached
            .map_err(Error::from)
            .and_then(|a| a.map_err(|source| Error::Bpf { netns: netns.name().to_owned(), source }))
        {
            Ok(attached) => Ok(Made { bound, attached }),
            Err(e) => {
                self.close(bound, None);
                Err(e)
            }
        }
    }

    fn unmake(&mut self, port: PortId, queues: &[QueueState], made: Made) {
        for q in queues {
            // What was not put in is not there to take out.
            let _ = self.bpf.clear_socket(port, q.queue);
        }
        self.close(made.bound, Some(made.attached));
    }

    /// Closes what did not become a port.
    pub(super) fn close(&mut self, bound: Vec<xsk::Bound>, attached: Option<bpf::Attached>) {
        let queues = bound.into_iter().map(|b| b.queue).collect();
        self.closer.close(Job { queues, attached });
    }

    /// From here on the port's program passes everything to the kernel.
    pub(super) fn switch_off(&mut self, id: PortId) {
        let Some(state) = self.ports.get(id.index()) else { return };
        let (ns, queues) = (state.ns, state.queues.clone());
        if let Err(e) = self.bpf.clear_port(id) {
            warn!(port = id.0, error = told(&e), "switching the program off");
        }
        if let Some(n) = self.namespace_mut(ns) {
            n.maps.ports.remove(&id);
        }
        for q in &queues {
            if let Err(e) = self.bpf.clear_socket(id, q.queue) {
                warn!(port = id.0, error = told(&e), "taking the socket out of the map");
            }
        }
    }

    /// Stops driving ports. From the first step on their packets go to the kernel.
    ///
    /// All at each step before the next: a port whose neighbour is gone would take
    /// packets in and have nowhere to send them. When this returns no worker has a frame
    /// of the ports' rings; sockets and links are closed elsewhere ([`super::closer`]),
    /// and the ports' slots are free after that ([`Control::closed`]).
    pub(super) fn remove_ports(&mut self, ports: &[PortId]) {
        let ports = &self.detach_members(ports);
        self.members_stale |= !ports.is_empty();
        for id in ports {
            self.switch_off(*id);
        }
        let taken = ports.iter().filter_map(|id| Some((*id, self.ports.hold(id.index())?)));
        let taken: Vec<(PortId, PortState)> = taken.collect();
        if taken.is_empty() {
            return;
        }
        for (id, _) in &taken {
            self.targets.remove(*id);
        }
        self.withdraw(taken.iter().map(|(id, _)| *id));
        let uses: Vec<(PortId, Generation)> =
            taken.iter().map(|(id, state)| (*id, state.generation)).collect();
        if let Err(e) = self.workers.remove_ports(&uses) {
            warn!(error = told(&e), "taking ports from the workers");
        }
        let mut returned = self.workers.returned();
        for (id, state) in taken {
            let is_its = |r: &mut Returned| (r.port, r.generation) == (id, state.generation);
            let queues = returned.extract_if(.., is_its).map(|r| r.io).collect();
            self.retire(id, state, queues);
        }
        self.close_late(returned);
    }

    /// Closes sockets of ports that were given up on when a worker did not answer in time.
    pub(super) fn close_late(&mut self, returned: Vec<Returned>) {
        for late in returned {
            self.closer.close(Job { queues: vec![late.io], attached: None });
        }
    }

    fn retire(&mut self, id: PortId, state: PortState, queues: Vec<xsk::Queue>) {
        info!(port = id.0, device = state.name, "no longer a port");
        let frames = state.queues.iter().map(|q| q.frames).sum();
        let counted = self.totals_of(id).unwrap_or_else(|_| state.base.clone());
        if let Some(n) = self.namespace_mut(state.ns) {
            n.ports.remove(&state.ifindex);
            n.stale = Which::ALL;
            let retired = std::mem::take(&mut n.retired);
            n.retired = retired.plus(&counted.clone().since(&state.base));
        }
        let ticket = self.closer.close(Job { queues, attached: state.attached });
        let ns = state.ns;
        self.closing.insert(ticket, ClosingPort { id, ns, frames, counted });
    }

    /// Removes the ports whose sockets lost their device. True: there were some.
    pub(super) fn remove_lost_ports(&mut self) -> bool {
        let all = self.ports.iter().map(|(i, _)| PortId(i as u16));
        let lost: Vec<PortId> = all.filter(|p| self.is_lost(*p)).collect();
        self.remove_ports(&lost);
        !lost.is_empty()
    }

    /// Waits until something is closed that was in the way of others, and returns the
    /// namespaces that may now [`Self::grow`]. Safe to cancel.
    pub async fn closed(&mut self) -> Vec<NsId> {
        let closed = self.closer.next().await;
        self.reclaim(closed);
        let waiting = std::mem::take(&mut self.waiting);
        let (still, free) = waiting.into_iter().partition(|ns| self.waits(*ns));
        self.waiting = still;
        free
    }

    /// Takes back what a closed port had.
    pub(super) fn reclaim(&mut self, closed: Closed) {
        self.workers.free(closed.frames);
        let Some(port) = self.closing.remove(&closed.ticket) else { return };
        // Its program counted until just now.
        if let Ok(now) = self.totals_of(port.id)
            && let Some(n) = self.namespace_mut(port.ns)
        {
            n.retired = std::mem::take(&mut n.retired).plus(&now.since(&port.counted));
        }
        self.ports.release(port.id.index());
        // A member may have waited for the number.
        self.members_stale = true;
    }

    pub(super) fn wait_for_closing(&mut self, ns: NsId) {
        if !self.waiting.contains(&ns) {
            self.waiting.push(ns);
        }
    }

    /// The counters of a port's slot as they stand.
    pub(super) fn totals_of(&self, port: PortId) -> Result<Totals, Error> {
        let program = self.bpf.counters(port).map_err(Error::Map)?;
        let workers = self.workers.all().iter().map(|w| &*w.stats);
        Ok(Totals::read(port, workers, &program, self.targets.failed(port).get()))
    }
}
