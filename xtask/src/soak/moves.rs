//! A device moves between two tenants alike, under load.
//!
//! ```text
//!  A of each tenant ──► 10.0.2.2, behind the moving device      marked with its tenant
//!  the host behind it ──► 10.0.1.2, B of whichever tenant       marked with where it is
//! ```
//!
//! Both tenants' hosts A send all the time, also while the device is not with them:
//! then there is no route, and their packets are punted. The host behind the device
//! changes its mark while the device is down between two tenants, so a packet's mark
//! says which tenant it was sent into; whoever sees another's has found a leak.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nsplane_bench::{Counts, Frame, Load, Sink};
use nsplane_tests::mover::Mover;
use nsplane_tests::process::Nsplane;
use nsplane_tests::tenant::{Family, Host};
use nsplane_tests::wait::{wait_for, wait_until};

use super::gaps::{Gap, Gaps};
use super::sample::{self, Sample};
use super::seen::{FROM_A, INTO, Seen, other};
use super::sender::{self, Sender};
use super::{Args, Report};
use crate::progress::say;
use crate::random::Random;

/// How long anything may take under load on a small machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often all stops, so that what nsplane holds can be looked at.
const SAMPLES: u64 = 40;

/// What a move works with.
struct Soak<'a> {
    args: &'a Args,
    stop: &'a AtomicBool,
    mover: &'a Mover,
    nsplane: Option<&'a Nsplane>,
    far: [Sink; 2],
    seen: &'a Seen,
    from_a: [&'a Sender; 2],
    behind: &'a Sender,
    random: Random,
    start: Instant,
    gaps: Gaps,
    report: Report,
}

/// Moves the device.
///
/// # Errors
/// The lab failed, or nsplane died. What nsplane did wrong is in the report.
pub(super) fn run(args: &Args, cpus: (usize, usize), stop: &AtomicBool) -> Result<Report> {
    let mover = Mover::new().context("building two tenants alike")?;
    // What the generators send is taken by a veth only if it polls, whoever forwards.
    mover.tenants().iter().try_for_each(|tenant| tenant.set_gro(Host::A, true))?;
    mover.router(0).exec("ethtool", ["-K", Mover::DEVICE, "gro", "on"])?;
    let seen = Seen::new(Sink::attach(mover.host(), Host::DEVICE, FROM_A[0])?);
    let sink = |t: usize| Sink::attach(mover.tenants()[t].host(Host::B), Host::DEVICE, INTO[t]);
    let far = [sink(0)?, sink(1)?];
    let nsplane = if args.kernel { None } else { Some(start(args, &mover, cpus.1)?) };

    let [a0, a1, behind] = [Sender::default(), Sender::default(), Sender::default()];
    let of_a = |t: usize| -> Result<(&_, Frame)> {
        let tenant = &mover.tenants()[t];
        let to_mover = Frame::across(tenant, Host::A, Family::V4, FROM_A[t])?;
        Ok((tenant.host(Host::A), Frame { destination: Mover::address(), ..to_mover }))
    };
    let (host0, frame0) = of_a(0)?;
    let (host1, frame1) = of_a(1)?;
    let into = Frame {
        source_mac: Mover::HOST_MAC,
        destination_mac: Mover::MAC,
        source: Mover::address(),
        destination: Host::B.v4().into(),
        mark: INTO[0],
        ..frame0.clone()
    };
    let senders = [(&a0, host0, frame0), (&a1, host1, frame1), (&behind, mover.host(), into)];
    let load = Load::full(Duration::from_secs(24 * 3600));
    let load = Load { rate: args.rate, cpu: Some(cpus.0), ..load };
    seen.watch(|| {
        sender::with(&senders, Host::DEVICE, &load, || {
            let soak = Soak {
                args,
                stop,
                mover: &mover,
                nsplane: nsplane.as_ref(),
                far,
                seen: &seen,
                from_a: [&a0, &a1],
                behind: &behind,
                random: Random::new(args.seed),
                start: Instant::now(),
                gaps: Gaps::default(),
                report: Report::new(args),
            };
            soak.run()
        })
    })
}

fn start(args: &Args, mover: &Mover, cpu: usize) -> Result<Nsplane> {
    let (workers, cpu) = (args.workers.to_string(), cpu.to_string());
    let mut words = vec!["--workers", &workers];
    if args.workers == 1 {
        words.extend(["--pin", &cpu]);
    }
    Nsplane::start(&[mover.router(0), mover.router(1)], &words)
}

