//! Random topologies: every choice comes from the seed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::changes;
use super::draw;
use super::plan::{Case, Host, Mac, Phase, Plan, Wire};
use super::routes;
use super::settings;
use crate::random::Random;

/// MTUs of wires; most have the first.
const MTUS: [u32; 4] = [1500, 1400, 1280, 1000];

/// A prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Net {
    pub(super) addr: IpAddr,
    pub(super) len: u8,
}

impl Net {
    pub(super) fn show(self) -> String {
        format!("{}/{}", self.addr, self.len)
    }

    /// Any address inside of it.
    pub(super) fn any(self, random: &mut Random) -> IpAddr {
        match self.addr {
            IpAddr::V4(addr) => {
                let below = u32::MAX.checked_shr(u32::from(self.len)).unwrap_or(0);
                (Ipv4Addr::from_bits(addr.to_bits() & !below | random.next() as u32 & below)).into()
            }
            IpAddr::V6(addr) => {
                let below = u128::MAX.checked_shr(u32::from(self.len)).unwrap_or(0);
                let bits = u128::from(random.next()) << 64 | u128::from(random.next());
                Ipv6Addr::from_bits(addr.to_bits() & !below | bits & below).into()
            }
        }
    }

    /// A prefix inside of it, of this length.
    pub(super) fn inside(self, len: u8, random: &mut Random) -> Self {
        let addr = match self.any(random) {
            IpAddr::V4(addr) => {
                let below = u32::MAX.checked_shr(u32::from(len)).unwrap_or(0);
                Ipv4Addr::from_bits(addr.to_bits() & !below).into()
            }
            IpAddr::V6(addr) => {
                let below = u128::MAX.checked_shr(u32::from(len)).unwrap_or(0);
                Ipv6Addr::from_bits(addr.to_bits() & !below).into()
            }
        };
        Self { addr, len }
    }
}

/// A neighbour that routes may lead to.
#[derive(Clone, Debug)]
pub(super) struct Neighbor {
    pub(super) addr: IpAddr,
    pub(super) mac: Mac,
    /// Its entry is permanent.
    pub(super) permanent: bool,
}

/// A space's side of a wire.
#[derive(Clone, Debug)]
pub(super) struct Side {
    pub(super) wire: usize,
    pub(super) device: String,
    pub(super) mac: Mac,
    /// The networks that it is on: IPv4, IPv6.
    pub(super) nets: [Net; 2],
    /// Its addresses.
    pub(super) own: [IpAddr; 2],
    /// Who is there.
    pub(super) neighbors: Vec<Neighbor>,
    /// Networks behind them, where packets come from.
    pub(super) behind: Vec<Net>,
    /// It leads outside.
    pub(super) outer: bool,
}

impl Side {
    /// Neighbours of one family.
    pub(super) fn of(&self, v4: bool) -> impl Iterator<Item = &Neighbor> {
        self.neighbors.iter().filter(move |n| n.addr.is_ipv4() == v4)
    }
}

/// A space while it is made up.
#[derive(Clone, Debug, Default)]
pub(super) struct Scene {
    pub(super) sides: Vec<Side>,
    /// Prefixes that routes lead to, in this and its tenant's other spaces.
    pub(super) nets: Vec<Net>,
    /// So many of them are networks behind hosts.
    pub(super) sure: usize,
}

/// Makes a plan of about so many cases.
pub(super) fn plan(seed: u64, cases: usize) -> Plan {
    let mut random = Random::new(seed);
    let random = &mut random;
    let mut plan = Plan { seed, ..Plan::default() };
    plan.phases.push(Phase::default());
    let tenants = if random.percent(25) { 2 } else { 1 };
    let mut scenes: Vec<Scene> = Vec::new();
    for tenant in 0..tenants {
        let made = make_tenant(&mut plan, tenant, random);
        scenes.extend(made);
    }
    let outer: Vec<(usize, usize)> = plan.outer().map(|(n, wire)| (n, wire.near)).collect();
    let changes = random.percent(70);
    let first = if changes { cases / 2 } else { cases };
    let mut id = 0;
    let mut add = |plan: &mut Plan, n: usize, random: &mut Random| {
        for _ in 0..n {
            let (wire, space) = *random.pick(&outer);
            let mut packet = draw::packet(&scenes[space], wire, random);
            // Known difference: with more tags than stated it is not the member's.
            if plan.wires[wire].vlan.is_some() {
                packet.tags.clear();
            }
            let phase = plan.phases.last_mut().expect("there is a first phase");
            phase.cases.push(Case { id, wire, packet });
            id += 1;
        }
    };
    add(&mut plan, first, random);
    if changes {
        let phase = changes::phase(&plan, &scenes, random);
        plan.phases.push(phase);
        add(&mut plan, cases - first, random);
    }
    plan
}

