//! One memory for all ports, and its frames.
//!
//! ```text
//!  chunk 0                chunk 1
//! |headroom 256|packet ...|headroom 256|packet ...|  ...
//!        [tag] ^ addr
//! ```

use std::io;
use std::num::NonZeroU32;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nsplane_abi::long::LONGEST;
use nsplane_abi::tag::{MEMBER_TAG_LEN, MemberTag, TAG_LEN, Tag};
use xsk_rs::config::{FrameSize, QueueSize, UmemConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, TxQueue, Umem};

use super::Error;
use super::bind::bind;
use super::probe::{has_multi_buffer, probe_af_xdp};
use crate::sys;

/// Bytes that the kernel keeps free in front of a packet.
const XDP_HEADROOM: u32 = 256;

/// How sockets are bound. All sockets of one memory share one mode: the kernel
/// makes it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The kernel copies between its buffers and ours: every device can do it.
    Copy,
    /// The device reads and writes our memory.
    ZeroCopy,
}

impl Mode {
    /// The mode's name for users.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::ZeroCopy => "zero-copy",
        }
    }

    /// Bytes that a frame must at least have. With 2048 in zero-copy mode igb tells
    /// the NIC 1024 (its unit for that is 1024 bytes, and it rounds down), and each
    /// longer packet arrives as two, without an error or a count.
    #[must_use]
    pub fn least_frame_size(self) -> u32 {
        match self {
            Self::Copy => 2048,
            Self::ZeroCopy => 4096,
        }
    }
}

/// Shape of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Number of frames.
    pub frames: u32,
    /// Bytes a frame, a power of two from 2048 to 4096.
    pub frame_size: u32,
    /// Entries of each RX, TX, fill and completion ring, a power of two.
    pub ring_size: u32,
    /// Copy or zero-copy.
    pub mode: Mode,
}

impl Options {
    /// Longest packet that fits a frame, in bytes from the Ethernet header on.
    #[must_use]
    pub fn max_packet(&self) -> u32 {
        self.frame_size - XDP_HEADROOM
    }

    /// Packets may be in several frames: the kernel can do so, and copies. Of drivers that
    /// do not copy few can; that is left for when one is at hand to try it on.
    #[must_use]
    pub fn multi_buffer(&self) -> bool {
        self.mode == Mode::Copy && has_multi_buffer()
    }

    /// Longest packet that the sockets of this memory take.
    #[must_use]
    pub fn longest_packet(&self) -> u32 {
        let longest = if self.multi_buffer() { LONGEST as u32 } else { 0 };
        longest.max(self.max_packet())
    }

    /// The option that does not fit, as users write it, and why; None if all do.
    #[must_use]
    pub fn wrong(&self) -> Option<(&'static str, String)> {
        let Self { frames, frame_size, ring_size, mode } = *self;
        if !matches!(frame_size, 2048 | 4096) {
            return Some((
                "frame-size",
                format!("a frame has 2048 or 4096 bytes, not {frame_size}"),
            ));
        }
        if frame_size < mode.least_frame_size() {
            let why = format!(
                "zero-copy needs frames of 4096 bytes, not {frame_size}: some drivers split what \
                 is longer than 1024 bytes into packets of their own"
            );
            return Some(("frame-size", why));
        }
        if let Err(e) = ring(ring_size) {
            return Some(("ring-size", format!("a ring of {ring_size} entries: {e}")));
        }
        if frames < ring_size {
            let why = format!("{frames} frames are fewer than one ring of {ring_size} holds");
            return Some(("frames", why));
        }
        None
    }
}

/// Ownership of one frame: whoever holds the token owns the bytes.
///
/// Not `Copy` and not `Clone`: giving it to a ring gives the bytes to the kernel.
#[must_use = "a frame that is dropped is lost to everybody"]
#[derive(Debug)]
pub struct Frame(pub(super) FrameDesc);

/// Nobody of the kernel's side has the frame.
pub(super) const NOT_LENT: u32 = 0;

struct Shared {
    umem: Umem,
    base: NonNull<u8>,
    options: Options,
    /// Which queue's rings (its holder number) the frame was put into last.
    holders: Box<[AtomicU32]>,
    /// A descriptor for each chunk, as the library made it.
    chunks: Box<[FrameDesc]>,
    next_holder: AtomicU32,
}

// SAFETY: `base` points into the mapping that `umem` keeps alive; every access
// through it needs the frame's token, of which there is one a frame, and the
// library declares the mapping itself Send and Sync.
unsafe impl Send for Shared {}
// SAFETY: as above; `Umem`'s own state is behind a mutex.
unsafe impl Sync for Shared {}

/// The memory, as workers hold it: cheap to clone.
#[derive(Clone)]
pub struct Memory(Arc<Shared>);

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("options", &self.0.options).finish_non_exhaustive()
    }
}

