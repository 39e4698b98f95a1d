//! What changes in the middle of a plan, while nsplane forwards.

use super::plan::{Phase, Plan};
use super::routes;
use super::topology::{Neighbor, Scene, Side, neighbor_line};
use crate::random::Random;

/// Draws the changes.
pub(super) fn phase(plan: &Plan, scenes: &[Scene], random: &mut Random) -> Phase {
    let mut phase = Phase::default();
    let setup = &plan.phases[0];
    for (space, scene) in scenes.iter().enumerate() {
        let routes: Vec<&str> = setup
            .lines
            .iter()
            .filter(|(of, line)| *of == space && line.contains("route add"))
            .map(|(_, line)| line.as_str())
            .collect();
        if random.percent(60) {
            let gateways = scene.sides.iter().filter(|side| side.outer).flat_map(gateways_moved);
            phase.lines.extend(gateways.map(|line| (space, line)));
        }
        for _ in 0..1 + random.below(6) {
            let line = match random.below(20) {
                0..7 => neighbor(scene, random),
                7..10 => a_route(&routes, "route del", random),
                10..12 => a_route(&routes, "route replace", random),
                12..16 => {
                    let (_, lines) = routes::route(scene, &scene.nets, random);
                    phase.lines.extend(lines.into_iter().map(|line| (space, line)));
                    None
                }
                16..18 => {
                    phase.sysctls.extend(setting(space, scene, random));
                    None
                }
                // Not the first device, which has the mark.
                18 => scene.sides.get(1).map(|side| {
                    format!("link set {} mtu {}", side.device, random.pick(&[1500, 1300, 1280]))
                }),
                _ => scene.sides.get(1).map(|side| {
                    let to = if random.percent(50) { "down" } else { "mtu 1400" };
                    format!("link set {} {to}", side.device)
                }),
            };
            phase.lines.extend(line.map(|line| (space, line)));
        }
    }
    phase
}

/// The permanent gateways of a side get other Ethernet addresses.
fn gateways_moved(side: &Side) -> impl Iterator<Item = String> {
    let gateways = [side.of(true).next(), side.of(false).next()].into_iter().flatten();
    gateways.filter(|n| n.permanent).map(|n| moved(n, side))
}

fn moved(neighbor: &Neighbor, side: &Side) -> String {
    let mut mac = neighbor.mac;
    mac[1] = 0xcc;
    neighbor_line(neighbor.addr, mac, &side.device)
}

/// A permanent neighbour gets another Ethernet address, or a new one appears.
fn neighbor(scene: &Scene, random: &mut Random) -> Option<String> {
    let side = random.pick(&scene.sides);
    let known: Vec<_> = side.neighbors.iter().filter(|n| n.permanent && side.outer).collect();
    // Most packets go by the first, the gateway.
    let which = if random.percent(70) { 0 } else { random.below(known.len() as u64) };
    let neighbor = known.get(which as usize)?;
    Some(moved(neighbor, side))
}

fn a_route(routes: &[&str], verb: &str, random: &mut Random) -> Option<String> {
    let line = routes.get(random.below(routes.len() as u64) as usize)?;
    Some(line.replace("route add", verb))
}

fn setting(space: usize, scene: &Scene, random: &mut Random) -> Option<(usize, String, String)> {
    let device = &random.pick(&scene.sides).device;
    let (path, value) = match random.below(5) {
        0 => (format!("net/ipv4/conf/{device}/rp_filter"), "1"),
        1 => (format!("net/ipv4/conf/{device}/rp_filter"), "0"),
        2 => (format!("net/ipv4/conf/{device}/forwarding"), "0"),
        3 => (format!("net/ipv4/conf/{device}/forwarding"), "1"),
        _ => (format!("net/ipv4/conf/{device}/send_redirects"), "0"),
    };
    Some((space, path, value.to_owned()))
}