/// Makes a tenant: a chain of spaces with hosts at each. Another tenant's addresses are
/// the same, but for those of its Ethernet devices.
fn make_tenant(plan: &mut Plan, tenant: usize, random: &mut Random) -> Vec<Scene> {
    let size = match random.below(10) {
        0..5 => 1,
        5..8 => 2,
        _ => 3,
    };
    let base = plan.spaces;
    plan.spaces += size;
    let mut scenes = vec![Scene::default(); size];
    let mut number = 0;
    let mut next = || {
        number += 1;
        number - 1
    };
    for (n, scene) in scenes.iter_mut().enumerate() {
        let outer = if size == 1 { 2 + random.below(2) } else { 1 + random.below(2) };
        for _ in 0..outer {
            let side = outer_side(plan, base + n, tenant as u8, next(), random);
            scene.sides.push(side);
        }
    }
    for n in 1..size {
        let [near, far] = inner_sides(plan, base + n - 1, tenant as u8, next(), random);
        scenes[n - 1].sides.push(near);
        scenes[n].sides.push(far);
    }
    let sides: Vec<&Side> = scenes.iter().flat_map(|scene| &scene.sides).collect();
    let mut all: Vec<Net> = sides.iter().flat_map(|side| side.behind.iter().copied()).collect();
    let sure = all.len();
    all.extend(sides.iter().flat_map(|side| side.nets));
    for n in 0..size {
        settings::of_space(plan, base + n, &scenes[n], random);
        addresses(plan, base + n, &scenes[n]);
        routes::basic(plan, base, n, &scenes, random);
        let mut nets = all.clone();
        routes::more(plan, base + n, &scenes[n], &mut nets, random);
        scenes[n].nets = nets;
    }
    // A packet may be meant for any of the tenant's routes.
    let nets: Vec<Net> = scenes.iter().flat_map(|scene| scene.nets.clone()).collect();
    for scene in &mut scenes {
        scene.nets.clone_from(&nets);
        scene.sure = sure;
    }
    scenes
}

fn mtu(random: &mut Random) -> u32 {
    if random.percent(45) { MTUS[0] } else { *random.pick(&MTUS) }
}

fn v6(parts: [u16; 8]) -> IpAddr {
    Ipv6Addr::from(parts).into()
}

/// The n-th address of a network.
fn nth(net: Net, n: u32) -> IpAddr {
    match net.addr {
        IpAddr::V4(addr) => Ipv4Addr::from_bits(addr.to_bits() + n).into(),
        IpAddr::V6(addr) => Ipv6Addr::from_bits(addr.to_bits() + u128::from(n)).into(),
    }
}

fn outer_side(plan: &mut Plan, space: usize, tenant: u8, n: u8, random: &mut Random) -> Side {
    let wire = plan.wires.len();
    let (near, far) = ([2, 0, tenant, n, 0, 1], [2, 0, tenant, n, 0, 2]);
    let vlan = random.percent(12).then_some(100 + wire as u16 * 2);
    plan.wires.push(Wire { near: space, far: None, macs: (near, far), mtu: mtu(random), vlan });
    let len = *random.pick(&[24, 24, 24, 25, 29, 30, 31, 16]);
    let nets = [
        Net { addr: [10, n, 0, 0].into(), len },
        Net { addr: v6([0xfd00, 0, 0, u16::from(n), 0, 0, 0, 0]), len: 64 },
    ];
    let first = u32::from(len != 31);
    let own = [nth(nets[0], first), nth(nets[1], 1)];
    let room = (1_u64 << (32 - len)).saturating_sub(if len == 31 { 1 } else { 3 });
    let count = (1 + random.below(4)).min(room) as u32;
    let mut neighbors = Vec::new();
    for (net, first) in [(nets[0], first), (nets[1], 1)] {
        for host in 1..=count {
            // The first is a gateway, and always there.
            let permanent = host == 1 && random.percent(70) || random.percent(45);
            let dead = host > 1 && random.percent(15);
            let (addr, mac) = (nth(net, first + host), [2, 0xaa, tenant, n, 0, host as u8]);
            if !dead {
                neighbors.push(Neighbor { addr, mac, permanent });
            }
            if !dead && !permanent {
                plan.hosts.push(Host { wire, addr, mac });
            }
        }
    }
    let behind = vec![
        Net { addr: [172, 16 + n, 0, 0].into(), len: 16 },
        Net { addr: v6([0x2001, 0xdb8, u16::from(n), 0, 0, 0, 0, 0]), len: 48 },
    ];
    let device = format!("d{wire}");
    Side { wire, device, mac: near, nets, own, neighbors, behind, outer: true }
}

