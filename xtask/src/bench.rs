//! `bench`: measurements of one promise each, nsplane beside the kernel, in one run.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use nsplane_bench::fairness::{Contest, Seen};
use nsplane_tests::netns::{is_root, sweep};
use nsplane_tests::process::Nsplane;

use crate::progress::say;
use crate::setup::setup;
use crate::{changes, demo};

/// `cargo xtask bench`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Bench {
    /// What a quiet tenant loses, and waits, while others flood.
    Fairness(Fairness),
    /// How soon a changed route is obeyed, with a million of them; what loading them takes.
    Changes(changes::Args),
}

/// `cargo xtask bench fairness`.
#[derive(Debug, clap::Args)]
pub(crate) struct Fairness {
    /// Length of each load.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Tenants that flood.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=64))]
    flooders: u64,
    /// Arguments for `nsplane run`, in one word.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    nsplane_args: String,
}

/// Runs a bench and prints its report.
///
/// # Errors
/// Something could not be set up.
pub(crate) fn bench(root: &Path, bench: &Bench) -> Result<()> {
    ensure!(is_root(), "it makes network namespaces and needs root: sudo -E cargo xtask bench");
    setup(root, false)?;
    demo::build(root)?;
    for name in sweep()? {
        say(&format!("removed namespace {name}, left by a process that died"));
    }
    match bench {
        Bench::Fairness(args) => fairness(args),
        Bench::Changes(args) => changes::changes(args),
    }
}

fn fairness(args: &Fairness) -> Result<()> {
    let (generators, worker) = demo::cpus()?;
    let duration = Duration::from_secs(args.seconds);
    say("building the tenants");
    let contest = Contest::new(args.flooders as usize)?;
    let mut rows = Vec::new();
    let mut turn = |router: &str| -> Result<()> {
        contest.resolve()?;
        for flood in [false, true] {
            let what = if flood { "while others flood" } else { "alone" };
            say(&format!("{router}: {} s of the quiet tenant {what}", args.seconds));
            rows.push((router.to_owned(), flood, contest.run(generators, duration, flood)?));
        }
        Ok(())
    };
    turn("kernel")?;
    let pin = worker.to_string();
    let mut options = vec!["--workers", "1", "--pin", &pin];
    options.extend(args.nsplane_args.split_whitespace());
    let mut nsplane = Nsplane::start(&contest.routers(), &options)?;
    turn("nsplane")?;
    let status = nsplane.stop()?;
    if !status.success() {
        bail!("nsplane ended with {status}; its log:\n{}", nsplane.log());
    }
    print(&rows, args, (generators, worker));
    Ok(())
}

fn print(rows: &[(String, bool, Seen)], args: &Fairness, (generators, worker): (usize, usize)) {
    println!(
        "{:<8} {:<7} {:>6} {:>5} {:>9} {:>9} {:>9} {:>8} {:>9} {:>10} {:>11}",
        "router",
        "others",
        "sent",
        "lost",
        "p50 us",
        "p99 us",
        "max us",
        "p50 to",
        "p99 to",
        "offered",
        "delivered"
    );
    let us = |ns: u64| format!("{:.1}", ns as f64 / 1000.0);
    let mpps = |n: u64| format!("{:.3} M/s", n as f64 / 1e6 / args.seconds as f64);
    for pair in rows.chunks(2) {
        let idle = &pair[0].2;
        for (router, flood, seen) in pair {
            let ratio = |now: u64, then: u64| {
                if *flood { format!("{:.2}", now as f64 / then as f64) } else { "-".to_owned() }
            };
            let offered = seen.floods.iter().map(|f| f.0).sum();
            let delivered = seen.floods.iter().map(|f| f.1).sum();
            println!(
                "{router:<8} {:<7} {:>6} {:>5} {:>9} {:>9} {:>9} {:>8} {:>9} {:>10} {:>11}",
                if *flood { "flood" } else { "silent" },
                seen.sent,
                seen.sent.saturating_sub(seen.arrived),
                us(seen.p50),
                us(seen.p99),
                us(seen.max),
                ratio(seen.p50, idle.p50),
                ratio(seen.p99, idle.p99),
                mpps(offered),
                mpps(delivered),
            );
        }
    }
    println!(
        "\n1,000 packets a second of 64 bytes through the quiet tenant's router, over veth, alone and\n\
         beside {} tenants that flood. All are generated on CPU {generators}, and received by the routers'\n\
         devices there; so the kernel routes there too. nsplane's worker is on CPU {worker}, and with it\n\
         what it sends is received. Times from making a packet to the far host's device, known to an\n\
         eighth. p50 to, p99 to: loaded, to silent.",
        args.flooders
    );
}
