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
use super::closer::{Closed, Job};
use super::compile::Which;
use super::devices::check_device;
use super::error::{Error, told};
use super::links::Returned;
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
const REBIND: Duration = Duration::from_millis(50);
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
        let made = self.make(&netns, link, (&frames, strict), (id, generation, ns))?;

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
        let target = Target { generation, netns: netns.clone(), ifindex: link.ifindex };
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
            attached: made.attached,
            base,
        });
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
        let spec = bpf::AttachSpec { ifindex, name, kind, port, ns, generation };
        let (loader, mode) = (self.bpf.loader(), self.settings.xdp);
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
    fn close(&mut self, bound: Vec<xsk::Bound>, attached: Option<bpf::Attached>) {
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
        // Of a port that was given up on when a worker did not answer in time.
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
        let ticket = self.closer.close(Job { queues, attached: Some(state.attached) });
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

/// Fewest frames with which a queue is of use.
const FEWEST: u32 = 8;
/// The most that every port is sure of: enough for two turns of a worker.
const PLENTY: u32 = 64;

/// Frames to receive into: a quarter of all stays for packets on their way.
fn to_receive(memory: &xsk::Options) -> u32 {
    memory.frames - memory.frames / 4
}

/// What every port is sure of, however many there are: as many ports as may be share one
/// half of the frames, and the other half is for those that are there.
fn floor(memory: &xsk::Options, max_ports: u16) -> u32 {
    (to_receive(memory) / 2 / u32::from(max_ports.max(1))).clamp(FEWEST, PLENTY)
}

/// The shares of new queues, where others may hold `held` frames: each a part of what
/// is left over, so that the first have plenty and later ones some. The `floor` stays for
/// each of `later` queues, while that can be. None where too little is left.
fn shares(
    memory: &xsk::Options,
    held: u32,
    queues: u16,
    (later, floor): (u32, u32),
) -> Option<Vec<u32>> {
    let mut left = to_receive(memory).checked_sub(held)?;
    (0..queues)
        .map(|_| {
            let over = left.saturating_sub(later.saturating_mul(floor));
            let share = (over / 32).max(floor).min(memory.ring_size);
            left = left.checked_sub(share)?;
            Some(share)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: xsk::Options =
        xsk::Options { frames: 4096, frame_size: 2048, ring_size: 1024, mode: xsk::Mode::Copy };

    #[test]
    fn shares_never_add_up_to_more_than_there_is() {
        let (mut held, mut queues) = (0, 0);
        while let Some(new) = shares(&MEMORY, held, 2, (0, FEWEST)) {
            assert!(new.iter().all(|&n| (FEWEST..=1024).contains(&n)), "{new:?}");
            held += new.iter().sum::<u32>();
            queues += new.len();
        }
        assert!(held <= 4096 - 1024 && held > 4096 - 1024 - 2 * FEWEST, "{held}");
        assert!(queues > 80, "{queues}");
        assert_eq!(shares(&MEMORY, 0, 0, (0, FEWEST)), Some(Vec::new()));
    }

    #[test]
    fn as_many_ports_as_may_be_find_their_share() {
        let ports = (4096 - 1024) / FEWEST;
        let mut held = 0;
        for port in 0..ports {
            let share = shares(&MEMORY, held, 1, (ports - port - 1, FEWEST)).expect("a share")[0];
            assert!(share >= FEWEST);
            held += share;
        }
        assert!(shares(&MEMORY, held, 1, (0, FEWEST)).is_none());
        assert!(
            shares(&MEMORY, 0, 1, (255, FEWEST)).unwrap()[0] > 3 * FEWEST,
            "the first have more"
        );
    }

    #[test]
    fn every_port_is_sure_of_its_floor() {
        for (frames, max_ports) in [(32_768, 1024), (32_768, 64), (4096, 100)] {
            let memory = xsk::Options { frames, ..MEMORY };
            let floor = floor(&memory, max_ports);
            let mut held = 0;
            for port in 0..u32::from(max_ports) {
                let later = u32::from(max_ports) - port - 1;
                let share = shares(&memory, held, 1, (later, floor)).expect("a share")[0];
                assert!(share >= floor, "{share} for port {port} of {max_ports}");
                held += share;
            }
        }
        assert_eq!(floor(&xsk::Options { frames: 32_768, ..MEMORY }, 1024), 12);
    }
}
