//! What a frame is for the comparison: whose case, and its bytes without what the kernel
//! itself makes differently each time. docs/oracle.md lists these with their reasons.

use std::net::{Ipv4Addr, Ipv6Addr};

use nsplane_tests::frame::sum;
use nsplane_tests::netns::show_mac;

use super::packet::{FLOW, IDENT, MAGIC, MOST_CASES, PORT};

/// What a frame is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A packet, and whose, if it bears a mark.
    Packet(Option<u16>, Vec<u8>),
    /// Something whose number says nothing: that it was there counts.
    Once(String),
    /// What happens by itself.
    Nothing,
}

/// What a frame is. Cases never are ICMP errors or answers, redirects, neighbour or
/// listener discovery, nor TCP resets: those are the kernel's own.
pub(super) fn item(frame: &[u8]) -> Item {
    match be16(frame, 12) {
        Some(0x0806) => arp(frame),
        Some(0x0800) => v4(frame),
        Some(0x86dd) => v6(frame),
        _ => Item::Packet(magic(frame), frame.to_vec()),
    }
}

fn arp(frame: &[u8]) -> Item {
    match (be16(frame, 20), frame.get(38..42)) {
        // A unicast question confirms a neighbour in use, by the kernel's clock.
        (Some(1), _) if frame[0] & 1 == 0 => Item::Nothing,
        (Some(1), Some(target)) => {
            let target: [u8; 4] = target.try_into().unwrap_or_default();
            Item::Once(format!("ARP: who has {}", Ipv4Addr::from(target)))
        }
        _ => Item::Packet(None, frame.to_vec()),
    }
}

fn v4(frame: &[u8]) -> Item {
    let mut bytes = frame.to_vec();
    let Some(header) = frame.get(14..34) else { return Item::Packet(None, bytes) };
    let [src, dst] = [12, 16].map(|at| four(&header[at..]));
    let above = 14 + usize::from(header[0] & 15) * 4;
    let kind = frame.get(above).copied().unwrap_or(0);
    let protocol = header[9];
    let first = header[6] & 0x1f == 0 && header[7] == 0;
    if protocol == 2 {
        return Item::Nothing;
    }
    let icmp = first && protocol == 1;
    if icmp && kind == 5 {
        let via = frame.get(above + 4..above + 8).map(four);
        return Item::Once(format!("redirect to {dst}, by {src}, to {via:?}"));
    }
    let error = icmp && matches!(kind, 3 | 11 | 12);
    let reset = first && protocol == 6 && frame.get(above + 13).is_some_and(|f| f & 4 != 0);
    let mut id = magic(frame);
    if error {
        id = id.or_else(|| be16(frame, above + 12).and_then(ident));
    } else if reset {
        id = id.or_else(|| be16(frame, above + 2).and_then(port));
    } else if icmp && kind == 0 {
        id = id.or_else(|| be16(frame, above + 4));
    } else {
        id = id.or_else(|| be16(header, 4).and_then(ident));
    }
    // Cases have a number that marks them.
    let later = !first && be16(header, 4).and_then(ident).is_none();
    if error || reset || later || (icmp && kind == 0) {
        // A number of the kernel's own choice, and the sum that follows from it.
        bytes[18..20].fill(0);
        bytes[24..26].fill(0);
        let sum_ok = sum(&frame[14..above.min(frame.len())], 0) == 0xffff;
        bytes[24] = u8::from(sum_ok);
    }
    Item::Packet(id, bytes)
}

