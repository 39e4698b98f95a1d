//! `oracle`: random topologies and packets, through the kernel's forwarding and through
//! nsplane on the same set-up; whatever comes out differently is a difference.
//!
//! ```text
//!  seed ─► plan ─┬► twin forwarded by the kernel ─┬► what came out, counters ─► compare
//!                └► twin that nsplane drives ─────┘        │ differs, three times again
//!                                                          └► shrink ─► script
//! ```
//! docs/oracle.md says what is compared, and what is not, and why.

mod changes;
mod compare;
mod counters;
mod draw;
mod exchange;
mod normal;
mod packet;
mod plan;
mod planted;
mod report;
mod responder;
mod routes;
mod script;
mod settings;
mod shrink;
mod topology;
mod trunk;
mod twin;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nsplane_tests::interrupt;
use nsplane_tests::netns::{is_root, sweep};
use nsplane_tests::process::Nsplane;

use crate::demo;
use crate::progress::say;
use crate::random::Random;
use crate::setup::setup;
use compare::{Difference, differences};
use exchange::{Outcome, Show};
use plan::Plan;
use report::{Found, Report};

/// A difference counts if it is there in so many more runs.
const AGAIN: usize = 3;
/// So many differences are shrunk; more are most often the same again.
const SHRUNK: usize = 4;
/// Lines of nsplane's log that are shown when something failed.
const LOG: usize = 40;
/// Between two lines of progress.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// `cargo xtask oracle`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Packets.
    #[arg(long, default_value_t = 500, value_name = "N")]
    cases: usize,
    /// Decides everything.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Packets for each topology.
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u16).range(1..0x2000))]
    each: u16,
    /// Run the plan of a script again that an earlier run wrote, and make it smaller.
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Build nsplane with bugs in it, one after the other, and fail where one is not found.
    #[arg(long)]
    planted: bool,
    /// Stop at the first difference, and fail where there is none.
    #[arg(long)]
    expect: bool,
    /// Do not make differences small.
    #[arg(long)]
    as_found: bool,
    /// Print one JSON document instead of the summary.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// So many packets.
    pub(crate) fn of(cases: usize) -> Self {
        Self {
            cases,
            seed: 1,
            each: 50,
            replay: None,
            planted: false,
            expect: false,
            as_found: false,
            json: false,
        }
    }

    /// The search for planted bugs.
    pub(crate) fn planted() -> Self {
        Self { planted: true, ..Self::of(1500) }
    }
}

/// Runs it and prints its report.
///
/// # Errors
/// Something could not be set up, or there is a difference.
pub(crate) fn oracle(root: &Path, args: &Args) -> Result<()> {
    ensure!(
        is_root(),
        "the oracle makes network namespaces and needs root: sudo -E cargo xtask oracle"
    );
    setup(root, false)?;
    if args.planted {
        return planted::find_all(root, args);
    }
    demo::build(root)?;
    let stop = interrupt::catch().context("cannot catch Ctrl-C")?;
    for name in sweep()? {
        say(&format!("removed namespace {name}, left by a process that died"));
    }
    let show = Show::new()?;
    let config = show.config().display().to_string();
    let words = ["--config", &config, "--punt-rate", "1000000"];
    let mut oracle = Oracle {
        args,
        stop,
        dir: root.join("target/oracle"),
        nsplane: Nsplane::start(&[], &words)?,
        show,
        report: Report::new(args.seed),
    };
    let start = Instant::now();
    let done = match &args.replay {
        Some(path) => script::read(path).and_then(|plan| oracle.one(&plan)),
        None => oracle.all(),
    };
    let Oracle { mut report, nsplane, show: _show, .. } = oracle;
    report.seconds = start.elapsed().as_secs_f64();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.text());
    }
    if let Err(error) = done {
        let log = nsplane.log();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(LOG)..].join("\n");
        bail!("{error:#}\n--- the end of nsplane's log:\n{end}");
    }
    match (report.found.len(), args.expect) {
        (0, false) => Ok(()),
        (_, true) if !report.found.is_empty() => Ok(()),
        (0, _) => bail!("no difference, though one was expected"),
        (n, _) => bail!("{n} differences; seed {}", args.seed),
    }
}

