//! Frames of one packet, linked behind its first.
//!
//! ```text
//!  chunk of the first frame                      chunk of the second
//! |[link]──┐  ... [tag]|packet ...|            |[link]      |... packet|
//!          └───────────────────────────────────► descriptor of the second
//! ```
//! A frame's descriptor says whether another follows, as the kernel's do. Where it does,
//! the next one is noted in the first bytes of the chunk, far below the tag: the kernel
//! neither reads nor keeps them.

use xsk_rs::FrameDesc;

use super::{Frame, Memory};

/// Says of a descriptor that the packet goes on in the next (`linux/if_xdp.h`).
const XDP_PKT_CONTD: u32 = 1;

impl Memory {
    /// More frames of the packet are linked behind this one.
    #[inline]
    #[must_use]
    pub fn is_long(&self, frame: &Frame) -> bool {
        frame.0.has_more_frames()
    }

    /// The frame behind this one.
    #[inline]
    pub fn next<'a>(&'a self, frame: &'a mut Frame) -> Option<&'a mut Frame> {
        // SAFETY: a frame that says so has one noted there (`link`, `put_behind`); chunks are
        // aligned as pages are, and the token of the first is that of all behind it.
        self.is_long(frame).then(|| unsafe { &mut *self.link_ptr(&frame.0) })
    }

    /// Takes off what is linked behind a frame.
    #[inline]
    pub fn take_next(&self, frame: &mut Frame) -> Option<Frame> {
        if !self.is_long(frame) {
            return None;
        }
        frame.0.set_options(0);
        // SAFETY: as in `next`; the note counts for nothing from here on, so there is one
        // token of the next frame.
        Some(unsafe { self.link_ptr(&frame.0).read() })
    }

    /// Links a frame, and what is behind it, behind one that has nothing behind it.
    #[inline]
    pub fn link(&self, frame: &mut Frame, next: Frame) {
        frame.0.set_options(XDP_PKT_CONTD);
        self.put_behind(&frame.0, next);
    }

    /// Notes what follows a frame that says already that something does.
    pub(super) fn put_behind(&self, last: &FrameDesc, next: Frame) {
        // SAFETY: the chunk is the caller's, who has the token of its packet's first frame;
        // it is aligned as pages are, and longer than what is written.
        unsafe { self.link_ptr(last).write(next) };
    }

    /// Takes a packet apart whose `last` frame says that more follow, which never came.
    pub(super) fn unlink_partial(&self, first: Frame, last: &FrameDesc, out: &mut Vec<Frame>) {
        let mut frame = first;
        while frame.0.addr() != last.addr() {
            let Some(next) = self.take_next(&mut frame) else { break };
            out.push(std::mem::replace(&mut frame, next));
        }
        frame.0.set_options(0);
        out.push(frame);
    }
}
