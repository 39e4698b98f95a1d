//! What a cell of a page has: a next hop's number, or a node with what is below it.
//!
//! A prefix of a cell is numbered as in a heap: the cell itself is 1, its halves are 2 and 3,
//! and so on. So shorter prefixes come first, and painting them in order of their numbers
//! gives each address the longest.

use super::word::Word;
use super::{FULL, KIND, SMALL, TINY};

/// The kind of link that stands for a slot's leaf until it is known where that will be.
const LATER: usize = 3;

/// Room to work in, kept from one cell to the next.
#[derive(Clone, Debug)]
pub(super) struct Painter<W> {
    slots: [W; 64],
    /// /24s with longer prefixes inside: slot, numbers by the last byte.
    long: Vec<(usize, [W; 256])>,
}

impl<W: Word> Default for Painter<W> {
    fn default() -> Self {
        Self { slots: [W::NONE; 64], long: Vec::new() }
    }
}

impl<W: Word> Painter<W> {
    /// Lays down the node of a cell behind `lines`, which begins `from` lines into its page,
    /// and returns the cell. `around`: what is not covered leads there.
    pub(super) fn cell(
        &mut self,
        around: W,
        routes: impl Iterator<Item = (u16, W)>,
        lines: &mut Vec<W::Line>,
        from: usize,
    ) -> W {
        self.paint(around, routes);
        let node = from + lines.len();
        let mut runs: Vec<W> = Vec::with_capacity(64);
        let mut bitmap = 0_u64;
        let mut before = None;
        for (slot, value) in self.slots.iter().enumerate() {
            if before != Some(*value) {
                bitmap |= 1 << slot;
                runs.push(*value);
            }
            before = Some(*value);
        }
        if let &[only] = &*runs
            && !only.is_link()
        {
            return only;
        }
        let begin = lines.len();
        let count = (W::HEAD + runs.len()).div_ceil(W::PER_LINE);
        lines.resize(begin + count, W::Line::default());
        if !self.long.is_empty() {
            self.below(&mut runs, lines, begin);
        }
        let words = W::words_mut(&mut lines[begin..]);
        W::set_bitmap(words, bitmap);
        words[W::HEAD..][..runs.len()].copy_from_slice(&runs);
        W::of(W::LINK.number() | node)
    }

    fn paint(&mut self, around: W, routes: impl Iterator<Item = (u16, W)>) {
        self.slots.fill(around);
        self.long.clear();
        for (key, value) in routes {
            let len = key.ilog2();
            let first = usize::from(key) - (1 << len);
            if len <= 6 {
                let wide = 1 << (6 - len);
                self.slots[first * wide..][..wide].fill(value);
                continue;
            }
            let (slot, wide) = (first >> (len - 6), 1 << (14 - len));
            let known = self.long.iter().rposition(|(s, _)| *s == slot);
            let at = known.unwrap_or_else(|| {
                self.long.push((slot, [self.slots[slot]; 256]));
                self.long.len() - 1
            });
            self.long[at].1[first % (1 << (len - 6)) * wide..][..wide].fill(value);
        }
        // As links, so that each is a range of its own.
        let slots = &mut self.slots;
        self.long.retain(|(slot, values)| {
            let differ = values.iter().any(|v| *v != values[0]);
            slots[*slot] = if differ { later(*slot) } else { values[0] };
            differ
        });
    }

    /// Lays down the leaves of /24s, and has `runs` lead to them.
    fn below(&mut self, runs: &mut [W], lines: &mut Vec<W::Line>, begin: usize) {
        let quarter = W::PER_LINE / 4;
        // What takes whole lines first, then what takes a quarter.
        let kind = |values: &[W; 256]| {
            let ranges = 1 + values.windows(2).filter(|w| w[0] != w[1]).count();
            match ranges {
                n if n <= W::TINY.1 => TINY,
                n if n <= W::SMALL.1 => SMALL,
                _ => FULL,
            }
        };
        let mut words: Vec<W> = Vec::new();
        let mut first = (lines.len() - begin) * 4;
        for small in [false, true] {
            for (slot, values) in &self.long {
                let kind = kind(values);
                if (kind == TINY) != small {
                    continue;
                }
                let quarters = first + words.len() / quarter;
                let link = W::of(W::LINK.number() | kind << KIND | quarters);
                let name = later::<W>(*slot);
                runs.iter_mut().filter(|r| **r == name).for_each(|r| *r = link);
                match kind {
                    FULL => words.extend(values),
                    SMALL => few(values, W::SMALL, W::PER_LINE, &mut words),
                    _ => few(values, W::TINY, quarter, &mut words),
                }
            }
            if !small {
                push_lines::<W>(&mut words, lines);
                first = (lines.len() - begin) * 4;
            }
        }
        push_lines::<W>(&mut words, lines);
    }
}

fn later<W: Word>(slot: usize) -> W {
    W::of(W::LINK.number() | LATER << KIND | slot)
}

/// Ranges' starts but the first, each a byte, and their numbers; in so many words.
fn few<W: Word>(
    values: &[W; 256],
    (starts, ranges): (usize, usize),
    room: usize,
    out: &mut Vec<W>,
) {
    let begin = out.len();
    out.resize(begin + starts, W::of(usize::MAX));
    out.push(values[0]);
    for (i, pair) in values.windows(2).enumerate() {
        if pair[0] != pair[1] {
            let range = out.len() - begin - starts - 1;
            out[begin + range / size_of::<W>()].set_byte(range % size_of::<W>(), i as u8 + 1);
            out.push(pair[1]);
        }
    }
    // No byte is above the highest: what has no start counts as begun there.
    out.resize(begin + starts + ranges, values[255]);
    out.resize(begin + room, W::NONE);
}

fn push_lines<W: Word>(words: &mut Vec<W>, lines: &mut Vec<W::Line>) {
    let begin = lines.len();
    lines.resize(begin + words.len().div_ceil(W::PER_LINE), W::Line::default());
    W::words_mut(&mut lines[begin..])[..words.len()].copy_from_slice(words);
    words.clear();
}
