//! Random packets: most are to be forwarded, many are at an edge, some are wrong.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::packet::{Above, Packet, Sum};
use super::topology::{Net, Scene, Side};
use crate::random::Random;

/// Addresses that are special, as source or destination.
const SPECIAL_V4: &[&str] = &[
    "0.0.0.0",
    "0.1.2.3",
    "127.0.0.1",
    "127.9.9.9",
    "169.254.3.4",
    "224.0.0.1",
    "239.1.2.3",
    "240.0.0.1",
    "255.255.255.255",
    "192.0.2.1",
    "100.64.0.1",
    "198.18.0.1",
];
const SPECIAL_V6: &[&str] = &[
    "::",
    "::1",
    "::ffff:10.0.0.2",
    "::10.0.0.2",
    "fe80::1",
    "fe80::77",
    "ff02::1",
    "ff02::2",
    "ff05::1:3",
    "ff0e::1",
    "2002:a00:2::1",
    "64:ff9b::a00:2",
    "fec0::1",
    "100::1",
    "3ffe::1",
];

/// Draws a packet that is put in at a wire of a space.
pub(super) fn packet(scene: &Scene, wire: usize, random: &mut Random) -> Packet {
    let side = scene.sides.iter().find(|side| side.wire == wire).unwrap_or(&scene.sides[0]);
    let v4 = random.percent(60);
    let (src, dst) = (source(scene, side, v4, random), destination(scene, side, v4, random));
    let host = side.neighbors.first().map_or([2, 9, 9, 9, 9, 9], |n| n.mac);
    let mut packet = Packet::new((side.mac, host), src, dst);
    packet.payload = 16 + random.below(80) as u16;
    packet.above = above(v4, random);
    if random.percent(30) {
        edge(&mut packet, random);
    }
    if random.percent(24) {
        size(&mut packet, random);
    }
    if random.percent(10) {
        wrong(&mut packet, random);
    }
    packet
}

fn special(v4: bool, random: &mut Random) -> IpAddr {
    let list = if v4 { SPECIAL_V4 } else { SPECIAL_V6 };
    random.pick(list).parse().expect("an address")
}

fn of_family(nets: impl Iterator<Item = Net>, v4: bool, random: &mut Random) -> Option<Net> {
    let nets: Vec<_> = nets.filter(|net| net.addr.is_ipv4() == v4).collect();
    nets.get(random.below(nets.len() as u64) as usize).copied()
}

fn source(scene: &Scene, side: &Side, v4: bool, random: &mut Random) -> IpAddr {
    let of_side = |random: &mut Random| {
        of_family(side.behind.iter().copied(), v4, random).map(|net| net.any(random))
    };
    let found = match random.below(100) {
        0..70 => of_side(random),
        70..85 => side.of(v4).last().map(|neighbor| neighbor.addr),
        85..92 => of_family(scene.nets.iter().copied(), v4, random).map(|net| net.any(random)),
        92..95 => Some(random.pick(&scene.sides).own[usize::from(!v4)]),
        _ => None,
    };
    found.unwrap_or_else(|| special(v4, random))
}

fn destination(scene: &Scene, side: &Side, v4: bool, random: &mut Random) -> IpAddr {
    let found = match random.below(100) {
        // Where hosts are; scenes begin with these.
        0..55 => {
            let back = random.percent(10);
            let of = scene.nets.iter().copied().take(scene.sure);
            let of = of.filter(|net| back || !side.behind.contains(net));
            of_family(of, v4, random).map(|net| within(net, random))
        }
        55..78 => of_family(scene.nets.iter().copied(), v4, random).map(|net| within(net, random)),
        78..88 => {
            let side = random.pick(&scene.sides);
            let of: Vec<_> = side.of(v4).collect();
            of.get(random.below(of.len() as u64) as usize).map(|neighbor| neighbor.addr)
        }
        88..93 => Some(random.pick(&scene.sides).own[usize::from(!v4)]),
        93..95 => {
            let net = random.pick(&scene.sides).nets[usize::from(!v4)];
            Some(last(net))
        }
        _ => None,
    };
    found.unwrap_or_else(|| special(v4, random))
}

/// An address in a network, at its edges, or right beside it.
fn within(net: Net, random: &mut Random) -> IpAddr {
    match random.below(10) {
        0 => net.addr,
        1 => last(net),
        2 => step(net.addr, -1),
        3 => step(last(net), 1),
        _ => net.any(random),
    }
}

fn last(net: Net) -> IpAddr {
    match net.addr {
        IpAddr::V4(addr) => {
            let below = u32::MAX.checked_shr(u32::from(net.len)).unwrap_or(0);
            Ipv4Addr::from_bits(addr.to_bits() | below).into()
        }
        IpAddr::V6(addr) => {
            let below = u128::MAX.checked_shr(u32::from(net.len)).unwrap_or(0);
            Ipv6Addr::from_bits(addr.to_bits() | below).into()
        }
    }
}

fn step(addr: IpAddr, by: i8) -> IpAddr {
    match addr {
        IpAddr::V4(addr) => {
            Ipv4Addr::from_bits(addr.to_bits().wrapping_add_signed(by.into())).into()
        }
        IpAddr::V6(addr) => {
            Ipv6Addr::from_bits(addr.to_bits().wrapping_add_signed(by.into())).into()
        }
    }
}

fn checksum(random: &mut Random) -> Sum {
    match random.below(20) {
        0 => Sum::Zero,
        1 => Sum::Wrong,
        _ => Sum::Right,
    }
}

