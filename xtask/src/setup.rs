//! `setup`: installs what the machine lacks, and nothing else.
//!
//! Debian 12 by apt; on another distribution the packages are named and nothing
//! is done. What is there already is found by asking dpkg, so that a second run
//! ends at once. Routing daemons for the tests are unpacked, not installed (`daemons`).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nsplane_tests::netns::is_root;

use crate::progress::{run_logged, say};
use crate::{cargo, daemons, ebpf};

/// To build nsplane: the C libraries of xsk-rs are compiled from source.
const BUILD: &[&str] =
    &["clang", "gcc", "libc6-dev", "libelf-dev", "m4", "make", "pkg-config", "zlib1g-dev"];
/// To run the demo and the namespace tests, and to count instructions.
const RUN: &[&str] = &["ethtool", "iproute2", "iptables", "iputils-ping", "nftables", "valgrind"];
/// To build the eBPF objects: a Rust with its library's source, and the LLVM that
/// bpf-linker links with. Debian's security suite has them.
const EBPF: &[&str] = &["g++", "libzstd-dev", "llvm-22-dev", "rust-web-src", "rustc-web"];

const LINKER_VERSION: &str = "0.13.0";
const LLVM: &str = "/usr/lib/llvm-22";

/// Installs what is missing; with `with_ebpf` also what rebuilds the eBPF objects.
///
/// # Errors
/// Another distribution, no right to install, or apt's own failure.
pub(crate) fn setup(root: &Path, with_ebpf: bool) -> Result<()> {
    let with_ebpf = with_ebpf && !ebpf::ready(root);
    let mut wanted: Vec<&str> = [BUILD, RUN].concat();
    if with_ebpf {
        wanted.extend(EBPF);
    }
    let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !is_debian_12(&os) {
        return elsewhere(&os, &wanted, with_ebpf);
    }
    let missing = missing(&wanted)?;
    if missing.is_empty() {
        say("setup: all packages are installed");
    } else {
        install(root, &missing)?;
    }
    daemons::provide(root)?;
    if with_ebpf { build_linker(root) } else { Ok(()) }
}

fn install(root: &Path, missing: &[&str]) -> Result<()> {
    say(&format!("setup: missing packages: {}", missing.join(" ")));
    let apt = |words: &[&str]| {
        let mut command = if is_root() {
            Command::new("apt-get")
        } else {
            let mut sudo = Command::new("sudo");
            sudo.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
            sudo
        };
        command.env("DEBIAN_FRONTEND", "noninteractive").args(words);
        command
    };
    let mut words = vec!["install", "--yes", "--no-install-recommends"];
    words.extend(missing);
    if !is_root() && !runs("sudo", &["-n", "true"]) {
        bail!("installing needs root; run: sudo apt-get {}", words.join(" "));
    }
    run_logged(root, "apt-update", "setup: apt-get update", &mut apt(&["update"]))?;
    run_logged(root, "apt-install", "setup: apt-get install", &mut apt(&words))?;
    say("setup: packages are installed");
    Ok(())
}

fn build_linker(root: &Path) -> Result<()> {
    let to = root.join("target/tools");
    let mut cargo = cargo(root);
    cargo
        .env("LLVM_PREFIX", LLVM)
        // Its objects are of no use to the workspace.
        .env("CARGO_TARGET_DIR", root.join("target/xtask/bpf-linker"))
        .args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked"])
        .args(["--no-default-features", "--features", "llvm-22", "--root"])
        .arg(&to);
    let what = format!("setup: building bpf-linker {LINKER_VERSION} (about a minute)");
    run_logged(root, "bpf-linker", &what, &mut cargo)?;
    // A few hundred megabytes that nobody looks at again.
    let _ = fs::remove_dir_all(root.join("target/xtask/bpf-linker"));
    if !ebpf::ready(root) {
        bail!("bpf-linker is built, but still no toolchain can build eBPF");
    }
    say(&format!("setup: bpf-linker is in {}", to.join("bin").display()));
    Ok(())
}

/// Another distribution: what we would install is named. The demo's and tests' tools
/// may all be there, under whatever package names; then there is nothing to say.
fn elsewhere(os: &str, wanted: &[&str], with_ebpf: bool) -> Result<()> {
    let tools = ["clang", "gcc", "m4", "make", "ip", "ethtool", "iptables", "nft", "ping"];
    if !with_ebpf && tools.iter().all(|tool| found(tool)) {
        say("setup: not Debian 12; the tools are there, the libraries are taken on trust");
        return Ok(());
    }
    let name = field(os, "PRETTY_NAME").unwrap_or("this distribution");
    let ebpf = if with_ebpf {
        format!(
            "\nTo rebuild the eBPF objects: `rustup toolchain install nightly --component rust-src`\n\
             and bpf-linker {LINKER_VERSION} or newer, linked with an LLVM not older than that Rust's."
        )
    } else {
        String::new()
    };
    bail!(
        "setup installs packages on Debian 12 only, this is {name}. Install what Debian calls:\n  {}{ebpf}",
        wanted.join(" ")
    )
}

fn is_debian_12(os: &str) -> bool {
    field(os, "ID") == Some("debian") && field(os, "VERSION_ID") == Some("12")
}

/// A field of /etc/os-release.
fn field<'a>(os: &'a str, name: &str) -> Option<&'a str> {
    let value = os.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim_matches('"'))
}

fn missing<'a>(wanted: &[&'a str]) -> Result<Vec<&'a str>> {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Abbrev} ${Package}\\n"])
        .args(wanted)
        .output()
        .context("cannot run dpkg-query")?;
    // Its status says only that some package is unknown.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let installed = installed(&text);
    Ok(wanted.iter().copied().filter(|package| !installed.contains(package)).collect())
}

fn installed(text: &str) -> BTreeSet<&str> {
    text.lines().filter_map(|line| line.strip_prefix("ii")).map(str::trim).collect()
}

fn runs(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}

/// Whether a program is in PATH or where root's programs are.
pub(crate) fn found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    dirs.any(|dir| dir.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distribution_is_told_by_id_and_version() {
        let debian =
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n";
        assert!(is_debian_12(debian));
        assert!(!is_debian_12("ID=debian\nVERSION_ID=\"13\"\n"));
        assert!(!is_debian_12("ID=fedora\nVERSION_ID=12\nVARIANT_ID=debian\n"));
        assert!(!is_debian_12(""));
        assert_eq!(field(debian, "PRETTY_NAME"), Some("Debian GNU/Linux 12 (bookworm)"));
    }

    #[test]
    fn only_fully_installed_packages_count() {
        let text = "ii  clang\nrc  m4\nun  make\nii  gcc\n";
        assert_eq!(installed(text), BTreeSet::from(["clang", "gcc"]));
    }

    #[test]
    fn another_distribution_names_the_packages() {
        let error = elsewhere("PRETTY_NAME=\"Other 1\"\n", &["clang"], true).unwrap_err();
        assert!(error.to_string().contains("Other 1"), "{error}");
        assert!(error.to_string().contains("clang"), "{error}");
    }
}
