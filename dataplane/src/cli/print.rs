//! Answers as tables for people and as JSON for programs.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use nsplane::control::view::{Amount, Counters, Port, View};

/// Writes to standard output.
pub(crate) fn out(text: &str) -> Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        // `nsplane show routes | head` has seen enough.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("writing the answer"),
    }
}

/// The rows of a view as a JSON array.
pub(crate) fn json(view: &View) -> serde_json::Value {
    let rows = match view {
        View::Namespaces(v) => serde_json::to_value(v),
        View::Selectors(v) => serde_json::to_value(v),
        View::Ports(v) => serde_json::to_value(v),
        View::Routes(v) => serde_json::to_value(v),
        View::Neighbors(v) => serde_json::to_value(v),
        View::Ledger(v) => serde_json::to_value(v),
        View::Workers(v) => serde_json::to_value(v),
        View::Counters(v) => serde_json::to_value(v),
        View::Memory(v) => serde_json::to_value(v),
        View::Resources(v) => serde_json::to_value(v),
    };
    rows.unwrap_or_default()
}

/// The view as a table with a head line; columns are as wide as they need.
pub(crate) fn table(view: &View) -> String {
    match view {
        View::Namespaces(v) => columns(
            &[
                "NETNS", "COOKIE", "ID", "PORTS", "ROUTES4", "ROUTES6", "NEIGH", "RESYNCS", "IPV4",
                "IPV6",
            ],
            v.iter().map(|n| {
                vec![
                    n.name.clone(),
                    n.cookie.to_string(),
                    n.id.clone(),
                    n.ports.to_string(),
                    n.routes_v4.to_string(),
                    n.routes_v6.to_string(),
                    n.neighbors.to_string(),
                    n.resyncs.to_string(),
                    n.tier_v4.clone(),
                    n.tier_v6.clone(),
                ]
            }),
        ),
        View::Resources(v) => columns(
            &[
                "NAMESPACES",
                "PORTS",
                "CLOSING",
                "SOCKETS",
                "FRAMES",
                "IN-RINGS",
                "MAP-PORTS",
                "MAP-ADDRS",
                "MAP-ROUTES",
            ],
            v.iter().map(|r| {
                let of_maps = [r.map_ports, r.map_addresses, r.map_routes];
                let held = [
                    r.namespaces,
                    r.ports,
                    r.closing,
                    r.sockets,
                    r.frames as usize,
                    r.frames_in_rings,
                ];
                held.iter().chain(&of_maps).map(usize::to_string).collect()
            }),
        ),
        View::Selectors(v) => columns(
            &["SELECTOR", "NAMESPACES", "NOTE"],
            v.iter()
                .map(|s| vec![s.selector.clone(), dash(&s.namespaces.join(",")), dash(&s.note)]),
        ),
        View::Ports(v) => columns(
            &[
                "NETNS", "DEV", "PORT", "MAC", "MTU", "STATE", "XDP", "BIND", "QUEUES", "ROUTES",
                "NOTE",
            ],
            v.iter().map(|p| {
                let families = match (p.forward_v4, p.forward_v6) {
                    (true, true) => "4,6",
                    (true, false) => "4",
                    (false, true) => "6",
                    (false, false) => "-",
                };
                vec![
                    p.netns.clone(),
                    p.device.clone(),
                    dash(&p.port),
                    p.mac.clone(),
                    p.mtu.to_string(),
                    if p.up { "up" } else { "down" }.to_owned(),
                    dash(&p.xdp),
                    dash(&p.bind),
                    p.queues.to_string(),
                    families.to_owned(),
                    dash(&note(p)),
                ]
            }),
        ),
        View::Routes(v) => columns(
            &["NETNS", "DST", "VIA", "DEV", "MTU", "TIER"],
            v.iter().map(|r| {
                vec![
                    r.netns.clone(),
                    r.table.map_or(r.dst.clone(), |t| format!("{} table {t}", r.dst)),
                    dash(r.via.as_deref().unwrap_or("")),
                    dash(r.dev.as_deref().unwrap_or("")),
                    r.mtu.map_or_else(|| "-".to_owned(), |m| m.to_string()),
                    r.tier.clone(),
                ]
            }),
        ),
        View::Neighbors(v) => columns(
            &["NETNS", "DST", "DEV", "LLADDR", "STALE"],
            v.iter().map(|n| {
                let stale = if n.stale { "yes" } else { "no" };
                let cells = [&n.netns, &n.dst, &n.dev, &n.lladdr].map(String::clone);
                cells.into_iter().chain([stale.to_owned()]).collect()
            }),
        ),
        View::Ledger(v) => columns(
            &["NETNS", "ITEM", "SCOPE", "STATUS", "TIER", "REASON"],
            v.iter().map(|r| {
                let reason = match r.reason.as_str() {
                    "" => format!("not in use ({})", r.why),
                    reason => format!("{reason} ({})", r.why),
                };
                let [netns, item, scope, status] =
                    [&r.netns, &r.item, &r.scope, &r.status].map(String::clone);
                vec![netns, item, scope, status, dash(&r.tier), reason]
            }),
        ),
        View::Workers(v) => columns(
            &["WORKER", "CPU", "QUEUES", "PACKETS", "ROUNDS", "BUSY", "SLEEPS", "KICKS"],
            v.iter().map(|w| {
                vec![
                    w.worker.to_string(),
                    w.cpu.map_or_else(|| "-".to_owned(), |c| c.to_string()),
                    w.queues.to_string(),
                    w.packets.to_string(),
                    w.rounds.to_string(),
                    w.busy_rounds.to_string(),
                    w.sleeps.to_string(),
                    w.kicks.to_string(),
                ]
            }),
        ),
        View::Memory(v) => columns(
            &["FRAMES", "RINGS", "WORKERS", "PUNT", "FREE", "MOVING"],
            v.iter().map(|m| {
                let places = [m.frames, m.rings, m.workers, m.punt, m.free].map(|n| n.to_string());
                places.into_iter().chain([m.moving.to_string()]).collect()
            }),
        ),
        View::Counters(v) => {
            columns(&["NETNS", "TIER", "WHAT", "PACKETS", "BYTES"], v.iter().flat_map(counter_rows))
        }
    }
}