fn above(v4: bool, random: &mut Random) -> Above {
    let sum = checksum(random);
    match random.below(20) {
        0..11 => Above::Udp(*random.pick(&[9, 53, 4789, 33434]), sum),
        11..15 => Above::Tcp(*random.pick(&[80, 179]), *random.pick(&[2, 0x10, 0x18, 1]), sum),
        15..18 => Above::Icmp(if v4 { 8 } else { 128 }, 0, sum),
        _ => Above::Other(*random.pick(&[47, 50, 89, 132, 253, 59])),
    }
}

/// Something that is right, but not what all packets have.
fn edge(packet: &mut Packet, random: &mut Random) {
    match random.below(9) {
        0..3 => packet.ttl = *random.pick(&[0, 1, 1, 2, 2, 3, 255]),
        3 => packet.tos = random.next() as u8,
        4 if packet.src.is_ipv4() => {
            packet.fragment =
                *random.pick(&[0x4000, 0x2000, 0x2003, 0x0003, 0x8000, 0x6000, 0x1fff]);
        }
        5 if packet.src.is_ipv4() => options(packet, random),
        4 | 5 => extensions(packet, random),
        6 => packet.padding = 1 + random.below(40) as u16,
        7 => packet.payload = random.below(20) as u16,
        _ => ethernet(packet, random),
    }
}

fn options(packet: &mut Packet, random: &mut Random) {
    let to: [u8; 4] = [10, 1, 0, 2];
    packet.options = match random.below(9) {
        0 => vec![1, 1, 1, 0],
        1 => vec![7, 7, 4, 0, 0, 0, 0, 0],
        2 => vec![148, 4, 0, 0],
        3 => [vec![131, 7, 4], to.to_vec(), vec![0]].concat(),
        4 => [vec![137, 7, 4], to.to_vec(), vec![0]].concat(),
        // Full: it has its routers already.
        5 => vec![7, 7, 8, 1, 2, 3, 4, 0],
        // A length beyond the header, one of zero, and an unknown one.
        6 => vec![7, 9, 4, 0],
        7 => vec![7, 0, 4, 0],
        _ => vec![0xde, 4, 0, 0],
    };
}

fn extensions(packet: &mut Packet, random: &mut Random) {
    let pad = vec![0, 1, 4, 0, 0, 0, 0];
    for _ in 0..=random.below(2) {
        let extension = match random.below(12) {
            0 => (0, pad.clone()),
            1 => (0, vec![0, 5, 2, 0, 0, 1, 0]),
            // An option that is unknown: skipped, discarded, answered.
            2 => (0, vec![0, *random.pick(&[0x3e, 0x7e, 0xbe, 0xfe]), 4, 0, 0, 0, 0]),
            // A jumbogram.
            3 => (0, vec![0, 0xc2, 4, 0, 1, 0, 0]),
            4 | 5 => (60, pad.clone()),
            6 => (44, [&[0, 0, 1], &id_bytes(random)[..]].concat()),
            7 => (44, [&[0, 0, 9], &id_bytes(random)[..]].concat()),
            8 => (44, [&[0, 0, 0], &id_bytes(random)[..]].concat()),
            9 => (43, [vec![2, *random.pick(&[0, 2, 4]), 0, 0, 0, 0, 0], vec![0; 16]].concat()),
            10 => (43, [vec![2, *random.pick(&[0, 2, 4]), 1, 0, 0, 0, 0], vec![0; 16]].concat()),
            _ => (51, vec![1, 0, 0, 0, 0, 0, 1]),
        };
        packet.extensions.push(extension);
    }
}

fn id_bytes(random: &mut Random) -> [u8; 4] {
    (random.next() as u32).to_be_bytes()
}

fn ethernet(packet: &mut Packet, random: &mut Random) {
    match random.below(7) {
        0 => packet.macs.0 = [2, 9, 9, 9, 9, 9],
        1 => packet.macs.0 = [0xff; 6],
        2 => packet.macs.0 = [1, 0, 0x5e, 1, 2, 3],
        3 => packet.tags = vec![(0x8100, 5)],
        4 => packet.tags = vec![(0x88a8, 5), (0x8100, 6)],
        5 => packet.tags = vec![(0x8100, 0)],
        _ => packet.ethertype = Some(*random.pick(&[0x8847, 0x88cc, 0x05dc, 0x0000, 0x8863])),
    }
}

/// At and beside the MTUs, the total packet's length.
fn size(packet: &mut Packet, random: &mut Random) {
    let mtu: i64 = *random.pick(&[600, 1000, 1280, 1280, 1300, 1400, 1400, 1500]);
    let total = mtu + random.below(7) as i64 - 1;
    let head = packet.header_len() as i64
        + match packet.above {
            Above::Udp(..) | Above::Icmp(..) => 8,
            Above::Tcp(..) => 20,
            Above::Other(_) => 0,
        };
    packet.payload = (total - head).max(0) as u16;
    if packet.src.is_ipv4() && random.percent(40) {
        packet.fragment = 0x4000;
    }
}

/// Something that no packet should have.
fn wrong(packet: &mut Packet, random: &mut Random) {
    match random.below(8) {
        0 => packet.checksum = 1 << random.below(16),
        1 => packet.longer = 1 + random.below(60) as i16,
        2 => packet.longer = -1 - random.below(90) as i16,
        3 => packet.first = Some(*random.pick(&[0x44, 0x40, 0x55, 0x65, 0x4f, 0x46, 0x15])),
        4 => packet.cut = Some(14 + random.below(60) as u16),
        5 => packet.ethertype = Some(if packet.src.is_ipv4() { 0x86dd } else { 0x0800 }),
        6 => packet.payload = 0,
        _ => std::mem::swap(&mut packet.src, &mut packet.dst),
    }
}