fn inner_sides(plan: &mut Plan, space: usize, tenant: u8, n: u8, random: &mut Random) -> [Side; 2] {
    let wire = plan.wires.len();
    let macs = ([2, 0, tenant, n, 0, 1], [2, 0, tenant, n, 0, 2]);
    plan.wires.push(Wire { near: space, far: Some(space + 1), macs, mtu: mtu(random), vlan: None });
    let nets = [
        Net { addr: [10, n, 0, 0].into(), len: 30 },
        Net { addr: v6([0xfd00, 0, 0, u16::from(n), 0, 0, 0, 0]), len: 64 },
    ];
    let permanent = random.percent(50);
    let side = |device: char, mac, other, own: u32, peer: u32| Side {
        wire,
        device: format!("{device}{wire}"),
        mac,
        nets,
        own: nets.map(|net| nth(net, own)),
        neighbors: nets.map(|net| Neighbor { addr: nth(net, peer), mac: other, permanent }).into(),
        behind: Vec::new(),
        outer: false,
    };
    [side('d', macs.0, macs.1, 1, 2), side('u', macs.1, macs.0, 2, 1)]
}

/// Addresses and permanent neighbours.
fn addresses(plan: &mut Plan, space: usize, scene: &Scene) {
    let mut lines = Vec::new();
    for side in &scene.sides {
        let device = &side.device;
        lines.push(format!("addr add {}/{} dev {device}", side.own[0], side.nets[0].len));
        lines.push(format!("addr add {}/{} dev {device} nodad", side.own[1], side.nets[1].len));
        for neighbor in side.neighbors.iter().filter(|n| n.permanent) {
            lines.push(neighbor_line(neighbor.addr, neighbor.mac, device));
        }
    }
    plan.phases[0].lines.extend(lines.into_iter().map(|line| (space, line)));
}

/// The command that makes a permanent neighbour.
pub(super) fn neighbor_line(addr: IpAddr, mac: Mac, device: &str) -> String {
    let mac = nsplane_tests::netns::show_mac(mac);
    format!("neigh replace {addr} lladdr {mac} dev {device} nud permanent")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_everything() {
        let text = |seed| serde_json::to_string(&plan(seed, 40)).unwrap();
        assert_eq!(text(1), text(1));
        assert_ne!(text(1), text(2));
    }

    #[test]
    fn every_plan_has_its_cases_on_outer_wires() {
        for seed in 0..200 {
            let plan = plan(seed, 30);
            assert_eq!(plan.cases().count(), 30);
            assert!(plan.cases().all(|case| plan.wires[case.wire].is_outer()));
            assert!(plan.cases().zip(0..).all(|(case, id)| case.id == id));
        }
    }

    #[test]
    fn prefixes_lie_inside() {
        let mut random = Random::new(1);
        let net = Net { addr: [172, 16, 0, 0].into(), len: 12 };
        for len in 12..=32 {
            let IpAddr::V4(inside) = net.inside(len, &mut random).addr else { panic!("IPv4") };
            assert_eq!(inside.octets()[0], 172);
            assert_eq!(inside.octets()[1] & 0xf0, 16);
            assert_eq!(inside.to_bits() & u32::MAX.checked_shr(len.into()).unwrap_or(0), 0);
        }
    }
}