/// What a port is a part of, and why it is not what one would expect.
fn note(p: &Port) -> String {
    let part = p.member.as_ref().map(|m| match m.by.as_str() {
        "far end" => format!("far end of {} in {}", m.device, m.netns),
        by => format!("member of {} in {} by {by}", m.device, m.netns),
    });
    part.into_iter()
        .chain((!p.reason.is_empty()).then(|| p.reason.clone()))
        .collect::<Vec<_>>()
        .join("; ")
}

fn counter_rows(c: &Counters) -> Vec<Vec<String>> {
    let row = |tier: &str, what: &str, packets: u64, bytes: Option<u64>| {
        vec![
            c.netns.clone(),
            tier.to_owned(),
            what.to_owned(),
            packets.to_string(),
            bytes.map_or_else(|| "-".to_owned(), |b| b.to_string()),
        ]
    };
    let amount = |tier: &str, what: &str, a: Amount| row(tier, what, a.packets, Some(a.bytes));
    let u = &c.userspace;
    let mut rows = vec![
        amount("userspace", "received", u.received),
        amount("userspace", "forwarded", u.forwarded),
        row("userspace", "sent", u.tx_packets, None),
    ];
    let singles = [
        ("send refused", u.tx_refused),
        ("checksum completed", u.csum_completed),
        ("punt failed", u.punts_failed),
    ];
    for (what, n) in singles.into_iter().filter(|(_, n)| *n > 0) {
        rows.push(row("userspace", what, n, None));
    }
    rows.extend(u.drops.iter().map(|(r, n)| row("userspace", &format!("drop {r}"), *n, None)));
    rows.extend(u.punts.iter().map(|(r, n)| row("userspace", &format!("punt {r}"), *n, None)));
    rows.extend(c.kernel.passed.iter().map(|(r, a)| amount("kernel", &format!("pass {r}"), *a)));
    rows
}

fn dash(s: &str) -> String {
    if s.is_empty() { "-".to_owned() } else { s.to_owned() }
}

fn columns(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let head: Vec<String> = head.iter().map(|&h| h.to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|c| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, &w)| format!("{cell:<w$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsplane::control::view::Neighbor;

    #[test]
    fn columns_line_up_and_empty_cells_show_a_dash() {
        let view = View::Neighbors(vec![Neighbor {
            netns: "blue".to_owned(),
            dst: "10.0.0.2".to_owned(),
            dev: "eth0".to_owned(),
            lladdr: "02:00:00:00:00:01".to_owned(),
            stale: false,
        }]);
        assert_eq!(
            table(&view),
            "NETNS  DST       DEV   LLADDR             STALE\n\
             blue   10.0.0.2  eth0  02:00:00:00:00:01  no\n"
        );
        assert_eq!(dash(""), "-");
    }
}
