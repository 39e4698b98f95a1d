//! Frames of simulated memory.

use nsplane_abi::{MemberTag, Tag};

use super::Memory;
use crate::sys;

/// Room for a packet in a frame, in bytes.
pub const FRAME_LEN: usize = 2048;

/// A frame; owns its bytes. As large as a descriptor in a ring of the kernel's.
#[derive(Debug)]
pub struct SimFrame {
    pub(super) chunk: Box<Chunk>,
    pub(super) len: u32,
    /// The packet goes on in another frame: in a ring the next, else that in the chunk.
    ///
    /// 0 or 1, and not a `bool`: by one the compiler would tell whether an `Option` has a
    /// frame, and move each frame in pieces, which stalls the processor.
    pub(super) more: u32,
}

impl SimFrame {
    pub(super) fn has_more(&self) -> bool {
        self.more != 0
    }
}

/// As in the kernel's memory the tags are below the packet, in another cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Chunk {
    pub(super) next: Option<SimFrame>,
    headroom: [u8; 16],
    pub(super) below: MemberTag,
    pub(super) tag: Tag,
    pub(super) bytes: [u8; FRAME_LEN],
}

/// The memory of all frames: nothing, since each has its own bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimMemory;

impl SimMemory {
    /// `count` frames.
    #[must_use]
    pub fn frames(count: usize) -> Vec<SimFrame> {
        let chunk = || Chunk {
            next: None,
            headroom: [0; _],
            below: MemberTag::default(),
            tag: Tag::default(),
            bytes: [0; _],
        };
        (0..count).map(|_| SimFrame { chunk: Box::new(chunk()), len: 0, more: 0 }).collect()
    }
}

impl Memory for SimMemory {
    type Frame = SimFrame;

    #[inline]
    fn packet<'a>(&'a self, frame: &'a mut SimFrame) -> &'a mut [u8] {
        &mut frame.chunk.bytes[..frame.len as usize]
    }

    #[inline]
    fn tag(&self, frame: &SimFrame) -> Tag {
        frame.chunk.tag
    }

    #[inline]
    fn member_tag(&self, frame: &SimFrame) -> MemberTag {
        frame.chunk.below
    }

    #[inline]
    fn lengthen(&self, frame: &mut SimFrame, len: usize) -> bool {
        let fits = len <= FRAME_LEN;
        if fits {
            frame.len = frame.len.max(len as u32);
        }
        fits
    }

    #[inline]
    fn truncate(&self, frame: &mut SimFrame, len: usize) {
        frame.len = (frame.len as usize).min(len) as u32;
    }

    #[inline]
    fn multi_buffer(&self) -> bool {
        true
    }

    #[inline]
    fn is_long(&self, frame: &SimFrame) -> bool {
        frame.has_more()
    }

    #[inline]
    fn next<'a>(&'a self, frame: &'a mut SimFrame) -> Option<&'a mut SimFrame> {
        frame.chunk.next.as_mut()
    }

    #[inline]
    fn take_next(&self, frame: &mut SimFrame) -> Option<SimFrame> {
        frame.more = 0;
        frame.chunk.next.take()
    }

    #[inline]
    fn link(&self, frame: &mut SimFrame, next: SimFrame) {
        frame.more = 1;
        frame.chunk.next = Some(next);
    }

    #[inline]
    fn prefetch(&self, frame: &SimFrame) {
        sys::prefetch(&raw const frame.chunk.tag);
        sys::prefetch(&raw const frame.chunk.bytes);
    }
}
