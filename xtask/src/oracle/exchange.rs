//! A plan's life: both twins built, configured, and sent the same packets, phase by
//! phase; what came out of each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nsplane_tests::process::Nsplane;
use nsplane_tests::wait::wait_until;
use serde_json::Value;

use super::counters::{self, Counters, Tiers};
use super::normal::{self, Item};
use super::plan::{Phase, Plan};
use super::responder::answer;
use super::trunk;
use super::twin::{Twin, devices, mark_address};

/// Label of the kernel's twin, and of nsplane's: what nsplane's selector means.
const LABELS: (&str, &str) = ("orak", "oran");
/// Between two packets.
const PACE: Duration = Duration::from_micros(300);
/// Nothing came out for so long: nothing will. Longer than a neighbour is waited for.
const QUIET: Duration = Duration::from_millis(160);
/// So long if what came out differs until now: the machine may be busy.
const PATIENCE: Duration = Duration::from_millis(900);
/// Settings that are not told of are looked at once a second.
const LOOK: Duration = Duration::from_millis(1500);
/// How long nsplane may take to know what was configured.
const FOLLOW: Duration = Duration::from_secs(10);

/// Where nsplane finds its twins: namespaces are linked there when they are to be found.
pub(super) struct Show(PathBuf);

impl Show {
    /// An empty directory.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn new() -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("nslab-{}-oracle", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let show = Self(dir);
        show.write("")?;
        Ok(show)
    }

    /// The path of a config file that means what is in it.
    pub(super) fn config(&self) -> PathBuf {
        self.0.with_extension("toml")
    }

    /// Writes the config file, with these members.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn write(&self, members: &str) -> Result<()> {
        let dir = self.0.display();
        let text = format!("[[namespace]]\nnetns = \"{dir}/*\"\n{members}");
        fs::write(self.config(), text).context("writing the config file")
    }

    fn reload(&self, members: &str, nsplane: &Nsplane) -> Result<()> {
        self.write(members)?;
        let said = nsplane.tell(&["reload"])?;
        ensure!(said.status.success(), "reload: {}", String::from_utf8_lossy(&said.stderr));
        Ok(())
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.config());
        // What cannot be removed is a directory of links without a target.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What came out of a twin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Packets by case (None: of nobody's) and wire.
    pub(super) packets: BTreeMap<(Option<u16>, usize), Vec<Vec<u8>>>,
    /// What is there or not, by wire.
    pub(super) once: BTreeSet<(usize, String)>,
}

/// What came of a plan.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// What came out: of the kernel's twin, of nsplane's.
    pub(super) seen: [Seen; 2],
    /// Counters of each space, likewise.
    pub(super) counters: [Vec<Counters>; 2],
    /// Who did what in nsplane's twin.
    pub(super) tiers: Tiers,
}

/// Runs a plan through both twins.
///
/// # Errors
/// The lab failed, or nsplane did not follow.
pub(super) fn run(plan: &Plan, nsplane: &Nsplane, show: &Show) -> Result<Outcome> {
    let kernel = Twin::build(plan, LABELS.0, false).context("building the kernel's twin")?;
    let ours = Twin::build(plan, LABELS.1, true).context("building nsplane's twin")?;
    if let Some(trunk) = ours.trunk() {
        show.reload(&trunk.config(plan, ours.spaces()), nsplane)?;
    }
    let mut exchange = Exchange { plan, twins: [&kernel, &ours], outcome: Outcome::default() };
    let early = plan.is_followed();
    for (n, phase) in plan.phases.iter().enumerate() {
        let mark = n as u8 + 1;
        if n == 0 && early {
            ours.show(&show.0)?;
        }
        for twin in exchange.twins {
            twin.apply(plan, phase, mark)?;
        }
        if n == 0 && !early {
            ours.show(&show.0)?;
        }
        follow(plan, &ours, nsplane, mark)?;
        exchange.phase(phase);
    }
    let mut outcome = exchange.outcome;
    for packets in outcome.seen.iter_mut().flat_map(|seen| seen.packets.values_mut()) {
        packets.sort();
    }
    outcome.tiers = counters::tiers(nsplane, ours.spaces())?;
    outcome.counters = [counters::of(kernel.spaces())?, counters::of(ours.spaces())?];
    for (counters, forwarded) in outcome.counters[1].iter_mut().zip(&outcome.tiers.forwarded) {
        counters.add_forwarded(*forwarded);
    }
    // What nsplane brings from a stand-in to its trunk it counts as forwarded, too.
    for wire in plan.wires.iter().filter(|wire| wire.vlan.is_some()) {
        for counters in &mut outcome.counters {
            counters[wire.near].forget_forwarded();
        }
    }
    ours.hide(&show.0);
    if ours.trunk().is_some() {
        show.reload("", nsplane)?;
    }
    Ok(outcome)
}

