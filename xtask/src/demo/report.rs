//! What the demo found, as a table or as JSON. Field names are the interface.

use std::fmt::Write as _;

use nsplane_bench::{Counts, Sent};
use serde::Serialize;
use serde_json::Value;

/// The whole demo.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Nothing is wrong.
    pub(super) ok: bool,
    seconds: u64,
    generator_cpu: usize,
    worker_cpu: usize,
    contenders: Vec<Turn>,
}

/// One contender's turn.
#[derive(Debug, Serialize)]
pub(super) struct Turn {
    contender: &'static str,
    pub(super) tenants: [Verdict; 2],
    problems: Vec<String>,
}

/// What one contender did for one tenant.
#[derive(Debug, Default, Serialize)]
pub(super) struct Verdict {
    tenant: &'static str,
    /// Families whose pings were all answered, of 2.
    pub(super) ping: u32,
    pub(super) tcp_v4_mbit: Option<u64>,
    pub(super) tcp_v6_mbit: Option<u64>,
    /// Generated packets.
    offered: u64,
    /// Of these, arrived where they belong.
    pub(super) delivered: u64,
    /// Delivered a second.
    rate: u64,
    /// Of the offered, not delivered, in percent.
    loss_percent: f64,
    /// Packets of the other tenant that arrived here.
    leaked: u64,
    /// Who forwarded.
    #[serde(flatten)]
    pub(super) tiers: Tiers,
    /// The rate, to the kernel's for the same tenant.
    ratio_to_kernel: Option<f64>,
    problems: Vec<String>,
}

/// Packets by who forwarded them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Tiers {
    /// nsplane's workers.
    pub(super) userspace: u64,
    /// The kernel's stack: passed by the XDP program, or punted by a worker.
    pub(super) kernel: u64,
}

impl Tiers {
    /// A namespace's, out of `nsplane show counters --json`.
    pub(super) fn from_counters(shown: &Value, netns: &str) -> Option<Self> {
        let counters = shown.as_array()?.iter().find(|row| row["netns"] == netns)?;
        let userspace = counters["userspace"]["forwarded"]["packets"].as_u64()?;
        let punts = counters["userspace"]["punts"].as_object()?;
        let passed = counters["kernel"]["passed"].as_object()?;
        let punted: u64 = punts.values().filter_map(Value::as_u64).sum();
        let passed: u64 = passed.values().filter_map(|amount| amount["packets"].as_u64()).sum();
        Some(Self { userspace, kernel: punted + passed })
    }

    /// What came on top of `before`.
    pub(super) fn since(self, before: &Self) -> Self {
        Self {
            userspace: self.userspace.saturating_sub(before.userspace),
            kernel: self.kernel.saturating_sub(before.kernel),
        }
    }
}

impl Turn {
    pub(super) fn new(contender: &'static str, tenants: [&'static str; 2]) -> Self {
        let tenants = tenants.map(|tenant| Verdict { tenant, ..Verdict::default() });
        Self { contender, tenants, problems: Vec::new() }
    }

    pub(super) fn fail(&mut self, problem: String) {
        self.problems.push(problem);
    }
}

impl Verdict {
    pub(super) fn fail(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// Takes over what generator and sinks counted, and finds what is wrong with it.
    pub(super) fn set_load(&mut self, sent: Sent, far: &Counts, near: &Counts) {
        self.offered = sent.packets;
        self.delivered = far.own;
        let seconds = sent.elapsed.as_secs_f64().max(f64::EPSILON);
        self.rate = (far.own as f64 / seconds) as u64;
        let lost = sent.packets.saturating_sub(far.own);
        self.loss_percent = 100.0 * lost as f64 / sent.packets.max(1) as f64;
        self.leaked = far.foreign + near.foreign;
        if self.delivered == 0 {
            self.fail("nothing of the load was delivered".to_owned());
        }
        if self.delivered > self.offered {
            self.fail(format!("{} packets arrived, {} were sent", self.delivered, self.offered));
        }
        if self.leaked > 0 {
            let mark = if far.foreign > 0 { far.foreign_mark } else { near.foreign_mark };
            self.fail(format!("{} packets leaked in, with mark {mark:#x}", self.leaked));
        }
        if near.own > 0 {
            self.fail(format!("{} packets came back to the host they are from", near.own));
        }
    }
}

impl Report {
    pub(super) fn new(seconds: u64, (generator_cpu, worker_cpu): (usize, usize)) -> Self {
        Self { ok: true, seconds, generator_cpu, worker_cpu, contenders: Vec::new() }
    }

    pub(super) fn add(&mut self, turn: Turn) {
        self.contenders.push(turn);
        self.ok = self.problems().is_empty();
    }

    /// Fills in the ratios to the kernel, if it was among the contenders.
    pub(super) fn compare(&mut self) {
        let Some(kernel) = self.contenders.iter().find(|turn| turn.contender == "kernel") else {
            return;
        };
        let rates = kernel.tenants.each_ref().map(|verdict| verdict.rate);
        for turn in &mut self.contenders {
            for (verdict, rate) in turn.tenants.iter_mut().zip(rates) {
                let ratio = verdict.rate as f64 / rate as f64;
                verdict.ratio_to_kernel = (rate > 0).then_some(ratio);
            }
        }
    }

