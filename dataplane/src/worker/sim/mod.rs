//! Ports in memory: a whole worker without a kernel, for tests and benches.
//!
//! ```text
//!  SimWire::deliver ─► fill ─► rx ─► worker ─► tx ─► kick ─► completion ─► worker
//!                                                     └─► SimWire::sent
//! ```
//! A [`SimQueue`] is what the worker gets, its [`SimWire`] is the device's other
//! side. Deterministic: nothing moves but by a call. [`scene`] has tenants,
//! packets and tables to go with it.
//!
//! Not here: timing, and what a kernel does to packets.

pub mod scene;

mod fifo;
mod frame;

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nsplane_abi::{MemberTag, Tag};

use super::io::{BATCH, Frames, Kick, Memory, Queue};
use super::long;
use fifo::Fifo;
pub use frame::{FRAME_LEN, SimFrame, SimMemory};

/// How large a queue's rings are, in frames.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Fill ring, and frames given to receive into at one time.
    pub fill: usize,
    /// Receive ring.
    pub rx: usize,
    /// Transmit ring.
    pub tx: usize,
    /// Completion ring.
    pub completion: usize,
}

impl Sizes {
    /// All rings of one size.
    #[must_use]
    pub fn all(size: usize) -> Self {
        Self { fill: size, rx: size, tx: size, completion: size }
    }
}

struct Rings {
    sizes: Sizes,
    fill: Vec<SimFrame>,
    rx: Fifo,
    tx: Vec<SimFrame>,
    completion: Vec<SimFrame>,
    /// Most frames that a kick sends.
    budget: usize,
    /// Frames that are completed without being sent, from now on.
    refuse: u32,
    dead: bool,
    sent: u64,
    /// Frames in the transmit ring whose packet goes on in the next.
    sending_on: usize,
    record: Option<Vec<Vec<u8>>>,
    /// What was sent of a packet that is not all sent yet.
    sending: Vec<u8>,
    /// Frames of a packet that has not all arrived.
    partial: Vec<SimFrame>,
    fd: Option<RawFd>,
}

impl Rings {
    fn new(sizes: Sizes) -> Self {
        let ring = Vec::with_capacity;
        Self {
            fill: ring(sizes.fill),
            rx: Fifo::with_capacity(sizes.rx),
            tx: ring(sizes.tx),
            completion: ring(sizes.completion),
            sizes,
            budget: usize::MAX,
            refuse: 0,
            dead: false,
            sent: 0,
            sending_on: 0,
            record: None,
            sending: Vec::new(),
            partial: Vec::with_capacity(64),
            fd: None,
        }
    }

    fn send_one(&mut self, mut frame: SimFrame) -> bool {
        let last = std::mem::take(&mut frame.more) == 0;
        self.sending_on -= usize::from(!last);
        if self.record.is_some() {
            self.sending.extend(&frame.chunk.bytes[..frame.len as usize]);
        }
        self.completion.push(frame);
        if !last {
            return true;
        }
        let sent = self.refuse == 0;
        let packet = std::mem::take(&mut self.sending);
        if sent {
            self.sent += 1;
            self.record.iter_mut().for_each(|record| record.push(packet.clone()));
        } else {
            self.refuse -= 1;
        }
        sent
    }

    /// Sends as many frames as a kick may, where that is all that there is to it: packets
    /// in one frame, which nobody wants to see.
    fn send_plain(&mut self, most: usize) -> bool {
        let plain = self.sending_on == 0 && self.sending.is_empty();
        if !plain || self.refuse > 0 || self.record.is_some() {
            return false;
        }
        let count = most.min(self.tx.len());
        self.sent += count as u64;
        if count == self.tx.len() && self.completion.is_empty() {
            std::mem::swap(&mut self.tx, &mut self.completion);
        } else {
            move_all(&mut self.tx, count, &mut self.completion);
        }
        true
    }

    /// A frame out of the RX ring; the packet, if it was the last of one.
    fn join(&mut self, frame: SimFrame) -> Option<SimFrame> {
        let more = frame.has_more();
        if self.partial.is_empty() && !more {
            return Some(frame);
        }
        self.partial.push(frame);
        if more {
            return None;
        }
        let mut packet = self.partial.pop()?;
        while let Some(mut before) = self.partial.pop() {
            SimMemory.link(&mut before, packet);
            packet = before;
        }
        Some(packet)
    }
}

