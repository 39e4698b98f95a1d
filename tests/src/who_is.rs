//! Who is it that has an address: the questions and answers of ARP (RFC 826) and neighbour
//! discovery (RFC 4861), as frames.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::frame::sum;

const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// It was asked for, and counts more than what was known (RFC 4861, 4.4).
const SOLICITED_OVERRIDE: u8 = 0x60;

/// The end that a frame comes from or goes to.
pub type End = ([u8; 6], IpAddr);

/// `from` says that `of` is at its Ethernet address: an ARP reply, or a neighbour
/// advertisement that was asked for.
///
/// # Panics
/// If the addresses are of two families.
#[must_use]
pub fn answer(of: IpAddr, from: [u8; 6], to: End) -> Vec<u8> {
    match (of, to.1) {
        (IpAddr::V4(of), IpAddr::V4(ip)) => arp(2, (from, of), (to.0, ip), to.0),
        (IpAddr::V6(of), IpAddr::V6(ip)) => {
            let said = (ADVERTISEMENT, SOLICITED_OVERRIDE, 2);
            discovery(said, of, (from, of), (to.0, ip))
        }
        _ => panic!("addresses of two families"),
    }
}

/// `from` asks all on the wire who has `of`.
///
/// # Panics
/// If the addresses are of two families.
#[must_use]
pub fn question(of: IpAddr, from: End) -> Vec<u8> {
    match (of, from.1) {
        (IpAddr::V4(of), IpAddr::V4(ip)) => arp(1, (from.0, ip), ([0; 6], of), [0xff; 6]),
        (IpAddr::V6(of), IpAddr::V6(ip)) => {
            let [.., x, y, z] = of.octets();
            // RFC 4291, 2.7.1, and RFC 2464, 7
            let group = (0xff02_u128 << 112 | 0x01_ff00_0000)
                | u128::from(u32::from_be_bytes([0, x, y, z]));
            let to = ([0x33, 0x33, 0xff, x, y, z], Ipv6Addr::from_bits(group));
            discovery((SOLICITATION, 0, 1), of, (from.0, ip), to)
        }
        _ => panic!("addresses of two families"),
    }
}

/// Where a frame says that `of` is, if it is an answer to that question.
#[must_use]
pub fn answered(of: IpAddr, frame: &[u8]) -> Option<[u8; 6]> {
    let (at, address, says) = match of {
        IpAddr::V4(of) => (22, 28, of.octets().to_vec()),
        IpAddr::V6(of) => (80, 62, of.octets().to_vec()),
    };
    let kind = match of {
        IpAddr::V4(_) => frame.get(12..14)? == [8, 6] && frame.get(20..22)? == [0, 2],
        IpAddr::V6(_) => frame.get(12..14)? == [0x86, 0xdd] && frame.get(54)? == &ADVERTISEMENT,
    };
    let this = kind && frame.get(address..address + says.len())? == says;
    this.then(|| frame.get(at..at + 6)?.try_into().ok()).flatten()
}

fn arp(
    operation: u8,
    sender: ([u8; 6], Ipv4Addr),
    target: ([u8; 6], Ipv4Addr),
    to: [u8; 6],
) -> Vec<u8> {
    let mut out = [to, sender.0].concat();
    out.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    for (mac, ip) in [sender, target] {
        out.extend(mac);
        out.extend(ip.octets());
    }
    out
}

/// A message of this type and flags about `of`, with the sender's Ethernet address as
/// option of that number.
fn discovery(
    (kind, flags, option): (u8, u8, u8),
    of: Ipv6Addr,
    from: ([u8; 6], Ipv6Addr),
    to: ([u8; 6], Ipv6Addr),
) -> Vec<u8> {
    let mut icmp = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    icmp.extend(of.octets());
    icmp.extend([option, 1]);
    icmp.extend(from.0);
    let len = (icmp.len() as u16).to_be_bytes();
    let (src, dst) = (from.1.octets(), to.1.octets());
    let pseudo = sum(&dst, sum(&src, sum(&[0, ICMPV6], sum(&len, 0))));
    let checksum = !sum(&icmp, pseudo);
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut out = [to.0, from.0].concat();
    out.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    out.extend(len);
    out.extend([ICMPV6, 255]);
    out.extend(src);
    out.extend(dst);
    out.extend(icmp);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        let (mac, to) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        for (of, ip) in [("10.0.1.9", "10.0.1.1"), ("fd00::9", "fd00::1")] {
            let (of, ip): (IpAddr, IpAddr) = (of.parse().unwrap(), ip.parse().unwrap());
            assert_eq!(answered(of, &answer(of, mac, (to, ip))), Some(mac));
            assert_eq!(answered(ip, &answer(of, mac, (to, ip))), None);
            assert_eq!(answered(of, &question(of, (to, ip))), None);
        }
    }

    #[test]
    fn a_question_goes_to_the_groups_address() {
        let asked =
            question("fd00::12:3456".parse().unwrap(), ([2; 6], "fd00::1".parse().unwrap()));
        assert_eq!(asked[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        assert_eq!(asked[38..54], "ff02::1:ff12:3456".parse::<Ipv6Addr>().unwrap().octets());
    }
}
