//! A quiet tenant beside others that flood: what it loses, and how long its packets take.
//!
//! ```text
//!  quiet:      host A ── router ── host B    1,000 packets a second, each timed
//!  flooder n:  host A ── router ── host B    as fast as the router's device takes them
//! ```
//!
//! All are generated on one CPU, on which the routers' devices receive them too. The quiet
//! one's sender has the right of way there (SCHED_FIFO, where the system allows it): else
//! it would be the generators' fight for the CPU that is measured. A packet's time is from
//! when it is made to when host B's device sees it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nsplane_abi::traffic::Counts;
use nsplane_tests::flow::ping;
use nsplane_tests::netns::Netns;
use nsplane_tests::tenant::{Family, Host, Tenant, TenantSpec};

use crate::{Frame, Generator, Load, Sink};

/// Packets a second of the quiet tenant.
const QUIET: u64 = 1000;
const QUIET_MARK: u32 = 0x51;
const FLOOD_MARK: u32 = 0xf100;
/// How long packets may be under way when the load has ended.
const REST: Duration = Duration::from_millis(300);

/// The tenants.
#[derive(Debug)]
pub struct Contest {
    quiet: Tenant,
    flooders: Vec<Tenant>,
}

/// What was seen in one run.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Packets of the quiet tenant.
    pub sent: u64,
    /// Of these, arrived.
    pub arrived: u64,
    /// Half of them took less than this, in ns.
    pub p50: u64,
    /// 99 of 100 took less than this, in ns.
    pub p99: u64,
    /// All took less than this, in ns.
    pub max: u64,
    /// Packets that each flooder offered, and how many of them arrived.
    pub floods: Vec<(u64, u64)>,
}

impl Contest {
    /// Builds the tenants. Their routers' devices poll, also without an XDP program: a
    /// veth takes generated frames only then.
    ///
    /// # Errors
    /// A step of that failed.
    pub fn new(flooders: usize) -> Result<Self> {
        let build = |label: &str| -> Result<Tenant> {
            let tenant = Tenant::new(label, &TenantSpec::default())?;
            tenant.set_gro(Host::A, true)?;
            Ok(tenant)
        };
        let flooders = (0..flooders).map(|n| build(&format!("flood{n}")));
        Ok(Self { quiet: build("quiet")?, flooders: flooders.collect::<Result<_>>()? })
    }

    /// The routers, the quiet tenant's first.
    #[must_use]
    pub fn routers(&self) -> Vec<&Netns> {
        self.tenants().map(Tenant::router).collect()
    }

    /// The quiet tenant.
    #[must_use]
    pub fn quiet(&self) -> &Tenant {
        &self.quiet
    }

    fn tenants(&self) -> impl Iterator<Item = &Tenant> {
        std::iter::once(&self.quiet).chain(&self.flooders)
    }

    /// Has all routers know their neighbours.
    ///
    /// # Errors
    /// A ping found no way.
    pub fn resolve(&self) -> Result<()> {
        for tenant in self.tenants() {
            let seen = ping(tenant.host(Host::A), Host::B.address(Family::V4), 2)?;
            ensure!(seen.received > 0, "no way through {}", tenant.router().name());
        }
        Ok(())
    }

    /// The quiet tenant's load for so long, alone or beside the floods.
    ///
    /// # Errors
    /// The lab failed.
    pub fn run(&self, cpu: usize, duration: Duration, flood: bool) -> Result<Seen> {
        let sink = |tenant: &Tenant, mark, timed| {
            let host = tenant.host(Host::B);
            if timed {
                Sink::attach_with_latency(host, Host::DEVICE, mark)
            } else {
                Sink::attach(host, Host::DEVICE, mark)
            }
        };
        let flooders = if flood { self.flooders.as_slice() } else { &[] };
        let quiet_sink = sink(&self.quiet, QUIET_MARK, true)?;
        let marks = (FLOOD_MARK..).zip(flooders);
        let sinks = marks.clone().map(|(mark, tenant)| sink(tenant, mark, false));
        let sinks = sinks.collect::<Result<Vec<_>>>()?;
        let mut quiet = generator(&self.quiet, QUIET_MARK)?;
        let generators = marks.map(|(mark, tenant)| generator(tenant, mark));
        let mut generators = generators.collect::<Result<Vec<_>>>()?;

        let stop = AtomicBool::new(false);
        let (sent, offered) = std::thread::scope(|scope| -> Result<_> {
            let load = Load { cpu: Some(cpu), ..Load::full(duration * 4) };
            let stop = &stop;
            let floods: Vec<_> = generators
                .iter_mut()
                .map(|generator| scope.spawn(move || generator.run(&load, stop)))
                .collect();
            let load = Load { duration, urgent: true, ..Load::paced(u64::MAX, QUIET) };
            let load = Load { cpu: Some(cpu), ..load };
            let quiet = &mut quiet;
            let sent = scope.spawn(move || quiet.run(&load, &AtomicBool::new(false))).join();
            stop.store(true, Ordering::Relaxed);
            let ends = floods.into_iter().map(|f| f.join().map_err(|_| anyhow!("panicked"))?);
            let offered =
                ends.map(|end| end.map(|sent| sent.packets)).collect::<Result<Vec<_>>>()?;
            Ok((sent.map_err(|_| anyhow!("panicked"))??, offered))
        })?;
        std::thread::sleep(REST);
        let seen = quiet_sink.counts()?;
        let arrived = sinks.iter().map(|sink| Ok(sink.counts()?.own));
        let arrived = arrived.collect::<Result<Vec<_>>>()?;
        let below = |per_mille| Counts::latency_below(&seen, per_mille);
        let nothing = "nothing of the quiet tenant arrived";
        Ok(Seen {
            sent: sent.packets,
            arrived: seen.own,
            p50: below(500).context(nothing)?,
            p99: below(990).context(nothing)?,
            max: below(1000).context(nothing)?,
            floods: offered.into_iter().zip(arrived).collect(),
        })
    }
}

fn generator(tenant: &Tenant, mark: u32) -> Result<Generator<'_>> {
    let frame = Frame::across(tenant, Host::A, Family::V4, mark)?;
    Generator::new(tenant.host(Host::A), Host::DEVICE, &frame)
}
