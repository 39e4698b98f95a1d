//! Random routes, next hops and rules of a space.

use std::net::IpAddr;

use super::plan::Plan;
use super::topology::{Neighbor, Net, Scene, Side, neighbor_line};
use crate::random::Random;

/// A table beside the kernel's own.
const TABLE: u32 = 100;

/// Where any route may lead to.
fn everywhere(v4: bool) -> Vec<Net> {
    let net = |addr: &str, len| Net { addr: addr.parse().expect("an address"), len };
    if v4 {
        vec![
            net("0.0.0.0", 0),
            net("172.16.0.0", 12),
            net("172.16.0.0", 14),
            net("10.0.0.0", 8),
            net("10.0.0.0", 13),
            net("198.18.0.0", 15),
        ]
    } else {
        vec![net("::", 0), net("2001:db8::", 32), net("2001:db8::", 45), net("fd00::", 8)]
    }
}

/// The routes by which each network of the tenant is reached, but for a few that are
/// left out.
pub(super) fn basic(plan: &mut Plan, base: usize, n: usize, scenes: &[Scene], random: &mut Random) {
    let mut lines = Vec::new();
    for (other, scene) in scenes.iter().enumerate() {
        for side in scene.sides.iter().filter(|side| side.outer) {
            let nets = side.behind.iter().chain(side.nets.iter().filter(|_| other != n));
            for net in nets {
                let v4 = net.addr.is_ipv4();
                let way = if other == n {
                    side.of(v4).next().map(|via| (side, via))
                } else {
                    towards(&scenes[n], other > n, v4)
                };
                let Some((by, via)) = way else { continue };
                if random.percent(96) {
                    lines.push(format!(
                        "route add {} via {} dev {}",
                        net.show(),
                        via.addr,
                        by.device
                    ));
                }
            }
        }
    }
    plan.phases[0].lines.extend(lines.into_iter().map(|line| (base + n, line)));
}

/// The side that leads to the spaces after or before this one.
fn towards(scene: &Scene, after: bool, v4: bool) -> Option<(&Side, &Neighbor)> {
    let device = if after { 'd' } else { 'u' };
    let mut inner = scene.sides.iter().filter(|side| !side.outer);
    let side = inner.find(|side| side.device.starts_with(device))?;
    Some((side, side.of(v4).next()?))
}

/// More routes, of all kinds; the prefixes are added to `nets`.
pub(super) fn more(
    plan: &mut Plan,
    space: usize,
    scene: &Scene,
    nets: &mut Vec<Net>,
    random: &mut Random,
) {
    let mut lines = objects(scene, random);
    for _ in 0..random.below(14) {
        let (net, line) = route(scene, nets, random);
        nets.push(net);
        // A way beside the link's own networks needs somebody there.
        lines.extend(line);
    }
    if random.percent(14) {
        for _ in 0..=random.below(3) {
            let v6 = if random.percent(40) { "-6 " } else { "" };
            let (line, net) = rule(scene, v6.is_empty(), nets, random);
            lines.push(format!("{v6}rule add {line}"));
            nets.extend(net);
        }
    }
    plan.phases[0].lines.extend(lines.into_iter().map(|line| (space, line)));
}

/// Next-hop objects: 1.. for IPv4, 11.. for IPv6, groups of both at 20 and 30.
fn objects(scene: &Scene, random: &mut Random) -> Vec<String> {
    let mut lines = Vec::new();
    if !random.percent(40) {
        return lines;
    }
    for (v4, first) in [(true, 1), (false, 11)] {
        for n in 0..3 {
            let side = random.pick(&scene.sides);
            let family = if v4 { "" } else { "-6 " };
            let mut of = side.of(v4);
            match of.next() {
                _ if random.percent(8) => {
                    lines.push(format!("{family}nexthop add id {} blackhole", first + n));
                }
                Some(via) => lines.push(format!(
                    "nexthop add id {} via {} dev {}",
                    first + n,
                    via.addr,
                    side.device
                )),
                None => {}
            }
        }
        let weight = 1 + random.below(3);
        lines.push(format!("nexthop add id {} group {first}/{},{weight}", first + 19, first + 1));
    }
    lines
}

