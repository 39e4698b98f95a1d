//! AF_XDP as the worker's I/O.
//!
//! The worker knows queues and memory as traits (`worker::io`), the `xsk` room
//! knows nothing of workers; here they meet.

use std::os::fd::RawFd;

use nsplane_abi::{MemberTag, Tag};

use crate::worker::io;
use crate::xsk;

impl io::Memory for xsk::Memory {
    type Frame = xsk::Frame;

    #[inline]
    fn packet<'a>(&'a self, frame: &'a mut Self::Frame) -> &'a mut [u8] {
        Self::packet(self, frame)
    }

    #[inline]
    fn tag(&self, frame: &Self::Frame) -> Tag {
        Self::tag(self, frame)
    }

    #[inline]
    fn member_tag(&self, frame: &Self::Frame) -> MemberTag {
        Self::member_tag(self, frame)
    }

    #[inline]
    fn lengthen(&self, frame: &mut Self::Frame, len: usize) -> bool {
        Self::lengthen(self, frame, len)
    }

    #[inline]
    fn truncate(&self, frame: &mut Self::Frame, len: usize) {
        Self::truncate(self, frame, len);
    }

    fn multi_buffer(&self) -> bool {
        self.options().multi_buffer()
    }

    #[inline]
    fn is_long(&self, frame: &Self::Frame) -> bool {
        Self::is_long(self, frame)
    }

    #[inline]
    fn next<'a>(&'a self, frame: &'a mut Self::Frame) -> Option<&'a mut Self::Frame> {
        Self::next(self, frame)
    }

    #[inline]
    fn take_next(&self, frame: &mut Self::Frame) -> Option<Self::Frame> {
        Self::take_next(self, frame)
    }

    #[inline]
    fn link(&self, frame: &mut Self::Frame, next: Self::Frame) {
        Self::link(self, frame, next);
    }

    #[inline]
    fn prefetch(&self, frame: &Self::Frame) {
        Self::prefetch(self, frame);
    }
}

impl io::Queue for xsk::Queue {
    type Memory = xsk::Memory;

    #[inline]
    fn receive(&mut self, out: &mut io::Frames<xsk::Frame>, most: usize) -> usize {
        Self::receive(self, out, most)
    }

    #[inline]
    fn transmit(&mut self, frames: &mut io::Frames<xsk::Frame>) -> usize {
        Self::transmit(self, frames)
    }

    #[inline]
    fn kick(&mut self) -> io::Kick {
        let xsk::Kick { calls, refused, pending, dead } = Self::kick(self);
        io::Kick { calls, refused, pending, dead }
    }

    #[inline]
    fn reap(&mut self, pool: &mut Vec<xsk::Frame>) -> usize {
        Self::reap(self, pool)
    }

    #[inline]
    fn refill(&mut self, pool: &mut Vec<xsk::Frame>) -> usize {
        Self::refill(self, pool)
    }

    #[inline]
    fn has_received(&mut self) -> bool {
        Self::has_received(self)
    }

    fn receives(&self) -> bool {
        self.receives()
    }

    fn fd(&self) -> Option<RawFd> {
        Some(Self::fd(self))
    }
}
