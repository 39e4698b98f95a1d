//! What came of it.

use serde::Serialize;

use super::compare::Difference;
use super::counters::Tiers;
use super::exchange::Outcome;

/// A difference, and how to see it again.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Found {
    /// The seed of its plan.
    pub(super) plan: u64,
    /// What it is.
    pub(super) difference: Difference,
    /// A script with a plan that shows it.
    pub(super) script: String,
}

/// The report.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Report {
    /// What decided everything.
    pub(super) seed: u64,
    /// Packets that were put in at both twins, those of repetitions not counted.
    pub(super) cases: usize,
    /// Topologies.
    pub(super) topologies: usize,
    /// Times that a topology was built twice and run.
    pub(super) runs: usize,
    /// How long it took.
    pub(super) seconds: f64,
    /// Packets that came out of the kernel's twin.
    pub(super) came_out: usize,
    /// Who did what in nsplane's twin.
    pub(super) tiers: Tiers,
    /// Differences that were there each time.
    pub(super) found: Vec<Found>,
    /// Topologies with differences that were not there each time, with the first one.
    pub(super) unsteady: Vec<String>,
}

impl Report {
    /// Nothing yet.
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Counts what came out of the kernel's twin.
    pub(super) fn count(&mut self, outcome: &Outcome) {
        self.came_out += outcome.seen[0].packets.values().map(Vec::len).sum::<usize>();
    }

    /// A line while it runs.
    pub(super) fn progress(&self, all: usize) -> String {
        let (ours, whole) = self.tiers.share();
        format!(
            "{} of {all} cases, {} topologies, {} differences, {} unsteady; nsplane forwarded {ours} of {whole}",
            self.cases,
            self.topologies,
            self.found.len(),
            self.unsteady.len()
        )
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let (ours, whole) = self.tiers.share();
        let mut text = format!(
            "seed {}: {} cases in {} topologies ({} runs), {:.0} s\n\
             {} differences, {} topologies with differences that did not come again\n\
             {} packets came out of the kernel's twin\n\
             what nsplane did with {whole} packets that came to its ports: forwarded {ours}\n",
            self.seed,
            self.cases,
            self.topologies,
            self.runs,
            self.seconds,
            self.found.len(),
            self.unsteady.len(),
            self.came_out,
        );
        for (reason, n) in &self.tiers.by_reason {
            text.push_str(&format!("  {n:7} {reason}\n"));
        }
        text.push_str("who forwarded the spaces' families in the end\n");
        for (who, n) in &self.tiers.families {
            text.push_str(&format!("  {n:7} {who}\n"));
        }
        for found in &self.found {
            text.push_str(&format!(
                "\nplan {:016x}, {}\n{}",
                found.plan, found.script, found.difference.text
            ));
        }
        for unsteady in &self.unsteady {
            text.push_str(&format!("\nunsteady: {unsteady}"));
        }
        text
    }
}
