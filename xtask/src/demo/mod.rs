//! `demo`: two tenants with the same addresses, routed by the kernel, then by
//! nsplane: do they reach their own, and nobody else; and how fast is it.
//!
//! ```text
//!  blue:  host A ── router ── host B      all on veth pairs; both tenants have the
//!  red:   host A ── router ── host B      same addresses, Ethernet ones included
//! ```
//!
//! Both contenders start alike: the same namespaces, neighbours resolved by the
//! same pings, and GRO on where the routers receive the generated frames, since a
//! veth takes those only if its peer polls.

mod contend;
mod report;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nsplane_tests::interrupt;
use nsplane_tests::netns::{is_root, sweep};
use nsplane_tests::tenant::{Host, Tenant, TenantSpec};

use crate::cargo;
use crate::progress::{run, say};
use crate::setup::setup;
use contend::Lab;
use report::Report;

/// Who routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Contender {
    /// The kernel's own forwarding.
    Kernel,
    /// nsplane, over AF_XDP.
    Nsplane,
}

impl Contender {
    fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Nsplane => "nsplane",
        }
    }
}

/// `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Length of each contender's load.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Print one JSON document instead of the table.
    #[arg(long)]
    json: bool,
    /// Who routes, in this order.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_values_t = [Contender::Kernel, Contender::Nsplane],
    )]
    contenders: Vec<Contender>,
    /// Bytes of each TCP transfer, in MiB.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=65536))]
    tcp_mib: u64,
}

impl Args {
    /// All contenders, with a load of so many seconds.
    pub(crate) fn of_seconds(seconds: u64) -> Self {
        let contenders = vec![Contender::Kernel, Contender::Nsplane];
        Self { seconds, json: false, contenders, tcp_mib: 64 }
    }
}

/// One of the two tenants.
struct Side {
    name: &'static str,
    mark: u32,
    tenant: Tenant,
}

/// Runs the demo and prints its report.
///
/// # Errors
/// Something could not be set up, was interrupted, or is wrong: a packet leaked, a
/// ping or transfer failed, nothing arrived, nsplane died.
pub(crate) fn demo(root: &Path, args: &Args) -> Result<()> {
    ensure!(
        is_root(),
        "the demo makes network namespaces and needs root: sudo -E cargo xtask demo"
    );
    setup(root, false)?;
    if args.contenders.contains(&Contender::Nsplane) {
        build(root)?;
    }
    let stop = interrupt::catch().context("cannot catch Ctrl-C")?;
    let report = contend(args, stop)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.table());
    }
    if !report.ok {
        bail!("the demo found something wrong:\n  {}", report.problems().join("\n  "));
    }
    Ok(())
}

fn contend(args: &Args, stop: &'static AtomicBool) -> Result<Report> {
    for name in sweep()? {
        say(&format!("removed namespace {name}, left by a process that died"));
    }
    let cpus = cpus()?;
    say("building two tenants with the same addresses: blue and red");
    let sides = [side("blue", 0xb1)?, side("red", 0x4ed)?];
    let lab = Lab {
        sides: &sides,
        cpus,
        duration: Duration::from_secs(args.seconds),
        tcp_bytes: args.tcp_mib << 20,
        stop,
    };
    let mut report = Report::new(args.seconds, cpus);
    for &contender in &args.contenders {
        report.add(lab.run(contender)?);
        if stop.load(Ordering::Relaxed) {
            drop(sides);
            bail!("interrupted; everything is removed again");
        }
    }
    say("removing the namespaces");
    report.compare();
    Ok(report)
}

fn side(name: &'static str, mark: u32) -> Result<Side> {
    // The same seed: not even their Ethernet addresses tell the tenants apart.
    let spec = TenantSpec { mac_seed: Some(1), ..TenantSpec::default() };
    let tenant = Tenant::new(name, &spec).with_context(|| format!("building tenant {name}"))?;
    tenant.set_gro(Host::A, true)?;
    Ok(Side { name, mark, tenant })
}

/// Builds the release binary, which the lab takes; unless the environment names one.
pub(crate) fn build(root: &Path) -> Result<()> {
    if std::env::var_os(nsplane_tests::process::BIN_ENV).is_some() {
        return Ok(());
    }
    let mut cargo = cargo(root);
    cargo.args(["build", "--release", "--locked", "--package", "nsplane"]);
    // Standard output is the report's.
    cargo.stdout(std::io::stderr());
    run("building nsplane (release)", &mut cargo)
}

/// Processors for the generators and for nsplane's worker: the first two that we
/// may use, or one for both.
pub(crate) fn cpus() -> Result<(usize, usize)> {
    let status = std::fs::read_to_string("/proc/self/status").context("reading our own status")?;
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .context("/proc/self/status has no Cpus_allowed_list")?;
    first_two(list.trim()).with_context(|| format!("no processor in {list:?}"))
}

fn first_two(list: &str) -> Option<(usize, usize)> {
    let mut all = list.split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<usize>().ok()?..=last.trim().parse::<usize>().ok()?)
    });
    let mut all = all.by_ref().flatten();
    let first = all.next()?;
    Some((first, all.next().unwrap_or(first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_the_first_two_allowed() {
        assert_eq!(first_two("0-7"), Some((0, 1)));
        assert_eq!(first_two("3,8-9"), Some((3, 8)));
        assert_eq!(first_two("2"), Some((2, 2)));
        assert_eq!(first_two(""), None);
    }
}
