use nsplane_abi::vlan::{DOT1AD, DOT1Q};
use proptest::prelude::*;

use super::*;
use crate::id::PortId;
use crate::worker::sim::scene::{host4, host6, pseudo_sum, tag, udp};
use crate::worker::sim::{FRAME_LEN, SimFrame, SimMemory};

/// A packet whose parts are as long as `lens` says, the last as long as it needs to be.
fn packet(bytes: &[u8], lens: &[usize]) -> SimFrame {
    let mut parts = Vec::new();
    let mut rest = bytes;
    let mut lens = lens.iter();
    while !rest.is_empty() {
        let len = lens.next().copied().unwrap_or(FRAME_LEN).min(rest.len());
        let (part, behind) = rest.split_at(len);
        let mut frame = SimMemory::frames(1).pop().unwrap();
        assert!(SimMemory.lengthen(&mut frame, len));
        SimMemory.packet(&mut frame).copy_from_slice(part);
        parts.push(frame);
        rest = behind;
    }
    let mut packet = parts.pop().unwrap();
    while let Some(mut before) = parts.pop() {
        SimMemory.link(&mut before, packet);
        packet = before;
    }
    packet
}

fn whole(packet: &mut SimFrame) -> Vec<u8> {
    let mut bytes = Vec::new();
    each(&SimMemory, packet, |part| bytes.extend(part));
    bytes
}

fn noise(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + (i >> 8)) as u8).collect()
}

fn lens() -> impl Strategy<Value = Vec<usize>> {
    (80..300_usize, prop::collection::vec(1..300_usize, 0..20))
        .prop_map(|(first, rest)| std::iter::once(first).chain(rest).collect())
}

proptest! {
    #[test]
    fn what_is_cut_is_the_beginning_and_no_frame_is_lost(
        len in 100..3000_usize, to in 1..3100_usize, lens in lens()
    ) {
        let bytes = noise(len);
        let mut packet = packet(&bytes, &lens);
        let before = frames(&SimMemory, &mut packet);
        prop_assert_eq!(extent(&SimMemory, &mut packet).1, len);
        let mut free = 0;
        cut(&SimMemory, &mut packet, to, |frame| {
            assert!(!SimMemory.is_long(&frame));
            free += 1;
        });
        prop_assert_eq!(&whole(&mut packet)[..], &bytes[..to.min(len)]);
        prop_assert_eq!(frames(&SimMemory, &mut packet) + free, before);
        give(&SimMemory, packet, |_| free += 1);
        prop_assert_eq!(free, before);
    }

    #[test]
    fn a_checksum_over_any_parts_is_that_over_the_whole(
        payload in 100..3000_usize, padding in 0..50_usize, v6: bool, lens in lens()
    ) {
        let (src, dst) = if v6 {
            (host6(0).into(), host6(1).into())
        } else {
            (host4(0).into(), host4(1).into())
        };
        let done = udp(PortId(0), src, dst, &noise(payload));
        let start = if v6 { 54 } else { 34 };
        let mut bytes = done.clone();
        bytes[start + 6..start + 8].copy_from_slice(&pseudo_sum(&done).to_be_bytes());
        bytes.resize(done.len() + padding, 0x5a);
        let len = bytes.len();
        let mut packet = packet(&bytes, &lens);
        let left = Tag {
            flags: TAG_CSUM_PARTIAL, csum_start: start as u16, csum_offset: 6, ..tag(PortId(0))
        };
        prop_assert!(!complete_checksum(&SimMemory, &mut packet, len, &tag(PortId(0))));
        prop_assert!(complete_checksum(&SimMemory, &mut packet, len, &left));
        prop_assert_eq!(&whole(&mut packet)[..done.len()], &done[..]);
    }

    #[test]
    fn tags_on_several_frames_are_tags_on_one(
        lead in 0..3_usize, tags in 0..3_usize, first in prop_oneof![80..300_usize, FRAME_LEN - 9..=FRAME_LEN],
        spare: bool,
    ) {
        let lead = lead * 4;
        let tags = match tags {
            0 => Tags::NONE,
            1 => Tags::new((DOT1Q, 100), None),
            _ => Tags::new((DOT1AD, 7), Some((DOT1Q, 9))),
        };
        let bytes = noise(3000);
        let mut one = bytes.clone();
        one.resize(3008, 0);
        prop_assert!(vlan::put_on(&mut one, lead, 3000 - lead, tags));
        one.truncate(3000 - lead + tags.len());
        let mut packet = packet(&bytes, &[first]);
        let mut spare = if spare { SimMemory::frames(1).pop() } else { None };
        let (full, had) = (first + tags.len() > FRAME_LEN + lead, spare.is_some());
        let done = put_on(&SimMemory, &mut packet, lead, tags, &mut spare);
        prop_assert_eq!(done, !full || had);
        prop_assert_eq!(spare.is_some(), had && !full);
        prop_assert_eq!(whole(&mut packet), if done { one } else { bytes });
    }
}

#[test]
fn a_checksum_outside_the_first_frame_is_left_alone() {
    let bytes = noise(400);
    for (start, offset) in [(96, 4), (10, 0), (300, 2), (65535, 6)] {
        let mut packet = packet(&bytes, &[100]);
        let tag = Tag {
            flags: TAG_CSUM_PARTIAL,
            csum_start: start,
            csum_offset: offset,
            ..Tag::default()
        };
        assert_eq!(
            complete_checksum(&SimMemory, &mut packet, 400, &tag),
            start == 96 && offset < 3
        );
        assert_eq!(whole(&mut packet), bytes);
    }
}
