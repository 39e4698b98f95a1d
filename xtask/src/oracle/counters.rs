//! Counters that must be the same: what the kernel counts of packets that it does not
//! forward, and how many it forwards, those that nsplane does included.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use nsplane_tests::netns::Netns;
use nsplane_tests::process::Nsplane;
use serde::Serialize;
use serde_json::Value;

/// The name under which packets forwarded by anybody are counted.
const FORWARDED: &str = "forwarded";
/// What is compared of /proc/net/snmp and /proc/net/netstat.
const V4: &[&str] = &[
    "Ip:InHdrErrors",
    "Ip:InAddrErrors",
    "Ip:OutNoRoutes",
    "Ip:FragOKs",
    "Ip:FragFails",
    "Ip:FragCreates",
    "Icmp:OutDestUnreachs",
    "Icmp:OutTimeExcds",
    "Icmp:OutParmProbs",
    "Icmp:OutEchoReps",
    "IpExt:InNoRoutes",
    "IpExt:InTruncatedPkts",
    "TcpExt:IPReversePathFilter",
];
/// What is compared of /proc/net/snmp6.
const V6: &[&str] = &[
    "Ip6InHdrErrors",
    "Ip6InTooBigErrors",
    "Ip6InAddrErrors",
    "Ip6InTruncatedPkts",
    "Ip6OutNoRoutes",
    "Ip6FragFails",
    "Icmp6OutDestUnreachs",
    "Icmp6OutPktTooBigs",
    "Icmp6OutTimeExcds",
    "Icmp6OutParmProblems",
    "Icmp6OutEchoReplies",
];

/// Counters of a namespace, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counters(BTreeMap<String, u64>);

/// Who did what in the spaces that nsplane drives.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Tiers {
    /// Packets that workers forwarded, by space.
    #[serde(skip)]
    pub(super) forwarded: Vec<u64>,
    /// By who and why: `forwarded`, `punt TTL`, `pass local`, ...
    pub(super) by_reason: BTreeMap<String, u64>,
    /// Families of spaces by who forwards them in the end, and why.
    pub(super) families: BTreeMap<String, u64>,
}

impl Counters {
    /// Those that differ, with both values.
    pub(super) fn differing(&self, other: &Self) -> Vec<String> {
        let rows = self.0.iter().filter(|(name, n)| other.0.get(*name) != Some(n));
        rows.map(|(name, n)| {
            let theirs = other.0.get(name).copied().unwrap_or(0);
            format!("{name}: kernel {n}, nsplane {theirs}")
        })
        .collect()
    }

    /// Counts packets that nsplane forwarded, as the kernel would have.
    pub(super) fn add_forwarded(&mut self, n: u64) {
        *self.0.entry(FORWARDED.to_owned()).or_default() += n;
    }

    /// Forgets how many were forwarded.
    pub(super) fn forget_forwarded(&mut self) {
        self.0.remove(FORWARDED);
    }

    fn read() -> std::io::Result<Self> {
        let mut all = BTreeMap::new();
        for file in ["snmp", "netstat"] {
            // Of the thread's namespace, not of the process'.
            let text = fs::read_to_string(format!("/proc/thread-self/net/{file}"))?;
            let lines: Vec<&str> = text.lines().collect();
            for pair in lines.chunks_exact(2) {
                let names = pair[0].split_whitespace();
                let mut cells = names.zip(pair[1].split_whitespace());
                let group = cells.next().map_or("", |(name, _)| name);
                all.extend(cells.filter_map(|(name, value)| {
                    Some((format!("{group}{name}"), value.parse::<u64>().ok()?))
                }));
            }
        }
        let text = fs::read_to_string("/proc/thread-self/net/snmp6")?;
        all.extend(text.lines().filter_map(|line| {
            let (name, value) = line.split_once(char::is_whitespace)?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        }));
        let count = |name: &str| all.get(name).copied().unwrap_or(0);
        let forwarded = count("Ip:ForwDatagrams") + count("Ip6OutForwDatagrams");
        let mut counters = Self::default();
        for name in V4.iter().chain(V6) {
            counters.0.insert((*name).to_owned(), count(name));
        }
        counters.add_forwarded(forwarded);
        Ok(counters)
    }
}

/// The counters of each space.
///
/// # Errors
/// They cannot be read.
pub(super) fn of(spaces: &[Netns]) -> Result<Vec<Counters>> {
    let read = |space: &Netns| space.inside(Counters::read)?.context("reading counters");
    spaces.iter().map(read).collect()
}

impl Tiers {
    /// Adds another's.
    pub(super) fn add(&mut self, other: &Self) {
        for (reason, n) in &other.by_reason {
            *self.by_reason.entry(reason.clone()).or_default() += n;
        }
        for (who, n) in &other.families {
            *self.families.entry(who.clone()).or_default() += n;
        }
    }

    /// Packets that a worker forwarded, of all that came to a port.
    pub(super) fn share(&self) -> (u64, u64) {
        let forwarded = self.by_reason.get(FORWARDED).copied().unwrap_or(0);
        (forwarded, self.by_reason.values().sum())
    }
}

/// What nsplane counted of these namespaces.
///
/// # Errors
/// It does not answer.
pub(super) fn tiers(nsplane: &Nsplane, spaces: &[Netns]) -> Result<Tiers> {
    let mut tiers = Tiers::default();
    for space in spaces {
        let rows = nsplane.ask("namespaces", Some(space))?;
        for tier in ["tier_v4", "tier_v6"] {
            let who = rows[0][tier].as_str().unwrap_or_default();
            *tiers.families.entry(who.to_owned()).or_default() += 1;
        }
        let rows = nsplane.ask("counters", Some(space))?;
        let row = &rows[0];
        let forwarded = row["userspace"]["forwarded"]["packets"].as_u64().unwrap_or(0);
        tiers.forwarded.push(forwarded);
        *tiers.by_reason.entry(FORWARDED.to_owned()).or_default() += forwarded;
        for (what, reasons) in [
            ("punt", &row["userspace"]["punts"]),
            ("drop", &row["userspace"]["drops"]),
            ("pass", &row["kernel"]["passed"]),
        ] {
            for (reason, n) in reasons.as_object().into_iter().flatten() {
                let n = n.as_u64().or_else(|| match n {
                    Value::Object(amount) => amount.get("packets")?.as_u64(),
                    _ => None,
                });
                *tiers.by_reason.entry(format!("{what} {reason}")).or_default() += n.unwrap_or(0);
            }
        }
    }
    Ok(tiers)
}
