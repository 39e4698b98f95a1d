//! `test`: what needs no root, then, as root, the namespace tests.
//!
//! Namespace tests are the files in tests/, each test marked
//! `#[ignore = "needs root"]`. They run one at a time: they share the machine's
//! processors and its XDP dispatcher.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nsplane_tests::netns::{is_root, sweep};

use crate::progress::say;
use crate::setup::setup;
use crate::stages::Stages;
use crate::{cargo, demo};

/// `cargo xtask test`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Only this file of tests/, or else all tests whose names have this in them.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Leave out what needs root.
    #[arg(long)]
    no_root: bool,
}

/// Runs the tests and prints a summary.
///
/// # Errors
/// A test failed, or could not be built.
pub(crate) fn test(root: &Path, args: &Args) -> Result<()> {
    if let Err(error) = setup(root, false) {
        if is_root() {
            return Err(error);
        }
        say(&format!("setup: {error:#}"));
        say("going on with what is there");
    }
    let mut stages = Stages::default();
    add_stages(root, args, &[], &mut stages)?;
    stages.finish()
}

/// Adds the tests' stages, with these variables in their environment.
///
/// # Errors
/// The folder of namespace tests cannot be read.
pub(crate) fn add_stages(
    root: &Path,
    args: &Args,
    env: &[(&str, PathBuf)],
    stages: &mut Stages,
) -> Result<()> {
    let files = namespace_tests(root)?;
    let only = args.only.as_deref();
    let file = only.filter(|only| files.iter().any(|file| file == only));
    let filter = only.filter(|_| file.is_none());
    if file.is_none() {
        let mut unit = cargo(root);
        unit.args(["test", "--workspace", "--locked"]).args(filter);
        unit.envs(env.iter().map(|(name, value)| (name, value)));
        stages.tests("unit and property tests", &mut unit);
        let mut abi = cargo(root);
        abi.args(["test", "--locked", "--package", "nsplane-abi"]);
        abi.args(["--manifest-path", "ebpf/Cargo.toml"]).args(filter);
        stages.tests("tests of ebpf/abi", &mut abi);
    }
    if args.no_root || !is_root() {
        let why =
            if args.no_root { "--no-root" } else { "they need root: sudo -E cargo xtask test" };
        let names = file.map_or_else(|| files.join(", "), str::to_owned);
        stages.leave_out(format!("namespace tests ({names}): {why}"));
        return Ok(());
    }
    stages.run("namespaces left by processes that died", || {
        sweep()?.iter().for_each(|name| say(&format!("removed {name}")));
        Ok(())
    });
    stages.run("nsplane, release", || demo::build(root));
    for name in files.iter().filter(|name| file.is_none_or(|file| file == *name)) {
        let mut command = cargo(root);
        // The whole workspace, so that nothing is built twice for its features' sake.
        command.args(["test", "--workspace", "--locked", "--test", name, "--"]);
        command.args(["--ignored", "--test-threads=1"]).args(filter);
        command.envs(env.iter().map(|(name, value)| (name, value)));
        stages.tests(&format!("namespace test {name}"), &mut command);
    }
    Ok(())
}

/// Names of the files in tests/, sorted.
fn namespace_tests(root: &Path) -> Result<Vec<String>> {
    let dir = root.join("tests");
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "rs") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_namespace_tests_is_declared_and_needs_root() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask has a parent");
        let manifest = fs::read_to_string(root.join("tests/Cargo.toml")).expect("a manifest");
        for name in namespace_tests(root).expect("tests/ is readable") {
            assert!(manifest.contains(&format!("path = \"{name}.rs\"")), "{name} is not declared");
            let text = fs::read_to_string(root.join(format!("tests/{name}.rs"))).expect("a test");
            let tests = text.matches("#[test]").count();
            let ignored = text.matches("#[ignore = \"needs root").count();
            assert_eq!(tests, ignored, "{name}: tests without #[ignore = \"needs root\"]");
        }
    }
}