impl Soak<'_> {
    fn run(mut self) -> Result<Report> {
        let moved = self.all();
        if let Err(error) = moved {
            self.report.problem(format!("{error:#}"));
        }
        self.report.gaps = Some(self.gaps.summary());
        self.report.seconds = self.start.elapsed().as_secs_f64();
        let [a0, a1] = self.from_a.map(Sender::sent);
        self.report.sent = a0 + a1 + self.behind.sent();
        self.report.received = self.seen.total() + self.arrived(0)? + self.arrived(1)?;
        let warm = self.args.warm();
        for what in sample::grown(&self.report.samples, warm) {
            self.report.problem(format!("grew: {what}"));
        }
        if !self.report.problems.is_empty()
            && let Some(nsplane) = self.nsplane
        {
            self.report.state = super::state_of(nsplane);
        }
        Ok(self.report)
    }

    fn all(&mut self) -> Result<()> {
        self.resume();
        self.wait_packets()?;
        let moves = self.args.moves();
        let every = (moves / SAMPLES).max(1);
        for done in 1..=moves {
            if self.stop.load(Ordering::Relaxed) {
                self.report.problem("interrupted".to_owned());
                break;
            }
            self.one().with_context(|| format!("move {done}"))?;
            self.report.done = done;
            if self.report.leaked > 0 {
                break;
            }
            if done % every == 0 || done == moves {
                self.sample(done).with_context(|| format!("after move {done}"))?;
            }
        }
        self.halt()
    }

    /// One move, and a stay.
    fn one(&mut self) -> Result<()> {
        let old = self.mover.at();
        let new = other(old);
        self.seen.expect(new);
        self.mover.depart()?;
        self.behind.halt()?;
        let leaked = self.between(old)?;
        self.report.leak(leaked, || format!("out of the device, not of tenant {old}"));
        let (before, sent) = (self.arrived(new)?, self.behind.sent());
        self.behind.go(INTO[new]);
        let forwarded = self.forwarded(new)?;
        self.mover.arrive(self.args.arp)?;
        let up = Instant::now();
        // The kind of stay: until nsplane forwards, until anybody does, or none.
        let kind = if self.args.rate.is_some() { 0 } else { self.random.below(4) };
        let until_nsplane = match kind {
            0 | 1 => self.wait_nsplane(new, forwarded, up)?,
            _ => None,
        };
        let first = match kind {
            3 => self.seen.first(),
            _ => Some(self.wait_first()?),
        };
        std::thread::sleep(Duration::from_millis(self.random.below(self.args.stay_ms + 1)));
        if let (Some(first), Some(last)) = (first, self.seen.last()) {
            let mut lost = 0;
            if self.args.rate.is_some() {
                self.behind.halt()?;
                std::thread::sleep(Duration::from_millis(20));
                let arrived = self.arrived(new)? - before;
                lost = (self.behind.sent() - sent).saturating_sub(arrived);
            }
            let move_and_set_up = up.saturating_duration_since(last);
            let until_packets = first.saturating_duration_since(up);
            self.gaps.add(Gap { move_and_set_up, until_packets, until_nsplane, lost });
        }
        Ok(())
    }

    /// While the device is down between two tenants: packets that left by it in the
    /// stay that ended and were not its tenant's, and what reached a wrong B.
    fn between(&mut self, old: usize) -> Result<u64> {
        self.seen.settle()?;
        for t in 0..2 {
            let counts = self.far[t].counts()?;
            let foreign = counts.foreign - self.report.foreign[t];
            self.report.foreign[t] = counts.foreign;
            self.report.leak(foreign, || format!("to host B of tenant {t}: {counts:?}"));
        }
        self.seen.end_of_stay(old)
    }

    fn wait_first(&self) -> Result<Instant> {
        wait_for(PATIENCE, "a packet out of the moved device", || self.seen.first())
    }

    fn wait_packets(&self) -> Result<()> {
        wait_until(PATIENCE, "packets before the first move", || self.seen.total() > 0)
    }

    /// When nsplane forwarded the first packet of the tenant; None without nsplane.
    fn wait_nsplane(&self, tenant: usize, before: u64, up: Instant) -> Result<Option<Duration>> {
        if self.nsplane.is_none() {
            return Ok(None);
        }
        wait_for(PATIENCE, "nsplane to forward", || {
            (self.forwarded(tenant).ok()? > before).then(|| up.elapsed())
        })
        .map(Some)
    }

    /// What nsplane forwarded in a tenant.
    fn forwarded(&self, tenant: usize) -> Result<u64> {
        let Some(nsplane) = self.nsplane else { return Ok(0) };
        let counters = nsplane.ask("counters", Some(self.mover.router(tenant)))?;
        let packets = counters[0]["userspace"]["forwarded"]["packets"].as_u64();
        packets.context("show counters has no forwarded packets")
    }

    fn arrived(&self, tenant: usize) -> Result<u64> {
        let Counts { own, .. } = self.far[tenant].counts()?;
        Ok(own)
    }

    fn resume(&self) {
        self.behind.go(INTO[self.mover.at()]);
        for (sender, mark) in self.from_a.iter().zip(FROM_A) {
            sender.go(mark);
        }
    }

    fn halt(&self) -> Result<()> {
        self.from_a.iter().try_for_each(|sender| sender.halt())?;
        self.behind.halt()
    }

    /// Stops all traffic and looks at what nsplane and the kernel hold.
    fn sample(&mut self, done: u64) -> Result<()> {
        if let Some(nsplane) = self.nsplane {
            self.halt()?;
            let seconds = self.start.elapsed().as_secs_f64();
            let sample = Sample::quiet(nsplane, done, seconds)?;
            self.report.samples.push(sample);
            self.resume();
        }
        let per_move = self.start.elapsed().as_secs_f64() * 1e3 / done as f64;
        let of = self.args.moves();
        say(&format!(
            "{done} of {of} moves, {per_move:.0} ms each, {} packets out of the device, {} leaked",
            self.seen.total(),
            self.report.leaked
        ));
        Ok(())
    }
}
