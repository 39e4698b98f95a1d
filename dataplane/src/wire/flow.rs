//! What of a packet tells its flow from others, as the kernel's `__skb_flow_dissect`
//! (net/core/flow_dissector.c) finds it, as far as to the first tunnel.

use super::{ipv4, ipv6, read_u16};

/// Protocol and ports, as policy rules and the choice of a next hop ask for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Protocol of the payload, behind IPv6's extension headers.
    pub proto: u8,
    /// Source and destination port: 0 where there are none, as in any fragment.
    pub ports: (u16, u16),
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const DCCP: u8 = 33;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ESP: u8 = 50;
const AH: u8 = 51;
const ICMPV6: u8 = 58;
const DESTINATION: u8 = 60;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;
const ICMP: u8 = 1;
/// `MAX_FLOW_DISSECT_HDRS`.
const MAX_HEADERS: usize = 15;
/// Bytes of an ICMP header in front of the packet that it is about.
const ICMP_LEN: usize = 8;

/// Of an IPv4 packet, from its header to its end.
#[must_use]
pub fn v4(packet: &[u8]) -> Flow {
    let Some(proto) = packet.get(9).copied() else { return Flow::default() };
    if fragment_v4(packet) != 0 {
        return Flow { proto, ports: (0, 0) };
    }
    Flow { proto, ports: ports(packet, header_len(packet), proto) }
}

/// Of an IPv6 packet.
#[must_use]
pub fn v6(packet: &[u8]) -> Flow {
    let Some(mut proto) = packet.get(6).copied() else { return Flow::default() };
    let mut at = ipv6::LEN;
    for _ in 0..MAX_HEADERS {
        match proto {
            ipv6::HOP_BY_HOP | ROUTING | DESTINATION => {
                let Some(&[next, len]) = packet.get(at..at + 2) else { break };
                proto = next;
                at += (usize::from(len) + 1) * 8;
            }
            FRAGMENT => {
                let next = packet.get(at..at + 8).map(|h| h[0]);
                return Flow { proto: next.unwrap_or(proto), ports: (0, 0) };
            }
            _ => return Flow { proto, ports: ports(packet, at, proto) },
        }
    }
    Flow { proto, ports: (0, 0) }
}

/// The flow label of an IPv6 packet, as a number.
#[must_use]
pub fn label(packet: &[u8]) -> u32 {
    match packet {
        [_, b, c, d, ..] => u32::from_be_bytes([0, b & 0xf, *c, *d]),
        _ => 0,
    }
}

/// The packet that an IPv4 packet is an error about, from its header on: by its addresses
/// the error goes where the flow does (`ip_multipath_l3_keys`).
#[must_use]
pub fn about_v4(packet: &[u8]) -> Option<&[u8]> {
    // Of the fragments the first has an offset of 0.
    if packet.get(9) != Some(&ICMP) || fragment_v4(packet) & 0x1fff != 0 {
        return None;
    }
    let at = header_len(packet);
    packet.get(at..at + ICMP_LEN).filter(|icmp| matches!(icmp[0], 3 | 4 | 5 | 11 | 12))?;
    packet.get(at + ICMP_LEN..).filter(|p| p.len() >= ipv4::MIN_LEN)
}

/// Likewise of IPv6 (`ip6_multipath_l3_keys`).
#[must_use]
pub fn about_v6(packet: &[u8]) -> Option<&[u8]> {
    if packet.get(6) != Some(&ICMPV6) {
        return None;
    }
    let at = ipv6::LEN;
    packet.get(at..at + ICMP_LEN).filter(|icmp| matches!(icmp[0], 1..=4))?;
    packet.get(at + ICMP_LEN..).filter(|p| p.len() >= ipv6::LEN)
}

fn header_len(packet: &[u8]) -> usize {
    packet.first().map_or(0, |b| usize::from(b & 0xf) * 4)
}

