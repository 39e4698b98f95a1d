//! Packets of several frames.
//!
//! ```text
//!  frame ── headers, data ──┐ link   ┌── data ──┐ link   ┌── data
//!  the token of all         └───────►│  frame   │───────►│  frame
//! ```
//! The worker moves packets, each as its first frame; the others hang on it by links that
//! the memory keeps ([`Memory::next`]). Only where frames are counted, given back or looked
//! into it matters that there are several: here.

use nsplane_abi::Tag;
use nsplane_abi::tag::{TAG_CSUM_PARTIAL, TAG_MEMBER};

use super::io::Memory;
use crate::wire::checksum::{self, Sum};
use crate::wire::vlan::{self, Tags};
use crate::wire::{ethernet, ipv4::Ipv4, ipv6::Ipv6, l4};

/// Frames of a packet.
#[inline]
pub fn frames<M: Memory>(memory: &M, packet: &mut M::Frame) -> usize {
    if memory.is_long(packet) { extent(memory, packet).0 } else { 1 }
}

/// Bytes of a packet.
#[inline]
pub(super) fn bytes<M: Memory>(memory: &M, packet: &mut M::Frame) -> usize {
    if memory.is_long(packet) { extent(memory, packet).1 } else { memory.packet(packet).len() }
}

/// Frames and bytes of a packet.
#[cold]
pub(super) fn extent<M: Memory>(memory: &M, packet: &mut M::Frame) -> (usize, usize) {
    let (mut frames, mut bytes) = (0, 0);
    each(memory, packet, |part| {
        frames += 1;
        bytes += part.len();
    });
    (frames, bytes)
}

/// Goes through the parts of a packet.
pub fn each<M: Memory>(memory: &M, packet: &mut M::Frame, mut see: impl FnMut(&[u8])) {
    let mut at = Some(packet);
    while let Some(frame) = at {
        see(memory.packet(frame));
        at = memory.next(frame);
    }
}

/// Gives a packet's frames to `free`.
#[inline]
pub fn give<M: Memory>(memory: &M, mut packet: M::Frame, mut free: impl FnMut(M::Frame)) {
    while let Some(next) = memory.take_next(&mut packet) {
        free(std::mem::replace(&mut packet, next));
    }
    free(packet);
}

/// Shortens a packet to `len` bytes; a longer `len` changes nothing. Frames that it does
/// not need for these go to `free`.
#[cold]
pub(super) fn cut<M: Memory>(
    memory: &M,
    packet: &mut M::Frame,
    len: usize,
    free: impl FnMut(M::Frame),
) {
    let (mut frame, mut left) = (packet, len);
    loop {
        let here = memory.packet(frame).len();
        if left <= here {
            memory.truncate(frame, left);
            if let Some(rest) = memory.take_next(frame) {
                give(memory, rest, free);
            }
            return;
        }
        left -= here;
        match memory.next(frame) {
            Some(next) => frame = next,
            None => return,
        }
    }
}

/// Completes an L4 checksum that the sender left to its device, as `stages` does for a
/// packet in one frame; true if it did.
pub(super) fn complete_checksum<M: Memory>(
    memory: &M,
    packet: &mut M::Frame,
    whole: usize,
    tag: &Tag,
) -> bool {
    if tag.flags & TAG_CSUM_PARTIAL == 0 {
        return false;
    }
    let first = memory.packet(packet);
    let end = end(first, whole, tag).unwrap_or(whole);
    let (start, offset) = (usize::from(tag.csum_start), usize::from(tag.csum_offset));
    let fits = start >= ethernet::LEN && start + offset + 2 <= first.len().min(end);
    if !fits {
        return false;
    }
    let (mut sum, mut at, mut odd) = (Sum(0), 0, false);
    each(memory, packet, |part| {
        let from = start.saturating_sub(at).min(part.len());
        let to = end.saturating_sub(at).min(part.len()).max(from);
        at += part.len();
        let Sum(words) = checksum::sum(&part[from..to]);
        // Behind an odd number of bytes, high and low ones change places.
        sum = sum + Sum(if odd { words.swap_bytes() } else { words });
        odd ^= (to - from) % 2 == 1;
    });
    l4::store(memory.packet(packet), start + offset, sum);
    true
}

/// Where the IP packet ends, padding not counted, if its header makes sense.
fn end(first: &[u8], whole: usize, tag: &Tag) -> Option<usize> {
    let tags = if tag.flags & TAG_MEMBER != 0 {
        nsplane_abi::vlan::tags(first, None).in_packet * nsplane_abi::vlan::LEN
    } else {
        0
    };
    let at = ethernet::LEN + tags;
    let packet = first.get(at..)?;
    let behind = whole - first.len();
    let total = match u16::from_be_bytes(first.get(at - 2..at)?.try_into().ok()?) {
        ethernet::IPV4 => Ipv4::parse_part(packet, behind).ok()?.total_len(),
        ethernet::IPV6 => Ipv6::parse_part(packet, behind).ok()?.total_len(),
        _ => return None,
    };
    Some(at + total)
}

/// Puts VLAN tags on a packet whose first `lead` bytes are no longer part of it, as
/// [`vlan::put_on`]. Where its first frame has no room for that, `spare` is put behind it, to
/// take its last bytes. False, with the spare frame back, where there is none.
pub(super) fn put_on<M: Memory>(
    memory: &M,
    packet: &mut M::Frame,
    lead: usize,
    tags: Tags,
    spare: &mut Option<M::Frame>,
) -> bool {
    let here = memory.packet(packet).len();
    if here < lead + ethernet::LEN + tags.len() {
        return false;
    }
    let more = tags.len().saturating_sub(lead);
    let (mut len, dressed) = (here - lead, here + tags.len() - lead);
    if more > 0 && !memory.lengthen(packet, dressed) {
        let Some(mut between) = spare.take() else { return false };
        memory.truncate(&mut between, 0);
        if !memory.lengthen(&mut between, more) {
            *spare = Some(between);
            return false;
        }
        let last = &memory.packet(packet)[here - more..];
        memory.packet(&mut between).copy_from_slice(last);
        if let Some(rest) = memory.take_next(packet) {
            memory.link(&mut between, rest);
        }
        memory.link(packet, between);
        len -= more;
    }
    let done = vlan::put_on(memory.packet(packet), lead, len, tags);
    memory.truncate(packet, len + tags.len());
    done
}

#[cfg(test)]
mod tests;
