//! Frames made byte by byte, so that a test can make wrong ones too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IP protocol number of UDP.
pub const UDP: u8 = 17;

/// A UDP packet over IPv4 or IPv6 in an Ethernet frame. Every field that a router
/// looks at can be set wrongly.
#[derive(Clone, Debug)]
pub struct Udp {
    /// Destination and source Ethernet address.
    pub macs: ([u8; 6], [u8; 6]),
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// What the IP header says that is in it.
    pub proto: u8,
    /// Source and destination port.
    pub ports: (u16, u16),
    /// IPv4: flags and fragment offset, as in the header.
    pub fragment: u16,
    /// IPv4: options, a multiple of four bytes.
    pub options: Vec<u8>,
    /// IPv6: an extension header in front of UDP: its number and its bytes, whose
    /// first is the next header's number.
    pub extension: Option<(u8, Vec<u8>)>,
    /// The UDP payload.
    pub payload: Vec<u8>,
    /// Send with UDP checksum 0 (IPv4: "none").
    pub zero_checksum: bool,
    /// Bytes behind the packet in the frame.
    pub padding: usize,
}

impl Udp {
    /// An ordinary packet.
    #[must_use]
    pub fn new(macs: ([u8; 6], [u8; 6]), src: IpAddr, dst: IpAddr, payload: &[u8]) -> Self {
        Self {
            macs,
            src,
            dst,
            ttl: 64,
            tos: 0,
            proto: UDP,
            ports: (12345, 9),
            fragment: 0,
            options: Vec::new(),
            extension: None,
            payload: payload.to_vec(),
            zero_checksum: false,
            padding: 0,
        }
    }

    /// The frame.
    ///
    /// # Panics
    /// If the addresses are of two families.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        frame.extend(self.macs.0);
        frame.extend(self.macs.1);
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.v4(&mut frame, src, dst),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.v6(&mut frame, src, dst),
            _ => panic!("addresses of two families"),
        }
        frame.resize(frame.len() + self.padding, 0xee);
        frame
    }

    fn v4(&self, frame: &mut Vec<u8>, src: Ipv4Addr, dst: Ipv4Addr) {
        let udp = self.udp(&src.octets(), &dst.octets());
        let header = 20 + self.options.len();
        frame.extend([0x08, 0x00]);
        let at = frame.len();
        frame.extend([0x40 | (header / 4) as u8, self.tos]);
        frame.extend(((header + udp.len()) as u16).to_be_bytes());
        frame.extend([0x12, 0x34]);
        frame.extend(self.fragment.to_be_bytes());
        frame.extend([self.ttl, self.proto, 0, 0]);
        frame.extend(src.octets());
        frame.extend(dst.octets());
        frame.extend(&self.options);
        let checksum = !sum(&frame[at..], 0);
        frame[at + 10..at + 12].copy_from_slice(&checksum.to_be_bytes());
        frame.extend(udp);
    }

    fn v6(&self, frame: &mut Vec<u8>, src: Ipv6Addr, dst: Ipv6Addr) {
        let udp = self.udp(&src.octets(), &dst.octets());
        let (next, extension) = self.extension.clone().unwrap_or((self.proto, Vec::new()));
        frame.extend([0x86, 0xdd, 0x60 | (self.tos >> 4), (self.tos << 4) | 0x0a, 0xbc, 0xde]);
        frame.extend(((extension.len() + udp.len()) as u16).to_be_bytes());
        frame.extend([next, self.ttl]);
        frame.extend(src.octets());
        frame.extend(dst.octets());
        frame.extend(extension);
        frame.extend(udp);
    }

    fn udp(&self, src: &[u8], dst: &[u8]) -> Vec<u8> {
        let len = (8 + self.payload.len()) as u16;
        let mut udp = [self.ports.0.to_be_bytes(), self.ports.1.to_be_bytes()].concat();
        udp.extend(len.to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(&self.payload);
        if !self.zero_checksum {
            let pseudo = sum(src, sum(dst, sum(&[0, UDP], sum(&len.to_be_bytes(), 0))));
            let checksum = match !sum(&udp, pseudo) {
                0 => 0xffff,
                other => other,
            };
            udp[6..8].copy_from_slice(&checksum.to_be_bytes());
        }
        udp
    }
}

/// The one's-complement sum of `bytes` (RFC 1071), continued from `start`.
#[must_use]
pub fn sum(bytes: &[u8], start: u16) -> u16 {
    let mut sum = u32::from(start);
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_sum_up_to_all_ones() {
        let a: IpAddr = "10.0.0.2".parse().unwrap();
        let b: IpAddr = "10.0.1.2".parse().unwrap();
        let frame = Udp::new(([2; 6], [4; 6]), a, b, b"abc").bytes();
        assert_eq!(frame.len(), 14 + 20 + 8 + 3);
        assert_eq!(sum(&frame[14..34], 0), 0xffff);
        let pseudo = sum(&frame[26..34], sum(&[0, UDP, 0, 11], 0));
        assert_eq!(sum(&frame[34..], pseudo), 0xffff);
    }
}
