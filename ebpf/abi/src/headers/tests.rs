//! Headers as bytes, and what is said of them.
extern crate std;
use std::vec::Vec;

use super::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// UDP from 10.0.0.2 to 10.0.1.2, one byte of payload.
#[rustfmt::skip]
const V4: [u8; 43] = [
    2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00,
    0x45, 0, 0, 29, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 2, 10, 0, 1, 2,
    0x10, 0, 0x20, 0, 0, 9, 0, 0, 7,
];

/// UDP from fd00::2 to fd00:0:0:1::2, one byte of payload.
#[rustfmt::skip]
const V6: [u8; 63] = [
    2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd,
    0x60, 0, 0, 0, 0, 9, 17, 64,
    0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
    0xfd, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2,
    0x10, 0, 0x20, 0, 0, 9, 0, 0, 7,
];

/// The packet with other bytes from `at` on.
fn with(pkt: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut out = pkt.to_vec();
    out[at..at + bytes.len()].copy_from_slice(bytes);
    out
}

fn v4(at: usize, bytes: &[u8]) -> Result<Candidate, PassReason> {
    classify(&with(&V4, ETH_LEN + at, bytes)[..], MAC)
}

fn v6(at: usize, bytes: &[u8]) -> Result<Candidate, PassReason> {
    classify(&with(&V6, ETH_LEN + at, bytes)[..], MAC)
}

fn addr6(text: &str) -> [u8; 16] {
    text.parse::<std::net::Ipv6Addr>().unwrap().octets()
}

#[test]
fn unicast_between_networks_is_a_candidate() {
    let v4 = Candidate::V4 { src: [10, 0, 0, 2], dst: [10, 0, 1, 2] };
    assert_eq!(classify(&V4[..], MAC), Ok(v4));
    let v6 = Candidate::V6 { src: addr6("fd00::2"), dst: addr6("fd00:0:0:1::2") };
    assert_eq!(classify(&V6[..], MAC), Ok(v6));
}

#[test]
fn frames_that_are_not_ip_or_not_ours_are_passed() {
    let arp = with(&V4, eth::TYPE, &[0x08, 0x06]);
    assert_eq!(classify(&arp[..], MAC), Err(PassReason::NotIp));
    let tagged = with(&V4, eth::TYPE, &[0x81, 0x00]);
    assert_eq!(classify(&tagged[..], MAC), Err(PassReason::NotIp));
    assert_eq!(classify(&V4[..], [2, 0, 0, 0, 0, 9]), Err(PassReason::NotForUs));
    let broadcast = with(&V4, eth::DST, &[0xff; 6]);
    assert_eq!(classify(&broadcast[..], MAC), Err(PassReason::Multicast));
    let multicast = with(&V6, eth::DST, &[0x33, 0x33, 0, 0, 0, 1]);
    assert_eq!(classify(&multicast[..], MAC), Err(PassReason::Multicast));
}

#[test]
fn a_frame_cut_anywhere_is_malformed() {
    for len in 0..V4.len() {
        assert_eq!(classify(&V4[..len], MAC), Err(PassReason::Malformed), "{len}");
    }
    for len in 0..V6.len() {
        assert_eq!(classify(&V6[..len], MAC), Err(PassReason::Malformed), "{len}");
    }
}

#[test]
fn padding_after_the_packet_is_allowed() {
    let mut padded = V4.to_vec();
    padded.resize(60, 0);
    assert!(classify(&padded[..], MAC).is_ok());
}

#[test]
fn ipv4_headers_are_judged() {
    assert_eq!(v4(ipv4::VERSION_IHL, &[0x65]), Err(PassReason::Malformed));
    assert_eq!(v4(ipv4::VERSION_IHL, &[0x44]), Err(PassReason::Malformed));
    assert_eq!(v4(ipv4::VERSION_IHL, &[0x46]), Err(PassReason::Options));
    assert_eq!(v4(ipv4::TOTAL_LEN, &[0, 19]), Err(PassReason::Malformed));
    assert!(v4(ipv4::TOTAL_LEN, &[0, 20]).is_ok());
    assert_eq!(v4(ipv4::TOTAL_LEN, &[0, 30]), Err(PassReason::Malformed));
    assert_eq!(v4(ipv4::TOTAL_LEN, &[0xff, 0xff]), Err(PassReason::Malformed));
    assert_eq!(v4(ipv4::TTL, &[1]), Err(PassReason::Ttl));
    assert_eq!(v4(ipv4::TTL, &[0]), Err(PassReason::Ttl));
    assert!(v4(ipv4::TTL, &[2]).is_ok());
}