fn v6(frame: &[u8]) -> Item {
    let mut bytes = frame.to_vec();
    let Some(header) = frame.get(14..54) else { return Item::Packet(None, bytes) };
    let dst = sixteen(&header[24..]);
    let kind = frame.get(54).copied().unwrap_or(0);
    let flow = be16(header, 2).map(|low| (u32::from(header[1] & 15) << 16) | u32::from(low));
    let flow = flow.filter(|flow| flow & !0x1fff == FLOW).map(|flow| (flow & 0x1fff) as u16);
    let mut id = magic(frame);
    match (flow.is_none(), header[6], kind) {
        // Listener reports lie behind hop-by-hop options; routers are asked for.
        (true, 0, _) if dst.is_multicast() => return Item::Nothing,
        (true, 58, 133 | 143) => return Item::Nothing,
        (true, 58, 135) if frame[0] & 1 == 0 => return Item::Nothing,
        (true, 58, 135) => {
            let target = frame.get(62..78).map(sixteen);
            return Item::Once(format!("solicitation for {target:?}"));
        }
        (true, 58, 137) => return Item::Once(format!("redirect to {dst}")),
        // A fragment of an answer: of the number, too.
        (true, 44, _) => bytes.get_mut(58..62).into_iter().for_each(|id| id.fill(0)),
        (true, 58, 1..=4) => {
            let low = be16(frame, 64).zip(frame.get(63));
            let quoted = low.map(|(low, high)| (u32::from(high & 15) << 16) | u32::from(low));
            id = id.or_else(|| quoted.filter(|q| q & !0x1fff == FLOW).map(|q| (q & 0x1fff) as u16));
            // The label is the kernel's own choice.
            bytes[15] &= 0xf0;
            bytes[16..18].fill(0);
        }
        (true, 58, 129) => {
            id = id.or_else(|| be16(frame, 58));
            bytes[15] &= 0xf0;
            bytes[16..18].fill(0);
        }
        (true, 6, _) if frame.get(67).is_some_and(|f| f & 4 != 0) => {
            id = id.or_else(|| be16(frame, 56).and_then(port));
            bytes[15] &= 0xf0;
            bytes[16..18].fill(0);
        }
        _ => id = id.or(flow),
    }
    Item::Packet(id, bytes)
}

/// Finishes a TCP or UDP checksum that so far is the pseudo-header's sum.
pub(super) fn finish(frame: &mut [u8]) {
    let place = |protocol| match protocol {
        6 => Some(16),
        17 => Some(6),
        _ => None,
    };
    let found = match be16(frame, 12) {
        Some(0x0800) => frame.get(14..34).and_then(|h| {
            let end = 14 + usize::from(be16(h, 2)?);
            Some((14 + usize::from(h[0] & 15) * 4, place(h[9])?, end))
        }),
        Some(0x86dd) => {
            frame.get(14..54).and_then(|h| Some((54, place(h[6])?, 54 + usize::from(be16(h, 4)?))))
        }
        _ => None,
    };
    let Some((start, place, end)) = found else { return };
    let end = end.min(frame.len());
    if start + place + 2 > end {
        return;
    }
    let checksum = !sum(&frame[start..end], 0);
    frame[start + place..start + place + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// The case whose payload is in the frame.
fn magic(frame: &[u8]) -> Option<u16> {
    let at = frame.windows(MAGIC.len()).position(|w| w == MAGIC)?;
    be16(frame, at + MAGIC.len()).filter(|id| *id < MOST_CASES)
}

fn ident(id: u16) -> Option<u16> {
    let n = id ^ IDENT;
    (n < MOST_CASES).then_some(n)
}

fn port(port: u16) -> Option<u16> {
    port.checked_sub(PORT).filter(|n| *n < MOST_CASES)
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// The caller has these bytes.
fn four(bytes: &[u8]) -> Ipv4Addr {
    bytes.first_chunk::<4>().copied().unwrap_or_default().into()
}

fn sixteen(bytes: &[u8]) -> Ipv6Addr {
    bytes.first_chunk::<16>().copied().unwrap_or_default().into()
}

/// A frame for people: what it is, then its bytes.
pub(super) fn show(frame: &[u8]) -> String {
    let mac = |at: usize| {
        let mac = frame.get(at..at + 6).and_then(|m| m.try_into().ok());
        mac.map(show_mac).unwrap_or_default()
    };
    let what = match (be16(frame, 12), frame.get(14..34), frame.get(14..54)) {
        (Some(0x0800), Some(h), _) => {
            format!("IPv4 {} > {} ttl {} protocol {}", four(&h[12..]), four(&h[16..]), h[8], h[9])
        }
        (Some(0x86dd), _, Some(h)) => format!(
            "IPv6 {} > {} hop limit {} next header {}",
            sixteen(&h[8..]),
            sixteen(&h[24..]),
            h[7],
            h[6]
        ),
        (kind, ..) => format!("ethertype {:04x}", kind.unwrap_or(0)),
    };
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{} > {} {what}, {} bytes: {hex}", mac(6), mac(0), frame.len())
}

#[cfg(test)]
mod tests {
    use super::super::packet::Packet;
    use super::*;

    #[test]
    fn a_case_is_known_by_its_payload_and_by_its_headers() {
        for (src, dst) in [("10.0.0.2", "10.1.0.2"), ("fd00::2", "fd01::2")] {
            let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
            let mut packet = Packet::new(([2; 6], [4; 6]), src, dst);
            assert!(matches!(item(&packet.bytes(77)), Item::Packet(Some(77), _)));
            packet.payload = 0;
            assert!(matches!(item(&packet.bytes(78)), Item::Packet(Some(78), _)));
        }
    }
}