impl Memory {
    pub(super) fn umem(&self) -> &Umem {
        &self.0.umem
    }

    /// The memory's shape.
    #[must_use]
    pub fn options(&self) -> Options {
        self.0.options
    }

    /// A number for a new queue; 0 is never one.
    pub(super) fn new_holder(&self) -> u32 {
        self.0.next_holder.fetch_add(1, Ordering::Relaxed)
    }

    #[inline]
    fn chunk_of(&self, desc: &FrameDesc) -> usize {
        desc.addr() / self.0.options.frame_size as usize
    }

    /// Notes that the frame is in a ring of `holder`, or in none.
    #[inline]
    pub(super) fn lend(&self, desc: &FrameDesc, holder: u32) {
        // Relaxed: the queue and all its frames travel between threads through
        // channels, which order this store before whoever reads it.
        self.0.holders[self.chunk_of(desc)].store(holder, Ordering::Relaxed);
    }

    /// Takes back every frame that `holder` still had when its socket was closed.
    pub(super) fn reclaim(&self, holder: u32) -> Vec<Frame> {
        let mut frames = Vec::new();
        for (chunk, owner) in self.0.holders.iter().enumerate() {
            if owner.load(Ordering::Relaxed) == holder {
                owner.store(NOT_LENT, Ordering::Relaxed);
                frames.push(Frame(self.0.chunks[chunk]));
            }
        }
        frames
    }

    /// Frames that are in some ring now. For accounting; walks the whole table.
    #[must_use]
    pub fn lent(&self) -> usize {
        self.0.holders.iter().filter(|h| h.load(Ordering::Relaxed) != NOT_LENT).count()
    }

    #[inline]
    fn packet_ptr(&self, desc: &FrameDesc) -> *mut u8 {
        // SAFETY: descriptors come from this memory alone (`Region::create`, its
        // rings), so the address lies inside the mapping.
        unsafe { self.0.base.as_ptr().add(desc.addr()) }
    }

    /// The packet in the frame, from the Ethernet header on; of a long one the part that
    /// is in this frame.
    #[inline]
    pub fn packet<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        let len = frame.0.lengths().data();
        // SAFETY: the token proves that neither the kernel nor another thread has
        // the frame; the kernel reported `len` for it, within the chunk.
        unsafe { std::slice::from_raw_parts_mut(self.packet_ptr(&frame.0), len) }
    }

    /// The tag in front of the packet.
    #[inline]
    #[must_use]
    pub fn tag(&self, frame: &Frame) -> Tag {
        // SAFETY: a received packet has at least the XDP headroom of 256 bytes
        // below it in its chunk, and the tag's 16 are in there.
        let below = unsafe { self.packet_ptr(&frame.0).sub(TAG_LEN) };
        // SAFETY: see above; the token proves that nobody writes it now.
        Tag::from_bytes(&unsafe { below.cast::<[u8; TAG_LEN]>().read_unaligned() })
    }

    /// What lies below the tag of a member's packet.
    #[inline]
    #[must_use]
    pub fn member_tag(&self, frame: &Frame) -> MemberTag {
        // SAFETY: as for the tag; both together are 32 bytes of the headroom's 256.
        let below = unsafe { self.packet_ptr(&frame.0).sub(TAG_LEN + MEMBER_TAG_LEN) };
        // SAFETY: see above; the token proves that nobody writes it now.
        let bytes = unsafe { below.cast::<[u8; MEMBER_TAG_LEN]>().read_unaligned() };
        MemberTag::from_bytes(&bytes)
    }

    /// Makes the packet `len` bytes long, by bytes of any value; false where that is
    /// more than the frame has room for.
    #[inline]
    pub fn lengthen(&self, frame: &mut Frame, len: usize) -> bool {
        // SAFETY: the token proves exclusive access, the frame is of this memory.
        let mut data = unsafe { self.0.umem.data_mut(&mut frame.0) };
        let mut cursor = data.cursor();
        let fits = len <= cursor.buf_len();
        if fits && len > cursor.pos() {
            cursor.set_pos(len);
        }
        fits
    }

    /// Shortens the packet to `len` bytes.
    #[inline]
    pub fn truncate(&self, frame: &mut Frame, len: usize) {
        if len < frame.0.lengths().data() {
            // SAFETY: the token proves exclusive access, the frame is of this memory.
            unsafe { self.0.umem.data_mut(&mut frame.0) }.cursor().set_pos(len);
        }
    }

    /// Where the frame behind this one is noted: the chunk's first bytes, far below the
    /// tag, which the kernel neither reads nor keeps.
    #[inline]
    pub(super) fn link_ptr(&self, desc: &FrameDesc) -> *mut Frame {
        let at = self.chunk_of(desc) * self.0.options.frame_size as usize;
        // SAFETY: the chunk lies inside the mapping.
        unsafe { self.0.base.as_ptr().add(at) }.cast()
    }

    /// Starts fetching the packet's first cache line, and that of its tag before it.
    #[inline]
    pub fn prefetch(&self, frame: &Frame) {
        let packet = self.packet_ptr(&frame.0).cast_const();
        for at in [packet.wrapping_sub(TAG_LEN), packet] {
            sys::prefetch(at);
        }
    }
}

