//! One packet, field by field, so that it can be drawn at random and simplified again.

use std::net::IpAddr;

use nsplane_tests::frame::sum;
use serde::{Deserialize, Serialize};

use super::plan::Mac;

/// In front of every payload that has room for it; the case's number follows.
pub(super) const MAGIC: &[u8; 6] = b"ORACLE";
/// IPv4 identification of case 0.
pub(super) const IDENT: u16 = 0x4000;
/// IPv6 flow label of case 0.
pub(super) const FLOW: u32 = 0x4_0000;
/// Source port of case 0.
pub(super) const PORT: u16 = 20_000;
/// More cases than this one plan cannot have: their marks would overlap.
pub(super) const MOST_CASES: u16 = 0x2000;

/// What lies above IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Above {
    /// UDP to a port; what is said of its checksum.
    Udp(u16, Sum),
    /// TCP to a port, with flags.
    Tcp(u16, u8, Sum),
    /// An ICMP or ICMPv6 message of type and code.
    Icmp(u8, u8, Sum),
    /// Anything else, by its protocol number.
    Other(u8),
}

/// A checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Sum {
    /// As it should be.
    Right,
    /// None.
    Zero,
    /// One off.
    Wrong,
}

/// A packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Packet {
    /// Ethernet addresses: destination, source.
    pub(super) macs: (Mac, Mac),
    /// VLAN tags: ethertype, tag control.
    pub(super) tags: Vec<(u16, u16)>,
    /// Another ethertype than the addresses' family has.
    pub(super) ethertype: Option<u16>,
    /// Source.
    pub(super) src: IpAddr,
    /// Destination, of the same family.
    pub(super) dst: IpAddr,
    /// TTL or hop limit.
    pub(super) ttl: u8,
    /// TOS or traffic class.
    pub(super) tos: u8,
    /// IPv4: flags and fragment offset, as in the header.
    pub(super) fragment: u16,
    /// IPv4: options, a multiple of four bytes.
    pub(super) options: Vec<u8>,
    /// IPv6: extension headers: number, and what comes after the next header's number.
    pub(super) extensions: Vec<(u8, Vec<u8>)>,
    /// Above IP.
    pub(super) above: Above,
    /// Bytes of payload.
    pub(super) payload: u16,
    /// The length that IP says is so much more than what there is.
    pub(super) longer: i16,
    /// IPv4: another first byte than version and header length.
    pub(super) first: Option<u8>,
    /// IPv4: the header's checksum is wrong by so much.
    pub(super) checksum: u16,
    /// Bytes behind the packet in the frame.
    pub(super) padding: u16,
    /// The frame ends after so many bytes.
    pub(super) cut: Option<u16>,
}

impl Packet {
    /// An ordinary UDP packet.
    pub(super) fn new(macs: (Mac, Mac), src: IpAddr, dst: IpAddr) -> Self {
        Self {
            macs,
            tags: Vec::new(),
            ethertype: None,
            src,
            dst,
            ttl: 64,
            tos: 0,
            fragment: 0,
            options: Vec::new(),
            extensions: Vec::new(),
            above: Above::Udp(9, Sum::Right),
            payload: 16,
            longer: 0,
            first: None,
            checksum: 0,
            padding: 0,
            cut: None,
        }
    }

    /// Bytes of IP's and the options' headers.
    pub(super) fn header_len(&self) -> usize {
        match self.src {
            IpAddr::V4(_) => 20 + self.options.len(),
            IpAddr::V6(_) => 40 + self.extensions.iter().map(|(_, e)| 1 + e.len()).sum::<usize>(),
        }
    }