/// A route: its prefix, and its commands.
pub(super) fn route(scene: &Scene, nets: &[Net], random: &mut Random) -> (Net, Vec<String>) {
    let v4 = random.percent(60);
    let around = if random.percent(50) {
        let of_family: Vec<_> = nets.iter().filter(|n| n.addr.is_ipv4() == v4).collect();
        of_family.get(random.below(of_family.len() as u64) as usize).map(|n| **n)
    } else {
        None
    };
    let around = around.unwrap_or_else(|| *random.pick(&everywhere(v4)));
    let longest = if v4 { 32 } else { 128 };
    let more = random.below(u64::from(longest - around.len).min(if v4 { 32 } else { 40 }) + 1);
    let len = if random.percent(15) { longest } else { around.len + more as u8 };
    let net = around.inside(len, random);
    (net, commands(scene, net, random))
}

/// The commands that add a route for a prefix.
fn commands(scene: &Scene, net: Net, random: &mut Random) -> Vec<String> {
    let v4 = net.addr.is_ipv4();
    let family = if v4 { "" } else { "-6 " };
    let prefix = net.show();
    let mut options = String::new();
    if random.percent(20) {
        options.push_str(&format!(" metric {}", random.below(3) * 10));
    }
    if random.percent(8) {
        options.push_str(&format!(" table {TABLE}"));
    }
    if random.percent(3) && v4 {
        options.push_str(" tos 0x10");
    }
    let side = random.pick(&scene.sides);
    let device = &side.device;
    let mut extra = None;
    let way = match random.below(100) {
        0..12 => {
            let kind = *random.pick(&["blackhole", "unreachable", "prohibit", "throw"]);
            return vec![format!("{family}route add {kind} {prefix}{options}")];
        }
        12..14 => return vec![format!("{family}route add local {prefix} dev lo")],
        14..19 => format!("dev {device}"),
        19..25 => {
            // A gateway beside the networks of the link.
            let other = if v4 { "203.0.113.9" } else { "2001:db8:ffff::9" };
            let addr: IpAddr = other.parse().expect("an address");
            extra = Some(neighbor_line(addr, [2, 0xbb, 0, 0, 0, 9], device));
            format!("via {other} dev {device} onlink")
        }
        25..31 if v4 => match side.of(false).next() {
            Some(via) => format!("via inet6 {} dev {device}", via.addr),
            None => format!("dev {device}"),
        },
        31..41 => multipath(scene, v4, random),
        41..49 => {
            let first = if v4 { 1 } else { 11 };
            format!("nhid {}", random.pick(&[first, first + 1, first + 2, first + 19]))
        }
        _ => {
            let gateways: Vec<_> = side.of(v4).collect();
            match gateways.get(random.below(gateways.len() as u64) as usize) {
                Some(via) => format!("via {} dev {device}", via.addr),
                None => format!("dev {device}"),
            }
        }
    };
    if random.percent(12) {
        let mtu = random.pick(&["1300", "1400", "1280", "600", "lock 1350"]);
        options.push_str(&format!(" mtu {mtu}"));
    }
    let route = format!("{family}route add {prefix} {way}{options}");
    extra.into_iter().chain([route]).collect()
}

fn multipath(scene: &Scene, v4: bool, random: &mut Random) -> String {
    let mut way = String::new();
    for _ in 0..2 + random.below(2) {
        let side = random.pick(&scene.sides);
        if let Some(via) = side.of(v4).last() {
            let weight = 1 + random.below(3);
            way.push_str(&format!(" nexthop via {} dev {} weight {weight}", via.addr, side.device));
        }
    }
    way
}

/// A policy rule, and the prefix it is about.
fn rule(scene: &Scene, v4: bool, nets: &[Net], random: &mut Random) -> (String, Option<Net>) {
    let of_family: Vec<_> = nets.iter().filter(|n| n.addr.is_ipv4() == v4).collect();
    let net = **random.pick(&of_family);
    let (words, about) = match random.below(7) {
        0 => (format!("from {}", net.show()), None),
        1 => (format!("to {}", net.show()), Some(net)),
        2 => (format!("iif {}", random.pick(&scene.sides).device), None),
        3 => ("tos 0x10".to_owned(), None),
        4 => ("ipproto udp".to_owned(), None),
        5 => ("ipproto udp dport 9".to_owned(), None),
        _ => ("fwmark 7".to_owned(), None),
    };
    let action = match random.below(8) {
        0 => "blackhole".to_owned(),
        1 => "prohibit".to_owned(),
        2 => "unreachable".to_owned(),
        3 => "table main suppress_prefixlength 8".to_owned(),
        _ => format!("table {TABLE}"),
    };
    (format!("{words} {action} pref {}", 1000 + random.below(100)), about)
}