/// Moves the first `count` frames of a list to another's end.
fn move_all(from: &mut Vec<SimFrame>, count: usize, to: &mut Vec<SimFrame>) {
    let (rest, end) = (from.len() - count, to.len() + count);
    if rest < count {
        // As one block, and what is too much back.
        to.append(from);
        from.extend(to.drain(end..));
    } else {
        to.extend(from.drain(..count));
    }
}

/// What a queue and its other side share.
struct Shared {
    rings: Mutex<Rings>,
    /// Frames in the receive ring, to be read without the lock.
    received: AtomicUsize,
}

fn lock(shared: &Shared) -> MutexGuard<'_, Rings> {
    shared.rings.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A queue and its other side.
#[must_use]
pub fn queue(sizes: Sizes) -> (SimQueue, SimWire) {
    let rings = Mutex::new(Rings::new(sizes));
    let rings = Arc::new(Shared { rings, received: AtomicUsize::new(0) });
    (SimQueue { rings: Arc::clone(&rings), receives: sizes.fill > 0 }, SimWire { rings })
}

/// A queue as the worker has it.
pub struct SimQueue {
    rings: Arc<Shared>,
    receives: bool,
}

impl Queue for SimQueue {
    type Memory = SimMemory;

    fn receive(&mut self, out: &mut Frames<SimFrame>, most: usize) -> usize {
        let mut rings = lock(&self.rings);
        let room = most.min(BATCH);
        if rings.partial.is_empty() && !rings.rx.has_more() {
            let count = rings.rx.take(room, out);
            self.rings.received.store(rings.rx.len(), Ordering::Release);
            return count;
        }
        let mut count = 0;
        // The rest of the last one comes too.
        while (count < room || !rings.partial.is_empty())
            && let Some(frame) = rings.rx.pop()
        {
            count += 1;
            out.extend(rings.join(frame));
        }
        self.rings.received.store(rings.rx.len(), Ordering::Release);
        count
    }

    fn transmit(&mut self, frames: &mut Frames<SimFrame>) -> usize {
        let mut rings = lock(&self.rings);
        if frames.iter().all(|frame| !frame.has_more()) {
            let room = rings.sizes.tx.saturating_sub(rings.tx.len());
            let count = frames.len().min(room);
            move_all(frames, count, &mut rings.tx);
            return count;
        }
        let (mut packets, mut sent) = (0, 0);
        for packet in frames.iter_mut() {
            let count = long::frames(&SimMemory, packet);
            if rings.tx.len() + sent + count > rings.sizes.tx {
                break;
            }
            packets += 1;
            sent += count;
        }
        for packet in frames.drain(..packets) {
            let mut at = packet;
            while let Some(next) = SimMemory.take_next(&mut at) {
                at.more = 1;
                rings.sending_on += 1;
                rings.tx.push(std::mem::replace(&mut at, next));
            }
            rings.tx.push(at);
        }
        sent
    }

    fn kick(&mut self) -> Kick {
        let mut rings = lock(&self.rings);
        let mut kick = Kick { calls: 1, dead: rings.dead, ..Kick::default() };
        if rings.dead {
            return kick;
        }
        let room = rings.sizes.completion.saturating_sub(rings.completion.len());
        let most = rings.budget.min(room);
        if rings.send_plain(most) {
            kick.pending = !rings.tx.is_empty();
            return kick;
        }
        for _ in 0..most {
            if rings.tx.is_empty() {
                break;
            }
            let frame = rings.tx.remove(0);
            kick.refused += u32::from(!rings.send_one(frame));
        }
        kick.pending = !rings.tx.is_empty();
        kick
    }

    fn reap(&mut self, pool: &mut Vec<SimFrame>) -> usize {
        let mut rings = lock(&self.rings);
        let count = rings.completion.len();
        pool.append(&mut rings.completion);
        count
    }

    fn refill(&mut self, pool: &mut Vec<SimFrame>) -> usize {
        let mut rings = lock(&self.rings);
        let posted = rings.fill.len() + rings.rx.len();
        debug_assert!(
            pool.iter().all(|f| !f.has_more() && f.chunk.next.is_none()),
            "free and linked"
        );
        let count = pool.len().min(rings.sizes.fill.saturating_sub(posted));
        let from = pool.len() - count;
        rings.fill.extend(pool.drain(from..));
        count
    }

