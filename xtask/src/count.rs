//! `count`: what a packet costs a worker in instructions, counted by Callgrind, and held to
//! what it cost before.
//!
//! A count is the same on any machine and beside any load, as far as the compiler is the same,
//! which a time is not: so this can fail a change. What the counts may be is in a
//! file beside the bench, and goes up or down with the change that makes it so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::cargo;
use crate::progress::say;
use crate::setup::{found, setup};

/// Where the counts are: a load and its instructions a packet in each line.
const LIMITS: &str = "dataplane/benches/counted.txt";
/// Another version of the compiler makes that much of a difference, in percent.
const LEEWAY: u64 = 3;

/// `cargo xtask count`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write what is counted into the file, as what it may be from now on.
    #[arg(long)]
    set: bool,
    /// This load only.
    #[arg(long)]
    only: Option<String>,
}

impl Args {
    /// All loads, held to the file.
    pub(crate) fn all() -> Self {
        Self { set: false, only: None }
    }
}

/// Counts, and compares.
///
/// # Errors
/// A packet costs more than it may, or an allocation, or nothing could be counted.
pub(crate) fn count(root: &Path, args: &Args) -> Result<()> {
    setup(root, false)?;
    ensure!(found("valgrind"), "valgrind is not installed");
    let path = root.join(LIMITS);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {LIMITS}"))?;
    let limits = limits(&text)?;
    let bench = build(root)?;
    let (mut lines, mut over) = (String::new(), Vec::new());
    for (load, limit) in limits {
        if args.only.as_ref().is_some_and(|only| *only != load) {
            lines += &format!("{load} {limit}\n");
            continue;
        }
        let counted = run(root, &bench, &load)?;
        say(&format!("{load}: {counted} instructions a packet, {limit} before"));
        lines += &format!("{load} {counted}\n");
        if counted > limit + limit * LEEWAY / 100 {
            over.push(load);
        }
    }
    if args.set {
        return fs::write(&path, lines).with_context(|| format!("cannot write {LIMITS}"));
    }
    ensure!(
        over.is_empty(),
        "more than before: {}. `--set` says that it is meant",
        over.join(", ")
    );
    Ok(())
}

fn limits(text: &str) -> Result<Vec<(String, u64)>> {
    let line = |line: &str| -> Result<(String, u64)> {
        let (load, limit) = line.split_once(' ').context("a load and a number in each line")?;
        Ok((load.to_owned(), limit.trim().parse()?))
    };
    text.lines().map(|l| line(l).with_context(|| format!("{LIMITS}: `{l}`"))).collect()
}

/// Builds the bench; where its program is.
fn build(root: &Path) -> Result<PathBuf> {
    let bench = ["bench", "--locked", "-p", "nsplane", "--bench", "counted", "--no-run"];
    let mut command = cargo(root);
    command.args(bench).arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let out = command.output().context("cannot run cargo")?;
    ensure!(out.status.success(), "the bench does not build: {}", out.status);
    for line in String::from_utf8_lossy(&out.stdout).lines() {
        let message: serde_json::Value = serde_json::from_str(line)?;
        if let (Some("counted"), Some(path)) =
            (message["target"]["name"].as_str(), message["executable"].as_str())
        {
            return Ok(path.into());
        }
    }
    bail!("cargo names no program for the bench")
}

/// Instructions a packet of one load.
fn run(root: &Path, bench: &Path, load: &str) -> Result<u64> {
    let file = root.join("target").join(format!("callgrind.{load}"));
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--toggle-collect=counted::counted*"]);
    command.arg(format!("--callgrind-out-file={}", file.display())).arg(bench).arg(load);
    let out = command.output().context("cannot run valgrind")?;
    let (said, log) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    ensure!(out.status.success(), "{load}: {}\n{log}", out.status);
    per_packet(load, &said, &log).with_context(|| format!("{load}: nothing was counted\n{log}"))
}

fn per_packet(load: &str, said: &str, log: &str) -> Option<u64> {
    let packets = said.lines().find_map(|l| l.strip_prefix(load))?.trim().parse::<u64>().ok()?;
    let counted = log.lines().find_map(|l| l.split_once("Collected : "))?.1.trim();
    Some(counted.parse::<u64>().ok().filter(|&n| n > 0)? / packets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_callgrind_says_is_divided_by_what_the_bench_says() {
        let log = "==1== Events    : Ir\n==1== Collected : 64200\n==1==\n";
        assert_eq!(per_packet("ipv4", "ipv4 200\n", log), Some(321));
        assert_eq!(per_packet("ipv6", "ipv4 200\n", log), None);
        assert_eq!(per_packet("ipv4", "ipv4 200\n", "==1== Collected : 0\n"), None);
    }

    #[test]
    fn every_load_has_a_limit_of_its_own() {
        let found = limits("ipv4 300\nipv6 400\n").unwrap();
        assert_eq!(found, [("ipv4".to_owned(), 300), ("ipv6".to_owned(), 400)]);
        assert!(limits("ipv4\n").is_err() && limits("ipv4 many\n").is_err());
    }
}
