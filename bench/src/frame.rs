//! What the packets look like.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use nsplane_abi::headers::{ETH_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use nsplane_abi::traffic::{
    self, HEAD_V4, HEAD_V6, MAGIC, MAX_FRAME, PORT, UDP_LEN, UDP_V4, UDP_V6, add32,
};
use nsplane_tests::tenant::{Family, Host, Tenant};

const IPPROTO_UDP: u8 = 17;
const TTL: u8 = 64;

/// A marked UDP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Source Ethernet address.
    pub source_mac: [u8; 6],
    /// Destination Ethernet address: the router's.
    pub destination_mac: [u8; 6],
    /// Source address.
    pub source: IpAddr,
    /// First destination address, of the same family.
    pub destination: IpAddr,
    /// Destinations, counted up from the first, one packet each in turn.
    pub destinations: u32,
    /// Bytes from the Ethernet header on, without a wire's checksum.
    pub length: usize,
    /// Whose packet it is.
    pub mark: u32,
}

/// A frame ready to be generated.
#[derive(Debug)]
pub(crate) struct Template {
    /// The whole packet, without what differs from packet to packet.
    pub(crate) bytes: Vec<u8>,
    /// What the program works by.
    pub(crate) generator: traffic::Generator,
    pub(crate) v6: bool,
}

impl Frame {
    /// The shortest packet from one host of a tenant to the other.
    ///
    /// # Errors
    /// The tenant's devices have no Ethernet addresses.
    pub fn across(tenant: &Tenant, from: Host, family: Family, mark: u32) -> Result<Self> {
        let to = from.other();
        let destination = to.address(family);
        Ok(Self {
            source_mac: tenant.host(from).mac(Host::DEVICE)?,
            destination_mac: tenant.router().mac(from.router_device())?,
            source: from.address(family),
            destination,
            destinations: 1,
            length: Self::shortest(destination),
            mark,
        })
    }

    /// The shortest length a frame to this address may have.
    #[must_use]
    pub fn shortest(destination: IpAddr) -> usize {
        if destination.is_ipv6() { HEAD_V6 } else { HEAD_V4 }
    }

    /// # Errors
    /// Addresses of two families, no destination, or a length that the marks do
    /// not fit in or that a live frame cannot have.
    pub(crate) fn template(&self) -> Result<Template> {
        let shortest = Self::shortest(self.destination);
        ensure!(
            (shortest..=MAX_FRAME).contains(&self.length),
            "a frame to {} has {shortest} to {MAX_FRAME} bytes, not {}",
            self.destination,
            self.length
        );
        ensure!(self.destinations > 0, "a frame needs a destination");
        let (udp, pseudo) = match (self.source, self.destination) {
            (IpAddr::V4(_), IpAddr::V4(_)) => (UDP_V4, 26),
            (IpAddr::V6(_), IpAddr::V6(_)) => (UDP_V6, 22),
            (source, destination) => {
                anyhow::bail!("{source} and {destination} are not of one family")
            }
        };
        let (bytes, first) = self.bytes(udp);
        let mut head = [0; HEAD_V6 / 8];
        for (word, chunk) in head.iter_mut().zip(bytes[..shortest].chunks_exact(8)) {
            let mut part = [0; 8];
            part.copy_from_slice(chunk);
            *word = u64::from_ne_bytes(part);
        }
        let udp_len = u32::try_from(self.length - udp)?;
        // The pseudo header: addresses, which lie right before the UDP header;
        // length and protocol, each a number in network byte order.
        let udp_sum = sum(&bytes[pseudo..])
            + u64::from(u16::to_be(udp_len as u16))
            + u64::from(u16::to_be(u16::from(IPPROTO_UDP)));
        let ip_sum = if udp == UDP_V4 { sum(&bytes[ETH_LEN..UDP_V4]) } else { 0 };
        let generator = traffic::Generator {
            sequence: 0,
            head,
            ip_sum: u32::try_from(ip_sum)?,
            udp_sum: u32::try_from(udp_sum)?,
            destination: first,
            destinations: self.destinations,
        };
        Ok(Template { bytes, generator, v6: udp == UDP_V6 })
    }

