//! `ci`: exactly what CI runs.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::bench::{self, Bench};
use crate::setup::{found, setup};
use crate::stages::Stages;
use crate::testing::{self, add_stages};
use crate::{cargo, changes, demo, ebpf, layers, oracle, soak};

/// Runs all checks and prints a summary.
///
/// # Errors
/// A check failed.
pub(crate) fn ci(root: &Path) -> Result<()> {
    setup(root, true)?;
    let mut stages = Stages::default();
    style(root, &mut stages);
    let mut doc = cargo(root);
    doc.args(["doc", "--workspace", "--no-deps", "--locked"]).env("RUSTDOCFLAGS", "-D warnings");
    stages.command("documentation", &mut doc);
    let mut fresh = Vec::new();
    stages.run("eBPF objects, built afresh", || {
        fresh = ebpf::check_committed(root)?;
        Ok(())
    });
    let env: Vec<(&str, PathBuf)> = fresh.into_iter().filter_map(override_of).collect();
    add_stages(root, &testing::Args::default(), &env, &mut stages)?;
    if nsplane_tests::netns::is_root() {
        stages.run("demo of 2 seconds", || demo::demo(root, &demo::Args::of_seconds(2)));
        let moves = soak::Args::of(Some(50), None);
        stages.run("soak of 50 moves", || soak::soak(root, &moves));
        let namespaces = soak::Args::of(None, Some(40));
        stages.run("soak of 40 namespaces", || soak::soak(root, &namespaces));
        let cases = oracle::Args::of(500);
        stages.run("oracle of 500 cases", || oracle::oracle(root, &cases));
        let planted = oracle::Args::planted();
        let few = Bench::Changes(changes::Args::few());
        stages.run("changes of some thousand routes", || bench::bench(root, &few));
        stages.run("oracle finds planted bugs", || oracle::oracle(root, &planted));
    } else {
        stages.leave_out("demo, soak, changes and oracle: they need root");
    }
    stages.finish()
}

/// What looks at text only, or nearly so.
fn style(root: &Path, stages: &mut Stages) {
    let ebpf = ["--manifest-path", "ebpf/Cargo.toml"];
    let fmt = ["fmt", "--all", "--check"];
    stages.command("format", cargo(root).args(fmt));
    stages.command("format of ebpf", cargo(root).args(fmt).args(ebpf));
    stages.run("layers", || layers::check(root));
    let deny = ["--", "-D", "warnings"];
    let clippy = ["clippy", "--workspace", "--all-targets", "--locked"];
    stages.command("clippy", cargo(root).args(clippy).args(deny));
    // The programs themselves need their own target; this is what runs anywhere.
    let clippy = ["clippy", "--package", "nsplane-abi", "--all-targets", "--locked"];
    stages.command("clippy of ebpf/abi", cargo(root).args(clippy).args(ebpf).args(deny));
    if found("cargo-deny") {
        stages.command("dependencies", cargo(root).args(["deny", "check"]));
    } else {
        stages.leave_out("dependencies: cargo-deny is not installed");
    }
    if found("typos") {
        stages.command("spelling", std::process::Command::new("typos").current_dir(root));
    } else {
        stages.leave_out("spelling: typos is not installed");
    }
}

/// The variable that makes tests load a fresh object in place of the committed one.
fn override_of(object: PathBuf) -> Option<(&'static str, PathBuf)> {
    match object.file_name()?.to_str()? {
        "nsplane.o" => Some(("NSPLANE_EBPF_OBJECT", object)),
        "traffic.o" => Some(("NSPLANE_TRAFFIC_OBJECT", object)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_object_has_its_variable() {
        let name = |path: &str| override_of(path.into()).map(|(name, _)| name);
        assert_eq!(name("/t/nsplane.o"), Some("NSPLANE_EBPF_OBJECT"));
        assert_eq!(name("/t/traffic.o"), Some("NSPLANE_TRAFFIC_OBJECT"));
        assert_eq!(name("/t/other.o"), None);
    }
}
