//! Four rings of one queue of one device, and the frames that pass through them.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, TxQueue};

use super::kick::{self, Kick};
use super::region::{NOT_LENT, Rings};
use super::{Frame, Memory};

/// Most frames that one call moves.
pub const BATCH: usize = 64;

/// Frames in hand, at most one batch.
pub type Frames = Vec<Frame>;

/// One queue. Dropping it closes the socket, which blocks for about 10 ms; use
/// [`Queue::close`] to get the frames back that the kernel still had.
pub struct Queue {
    memory: Memory,
    holder: u32,
    fd: RawFd,
    tx: TxQueue,
    rx: RxQueue,
    fill: FillQueue,
    comp: CompQueue,
    scratch: [FrameDesc; BATCH],
    fill_target: u32,
    /// Frames given to the kernel to receive into and not yet taken back.
    posted: u32,
    tx_size: u32,
    /// A packet that is not all here yet: its first frame, and the last descriptor so far.
    partial: Option<(Frame, FrameDesc)>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("fd", &self.fd).field("holder", &self.holder).finish()
    }
}

impl Queue {
    pub(super) fn new(memory: Memory, (tx, rx, fill, comp): Rings) -> Self {
        let size = memory.options().ring_size;
        Self {
            holder: memory.new_holder(),
            fd: rx.fd().as_raw_fd(),
            tx,
            rx,
            fill,
            comp,
            scratch: [FrameDesc::default(); BATCH],
            fill_target: size,
            posted: 0,
            tx_size: size,
            partial: None,
            memory,
        }
    }

