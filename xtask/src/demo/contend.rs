//! One contender's turn: start, check, load, stop.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nsplane_bench::{Counts, Frame, Generator, Load, Sent, Sink};
use nsplane_tests::flow::{Transfer, ping};
use nsplane_tests::process::Nsplane;
use nsplane_tests::tenant::{Family, Host};
use nsplane_tests::wait::wait_for;

use super::report::{Tiers, Turn, Verdict};
use super::{Contender, Side};
use crate::progress::say;

const PINGS: u32 = 3;

/// What all contenders find.
pub(super) struct Lab<'a> {
    pub(super) sides: &'a [Side; 2],
    /// The generators', and the worker's.
    pub(super) cpus: (usize, usize),
    pub(super) duration: Duration,
    pub(super) tcp_bytes: u64,
    pub(super) stop: &'static AtomicBool,
}

/// A tenant's sinks: the far host, where its packets go, and the near one, where
/// only strays can come.
struct Sinks {
    far: Sink,
    near: Sink,
}

impl Lab<'_> {
    /// One contender's turn.
    ///
    /// # Errors
    /// The lab itself failed. What the contender did wrong is in the turn.
    pub(super) fn run(&self, contender: Contender) -> Result<Turn> {
        let mut turn = Turn::new(contender.name(), self.sides.each_ref().map(|side| side.name));
        let mut nsplane = None;
        if contender == Contender::Nsplane {
            match self.start() {
                Ok(started) => nsplane = Some(started),
                Err(error) => {
                    turn.fail(format!("{error:#}"));
                    return Ok(turn);
                }
            }
        }
        for (side, verdict) in self.sides.iter().zip(&mut turn.tenants) {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(turn);
            }
            self.check(contender, side, verdict);
        }
        if !self.stop.load(Ordering::Relaxed) {
            self.load(contender, nsplane.as_ref(), &mut turn)?;
        }
        if let Some(nsplane) = &mut nsplane
            && let Err(error) = stop(nsplane)
        {
            turn.fail(format!("{error:#}"));
        }
        Ok(turn)
    }

    fn start(&self) -> Result<Nsplane> {
        let (_, cpu) = self.cpus;
        say(&format!("nsplane: starting, one worker on CPU {cpu}"));
        let routers = self.sides.each_ref().map(|side| side.tenant.router());
        Nsplane::start(&routers, &["--workers", "1", "--pin", &cpu.to_string()])
    }

    /// Ping and TCP from host A to host B.
    fn check(&self, contender: Contender, side: &Side, verdict: &mut Verdict) {
        let name = format!("{}, {}", contender.name(), side.name);
        for family in Family::BOTH {
            let to = Host::B.address(family);
            say(&format!("{name}: ping {to}"));
            match check_ping(side, to) {
                Ok(()) => verdict.ping += 1,
                Err(error) => verdict.fail(format!("{family} ping: {error:#}")),
            }
            say(&format!("{name}: {} MiB over TCP to {to}", self.tcp_bytes >> 20));
            match self.transfer(side, to) {
                Ok(mbit) => match family {
                    Family::V4 => verdict.tcp_v4_mbit = Some(mbit),
                    Family::V6 => verdict.tcp_v6_mbit = Some(mbit),
                },
                Err(error) => verdict.fail(format!("{family} TCP: {error:#}")),
            }
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    fn transfer(&self, side: &Side, address: IpAddr) -> Result<u64> {
        let (from, to) = (side.tenant.host(Host::A), side.tenant.host(Host::B));
        let time = Transfer { from, to, address, bytes: self.tcp_bytes }.run()?;
        let micros = time.as_micros().max(1);
        Ok(u64::try_from(u128::from(self.tcp_bytes) * 8 / micros)?)
    }

    /// Generated load in both tenants at once.
    fn load(&self, contender: Contender, nsplane: Option<&Nsplane>, turn: &mut Turn) -> Result<()> {
        let (cpu, _) = self.cpus;
        say(&format!(
            "{}: {} s of UDP at full rate in both tenants, generated on CPU {cpu}",
            contender.name(),
            self.duration.as_secs()
        ));
        let mut sinks = Vec::new();
        let mut generators = Vec::new();
        for side in self.sides {
            let (near, far) = (side.tenant.host(Host::A), side.tenant.host(Host::B));
            sinks.push(Sinks {
                far: Sink::attach(far, Host::DEVICE, side.mark)?,
                near: Sink::attach(near, Host::DEVICE, side.mark)?,
            });
            let frame = Frame::across(&side.tenant, Host::A, Family::V4, side.mark)?;
            generators.push(Generator::new(near, Host::DEVICE, &frame)?);
        }
        let before = self.tiers(nsplane, turn);
        let load = Load { cpu: Some(cpu), ..Load::full(self.duration) };
        let sent = std::thread::scope(|scope| {
            let runs: Vec<_> = generators
                .iter_mut()
                .map(|generator| scope.spawn(|| generator.run(&load, self.stop)))
                .collect();
            let ends = runs.into_iter().map(|run| run.join().map_err(|_| anyhow!("panicked"))?);
            ends.collect::<Result<Vec<Sent>>>()
        });
        let sent = sent.context("a generator failed")?;
        for ((verdict, sinks), sent) in turn.tenants.iter_mut().zip(&sinks).zip(sent) {
            let far = settled(&sinks.far)?;
            let near = sinks.near.counts()?;
            verdict.set_load(sent, &far, &near);
        }
        let after = self.tiers(nsplane, turn);
        for (verdict, (before, after)) in turn.tenants.iter_mut().zip(before.iter().zip(after)) {
            verdict.tiers = if nsplane.is_some() {
                after.since(before)
            } else {
                Tiers { userspace: 0, kernel: verdict.delivered }
            };
        }
        Ok(())
    }

    /// Who forwarded how much until now, by nsplane's own counters.
    fn tiers(&self, nsplane: Option<&Nsplane>, turn: &mut Turn) -> [Tiers; 2] {
        let Some(nsplane) = nsplane else { return Default::default() };
        let shown = match nsplane.show("counters", &[]) {
            Ok(shown) => shown,
            Err(error) => {
                turn.fail(format!("{error:#}"));
                return Default::default();
            }
        };
        let routers = self.sides.each_ref().map(|side| side.tenant.router().name());
        routers.map(|router| {
            Tiers::from_counters(&shown, router).unwrap_or_else(|| {
                turn.fail(format!("`nsplane show counters` has nothing of {router}"));
                Tiers::default()
            })
        })
    }
}

fn check_ping(side: &Side, to: IpAddr) -> Result<()> {
    let seen = ping(side.tenant.host(Host::A), to, PINGS)?;
    if seen.received != PINGS {
        bail!("{} of {PINGS} answered", seen.received);
    }
    Ok(())
}

/// The counts once nothing more arrives.
fn settled(sink: &Sink) -> Result<Counts> {
    let mut last = sink.counts()?;
    wait_for(Duration::from_secs(5), "packets under way to arrive", || {
        std::thread::sleep(Duration::from_millis(50));
        let now = sink.counts().ok()?;
        let same = now.own == last.own;
        last = now;
        same.then_some(now)
    })
}

fn stop(nsplane: &mut Nsplane) -> Result<()> {
    say("nsplane: stopping");
    let status = nsplane.stop()?;
    if !status.success() {
        bail!("nsplane ended with {status}; its log:\n{}", nsplane.log());
    }
    Ok(())
}