    /// The packet, and the last four bytes of the first destination, which it lacks.
    fn bytes(&self, udp: usize) -> (Vec<u8>, u32) {
        // Filler that is neither zero nor the same everywhere.
        let mut bytes: Vec<u8> = (0..self.length).map(|i| (i % 251) as u8).collect();
        bytes[..6].copy_from_slice(&self.destination_mac);
        bytes[6..12].copy_from_slice(&self.source_mac);
        let ip_len = (self.length - ETH_LEN) as u16;
        let udp_len = (self.length - udp) as u16;
        let mut first = [0; 4];
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                bytes[12..14].copy_from_slice(&ETHERTYPE_IPV4.to_be_bytes());
                let ip = &mut bytes[ETH_LEN..UDP_V4];
                ip.fill(0);
                ip[0] = 0x45;
                ip[2..4].copy_from_slice(&ip_len.to_be_bytes());
                ip[8] = TTL;
                ip[9] = IPPROTO_UDP;
                ip[12..16].copy_from_slice(&source.octets());
                first.copy_from_slice(&destination.octets());
            }
            (source, destination) => {
                let octets = |address| match address {
                    IpAddr::V6(address) => address.octets(),
                    IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                };
                bytes[12..14].copy_from_slice(&ETHERTYPE_IPV6.to_be_bytes());
                let ip = &mut bytes[ETH_LEN..UDP_V6];
                ip.fill(0);
                ip[0] = 0x60;
                ip[4..6].copy_from_slice(&udp_len.to_be_bytes());
                ip[6] = IPPROTO_UDP;
                ip[7] = TTL;
                ip[8..24].copy_from_slice(&octets(source));
                let destination = octets(destination);
                ip[24..36].copy_from_slice(&destination[..12]);
                first.copy_from_slice(&destination[12..]);
            }
        }
        let header = &mut bytes[udp..udp + UDP_LEN];
        header[..2].copy_from_slice(&PORT.to_be_bytes());
        header[2..4].copy_from_slice(&PORT.to_be_bytes());
        header[4..6].copy_from_slice(&udp_len.to_be_bytes());
        header[6..8].fill(0);
        let payload = &mut bytes[udp + UDP_LEN..];
        payload[..2].copy_from_slice(&MAGIC);
        payload[2..6].copy_from_slice(&self.mark.to_ne_bytes());
        payload[6..22].fill(0);
        (bytes, u32::from_be_bytes(first))
    }
}

/// Sum of 16-bit words in memory order; an odd byte at the end counts as if a
/// zero followed.
fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).fold(0, |sum, pair| {
        let word = u16::from_ne_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
        add32(sum, u32::from(word))
    })
}

#[cfg(test)]
mod tests {
    use nsplane_abi::traffic::{add64, fold};

    use super::*;

    fn frame(source: &str, destination: &str, length: usize) -> Frame {
        Frame {
            source_mac: [2, 0, 0, 0, 0, 1],
            destination_mac: [2, 0, 0, 0, 0, 2],
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            destinations: 3,
            length,
            mark: 0xdead_beef,
        }
    }

    /// The same sums as the program makes, then those of the finished packet: a
    /// correct checksum makes the sum over everything all ones.
    fn finished(frame: &Frame) -> (Vec<u8>, usize) {
        let template = frame.template().unwrap();
        let (g, mut bytes) = (template.generator, template.bytes);
        let udp = if template.v6 { UDP_V6 } else { UDP_V4 };
        let (sequence, time) = (0x1122_3344_5566_7788_u64, 0x99aa_bbcc_ddee_ff01_u64);
        let destination = g.destination.wrapping_add(1).to_be();
        bytes[udp - 4..udp].copy_from_slice(&destination.to_ne_bytes());
        bytes[udp + 14..udp + 22].copy_from_slice(&sequence.to_ne_bytes());
        bytes[udp + 22..udp + 30].copy_from_slice(&time.to_ne_bytes());
        let sums = add64(add64(add32(u64::from(g.udp_sum), destination), sequence), time);
        bytes[udp + 6..udp + 8].copy_from_slice(&fold(sums).to_ne_bytes());
        if !template.v6 {
            let sum = fold(add32(u64::from(g.ip_sum), destination));
            bytes[24..26].copy_from_slice(&sum.to_ne_bytes());
        }
        (bytes, udp)
    }

    #[test]
    fn checksums_are_right_once_the_packet_is_finished() {
        for length in [64, 65, 100, 1514] {
            let (bytes, udp) = finished(&frame("10.0.0.2", "10.0.1.255", length));
            assert_eq!(fold(sum(&bytes[ETH_LEN..udp])), 0, "IPv4 header, {length}");
            let pseudo = [0, IPPROTO_UDP, 0, 0];
            let rest = u64::from(u16::to_be((length - udp) as u16));
            assert_eq!(fold(sum(&bytes[26..]) + sum(&pseudo) + rest), 0, "UDP, {length}");
        }
    }

    #[test]
    fn checksums_are_right_for_ipv6() {
        for length in [88, 89, 1514] {
            let (bytes, udp) = finished(&frame("fd00::2", "fd00:0:0:1::ffff:ffff", length));
            let pseudo = [0, IPPROTO_UDP, 0, 0];
            let rest = u64::from(u16::to_be((length - udp) as u16));
            assert_eq!(fold(sum(&bytes[22..]) + sum(&pseudo) + rest), 0, "UDP, {length}");
        }
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        assert!(frame("10.0.0.2", "fd00::1", 88).template().is_err());
        assert!(frame("10.0.0.2", "10.0.1.2", 63).template().is_err());
        assert!(frame("fd00::2", "fd00::3", 84).template().is_err());
        assert!(frame("10.0.0.2", "10.0.1.2", MAX_FRAME + 1).template().is_err());
        let none = Frame { destinations: 0, ..frame("10.0.0.2", "10.0.1.2", 64) };
        assert!(none.template().is_err());
    }
}