    /// The memory that the frames live in.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The socket; readable when frames have arrived.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.fd
    }

    /// Gives the kernel at most `frames` to receive into, so that many ports can share the
    /// memory: what waits in the RX ring or in the driver counts too. At most the ring's
    /// size; takes effect as frames are used up.
    pub fn set_fill_target(&mut self, frames: u32) {
        self.fill_target = frames.min(self.memory.options().ring_size);
    }

    /// The kernel is given frames to receive into.
    #[must_use]
    pub fn receives(&self) -> bool {
        self.fill_target > 0
    }

    /// Takes at most `most` received packets into `out`, as many as are there and it has
    /// room for, each as its first frame with the others linked behind it. Returns how many
    /// frames it took.
    ///
    /// A packet of which the ring does not have all frames yet is kept until it does.
    #[inline]
    pub fn receive(&mut self, out: &mut Frames, most: usize) -> usize {
        let room = most.min(BATCH);
        // SAFETY: the ring fills in descriptors of the memory that it is bound to.
        let mut n = unsafe { self.rx.consume(&mut self.scratch[..room]) };
        for at in 0..n {
            let desc = self.scratch[at];
            self.memory.lend(&desc, NOT_LENT);
            if self.partial.is_none() && !desc.has_more_frames() {
                out.push(Frame(desc));
            } else {
                out.extend(self.join(desc));
            }
        }
        // The rest of the last one has room: its first frame was one of those.
        while self.partial.is_some() {
            let mut desc = FrameDesc::default();
            // SAFETY: as above.
            if unsafe { self.rx.consume_one(&mut desc) } == 0 {
                break;
            }
            n += 1;
            self.memory.lend(&desc, NOT_LENT);
            out.extend(self.join(desc));
        }
        self.posted = self.posted.saturating_sub(n as u32);
        n
    }

    /// Puts a frame behind those of its packet; the packet, if it was the last.
    fn join(&mut self, desc: FrameDesc) -> Option<Frame> {
        let first = match self.partial.take() {
            None => Frame(desc),
            Some((first, last)) => {
                self.memory.put_behind(&last, Frame(desc));
                first
            }
        };
        if desc.has_more_frames() {
            self.partial = Some((first, desc));
            return None;
        }
        Some(first)
    }

    /// Moves packets from the front of `frames` into the TX ring, each with all of its
    /// frames; what does not fit stays. Returns how many frames went.
    #[inline]
    pub fn transmit(&mut self, frames: &mut Frames) -> usize {
        if frames.iter().any(|frame| self.memory.is_long(frame)) {
            return self.transmit_long(frames);
        }
        let want = frames.len();
        let n = want.min(self.tx.nb_free(want as u32) as usize);
        for (slot, frame) in self.scratch.iter_mut().zip(frames.drain(..n)) {
            *slot = frame.0;
            slot.set_options(0);
            self.memory.lend(slot, self.holder);
        }
        // SAFETY: the tokens of these frames were consumed above, so nobody but the
        // kernel has them from here on; they are of this ring's memory.
        let sent = unsafe { self.tx.produce(&self.scratch[..n]) };
        debug_assert_eq!(sent, n, "free slots were counted before");
        n
    }

    /// Packets among which there are long ones.
    fn transmit_long(&mut self, frames: &mut Frames) -> usize {
        let (mut sent, mut packets) = (0, 0);
        for frame in frames.iter_mut() {
            let mut n = 0;
            let mut at = Some(frame);
            while let Some(frame) = at {
                // Longer than any packet may be: it stays, and its sender counts it.
                let Some(slot) = self.scratch.get_mut(n) else { break };
                *slot = frame.0;
                n += 1;
                at = self.memory.next(frame);
            }
            let whole = !self.scratch[n - 1].has_more_frames();
            if !whole || (self.tx.nb_free(n as u32) as usize) < n {
                break;
            }
            for desc in &self.scratch[..n] {
                self.memory.lend(desc, self.holder);
            }
            // SAFETY: the token of the first, which stands for all, is dropped below, so
            // nobody but the kernel has them from here on; they are of this ring's memory.
            // All but the last say that another follows: that is how they are linked.
            sent += unsafe { self.tx.produce(&self.scratch[..n]) };
            packets += 1;
        }
        frames.drain(..packets);
        sent
    }

    /// Makes the kernel send what is in the TX ring, where it needs to be told.
    #[inline]
    pub fn kick(&mut self) -> Kick {
        if !self.tx.needs_wakeup() {
            return Kick::default();
        }
        let (tx, size) = (&mut self.tx, self.tx_size);
        kick::kick(self.fd, || size - tx.nb_free_exact())
    }

    /// Takes back frames that were sent.
    #[inline]
    pub fn reap(&mut self, pool: &mut Vec<Frame>) -> usize {
        let mut total = 0;
        loop {
            // SAFETY: the ring fills in descriptors of the memory that it is bound to.
            let n = unsafe { self.comp.consume(&mut self.scratch) };
            for desc in &self.scratch[..n] {
                self.memory.lend(desc, NOT_LENT);
                pool.push(Frame(*desc));
            }
            total += n;
            if n < BATCH {
                return total;
            }
        }
    }

    /// Tops up the fill ring from `pool`, and wakes the driver where it waits for
    /// that. It may have begun to wait after the ring was last topped up: so it is
    /// asked each time.
    #[inline]
    pub fn refill(&mut self, pool: &mut Vec<Frame>) -> usize {
        let size = self.memory.options().ring_size;
        let held = size - self.fill.nb_free_exact();
        let room = self.fill_target.saturating_sub(self.posted).min(size - held);
        let mut want = (room as usize).min(pool.len());
        let mut total = 0;
        while want > 0 {
            let n = want.min(BATCH);
            for (slot, frame) in self.scratch.iter_mut().zip(pool.drain(pool.len() - n..)) {
                *slot = frame.0;
                self.memory.lend(slot, self.holder);
            }
            // SAFETY: the tokens were consumed above; the frames are of this memory.
            let given = unsafe { self.fill.produce(&self.scratch[..n]) };
            debug_assert_eq!(given, n, "free slots were counted before");
            total += n;
            want -= n;
        }
        self.posted += total as u32;
        if held as usize + total > 0 && self.fill.needs_wakeup() {
            kick::wake_rx(self.fd);
        }
        total
    }

    /// Frames have been received and not yet taken.
    #[inline]
    pub fn has_received(&mut self) -> bool {
        self.rx.nb_avail_exact() > 0
    }

    /// Closes the socket and returns the frames that the kernel still had: those in
    /// the fill, RX, TX and completion rings and in the driver. Blocks for about
    /// 10 ms; when it returns the kernel no longer writes to any of them. Several
    /// threads may close queues at once, and then wait at the same time.
    pub fn close(self) -> Vec<Frame> {
        let Self { memory, holder, fd, tx, rx, fill, comp, partial, .. } = self;
        // The library closes under a lock that all sockets of the memory share. Held
        // open once more, the socket is not released there but below.
        // SAFETY: the rings keep the descriptor open until they are dropped.
        let socket = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned();
        drop((tx, rx, fill, comp));
        // Without a free descriptor the wait was under the lock.
        drop(socket);
        let mut frames = memory.reclaim(holder);
        if let Some((first, last)) = partial {
            memory.unlink_partial(first, &last, &mut frames);
        }
        frames
    }
}
