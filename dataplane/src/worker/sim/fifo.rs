//! A queue of frames that gives several at once, as a block.

use std::collections::VecDeque;

use super::frame::SimFrame;

/// Frames of a block.
const BLOCK: usize = 32;

/// The queue, in blocks; none of them is empty.
#[derive(Default)]
pub(super) struct Fifo {
    blocks: VecDeque<Vec<SimFrame>>,
    spare: Vec<Vec<SimFrame>>,
    len: usize,
    /// Frames in it whose packet goes on in the next.
    more: usize,
}

impl Fifo {
    pub(super) fn with_capacity(frames: usize) -> Self {
        let blocks = frames.div_ceil(BLOCK) + 1;
        let spare = (0..blocks).map(|_| Vec::with_capacity(BLOCK)).collect();
        Self { blocks: VecDeque::with_capacity(blocks), spare, len: 0, more: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// It has frames whose packet goes on in the next.
    pub(super) fn has_more(&self) -> bool {
        self.more > 0
    }

    pub(super) fn push(&mut self, frame: SimFrame) {
        self.len += 1;
        self.more += usize::from(frame.has_more());
        match self.blocks.back_mut().filter(|block| block.len() < BLOCK) {
            Some(block) => block.push(frame),
            None => {
                let mut block = self.spare.pop().unwrap_or_default();
                block.push(frame);
                self.blocks.push_back(block);
            }
        }
    }

    pub(super) fn pop(&mut self) -> Option<SimFrame> {
        let frame = self.blocks.front_mut()?.remove(0);
        self.len -= 1;
        self.more -= usize::from(frame.has_more());
        self.put_empty();
        Some(frame)
    }

    /// Moves the first `count` frames, or all, to a list; none of them has more behind it.
    pub(super) fn take(&mut self, count: usize, out: &mut Vec<SimFrame>) -> usize {
        let mut left = count;
        while left > 0
            && let Some(block) = self.blocks.front_mut()
        {
            let taken = left.min(block.len());
            super::move_all(block, taken, out);
            left -= taken;
            self.put_empty();
        }
        self.len -= count - left;
        count - left
    }

    /// Takes everything out.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = SimFrame> {
        std::iter::from_fn(|| self.pop())
    }

    fn put_empty(&mut self) {
        if let Some(block) = self.blocks.pop_front_if(|block| block.is_empty()) {
            self.spare.push(block);
        }
    }
}