/// The flag "more fragments" and the offset.
fn fragment_v4(packet: &[u8]) -> u16 {
    packet.get(6..8).map_or(0, |_| read_u16(packet, 6) & 0x3fff)
}

/// `proto_ports_offset`: where a protocol has its ports, or what counts as such.
fn ports(packet: &[u8], payload: usize, proto: u8) -> (u16, u16) {
    let at = match proto {
        TCP | UDP | DCCP | ESP | SCTP | UDP_LITE => payload,
        AH => payload + 4,
        _ => return (0, 0),
    };
    match packet.get(at..at + 4) {
        Some(&[a, b, c, d]) => (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
        _ => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipv4(proto: u8, fragment: [u8; 2], payload: &[u8]) -> Vec<u8> {
        let mut p = vec![0x45, 0, 0, 0, 0, 0, fragment[0], fragment[1], 64, proto, 0, 0];
        p.extend([10, 0, 0, 2, 10, 0, 1, 2]);
        p.extend(payload);
        p
    }

    fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut p = vec![0x60, 0xf, 0x12, 0x34, 0, 0, next, 64];
        p.extend([0xfd; 32]);
        p.extend(payload);
        p
    }

    const PORTS: [u8; 4] = [0, 80, 1, 0];

    #[test]
    fn ports_where_the_protocol_has_them() {
        for proto in [TCP, UDP, DCCP, ESP, SCTP, UDP_LITE] {
            assert_eq!(v4(&ipv4(proto, [0x40, 0], &PORTS)), Flow { proto, ports: (80, 256) });
            assert_eq!(v6(&ipv6(proto, &PORTS)), Flow { proto, ports: (80, 256) });
        }
        let authenticated = [[0; 4], PORTS].concat();
        assert_eq!(v4(&ipv4(AH, [0, 0], &authenticated)).ports, (80, 256));
        assert_eq!(v4(&ipv4(47, [0, 0], &PORTS)).ports, (0, 0));
        assert_eq!(v4(&ipv4(UDP, [0, 0], &PORTS[..3])).ports, (0, 0), "cut short");
    }

    #[test]
    fn no_fragment_has_ports() {
        for fragment in [[0x20, 0], [0, 1], [0x20, 1]] {
            assert_eq!(v4(&ipv4(UDP, fragment, &PORTS)), Flow { proto: UDP, ports: (0, 0) });
        }
        let first = [&[UDP, 0, 0, 1, 0, 0, 0, 1][..], &PORTS].concat();
        assert_eq!(v6(&ipv6(FRAGMENT, &first)), Flow { proto: UDP, ports: (0, 0) });
    }

    #[test]
    fn ipv6_options_are_gone_past() {
        let options =
            [&[ROUTING, 0, 0, 0, 0, 0, 0, 0, TCP, 0, 0, 0, 0, 0, 0, 0][..], &PORTS].concat();
        assert_eq!(v6(&ipv6(DESTINATION, &options)), Flow { proto: TCP, ports: (80, 256) });
        assert_eq!(v6(&ipv6(DESTINATION, &[])).ports, (0, 0));
        assert_eq!(label(&ipv6(TCP, &[])), 0xf1234);
    }

    #[test]
    fn errors_are_about_a_packet() {
        let inner = ipv4(TCP, [0, 0], &PORTS);
        let error =
            |kind: u8| ipv4(ICMP, [0, 0], &[&[kind, 0, 0, 0, 0, 0, 0, 0][..], &inner].concat());
        assert_eq!(about_v4(&error(3)), Some(&inner[..]));
        assert_eq!(about_v4(&error(8)), None, "a ping");
        assert_eq!(about_v4(&error(3)[..40]), None, "cut short");
        let inner = ipv6(TCP, &PORTS);
        let error = |kind: u8| ipv6(ICMPV6, &[&[kind, 0, 0, 0, 0, 0, 0, 0][..], &inner].concat());
        assert_eq!(about_v6(&error(2)), Some(&inner[..]));
        assert_eq!(about_v6(&error(128)), None);
    }
}
