//! How a worker meets its ports: AF_XDP in production, memory in tests.
//!
//! A frame is a token: it is not `Copy`, and whoever holds it owns the bytes.
//! Giving it to a queue gives it to the kernel; it comes back from `receive` or
//! `reap`. So a frame can neither be used twice nor lost without a move that the
//! compiler saw.

use nsplane_abi::{MemberTag, Tag};

/// Most frames that one call moves.
pub const BATCH: usize = crate::port::BATCH;

/// Frames in hand, at most one batch, with room for that from the start: then they are moved
/// from and to lists as one block, and nothing is allocated.
pub type Frames<F> = Vec<F>;

/// Memory that frames live in, shared by all queues of all ports.
pub trait Memory: Clone + Send + 'static {
    /// Ownership of one frame.
    type Frame: Send;

    /// The packet in the frame, from the Ethernet header on; of a long packet the part
    /// that this frame has. The first has all headers.
    fn packet<'a>(&'a self, frame: &'a mut Self::Frame) -> &'a mut [u8];

    /// What the XDP program wrote in front of the packet.
    fn tag(&self, frame: &Self::Frame) -> Tag;

    /// What the XDP program wrote in front of that, for a packet whose tag says so.
    fn member_tag(&self, frame: &Self::Frame) -> MemberTag;

    /// Makes the packet longer, by bytes of any value; false where the frame has no room.
    fn lengthen(&self, frame: &mut Self::Frame, len: usize) -> bool;

    /// Shortens the packet to `len` bytes; a longer `len` changes nothing.
    fn truncate(&self, frame: &mut Self::Frame, len: usize);

    /// Queues take packets of several frames.
    fn multi_buffer(&self) -> bool;

    /// More frames of the packet are linked behind this one. Whoever has the first has
    /// them all; nobody else has any.
    fn is_long(&self, frame: &Self::Frame) -> bool;

    /// The frame behind this one.
    fn next<'a>(&'a self, frame: &'a mut Self::Frame) -> Option<&'a mut Self::Frame>;

    /// Takes off what is linked behind a frame: the next one, with all behind it.
    fn take_next(&self, frame: &mut Self::Frame) -> Option<Self::Frame>;

    /// Links a frame, and what is behind it, behind one that has nothing behind it.
    fn link(&self, frame: &mut Self::Frame, next: Self::Frame);

    /// Starts fetching the packet's first cache line, and what is in front of it.
    fn prefetch(&self, frame: &Self::Frame);
}

/// What a kick did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kick {
    /// System calls made.
    pub calls: u32,
    /// Packets that the kernel completed without sending them.
    pub refused: u32,
    /// Frames are still in the TX ring; kick again later.
    pub pending: bool,
    /// The socket is dead (`ENXIO`): the device moved or is gone.
    pub dead: bool,
}

/// One queue of one port: four rings.
pub trait Queue: Send + 'static {
    /// The memory its frames live in.
    type Memory: Memory;

    /// Takes at most `most` received frames, at most a batch, as many as are there, and
    /// the rest of the last one's packet; of a packet in several frames only the first is
    /// put in `out`. Returns how many frames it took. What is there of a packet that is not
    /// there whole is kept back.
    fn receive(&mut self, out: &mut Frames<<Self::Memory as Memory>::Frame>, most: usize) -> usize;

    /// Moves packets from the front of `frames` into the TX ring, each whole; what does
    /// not fit stays. Returns how many frames went.
    fn transmit(&mut self, frames: &mut Frames<<Self::Memory as Memory>::Frame>) -> usize;

    /// Makes the kernel send what is in the TX ring, where it needs to be told.
    fn kick(&mut self) -> Kick;

    /// Takes back frames that were sent. Returns how many.
    fn reap(&mut self, pool: &mut Vec<<Self::Memory as Memory>::Frame>) -> usize;

    /// Tops up from `pool` what the queue has to receive into: frames that were given and
    /// not yet received, wherever they are. Returns how many it took.
    fn refill(&mut self, pool: &mut Vec<<Self::Memory as Memory>::Frame>) -> usize;

    /// Frames have been received and not yet taken. Exact: reads the ring's
    /// shared producer index.
    fn has_received(&mut self) -> bool;

    /// It is to have frames to receive into; else it only sends. That stays as it is while
    /// a worker has the queue.
    fn receives(&self) -> bool;

    /// File descriptor that becomes readable when frames arrive; None for a queue
    /// that has none (a simulated one).
    fn fd(&self) -> Option<std::os::fd::RawFd>;
}