    fn has_received(&mut self) -> bool {
        self.rings.received.load(Ordering::Acquire) > 0
    }

    fn receives(&self) -> bool {
        self.receives
    }

    fn fd(&self) -> Option<RawFd> {
        lock(&self.rings).fd
    }
}

/// The device's side of a queue.
#[derive(Clone)]
pub struct SimWire {
    rings: Arc<Shared>,
}

impl SimWire {
    /// A packet arrives. False where there is no free frame, no room in the ring, or
    /// the packet is longer than a frame: it is lost, as on a device.
    pub fn deliver(&self, tag: Tag, packet: &[u8]) -> bool {
        self.deliver_as((tag, MemberTag::default()), packet)
    }

    /// A packet of a member arrives; else as [`SimWire::deliver`].
    pub fn deliver_as(&self, (tag, below): (Tag, MemberTag), packet: &[u8]) -> bool {
        packet.len() <= FRAME_LEN && self.deliver_parts((tag, below), &[packet], true)
    }

    /// Parts of a packet arrive, each in a frame of its own; with `all` the packet ends
    /// there, else the next delivery goes on with it.
    pub fn deliver_in(&self, tag: Tag, parts: &[&[u8]], all: bool) -> bool {
        self.deliver_parts((tag, MemberTag::default()), parts, all)
    }

    /// The same of a member's packet.
    pub fn deliver_parts(
        &self,
        (tag, below): (Tag, MemberTag),
        parts: &[&[u8]],
        all: bool,
    ) -> bool {
        let mut rings = lock(&self.rings);
        let room = rings.sizes.rx.saturating_sub(rings.rx.len()).min(rings.fill.len());
        if rings.dead || room < parts.len() {
            return false;
        }
        for (n, part) in parts.iter().enumerate() {
            let Some(mut frame) = rings.fill.pop() else {
                return false;
            };
            frame.chunk.bytes[..part.len()].copy_from_slice(part);
            frame.len = part.len() as u32;
            frame.chunk.tag = tag;
            frame.chunk.below = below;
            frame.more = u32::from(!all || n + 1 < parts.len());
            rings.rx.push(frame);
        }
        self.rings.received.store(rings.rx.len(), Ordering::Release);
        true
    }

    /// Keeps copies of what is sent from now on, for [`SimWire::sent`].
    pub fn record(&self) {
        lock(&self.rings).record = Some(Vec::new());
    }

    /// The packets that were sent since the last call, if they are recorded.
    #[must_use]
    pub fn sent(&self) -> Vec<Vec<u8>> {
        lock(&self.rings).record.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// How many packets were sent.
    #[must_use]
    pub fn sent_packets(&self) -> u64 {
        lock(&self.rings).sent
    }

    /// A kick sends no more than this many packets.
    pub fn set_budget(&self, budget: usize) {
        lock(&self.rings).budget = budget;
    }

    /// The next `count` packets are completed without being sent.
    pub fn refuse(&self, count: u32) {
        lock(&self.rings).refuse = count;
    }

    /// The queue says that this is its descriptor.
    pub fn set_fd(&self, fd: RawFd) {
        lock(&self.rings).fd = Some(fd);
    }

    /// The device is gone.
    pub fn kill(&self) {
        lock(&self.rings).dead = true;
    }

    /// Takes all frames out of all rings, as closing the socket does.
    #[must_use]
    pub fn reclaim(&self) -> Vec<SimFrame> {
        let Rings { fill, rx, tx, completion, partial, sending_on, .. } = &mut *lock(&self.rings);
        *sending_on = 0;
        self.rings.received.store(0, Ordering::Release);
        let free = |frame| SimFrame { more: 0, ..frame };
        let lists = [fill, tx, completion, partial].into_iter().flat_map(|ring| ring.drain(..));
        lists.chain(rx.drain()).map(free).collect()
    }

    /// Frames in all rings.
    #[must_use]
    pub fn held(&self) -> usize {
        let rings = lock(&self.rings);
        let lists = [&rings.fill, &rings.tx, &rings.completion, &rings.partial];
        lists.into_iter().map(Vec::len).sum::<usize>() + rings.rx.len()
    }
}
