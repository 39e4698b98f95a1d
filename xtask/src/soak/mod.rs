//! `soak`: devices move and namespaces come and go, under load, for a long time.
//! Nothing may leak, neither a packet to another tenant nor anything that nsplane
//! or the kernel holds for it.

mod churn;
mod gaps;
mod moves;
mod sample;
mod seen;
mod sender;

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use nsplane_tests::interrupt;
use nsplane_tests::netns::{is_root, sweep};
use nsplane_tests::process::Nsplane;
use serde::Serialize;

use crate::demo;
use crate::progress::say;
use crate::setup::setup;
use sample::Sample;

/// `cargo xtask soak`.
#[derive(Clone, Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["moves", "namespaces"]))]
pub(crate) struct Args {
    /// Move a device so many times between two tenants alike, under load.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    moves: Option<u64>,
    /// Make and remove so many namespaces with two devices each, in bursts, with packets
    /// in them.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(3..))]
    namespaces: Option<u64>,
    /// Decides how long the device stays each time, and in which order namespaces go.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Packets a second of each sender. Moves: as many as go without it; with it, lost
    /// packets are counted, and each stay lasts until nsplane forwards.
    #[arg(long, value_name = "PPS")]
    rate: Option<u64>,
    /// Longest stay after packets flow again, in milliseconds.
    #[arg(long, default_value_t = 20, value_name = "MS")]
    stay_ms: u64,
    /// The host behind the device is resolved anew after each move. The kernel asks at
    /// once, and again after a second if the answer met an interface not yet ready.
    #[arg(long)]
    arp: bool,
    /// nsplane's worker threads.
    #[arg(long, default_value_t = 1)]
    workers: u16,
    /// Moves without nsplane: what the kernel alone does, to compare with.
    #[arg(long)]
    kernel: bool,
    /// Print one JSON document instead of the tables.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// So many moves, or so many namespaces.
    pub(crate) fn of(moves: Option<u64>, namespaces: Option<u64>) -> Self {
        Self {
            moves,
            namespaces,
            seed: 1,
            rate: None,
            stay_ms: 20,
            arp: false,
            workers: 1,
            kernel: false,
            json: false,
        }
    }

    fn moves(&self) -> u64 {
        self.moves.unwrap_or(0)
    }

    fn namespaces(&self) -> u64 {
        self.namespaces.unwrap_or(0)
    }

    /// From when on nothing may grow: caches, allocators and the like are as large by
    /// then as they get.
    fn warm(&self) -> u64 {
        1000.min(self.moves() / 5).max(self.namespaces() / 5)
    }
}

/// What came of a soak.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Report {
    seed: u64,
    /// Moves, or namespaces made and removed.
    done: u64,
    seconds: f64,
    sent: u64,
    received: u64,
    leaked: u64,
    #[serde(skip)]
    foreign: [u64; 2],
    gaps: Option<gaps::Summary>,
    samples: Vec<Sample>,
    problems: Vec<String>,
    /// What nsplane said of itself when something was wrong.
    state: String,
}

impl Report {
    fn new(args: &Args) -> Self {
        Self { seed: args.seed, ..Self::default() }
    }

    fn problem(&mut self, what: String) {
        say(&format!("WRONG: {what}"));
        self.problems.push(what);
    }

    fn leak(&mut self, packets: u64, whereto: impl FnOnce() -> String) {
        if packets > 0 {
            self.leaked += packets;
            self.problem(format!("{packets} packets leaked {}", whereto()));
        }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "done {} in {:.0} s, seed {}: {} packets sent, {} received, {} leaked\n\n{}",
            self.done,
            self.seconds,
            self.seed,
            self.sent,
            self.received,
            self.leaked,
            sample::table(&self.samples)
        );
        if let Some(gaps) = &self.gaps {
            text.push_str(&format!("\n{}", gaps.table()));
        }
        text
    }
}

/// Runs it and prints its report.
///
/// # Errors
/// Something could not be set up, was interrupted, or is wrong.
pub(crate) fn soak(root: &Path, args: &Args) -> Result<()> {
    ensure!(
        is_root(),
        "the soak makes network namespaces and needs root: sudo -E cargo xtask soak"
    );
    setup(root, false)?;
    if !args.kernel {
        demo::build(root)?;
    }
    let stop = interrupt::catch().context("cannot catch Ctrl-C")?;
    for name in sweep()? {
        say(&format!("removed namespace {name}, left by a process that died"));
    }
    let cpus = demo::cpus()?;
    let report = match args.moves {
        Some(_) => moves::run(args, cpus, stop)?,
        None => churn::run(args, cpus, stop)?,
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.text());
    }
    if !report.problems.is_empty() {
        eprintln!("{}", report.state);
        bail!("seed {}: {}", report.seed, report.problems.join("\n  "));
    }
    Ok(())
}

/// What nsplane says of itself, for whoever looks for what went wrong.
fn state_of(nsplane: &Nsplane) -> String {
    let shown = ["ports", "counters", "workers", "memory"].map(|what| {
        let rows = nsplane.ask(what, None).map(|rows| rows.to_string());
        format!("--- show {what}\n{}\n", rows.unwrap_or_else(|error| format!("{error:#}")))
    });
    let log = nsplane.log();
    let lines: Vec<&str> = log.lines().collect();
    let end = lines[lines.len().saturating_sub(60)..].join("\n");
    format!("{}--- the end of its log\n{end}", shown.concat())
}