#[test]
fn ipv4_addresses_are_judged() {
    for dst in [[224, 0, 0, 1], [239, 255, 255, 255], [255, 255, 255, 255]] {
        assert_eq!(v4(ipv4::DST, &dst), Err(PassReason::Multicast), "{dst:?}");
    }
    let scoped = [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [169, 254, 1, 1], [240, 0, 0, 1]];
    for addr in scoped {
        assert_eq!(v4(ipv4::SRC, &addr), Err(PassReason::Scope), "{addr:?}");
        assert_eq!(v4(ipv4::DST, &addr), Err(PassReason::Scope), "{addr:?}");
    }
    assert_eq!(v4(ipv4::SRC, &[224, 0, 0, 1]), Err(PassReason::Scope));
    assert_eq!(v4(ipv4::SRC, &[255; 4]), Err(PassReason::Scope));
    for addr in [[1, 0, 0, 1], [126, 0, 0, 1], [128, 0, 0, 1], [169, 253, 0, 1], [223, 0, 0, 1]] {
        assert!(v4(ipv4::SRC, &addr).is_ok(), "{addr:?}");
        assert!(v4(ipv4::DST, &addr).is_ok(), "{addr:?}");
    }
}

#[test]
fn ipv6_headers_are_judged() {
    assert_eq!(v6(ipv6::VERSION, &[0x40]), Err(PassReason::Malformed));
    assert!(v6(ipv6::VERSION, &[0x6f, 0xff]).is_ok());
    assert_eq!(v6(ipv6::NEXT_HEADER, &[0]), Err(PassReason::HopByHop));
    let jumbo = [0, 0, 0, 64];
    assert_eq!(v6(ipv6::PAYLOAD_LEN, &jumbo), Err(PassReason::HopByHop));
    assert_eq!(v6(ipv6::PAYLOAD_LEN, &[0, 10]), Err(PassReason::Malformed));
    assert_eq!(v6(ipv6::PAYLOAD_LEN, &[0xff, 0xff]), Err(PassReason::Malformed));
    assert!(v6(ipv6::PAYLOAD_LEN, &[0, 0]).is_ok());
    assert_eq!(v6(ipv6::HOP_LIMIT, &[1]), Err(PassReason::Ttl));
    assert_eq!(v6(ipv6::HOP_LIMIT, &[0]), Err(PassReason::Ttl));
    assert!(v6(ipv6::HOP_LIMIT, &[2]).is_ok());
}

#[test]
fn ipv6_addresses_are_judged() {
    assert_eq!(v6(ipv6::DST, &addr6("ff02::1")), Err(PassReason::Multicast));
    assert_eq!(v6(ipv6::SRC, &addr6("ff02::1")), Err(PassReason::Scope));
    for text in ["::", "::1", "::ffff:10.0.0.1", "::10.0.0.1", "fe80::1", "febf::1"] {
        assert_eq!(v6(ipv6::SRC, &addr6(text)), Err(PassReason::Scope), "{text}");
        assert_eq!(v6(ipv6::DST, &addr6(text)), Err(PassReason::Scope), "{text}");
    }
    for text in ["fec0::1", "fe7f::1", "2001:db8::1", "64:ff9b::10.0.0.1"] {
        assert!(v6(ipv6::SRC, &addr6(text)).is_ok(), "{text}");
        assert!(v6(ipv6::DST, &addr6(text)).is_ok(), "{text}");
    }
}

/// UDP from 10.0.0.2:4096 to 10.0.1.2:8192, its checksum left to the device:
/// 0x0a00 + 0x0002 + 0x0a00 + 0x0102 + 17 + 9.
const UNFINISHED_V4: [u8; 43] = with_checksum(V4, 40, 0x151e);
/// 0xfd00 + 2 + 0xfd00 + 1 + 2 + 17 + 9, folded.
const UNFINISHED_V6: [u8; 63] = with_checksum(V6, 60, 0xfa20);

const fn with_checksum<const N: usize>(mut pkt: [u8; N], at: usize, sum: u16) -> [u8; N] {
    [pkt[at], pkt[at + 1]] = sum.to_be_bytes();
    pkt
}

fn unfinished(pkt: &[u8]) -> bool {
    may_be_unfinished(pkt, classify(pkt, MAC).expect("a candidate"))
}

/// IPv4 and IPv6 packets of a protocol, with this behind the IP header.
fn both(protocol: u8, segment: &[u8]) -> [Vec<u8>; 2] {
    let len = segment.len() as u16;
    let mut v4 = with(&V4[..34], ETH_LEN + ipv4::TOTAL_LEN, &(20 + len).to_be_bytes());
    v4[ETH_LEN + ipv4::PROTOCOL] = protocol;
    let mut v6 = with(&V6[..54], ETH_LEN + ipv6::PAYLOAD_LEN, &len.to_be_bytes());
    v6[ETH_LEN + ipv6::NEXT_HEADER] = protocol;
    v4.extend(segment);
    v6.extend(segment);
    [v4, v6]
}