/// The rings of a socket, as the library hands them out.
pub(super) type Rings = (TxQueue, RxQueue, FillQueue, CompQueue);

/// The memory with what keeps it registered.
pub struct Region {
    memory: Memory,
    /// Copy mode: the socket on `lo` that all others share the memory through.
    _anchor: Option<Rings>,
}

impl Region {
    /// Maps and registers the memory. The calling thread must be in a namespace
    /// that outlives all use of it: in copy mode one of our own, whose `lo` is up
    /// and gets the anchor socket; in zero-copy mode that of the first device.
    ///
    /// # Errors
    /// Options that do not fit, no AF_XDP, or no memory.
    pub fn create(options: Options) -> Result<(Self, Vec<Frame>), Error> {
        if let Some((_, why)) = options.wrong() {
            return Err(bad(&why));
        }
        probe_af_xdp()?;
        let config = UmemConfig::builder()
            .frame_size(FrameSize::new(options.frame_size).map_err(|e| bad(&e))?)
            .fill_queue_size(ring(options.ring_size)?)
            .comp_queue_size(ring(options.ring_size)?)
            .build()
            .map_err(|e| bad(&e))?;
        let count = NonZeroU32::new(options.frames).ok_or_else(|| bad(&"no frames"))?;
        let (umem, chunks) =
            Umem::new(config, count, false).map_err(|e| register_error(&options, &e))?;
        let base = base_of(&umem, &chunks[0]);
        let memory = Memory(Arc::new(Shared {
            umem,
            base,
            options,
            holders: (0..options.frames).map(|_| AtomicU32::new(NOT_LENT)).collect(),
            chunks: chunks.clone().into_boxed_slice(),
            next_holder: AtomicU32::new(1),
        }));
        let anchor = match options.mode {
            Mode::Copy => Some(bind(&memory, "lo", 0)?),
            Mode::ZeroCopy => None,
        };
        let frames = chunks.into_iter().map(Frame).collect();
        Ok((Self { memory, _anchor: anchor }, frames))
    }

    /// The memory for workers.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }
}

pub(super) fn bad(why: &dyn ToString) -> Error {
    Error::Options(why.to_string())
}

pub(super) fn ring(size: u32) -> Result<QueueSize, Error> {
    QueueSize::new(size).map_err(|e| bad(&e))
}

fn register_error(options: &Options, e: &xsk_rs::umem::UmemCreateError) -> Error {
    let source = std::error::Error::source(e)
        .and_then(|s| s.downcast_ref::<io::Error>())
        .and_then(io::Error::raw_os_error)
        .map_or_else(|| io::Error::other(e.to_string()), io::Error::from_raw_os_error);
    Error::Register {
        mib: u64::from(options.frames) * u64::from(options.frame_size) / (1 << 20),
        source,
    }
}

fn base_of(umem: &Umem, first: &FrameDesc) -> NonNull<u8> {
    let mut first = *first;
    let addr = first.addr();
    // SAFETY: nobody else has a frame of this memory yet.
    let mut data = unsafe { umem.data_mut(&mut first) };
    let at = data.contents_mut().as_mut_ptr();
    // SAFETY: `at` is `addr` bytes into the mapping.
    let base = unsafe { at.sub(addr) };
    NonNull::new(base).expect("a mapping does not start at null")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_cannot_work_are_refused_before_any_system_call() {
        let good = Options { frames: 4096, frame_size: 2048, ring_size: 1024, mode: Mode::Copy };
        let wrong = |options: Options| options.wrong().map(|(key, _)| key);
        assert_eq!(wrong(good), None);
        assert_eq!(wrong(Options { frame_size: 3000, ..good }), Some("frame-size"));
        assert_eq!(wrong(Options { ring_size: 1000, ..good }), Some("ring-size"));
        assert_eq!(wrong(Options { frames: 512, ..good }), Some("frames"));
        assert_eq!(wrong(Options { mode: Mode::ZeroCopy, ..good }), Some("frame-size"));
        assert_eq!(wrong(Options { mode: Mode::ZeroCopy, frame_size: 4096, ..good }), None);
        assert_eq!(good.max_packet(), 1792);
    }
}
