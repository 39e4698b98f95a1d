//! Namespaces come and go in bursts, with packets in them.
//!
//! ```text
//!  first ── router ── router ── ... ── last       a burst: a chain of namespaces,
//!   eth1    eth0 eth1  eth0 eth1        eth0      two devices each (the ends have one)
//! ```
//!
//! nsplane finds them by itself (`--all`), as they appear. Packets go from the first
//! to the last, through all of them, while they are deleted in an order that the seed
//! decides. Then everything must be as before the burst.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nsplane_bench::{Frame, Load, Sink};
use nsplane_tests::command;
use nsplane_tests::netns::Netns;
use nsplane_tests::process::Nsplane;
use nsplane_tests::wait::{wait_for, wait_until};

use super::sample::{self, Sample};
use super::sender::{self, Sender};
use super::{Args, Report, state_of};
use crate::progress::say;
use crate::random::Random;

/// How long a burst's namespaces may take to become driven, or to be let go.
const PATIENCE: Duration = Duration::from_secs(60);
/// Packets a second: a chain of many hops is long for a small machine.
const RATE: u64 = 2000;
/// Fewest and most namespaces of a burst. A packet that starts with 64 hops gets to
/// the end of any.
const BURST: (u64, u64) = (20, 50);

/// Makes and removes namespaces.
///
/// # Errors
/// The lab failed, or nsplane died. What nsplane did wrong is in the report.
pub(super) fn run(args: &Args, cpus: (usize, usize), stop: &AtomicBool) -> Result<Report> {
    let (workers, cpu) = (args.workers.to_string(), cpus.1.to_string());
    let mut words = vec!["--all", "--workers", &workers];
    if args.workers == 1 {
        words.extend(["--pin", &cpu]);
    }
    let nsplane = Nsplane::start(&[], &words)?;
    let mut churn = Churn {
        args,
        stop,
        nsplane: &nsplane,
        cpu: cpus.0,
        // Whatever else the machine has.
        others: names(&nsplane)?,
        random: Random::new(args.seed),
        start: Instant::now(),
        report: Report::new(args),
    };
    if let Err(error) = churn.all() {
        churn.report.problem(format!("{error:#}"));
    }
    let mut report = churn.report;
    report.seconds = churn.start.elapsed().as_secs_f64();
    for what in sample::grown(&report.samples, args.warm()) {
        report.problem(format!("grew: {what}"));
    }
    if !report.problems.is_empty() {
        report.state = state_of(&nsplane);
    }
    Ok(report)
}

struct Churn<'a> {
    args: &'a Args,
    stop: &'a AtomicBool,
    nsplane: &'a Nsplane,
    cpu: usize,
    others: BTreeSet<String>,
    random: Random,
    start: Instant,
    report: Report,
}

impl Churn<'_> {
    fn all(&mut self) -> Result<()> {
        let all = self.args.namespaces();
        self.sample()?;
        while self.report.done < all {
            if self.stop.load(Ordering::Relaxed) {
                self.report.problem("interrupted".to_owned());
                return Ok(());
            }
            let size = BURST.0 + self.random.below(BURST.1 - BURST.0 + 1);
            let size = size.min(all - self.report.done).max(3);
            self.burst(size as usize).with_context(|| {
                format!("a burst of {size} after {} namespaces", self.report.done)
            })?;
            self.report.done += size;
            self.sample()?;
            say(&format!(
                "{} of {all} namespaces made and removed, {} packets sent through them, {} arrived",
                self.report.done, self.report.sent, self.report.received
            ));
        }
        Ok(())
    }

    /// Makes a chain, sends through it, and removes it under way.
    fn burst(&mut self, size: usize) -> Result<()> {
        let chain = Chain::new(size)?;
        let sink = Sink::attach(chain.last(), Chain::IN, self.mark())?;
        // nsplane takes devices that are up: not before the sink has this one.
        chain.last().ip_batch(&format!("link set {} up\n", Chain::IN))?;
        let sender = Sender::default();
        let load = Load::full(Duration::from_secs(3600));
        let load = Load { rate: Some(self.args.rate.unwrap_or(RATE)), cpu: Some(self.cpu), ..load };
        let frame = chain.frame(self.mark())?;
        let mark = self.mark();
        // Every third burst is removed before nsplane has taken all of it in.
        let patient = self.random.below(3) > 0;
        let of_sink = || Ok::<_, anyhow::Error>(sink.counts()?.own);
        let sent = {
            let senders = [(&sender, chain.first(), frame)];
            sender::with(&senders, Chain::OUT, &load, || {
                sender.go(mark);
                if patient {
                    self.taken_in(&chain)?;
                    wait_for(PATIENCE, "packets through the chain", || {
                        (of_sink().ok()? > 0).then_some(())
                    })?;
                }
                // The sender's namespace goes last: what it sends from must be there.
                chain.remove_all_but_first(&mut self.random)?;
                sender.halt()?;
                Ok(sender.sent())
            })?
        };
        self.report.sent += sent;
        self.report.received += of_sink()?;
        let foreign = sink.counts()?.foreign;
        self.report.leak(foreign, || "into the last namespace of a chain".to_owned());
        drop(sink);
        drop(chain);
        wait_until(PATIENCE, "nsplane to let all of them go", || {
            names(self.nsplane).is_ok_and(|names| names.is_subset(&self.others))
        })
    }

    /// A mark for each burst: packets of an earlier one would be found.
    fn mark(&self) -> u32 {
        0x1000 + self.report.done as u32
    }

    fn taken_in(&self, chain: &Chain) -> Result<()> {
        let routers = &chain.spaces[1..chain.spaces.len() - 1];
        let names: BTreeSet<&str> = routers.iter().map(Netns::name).collect();
        wait_until(PATIENCE, "the routers' devices to be ports", || {
            let Ok(ports) = self.nsplane.ask("ports", None) else { return false };
            let ours = |p: &&serde_json::Value| {
                p["port"] != "" && p["netns"].as_str().is_some_and(|n| names.contains(n))
            };
            let ports = ports.as_array().map_or(0, |all| all.iter().filter(ours).count());
            ports == 2 * names.len()
        })
    }

    /// With no namespace of ours left: looks at what is held.
    fn sample(&mut self) -> Result<()> {
        let (done, seconds) = (self.report.done, self.start.elapsed().as_secs_f64());
        let sample = Sample::quiet(self.nsplane, done, seconds)?;
        let ports = self.nsplane.ask("ports", None)?;
        let left = ports.as_array().into_iter().flatten();
        let left: Vec<String> = left
            .filter(|p| p["netns"].as_str().is_some_and(|n| !self.others.contains(n)))
            .map(ToString::to_string)
            .collect();
        ensure!(left.is_empty(), "ports are left: {}", left.join(", "));
        self.report.samples.push(sample);
        Ok(())
    }
}