#[test]
fn a_bare_pseudo_sum_is_unfinished_and_nothing_else_is() {
    for (pkt, field, bare) in [(&UNFINISHED_V4[..], 40, 0x151e_u16), (&UNFINISHED_V6, 60, 0xfa20)] {
        assert!(unfinished(pkt));
        let mut tried = 0;
        for sum in 1..=u16::MAX {
            // The length, 9, may have been left out.
            let expected = sum == bare || sum == bare - 9;
            assert_eq!(unfinished(&with(pkt, field, &sum.to_be_bytes())), expected, "{sum:#x}");
            tried += u32::from(expected);
        }
        assert_eq!(tried, 2);
    }
}

#[test]
fn padding_takes_no_part() {
    let mut padded = UNFINISHED_V4.to_vec();
    padded.resize(60, 0xee);
    assert!(unfinished(&padded));
}

#[test]
fn tcp_has_its_checksum_elsewhere() {
    let mut tcp = [0_u8; 24];
    tcp[12] = 0x60;
    let whole = both(l4::TCP, &tcp);
    assert!(whole.iter().all(|pkt| !unfinished(pkt)));
    for (pkt, sum) in whole.iter().zip([0x1522_u16, 0xfa24]) {
        let at = pkt.len() - 24 + l4::TCP_CHECKSUM;
        assert!(unfinished(&with(pkt, at, &sum.to_be_bytes())));
    }
}

#[test]
fn a_sum_that_folds_twice_is_found() {
    // Addresses of all ones but for what makes them routable.
    let src = [0xfd; 16];
    let dst = addr6("fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    let pkt = with(&with(&V6, ETH_LEN + ipv6::SRC, &src), ETH_LEN + ipv6::DST, &dst);
    let mut sum: u32 = 17 + 9;
    for pair in src.chunks(2).chain(dst.chunks(2)) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair[1]);
        sum = (sum & 0xffff) + (sum >> 16);
    }
    assert!(unfinished(&with(&pkt, 60, &(sum as u16).to_be_bytes())));
    assert!(!unfinished(&with(&pkt, 60, &(sum as u16 + 1).to_be_bytes())));
}

#[test]
fn fragments_are_whole() {
    let at = ETH_LEN + ipv4::FRAGMENT;
    for fragment in [[0x20, 0], [0, 1], [0x1f, 0xff]] {
        assert!(!unfinished(&with(&UNFINISHED_V4, at, &fragment)));
    }
    // "Don't fragment" makes none.
    assert!(unfinished(&with(&UNFINISHED_V4, at, &[0x40, 0])));
}

#[test]
fn what_may_hide_an_unfinished_packet_is_not_trusted() {
    // IP in IP, IPv6 in IP, routing, fragment, GRE, AH, destination options, SCTP,
    // UDP-Lite, mobility, HIP, shim6.
    for protocol in [4, 41, 43, 44, 47, 51, 60, 132, 136, 135, 139, 140] {
        assert!(both(protocol, &[1; 40]).iter().all(|pkt| unfinished(pkt)), "{protocol}");
    }
    for protocol in [l4::ICMP, l4::ICMPV6, l4::ESP] {
        assert!(both(protocol, &[1; 40]).iter().all(|pkt| !unfinished(pkt)), "{protocol}");
    }
    // UDP with checksum 0x0101, then to tunnels' ports, then without a checksum.
    for port in [4789_u16, 8472, 6081, 53] {
        let udp = with(&[1; 40], l4::UDP_DST, &port.to_be_bytes());
        assert!(both(l4::UDP, &udp).iter().all(|pkt| unfinished(pkt) == (port != 53)), "{port}");
    }
    let udp = with(&[1; 40], l4::UDP_CHECKSUM, &[0, 0]);
    assert!(both(l4::UDP, &udp).iter().all(|pkt| unfinished(pkt)));
}

#[test]
fn an_l4_header_cut_short_is_not_trusted() {
    for (protocol, header) in [(l4::TCP, 20), (l4::UDP, 8)] {
        for len in 0..=header {
            for mut pkt in both(protocol, &[1; 20][..len]) {
                assert_eq!(unfinished(&pkt), len < header, "{protocol} {len}");
                // Padding is no header.
                pkt.resize(80, 1);
                assert_eq!(unfinished(&pkt), len < header, "{protocol} {len}");
            }
        }
    }
}
