//! Random settings of a space.

use super::plan::Plan;
use super::topology::Scene;
use crate::random::Random;

/// Settings of a device or of `all`: path with `{}` for the device, values, and how many
/// in a hundred have one of them.
const OF_DEVICES: &[(&str, &[&str], u64)] = &[
    ("net/ipv4/conf/{}/rp_filter", &["1", "2"], 12),
    ("net/ipv4/conf/{}/accept_local", &["1"], 8),
    ("net/ipv4/conf/{}/send_redirects", &["0"], 30),
    ("net/ipv4/conf/{}/accept_source_route", &["1", "0"], 15),
    ("net/ipv4/conf/{}/route_localnet", &["1"], 5),
    ("net/ipv4/conf/{}/bc_forwarding", &["1"], 10),
    ("net/ipv4/conf/{}/src_valid_mark", &["1"], 3),
    ("net/ipv4/conf/{}/proxy_arp", &["1"], 5),
    ("net/ipv4/conf/{}/ignore_routes_with_linkdown", &["1"], 5),
    ("net/ipv4/conf/{}/drop_unicast_in_l2_multicast", &["1"], 5),
    ("net/ipv6/conf/{}/accept_source_route", &["1", "-1"], 8),
    ("net/ipv6/conf/{}/proxy_ndp", &["1"], 3),
];
/// Settings of the space.
const OF_SPACE: &[(&str, &[&str], u64)] = &[
    ("net/ipv4/ip_forward_use_pmtu", &["1"], 3),
    ("net/ipv4/ip_forward_update_priority", &["0"], 10),
    ("net/ipv4/fib_multipath_hash_policy", &["1", "2"], 30),
    ("net/ipv6/fib_multipath_hash_policy", &["1", "2"], 30),
    ("net/ipv4/fib_multipath_use_neigh", &["1"], 10),
    ("net/ipv4/icmp_errors_use_inbound_ifaddr", &["1"], 10),
    ("net/ipv4/icmp_echo_ignore_all", &["1"], 5),
    ("net/ipv4/ip_default_ttl", &["17"], 5),
    ("net/ipv6/icmp/echo_ignore_all", &["1"], 5),
    ("net/ipv4/ip_no_pmtu_disc", &["1"], 5),
];

/// Draws the settings of a space.
pub(super) fn of_space(plan: &mut Plan, space: usize, scene: &Scene, random: &mut Random) {
    let mut all: Vec<(String, &str)> = Vec::new();
    let forwards = if random.percent(95) { "1" } else { "0" };
    all.push(("net/ipv4/ip_forward".to_owned(), forwards));
    let forwards = if random.percent(95) { "1" } else { "0" };
    all.push(("net/ipv6/conf/all/forwarding".to_owned(), forwards));
    for (path, values, percent) in OF_SPACE {
        if random.percent(*percent) {
            all.push(((*path).to_owned(), random.pick::<&str>(values)));
        }
    }
    let names = ["all"].into_iter().chain(scene.sides.iter().map(|side| side.device.as_str()));
    for device in names {
        for (path, values, percent) in OF_DEVICES {
            if random.percent(*percent) {
                all.push((path.replace("{}", device), random.pick::<&str>(values)));
            }
        }
    }
    for side in &scene.sides {
        if random.percent(6) {
            all.push((format!("net/ipv4/conf/{}/forwarding", side.device), "0"));
        }
        if random.percent(3) {
            all.push((format!("net/ipv6/conf/{}/forwarding", side.device), "0"));
        }
        if random.percent(3) {
            all.push((format!("net/ipv6/conf/{}/disable_ipv6", side.device), "1"));
        }
        // Known difference: the kernel does not tell of it (docs/oracle.md).
        if random.percent(5) && !plan.is_followed() {
            all.push((format!("net/ipv6/conf/{}/mtu", side.device), "1280"));
        }
    }
    let all = all.into_iter().map(|(path, value)| (space, path, value.to_owned()));
    plan.phases[0].sysctls.extend(all);
}