/// Waits until nsplane drives all devices of its twin and knows the mark, which was
/// configured last.
fn follow(plan: &Plan, twin: &Twin, nsplane: &Nsplane, mark: u8) -> Result<()> {
    let names: Vec<&str> = twin.names().collect();
    let wanted: usize = (0..plan.spaces).map(|n| devices(plan, n).count()).sum();
    let mark = mark_address(mark).to_string();
    let mut seen = (0, 0);
    let start = Instant::now();
    wait_until(FOLLOW, "nsplane to follow", || {
        let of_twin = |rows: Result<Value>, fits: &dyn Fn(&Value) -> bool| {
            let Ok(Value::Array(rows)) = rows else { return 0 };
            let ours = |row: &&Value| row["netns"].as_str().is_some_and(|n| names.contains(&n));
            rows.iter().filter(ours).filter(|row| fits(row)).count()
        };
        let is_down = |row: &Value| row["up"] == false;
        let in_vlan = |row: &Value| {
            let wires = plan.wires.iter().enumerate().filter(|(_, wire)| wire.vlan.is_some());
            wires.into_iter().any(|(n, _)| row["device"] == format!("d{n}"))
        };
        let ready = |row: &Value| match in_vlan(row) {
            true => row["member"]["device"] == trunk::DEVICE || is_down(row),
            false => row["port"] != "" || is_down(row),
        };
        // On until a space forwards, and longer for who has not looked again.
        let redirects =
            |row: &Value| row["tier_v4"].as_str().is_some_and(|t| t.contains("redirects"));
        let known = |row: &Value| row["dst"] == mark.as_str();
        let of_space = |fits: &dyn Fn(&Value) -> bool| {
            let Ok(Value::Array(rows)) = nsplane.ask("namespaces", None) else { return 0 };
            let ours = |row: &&Value| row["name"].as_str().is_some_and(|n| names.contains(&n));
            rows.iter().filter(ours).filter(|row| fits(row)).count()
        };
        seen.0 = of_twin(nsplane.ask("neighbors", None), &known);
        seen.1 = of_twin(nsplane.ask("ports", None), &ready);
        let looked = of_space(&redirects) == 0 || start.elapsed() > LOOK;
        seen == (plan.spaces, wanted) && looked
    })
    .with_context(|| format!("{} of {} marks, {} of {wanted} devices", seen.0, plan.spaces, seen.1))
}

struct Exchange<'a> {
    plan: &'a Plan,
    twins: [&'a Twin; 2],
    outcome: Outcome,
}

impl Exchange<'_> {
    /// Sends a phase's packets, and waits for what comes of them.
    fn phase(&mut self, phase: &Phase) {
        for case in &phase.cases {
            let frame = case.packet.bytes(case.id);
            for twin in self.twins {
                // Too short or too long for the device: at both ends.
                let _ = twin.send(case.wire, &frame);
            }
            self.drain();
            std::thread::sleep(PACE);
        }
        let mut last = Instant::now();
        loop {
            if self.drain() > 0 {
                last = Instant::now();
            }
            let quiet = last.elapsed();
            if quiet >= PATIENCE || (quiet >= QUIET && self.is_equal()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn is_equal(&self) -> bool {
        let sorted = |seen: &Seen| {
            let mut seen = seen.clone();
            seen.packets.values_mut().for_each(|packets| packets.sort());
            seen
        };
        let [a, b] = &self.outcome.seen;
        sorted(a) == sorted(b)
    }

    /// Takes what came out, and answers for the hosts.
    fn drain(&mut self) -> usize {
        let mut all = 0;
        for (twin, seen) in self.twins.iter().zip(&mut self.outcome.seen) {
            let mut answers = Vec::new();
            all += twin.drain(|wire, frame| {
                answers.extend(answer(self.plan, wire, frame).map(|answer| (wire, answer)));
                match normal::item(frame) {
                    Item::Packet(id, bytes) => {
                        seen.packets.entry((id, wire)).or_default().push(bytes);
                    }
                    Item::Once(what) => {
                        seen.once.insert((wire, what));
                    }
                    Item::Nothing => {}
                }
            });
            for (wire, answer) in answers {
                let _ = twin.send(wire, &answer);
            }
        }
        all
    }
}