struct Oracle<'a> {
    args: &'a Args,
    stop: &'a AtomicBool,
    dir: PathBuf,
    nsplane: Nsplane,
    show: Show,
    report: Report,
}

impl Oracle<'_> {
    fn all(&mut self) -> Result<()> {
        let mut seeds = Random::new(self.args.seed);
        let mut told = Instant::now();
        while self.report.cases < self.args.cases {
            if self.stop.load(Ordering::Relaxed) {
                bail!("interrupted after {} cases", self.report.cases);
            }
            let left = self.args.cases - self.report.cases;
            let plan = topology::plan(seeds.next(), left.min(self.args.each.into()));
            self.one(&plan)?;
            if self.args.expect && !self.report.found.is_empty() {
                return Ok(());
            }
            if told.elapsed() > HEARTBEAT {
                told = Instant::now();
                say(&self.report.progress(self.args.cases));
            }
        }
        Ok(())
    }

    /// Runs a plan; what differs is run again.
    fn one(&mut self, plan: &Plan) -> Result<()> {
        let outcome = self.outcome(plan)?;
        self.report.tiers.add(&outcome.tiers);
        self.report.count(&outcome);
        let found = differences(&outcome);
        self.report.topologies += 1;
        self.report.cases += plan.cases().count();
        if found.is_empty() {
            return Ok(());
        }
        let certain = self.certain(plan, found.clone())?;
        if certain.is_empty() {
            self.report.unsteady.push(format!("{:016x}: {}", plan.seed, found[0].text));
            return Ok(());
        }
        for difference in &certain {
            say(&format!("DIFFERENCE, plan {:016x}: {}", plan.seed, difference.text));
        }
        let script = self.script(plan, &certain)?;
        self.report.found.extend(certain.into_iter().map(|difference| Found {
            plan: plan.seed,
            difference,
            script: script.clone(),
        }));
        Ok(())
    }

    fn differences(&mut self, plan: &Plan) -> Result<Vec<Difference>> {
        Ok(differences(&self.outcome(plan)?))
    }

    fn outcome(&mut self, plan: &Plan) -> Result<Outcome> {
        let mut tries = 0;
        loop {
            self.report.runs += 1;
            tries += 1;
            match exchange::run(plan, &self.nsplane, &self.show) {
                // A machine that stalls is no difference, unless it does each time.
                Err(error) if tries < AGAIN && self.nsplane.exited().is_none() => {
                    self.report.unsteady.push(format!("{:016x}: {error:#}", plan.seed));
                }
                done => return done.with_context(|| format!("plan {:016x}", plan.seed)),
            }
        }
    }

    /// Those that are there each time.
    fn certain(&mut self, plan: &Plan, found: Vec<Difference>) -> Result<Vec<Difference>> {
        let mut certain = found;
        for _ in 0..AGAIN {
            if certain.is_empty() {
                break;
            }
            let again = self.differences(plan)?;
            certain.retain(|d| again.iter().any(|other| other.about == d.about));
        }
        Ok(certain)
    }

    /// Makes the first difference small, and writes how to see it.
    fn script(&mut self, plan: &Plan, certain: &[Difference]) -> Result<String> {
        let mut small = plan.clone();
        if !self.args.as_found && !self.args.expect && self.report.found.len() < SHRUNK {
            say("making it small");
            let first = certain.iter().find(|d| d.case.is_some()).unwrap_or(&certain[0]);
            small = shrink::shrink(plan, first.case, &mut |plan| {
                let found = self.differences(plan)?;
                Ok(found.iter().any(|d| first.case.is_none() || d.case == first.case))
            })?;
        }
        let path = script::write(&self.dir, &small, certain)?;
        Ok(path.display().to_string())
    }
}
