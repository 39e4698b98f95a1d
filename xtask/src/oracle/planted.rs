//! Bugs that are planted in nsplane, and have to be found: an oracle that finds nothing
//! might also be blind. They are in `dataplane/src/plant.rs`, and in no binary but the
//! one that is built here.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nsplane_tests::process::BIN_ENV;

use super::Args;
use crate::cargo;
use crate::progress::{run, say};

/// The words of the bugs.
const BUGS: [&str; 5] = ["ttl", "prefix", "neighbor", "mtu", "vlan"];
/// The variable that plants one.
const VARIABLE: &str = "NSPLANE_PLANT";

/// Looks for each bug, in as many cases as `args` says.
///
/// # Errors
/// The binary could not be built, or a bug is not found.
pub(super) fn find_all(root: &Path, args: &Args) -> Result<()> {
    let binary = build(root)?;
    let mut missed = Vec::new();
    for bug in BUGS {
        match find(&binary, bug, args)? {
            Some(cases) => say(&format!("planted bug {bug}: found within {cases} cases")),
            None => missed.push(bug),
        }
    }
    ensure!(missed.is_empty(), "planted and not found in {} cases: {missed:?}", args.cases);
    Ok(())
}

/// Builds nsplane with the bugs in it.
fn build(root: &Path) -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    // A directory of its own: nobody may find this binary where nsplane is looked for.
    let target = target.join("plant");
    let mut cargo = cargo(root);
    cargo.args(["build", "--locked", "--package", "nsplane", "--features", "plant"]);
    cargo.arg("--target-dir").arg(&target).stdout(std::io::stderr());
    run("building nsplane with planted bugs", &mut cargo)?;
    Ok(target.join("debug/nsplane"))
}

/// Cases until the bug was found.
fn find(binary: &Path, bug: &str, args: &Args) -> Result<Option<u64>> {
    let us = std::env::current_exe().context("which program we are")?;
    let words = ["oracle", "--expect", "--json", "--cases"];
    let mut oracle = Command::new(us);
    oracle.args(words).arg(args.cases.to_string()).args(["--seed", &args.seed.to_string()]);
    oracle.env(BIN_ENV, binary).env(VARIABLE, bug).stdin(Stdio::null()).stderr(Stdio::piped());
    let out = oracle.output().context("running the oracle")?;
    let report: serde_json::Value = serde_json::from_slice(&out.stdout)
        .with_context(|| format!("{bug}: {}", String::from_utf8_lossy(&out.stderr)))?;
    let found = out.status.success() && report["found"].as_array().is_some_and(|f| !f.is_empty());
    Ok(report["cases"].as_u64().filter(|_| found))
}
