//! Packets on their way into the kernel's stack, from all workers to one thread.

use crossbeam::queue::ArrayQueue;

use super::{Account, Share};
use crate::id::{Generation, PortId};
use crate::stats::{DropReason, PuntReason};

/// A packet on its way into the kernel's stack.
#[derive(Debug)]
pub struct Punted<F> {
    /// The packet. Its L4 checksum is complete.
    pub frame: F,
    /// Frames that it consists of: it takes a place for each.
    pub frames: u32,
    /// Bytes of the frame in front of the packet that are no longer part of it.
    pub lead: u8,
    /// The port it came in on.
    pub port: PortId,
    /// The use of the port's slot.
    pub generation: Generation,
    /// Why.
    pub reason: PuntReason,
    /// Whose places in the queue it takes, until [`PuntQueue::done`] is told.
    pub account: Account,
}

/// Packets to punt. A namespace that has more than its share of the places, or a full
/// queue, means drop and count.
#[derive(Debug)]
pub struct PuntQueue<F> {
    queue: ArrayQueue<Punted<F>>,
    share: Share,
}

impl<F> PuntQueue<F> {
    /// A queue of so many places.
    ///
    /// # Panics
    /// Without any: our bug.
    #[must_use]
    pub fn new(places: usize) -> Self {
        let room = u32::try_from(places).unwrap_or(u32::MAX);
        Self { queue: ArrayQueue::new(places), share: Share::new(room) }
    }

    /// Places in all.
    #[must_use]
    pub fn places(&self) -> usize {
        self.queue.capacity()
    }

    /// A packet of this account, of so many frames, would find its places.
    #[must_use]
    pub fn has_room(&self, account: Account, frames: u32) -> bool {
        !self.queue.is_full() && self.share.has_room(account, frames)
    }

    /// Puts a packet in.
    ///
    /// # Errors
    /// The packet, and why it found no place.
    pub fn push(&self, punted: Punted<F>) -> Result<(), (DropReason, Punted<F>)> {
        let (account, frames) = (punted.account, punted.frames);
        let got = self.share.enter(account, frames);
        if got < frames {
            let full = self.share.is_full();
            self.share.leave(account, got);
            let why = if full { DropReason::PuntFull } else { DropReason::PuntShare };
            return Err((why, punted));
        }
        self.queue.push(punted).map_err(|punted| {
            self.share.leave(account, frames);
            (DropReason::PuntFull, punted)
        })
    }

    /// Takes a packet out. Its places are taken until [`Self::done`].
    #[must_use]
    pub fn pop(&self) -> Option<Punted<F>> {
        self.queue.pop()
    }

    /// A packet of so many frames that was taken out is the kernel's now.
    pub fn done(&self, account: Account, frames: u32) {
        self.share.leave(account, frames);
    }

    /// Frames whose packets are not the kernel's yet.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.share.taken() as usize
    }

    /// Packets that were not taken out yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// None are.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
