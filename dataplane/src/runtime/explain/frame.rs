//! The packet that a question describes.

use std::net::IpAddr;

use crate::api::Question;
use crate::id::Mac;
use crate::wire::{checksum, ethernet};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// A port's peer: any address that is not the port's.
const PEER: Mac = Mac([2, 0, 0, 0, 0, 0xee]);
const HOPS: u8 = 64;

/// A frame to `mac` with the shortest packet of that kind, sent by `src`.
pub(super) fn frame(mac: Mac, q: &Question, src: IpAddr, proto: u8) -> Vec<u8> {
    let payload = payload(q, proto);
    let mut out = Vec::new();
    out.extend(mac.0);
    out.extend(PEER.0);
    match (src, q.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            out.extend(ethernet::IPV4.to_be_bytes());
            let mut ip =
                vec![0x45, q.tos, 0, 20 + payload.len() as u8, 0, 0, 0, 0, HOPS, proto, 0, 0];
            ip.extend(src.octets());
            ip.extend(dst.octets());
            let sum = checksum::sum(&ip).complement();
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            out.extend(ip);
        }
        (src, dst) => {
            out.extend(ethernet::IPV6.to_be_bytes());
            // Version, traffic class, no flow label.
            out.extend((0x6000_0000 | u32::from(q.tos) << 20).to_be_bytes());
            out.extend([0, payload.len() as u8, proto, HOPS]);
            for addr in [src, dst] {
                out.extend(match addr {
                    IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
                    IpAddr::V6(a) => a.octets(),
                });
            }
        }
    }
    out.extend(payload);
    out
}

/// What follows the IP header: at most 20 bytes.
fn payload(q: &Question, proto: u8) -> Vec<u8> {
    let mut out = Vec::new();
    if proto == TCP || proto == UDP {
        out.extend(q.sport.to_be_bytes());
        out.extend(q.dport.to_be_bytes());
    }
    match proto {
        // SYN, in a header of five words.
        TCP => out.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]),
        UDP => out.extend([0, 8, 0, 0]),
        _ => out.extend([0; 8]),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ipv4::Ipv4;
    use crate::wire::ipv6::Ipv6;

    fn question(dst: &str) -> Question {
        Question {
            netns: String::new(),
            iif: String::new(),
            dst: dst.parse().unwrap(),
            src: None,
            proto: None,
            sport: 0x0102,
            dport: 0x0304,
            tos: 0xb8,
        }
    }

    #[test]
    fn packets_are_sound_and_say_what_was_asked() {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        for (proto, len) in [(TCP, 20), (UDP, 8), (1, 8), (89, 8)] {
            let bytes = frame(mac, &question("10.1.2.3"), [10, 0, 0, 2].into(), proto);
            let ip = Ipv4::parse(&bytes[14..]).unwrap();
            assert!(ip.checksum_ok() && ip.total_len() == 20 + len && ip.protocol() == proto);
            assert_eq!((ip.src().octets(), ip.dst().octets()), ([10, 0, 0, 2], [10, 1, 2, 3]));
            assert_eq!((bytes[15], bytes.len()), (0xb8, 34 + len));
            let src = "fd00::2".parse().unwrap();
            let bytes = frame(mac, &question("fd00:1::3"), src, proto);
            let ip = Ipv6::parse(&bytes[14..]).unwrap();
            assert_eq!((ip.next_header(), ip.hop_limit(), ip.total_len()), (proto, 64, 40 + len));
            assert_eq!(bytes[14..16], [0x6b, 0x80]);
            if proto == UDP {
                assert_eq!(bytes[54..58], [1, 2, 3, 4]);
            }
        }
    }
}