    /// The frame of case `id`.
    pub(super) fn bytes(&self, id: u16) -> Vec<u8> {
        let mut frame = Vec::with_capacity(64 + usize::from(self.payload));
        frame.extend(self.macs.0);
        frame.extend(self.macs.1);
        for (ethertype, control) in &self.tags {
            frame.extend(ethertype.to_be_bytes());
            frame.extend(control.to_be_bytes());
        }
        let own = if self.src.is_ipv4() { 0x0800 } else { 0x86dd };
        frame.extend(self.ethertype.unwrap_or(own).to_be_bytes());
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                self.v4(&mut frame, id, src.octets(), dst.octets());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                self.v6(&mut frame, id, src.octets(), dst.octets());
            }
            _ => unreachable!("the addresses are drawn from one family"),
        }
        frame.resize(frame.len() + usize::from(self.padding), 0xee);
        if let Some(cut) = self.cut {
            frame.truncate(usize::from(cut));
        }
        frame
    }

    fn v4(&self, frame: &mut Vec<u8>, id: u16, src: [u8; 4], dst: [u8; 4]) {
        let (protocol, above) = self.above(id, &src, &dst);
        let header = 20 + self.options.len();
        let at = frame.len();
        let len = (header + above.len()) as u16;
        frame.extend([self.first.unwrap_or(0x40 | (header / 4) as u8), self.tos]);
        frame.extend(len.wrapping_add_signed(self.longer).to_be_bytes());
        frame.extend((IDENT | id).to_be_bytes());
        frame.extend(self.fragment.to_be_bytes());
        frame.extend([self.ttl, protocol, 0, 0]);
        frame.extend(src);
        frame.extend(dst);
        frame.extend(&self.options);
        let checksum = !sum(&frame[at..], 0) ^ self.checksum;
        frame[at + 10..at + 12].copy_from_slice(&checksum.to_be_bytes());
        frame.extend(above);
    }

    fn v6(&self, frame: &mut Vec<u8>, id: u16, src: [u8; 16], dst: [u8; 16]) {
        let (protocol, above) = self.above(id, &src, &dst);
        let len = (self.header_len() - 40 + above.len()) as u16;
        let flow = FLOW | u32::from(id);
        let word = 0x6000_0000 | (u32::from(self.tos) << 20) | flow;
        frame.extend(word.to_be_bytes());
        frame.extend(len.wrapping_add_signed(self.longer).to_be_bytes());
        let mut numbers = self.extensions.iter().map(|(n, _)| *n).chain([protocol]);
        frame.extend([numbers.next().unwrap_or(protocol), self.ttl]);
        frame.extend(src);
        frame.extend(dst);
        for (_, extension) in &self.extensions {
            frame.push(numbers.next().unwrap_or(protocol));
            frame.extend(extension);
        }
        frame.extend(above);
    }

    /// Protocol number and bytes of what lies above IP.
    fn above(&self, id: u16, src: &[u8], dst: &[u8]) -> (u8, Vec<u8>) {
        let v4 = src.len() == 4;
        let port = (PORT + id).to_be_bytes();
        let mut bytes = Vec::new();
        let (protocol, place, checksum) = match self.above {
            Above::Udp(to, checksum) => {
                bytes.extend(port);
                bytes.extend(to.to_be_bytes());
                bytes.extend((8 + self.payload).to_be_bytes());
                bytes.extend([0, 0]);
                (17, Some(6), checksum)
            }
            Above::Tcp(to, flags, checksum) => {
                bytes.extend(port);
                bytes.extend(to.to_be_bytes());
                bytes.extend([0, 1, 0, 0, 0, 2, 0, 0, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
                (6, Some(16), checksum)
            }
            Above::Icmp(kind, code, checksum) => {
                bytes.extend([kind, code, 0, 0]);
                bytes.extend(id.to_be_bytes());
                bytes.extend([0, 1]);
                (if v4 { 1 } else { 58 }, Some(2), checksum)
            }
            Above::Other(protocol) => (protocol, None, Sum::Right),
        };
        let payload = MAGIC.iter().copied().chain(id.to_be_bytes()).chain((0_u8..=255).cycle());
        bytes.extend(payload.take(usize::from(self.payload)));
        if let Some(place) = place {
            // ICMP of IPv4 has no pseudo-header.
            let length = (bytes.len() as u16).to_be_bytes();
            let pseudo = sum(src, sum(dst, sum(&[0, protocol], sum(&length, 0))));
            let right = match !sum(&bytes, if protocol == 1 { 0 } else { pseudo }) {
                0 if protocol == 17 => 0xffff,
                other => other,
            };
            let value: u16 = match checksum {
                Sum::Right => right,
                Sum::Zero => 0,
                Sum::Wrong => right ^ 1,
            };
            bytes[place..place + 2].copy_from_slice(&value.to_be_bytes());
        }
        (protocol, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_packet_sums_up() {
        let v4 = Packet::new(([2; 6], [4; 6]), [10, 0, 0, 2].into(), [10, 0, 1, 2].into());
        let frame = v4.bytes(7);
        assert_eq!(frame.len(), 14 + 20 + 8 + 16);
        assert_eq!(sum(&frame[14..34], 0), 0xffff);
        assert_eq!(frame[18..20], (IDENT | 7).to_be_bytes());
        let pseudo = sum(&frame[26..34], sum(&[0, 17, 0, 24], 0));
        assert_eq!(sum(&frame[34..], pseudo), 0xffff);
    }

    #[test]
    fn extension_headers_are_a_chain() {
        let (src, dst) = ("fd00::2".parse().unwrap(), "fd00::3".parse().unwrap());
        let mut v6 = Packet::new(([2; 6], [4; 6]), src, dst);
        v6.extensions = vec![(0, vec![0, 1, 4, 0, 0, 0, 0]), (60, vec![0, 1, 4, 0, 0, 0, 0])];
        let frame = v6.bytes(7);
        assert_eq!((frame[20], frame[54], frame[62]), (0, 60, 17));
        assert_eq!(frame[18..20], 40_u16.to_be_bytes());
        assert_eq!(frame.len(), 14 + 40 + 16 + 8 + 16);
    }
}