    /// All that is wrong, each with where.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut all = Vec::new();
        for turn in &self.contenders {
            all.extend(
                turn.problems.iter().map(|problem| format!("{}: {problem}", turn.contender)),
            );
            for verdict in &turn.tenants {
                let place = format!("{}, {}", turn.contender, verdict.tenant);
                all.extend(verdict.problems.iter().map(|problem| format!("{place}: {problem}")));
            }
        }
        all
    }

    /// The report for people: a row a tenant and contender.
    pub(super) fn table(&self) -> String {
        let head = [
            "tenant",
            "routed by",
            "ping",
            "TCP v4",
            "TCP v6",
            "offered",
            "delivered",
            "rate",
            "userspace",
            "kernel",
            "loss",
            "leaked",
            "to kernel",
        ];
        let mut rows = vec![head.map(str::to_owned)];
        for tenant in 0..2 {
            for turn in &self.contenders {
                rows.push(turn.tenants[tenant].row(turn.contender));
            }
        }
        let mut text = String::from("\n");
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        for row in &rows {
            let mut line = String::new();
            for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
                // Names to the left, numbers to the right.
                let _ = if i < 3 {
                    write!(line, "{cell:<width$}  ")
                } else {
                    write!(line, "{cell:>width$}  ")
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        let _ = write!(
            text,
            "\n{} s of 64-byte UDP over veth, offered to both tenants at once as fast as the routers'\n\
             devices take it. Generators on CPU {}, and with them the receiving of what they send; so\n\
             the kernel routes there too. nsplane's worker is on CPU {}. userspace, kernel: who\n\
             forwarded. leaked: packets that reached the other tenant.\n",
            self.seconds, self.generator_cpu, self.worker_cpu
        );
        text
    }
}

impl Verdict {
    fn row(&self, contender: &str) -> [String; 13] {
        let gbit = |mbit: Option<u64>| {
            mbit.map_or_else(|| "failed".into(), |mbit| format!("{:.1} Gbit/s", mbit as f64 / 1e3))
        };
        [
            self.tenant.to_owned(),
            contender.to_owned(),
            if self.ping == 2 { "ok".to_owned() } else { "failed".to_owned() },
            gbit(self.tcp_v4_mbit),
            gbit(self.tcp_v6_mbit),
            self.offered.to_string(),
            self.delivered.to_string(),
            format!("{:.3} Mpps", self.rate as f64 / 1e6),
            self.tiers.userspace.to_string(),
            self.tiers.kernel.to_string(),
            format!("{:.1} %", self.loss_percent),
            self.leaked.to_string(),
            self.ratio_to_kernel.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}")),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn loaded(offered: u64, far: Counts, near: Counts) -> Verdict {
        let sent = Sent { packets: offered, elapsed: Duration::from_secs(2) };
        let mut verdict = Verdict { tenant: "blue", ping: 2, ..Verdict::default() };
        verdict.set_load(sent, &far, &near);
        verdict
    }

    fn report(contender: &'static str, verdict: Verdict) -> Report {
        let mut turn = Turn::new(contender, ["blue", "red"]);
        turn.tenants[0] = verdict;
        let mut report = Report::new(2, (0, 1));
        report.add(turn);
        report
    }

    #[test]
    fn a_clean_load_is_ok_and_a_leak_is_not() {
        let clean = loaded(100, Counts { own: 50, ..Counts::default() }, Counts::default());
        assert_eq!((clean.rate, clean.loss_percent), (25, 50.0));
        assert!(report("kernel", clean).ok);
        let near = Counts { foreign: 1, foreign_mark: 9, ..Counts::default() };
        let leaky = loaded(100, Counts { own: 50, ..Counts::default() }, near);
        let report = report("nsplane", leaky);
        assert!(!report.ok);
        assert!(report.problems()[0].contains("leaked"), "{:?}", report.problems());
        assert!(report.problems()[0].contains("nsplane, blue"));
    }

    #[test]
    fn nothing_delivered_is_wrong() {
        let nothing = loaded(100, Counts::default(), Counts::default());
        assert!(!report("kernel", nothing).ok);
    }

    #[test]
    fn ratios_are_to_the_kernels_rate_for_the_tenant() {
        let half = loaded(100, Counts { own: 50, ..Counts::default() }, Counts::default());
        let full = loaded(100, Counts { own: 100, ..Counts::default() }, Counts::default());
        let mut report = report("kernel", half);
        let mut turn = Turn::new("nsplane", ["blue", "red"]);
        turn.tenants[0] = full;
        report.add(turn);
        report.compare();
        assert_eq!(report.contenders[1].tenants[0].ratio_to_kernel, Some(2.0));
        assert_eq!(report.contenders[1].tenants[1].ratio_to_kernel, None);
        assert!(report.table().contains("2.00"), "{}", report.table());
    }

    #[test]
    fn tiers_are_read_from_the_counters() {
        let shown = json!([
            {"netns": "other"},
            {"netns": "r",
             "userspace": {"forwarded": {"packets": 7, "bytes": 448}, "punts": {"ttl": 1}},
             "kernel": {"passed": {"local": {"packets": 2, "bytes": 1}, "not_ip": {"packets": 3}}}},
        ]);
        let tiers = Tiers::from_counters(&shown, "r").unwrap();
        assert_eq!(tiers, Tiers { userspace: 7, kernel: 6 });
        assert_eq!(tiers.since(&Tiers { userspace: 2, kernel: 6 }).userspace, 5);
        assert_eq!(Tiers::from_counters(&shown, "none"), None);
    }
}