fn names(nsplane: &Nsplane) -> Result<BTreeSet<String>> {
    let rows = nsplane.ask("namespaces", None)?;
    let rows = rows.as_array().into_iter().flatten();
    Ok(rows.filter_map(|n| Some(n["name"].as_str()?.to_owned())).collect())
}

/// Namespaces one behind the other; gone on drop.
struct Chain {
    spaces: Vec<Netns>,
}

impl Chain {
    /// The device towards the namespace before, and towards the one behind.
    const IN: &'static str = "eth0";
    const OUT: &'static str = "eth1";

    fn new(size: usize) -> Result<Self> {
        let spaces = (0..size).map(|i| Netns::new(&format!("c{i}"))).collect::<Result<Vec<_>>>()?;
        let chain = Self { spaces };
        let (near, far) = (Self::OUT, Self::IN);
        let mut links = String::new();
        for pair in chain.spaces.windows(2) {
            let [a, b] = [&pair[0], &pair[1]].map(Netns::name);
            let _ =
                writeln!(links, "link add {near} netns {a} type veth peer name {far} netns {b}");
        }
        command::run_with_input("ip", ["-batch", "-"], &links)?;
        for (i, space) in chain.spaces.iter().enumerate() {
            space.sysctl("net/ipv4/ip_forward", "1")?;
            space.ip_batch(&chain.setup(i))?;
        }
        // What a generator sends is taken by a veth only if it polls; and the second
        // namespace may be the kernel's for a while.
        chain.spaces[1].exec("ethtool", ["-K", far, "gro", "on"])?;
        Ok(chain)
    }

    /// Addresses and routes of one: link i is 10.99.i.0/24, and all lies ahead. The last
    /// one's device stays down.
    fn setup(&self, i: usize) -> String {
        let last = self.spaces.len() - 1;
        let mut lines = String::new();
        if i > 0 {
            let (dev, net) = (Self::IN, i - 1);
            let _ = writeln!(lines, "addr add 10.99.{net}.2/24 dev {dev}");
        }
        if (1..last).contains(&i) {
            let _ = writeln!(lines, "link set {} up", Self::IN);
        }
        if i < last {
            let dev = Self::OUT;
            let _ = writeln!(lines, "addr add 10.99.{i}.1/24 dev {dev}\nlink set {dev} up");
            let _ = writeln!(lines, "route add default via 10.99.{i}.2");
        }
        lines
    }

    fn first(&self) -> &Netns {
        &self.spaces[0]
    }

    fn last(&self) -> &Netns {
        &self.spaces[self.spaces.len() - 1]
    }

    fn frame(&self, mark: u32) -> Result<Frame> {
        let destination = format!("10.99.{}.2", self.spaces.len() - 2).parse()?;
        Ok(Frame {
            source_mac: self.first().mac(Self::OUT)?,
            destination_mac: self.spaces[1].mac(Self::IN)?,
            source: "10.99.0.1".parse()?,
            destination,
            destinations: 1,
            length: Frame::shortest(destination),
            mark,
        })
    }

    /// Deletes them in some order; the first goes with the guard.
    fn remove_all_but_first(&self, random: &mut Random) -> Result<()> {
        let mut names: Vec<&str> = self.spaces[1..].iter().map(Netns::name).collect();
        random.shuffle(&mut names);
        let lines: String = names.iter().map(|name| format!("netns del {name}\n")).collect();
        command::run_with_input("ip", ["-batch", "-"], &lines).map(drop)
    }
}
