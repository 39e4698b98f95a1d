//! `scale`: one tenant with traffic among many that are quiet. What does a namespace
//! cost, and does anything get slow because there are so many?
//!
//! ```text
//!  measured tenant:  host A ── router ── host B
//!  each other one:   namespace with two veths ── all other ends in one namespace
//! ```

mod effect;
pub(crate) mod usage;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nsplane_tests::crowd::Crowd;
use nsplane_tests::interrupt;
use nsplane_tests::netns::{Netns, is_root, sweep};
use nsplane_tests::process::Nsplane;
use nsplane_tests::tenant::{Tenant, TenantSpec};
use nsplane_tests::wait::wait_until;
use serde::Serialize;

use crate::demo;
use crate::progress::say;
use crate::setup::setup;
use usage::{Process, kernel_kib};

/// `cargo xtask scale`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Namespaces, each with two veth devices that become ports.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=16_000))]
    namespaces: u32,
    /// Frames of nsplane's memory. Each costs the kernel 128 bytes for each port.
    #[arg(long, default_value_t = 32768)]
    frames: u32,
    /// Seconds over which the idle load is measured.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    idle: u64,
    /// Print one JSON document instead of the table.
    #[arg(long)]
    json: bool,
}

/// What was measured. Field names are the interface.
#[derive(Debug, Serialize)]
struct Report {
    namespaces: u32,
    ports: usize,
    /// Making the namespaces and devices, which is the kernel's and `ip`'s work.
    made_seconds: f64,
    /// From nsplane's start to its being ready.
    start_seconds: f64,
    /// nsplane's own memory for each namespace, in KiB: its anonymous pages, less those
    /// of an nsplane with the measured tenant only.
    own_kib_a_namespace: f64,
    /// What the kernel took for each port, in KiB.
    kernel_kib_a_port: f64,
    /// What the kernel took for each namespace with its devices, before nsplane.
    kernel_kib_a_namespace_without: f64,
    descriptors: usize,
    threads: usize,
    /// Of one processor, nothing happening.
    idle_cpu_percent: f64,
    /// From `ip route del` to the last packet forwarded by the route.
    effect_ms_median: f64,
    effect_ms_worst: f64,
    /// From the first deletion of all but the measured tenant to the last device's end.
    removed_seconds: f64,
    /// From SIGTERM to the end.
    stop_seconds: f64,
}

/// Measures, and prints what was measured.
///
/// # Errors
/// Something could not be set up, was interrupted, or took far too long.
pub(crate) fn scale(root: &Path, args: &Args) -> Result<()> {
    ensure!(is_root(), "scale makes network namespaces and needs root: sudo -E cargo xtask scale");
    setup(root, false)?;
    demo::build(root)?;
    let stop = interrupt::catch().context("cannot catch Ctrl-C")?;
    for name in sweep()? {
        say(&format!("removed namespace {name}, left by a process that died"));
    }
    let report = measure(args, stop)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.table());
    }
    Ok(())
}

fn measure(args: &Args, stop: &AtomicBool) -> Result<Report> {
    let tenant = Tenant::new("scale", &TenantSpec::default())?;
    say("nsplane with one namespace, to compare with");
    let options = options(args);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut alone = Nsplane::start(&[tenant.router()], &options)?;
    let base = Process::of(alone.pid())?;
    alone.stop()?;
    drop(alone);

    let empty = kernel_kib()?;
    let began = Instant::now();
    let crowd = make(args.namespaces.saturating_sub(1), stop)?;
    let made = began.elapsed();
    let before = kernel_kib()?;

    let mut driven: Vec<&Netns> = vec![tenant.router()];
    driven.extend(crowd.namespaces());
    let (mut nsplane, started) = start(&driven, &options, stop)?;
    let after = kernel_kib()?;
    let full = Process::of(nsplane.pid())?;
    let ports = count(&nsplane, "ports")?;
    ensure!(ports == 2 * driven.len(), "{ports} ports of {}", 2 * driven.len());

    say(&format!("idle for {} s", args.idle));
    let idle = full.cpu_over(Duration::from_secs(args.idle))?;
    say("a route is deleted under traffic, 20 times");
    let effect = effect::measure(&tenant, 20)?;

    say("deleting all namespaces but the measured one");
    let removed = remove(crowd, &nsplane)?;
    let stopping = Instant::now();
    nsplane.stop()?;
    let (n, p) = (f64::from(args.namespaces), ports as f64);
    Ok(Report {
        namespaces: args.namespaces,
        ports,
        made_seconds: made.as_secs_f64(),
        start_seconds: started.as_secs_f64(),
        own_kib_a_namespace: (full.own_kib - base.own_kib) / (n - 1.0).max(1.0),
        kernel_kib_a_port: (after - before) / p,
        kernel_kib_a_namespace_without: (before - empty) / n,
        descriptors: full.descriptors,
        threads: full.threads,
        idle_cpu_percent: idle,
        effect_ms_median: effect.median.as_secs_f64() * 1e3,
        effect_ms_worst: effect.worst.as_secs_f64() * 1e3,
        removed_seconds: removed.as_secs_f64(),
        stop_seconds: stopping.elapsed().as_secs_f64(),
    })
}

