//! The project's own commands; `cargo xtask help` lists them.
//!
//! Needs stable Rust and a linker, no C library: what a command needs beyond that
//! is for `setup` to install.
#![deny(unsafe_code)]

mod bench;
mod changes;
mod ci;
mod count;
mod daemons;
mod demo;
mod ebpf;
mod layers;
mod oracle;
mod progress;
mod random;
mod scale;
mod setup;
mod soak;
mod stages;
mod testing;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what the machine lacks to build, run and test (Debian 12).
    Setup {
        /// Also what rebuilds the eBPF objects: a Rust with its library's source,
        /// LLVM, and bpf-linker, which takes a minute to build.
        #[arg(long)]
        ebpf: bool,
    },
    /// Check that imports in dataplane/src go down the layers only.
    CheckLayers,
    /// Build the eBPF objects from source into ebpf/.
    BuildEbpf {
        /// Build below target/ only, and fail where the committed objects have other
        /// instructions than their sources make.
        #[arg(long)]
        check: bool,
    },
    /// Two tenants with the same addresses, routed by the kernel, then by nsplane.
    Demo(demo::Args),
    /// Move a device between tenants, or make and remove namespaces, many times under
    /// load: does anything leak, does anything grow.
    Soak(soak::Args),
    /// Many namespaces: what each costs, and whether anything gets slow.
    Scale(scale::Args),
    /// Random topologies and packets, through the kernel and through nsplane: does all
    /// come out the same?
    Oracle(oracle::Args),
    /// Measure one promise, nsplane beside the kernel.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Count what a packet costs a worker in instructions: no more than before.
    Count(count::Args),
    /// Unit and property tests; as root the namespace tests too.
    Test(testing::Args),
    /// Exactly what CI runs: style, layers, eBPF objects, tests, documentation, demo.
    Ci,
}

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<()> {
    let root = root();
    match command {
        Command::Setup { ebpf } => setup::setup(&root, *ebpf),
        Command::CheckLayers => layers::check(&root),
        Command::BuildEbpf { check } => {
            setup::setup(&root, true)?;
            if *check { ebpf::check_committed(&root).map(drop) } else { ebpf::build_all(&root) }
        }
        Command::Demo(args) => demo::demo(&root, args),
        Command::Soak(args) => soak::soak(&root, args),
        Command::Oracle(args) => oracle::oracle(&root, args),
        Command::Scale(args) => scale::scale(&root, args),
        Command::Bench(args) => bench::bench(&root, args),
        Command::Count(args) => count::count(&root, args),
        Command::Test(args) => testing::test(&root, args),
        Command::Ci => ci::ci(&root),
    }
}

/// The directory of the workspace.
fn root() -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    dir.parent().unwrap_or(dir).to_owned()
}

/// The cargo that runs us, in the workspace.
fn cargo(root: &Path) -> std::process::Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = std::process::Command::new(program);
    command.current_dir(root);
    command
}