fn make(count: u32, stop: &AtomicBool) -> Result<Crowd> {
    say(&format!("making {count} namespaces with two devices each"));
    let mut said = Instant::now();
    Crowd::new(count, |n| {
        if said.elapsed() > Duration::from_secs(5) {
            said = Instant::now();
            say(&format!("  ... {n} of {count}"));
        }
        ensure!(!stop.load(Ordering::Relaxed), "interrupted; everything is removed again");
        Ok(())
    })
}

fn options(args: &Args) -> Vec<String> {
    let max_ports = (2 * args.namespaces + 64).max(1024).to_string();
    ["--frames", &args.frames.to_string(), "--max-ports", &max_ports].map(str::to_owned).into()
}

/// Starts nsplane and waits until it is ready, saying how far it is.
fn start(
    namespaces: &[&Netns],
    options: &[&str],
    stop: &AtomicBool,
) -> Result<(Nsplane, Duration)> {
    say(&format!("nsplane with {} namespaces", namespaces.len()));
    let began = Instant::now();
    let mut nsplane = Nsplane::spawn(namespaces, options)?;
    let mut said = Instant::now();
    loop {
        if nsplane.show("workers", &[]).is_ok() {
            return Ok((nsplane, began.elapsed()));
        }
        if let Some(status) = nsplane.exited() {
            bail!("nsplane ended at its start ({status}); its log:\n{}", nsplane.log());
        }
        if stop.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        if said.elapsed() > Duration::from_secs(5) {
            said = Instant::now();
            let log = nsplane.log();
            let far = log.lines().rev().find(|l| l.contains(" namespaces"));
            say(&format!("  ... {}", far.unwrap_or("reading the namespaces")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn count(nsplane: &Nsplane, what: &str) -> Result<usize> {
    let shown = nsplane.show("resources", &[])?;
    let count = shown[0][what].as_u64().with_context(|| format!("no {what} in {shown}"))?;
    Ok(count as usize)
}

fn remove(crowd: Crowd, nsplane: &Nsplane) -> Result<Duration> {
    let began = Instant::now();
    let far = crowd.delete_namespaces()?;
    let left = || far.ip("-o link show type veth").is_ok_and(|text| text.trim().is_empty());
    wait_until(Duration::from_secs(600), "the devices to be gone", left)?;
    let took = began.elapsed();
    let held = || count(nsplane, "closing").is_ok_and(|n| n == 0);
    wait_until(Duration::from_secs(60), "nsplane to have closed all", held)?;
    let ports = count(nsplane, "ports")?;
    ensure!(ports == 2, "{ports} ports are left of 2");
    Ok(took)
}

impl Report {
    fn table(&self) -> String {
        let rows = [
            ("namespaces, ports", format!("{}, {}", self.namespaces, self.ports)),
            ("made in", format!("{:.1} s", self.made_seconds)),
            ("nsplane ready after", format!("{:.1} s", self.start_seconds)),
            ("its own memory a namespace", format!("{:.0} KiB", self.own_kib_a_namespace)),
            ("the kernel's memory a port", format!("{:.0} KiB", self.kernel_kib_a_port)),
            (
                "the kernel's a namespace, without nsplane",
                format!("{:.0} KiB", self.kernel_kib_a_namespace_without),
            ),
            ("descriptors, threads", format!("{}, {}", self.descriptors, self.threads)),
            ("idle", format!("{:.2} % of a processor", self.idle_cpu_percent)),
            (
                "a route's deletion to the last packet by it",
                format!("{:.1} ms, at worst {:.1} ms", self.effect_ms_median, self.effect_ms_worst),
            ),
            ("all deleted, last device gone after", format!("{:.1} s", self.removed_seconds)),
            ("stopped in", format!("{:.1} s", self.stop_seconds)),
        ];
        rows.iter().map(|(what, value)| format!("{what:<46} {value}\n")).collect()
    }
}
