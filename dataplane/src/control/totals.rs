//! Counters of one port or namespace, added up over workers and CPUs.

use std::collections::BTreeMap;

use nsplane_abi::{Counter, PassReason};

use super::view::{self, Amount};
use crate::id::PortId;
use crate::stats::{DropReason, PortStats, PuntReason, WorkerStats};

const PASS_REASONS: usize = PassReason::COUNT as usize;

/// One set of counters. Counters only grow, so that of one use of a port's slot
/// is the difference of two readings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    received: Amount,
    forwarded: Amount,
    tx_packets: u64,
    tx_refused: u64,
    csum_completed: u64,
    punts_failed: u64,
    drops: [u64; DropReason::COUNT],
    punts: [u64; PuntReason::COUNT],
    program: [Amount; PASS_REASONS],
}

impl Totals {
    /// Reads a port's counters.
    pub fn read<'a>(
        port: PortId,
        workers: impl Iterator<Item = &'a WorkerStats>,
        program: &[Counter; PASS_REASONS],
        punts_failed: u64,
    ) -> Self {
        let mut totals = Self { punts_failed, ..Self::default() };
        for worker in workers {
            totals.count(worker.port(port));
        }
        for (sum, c) in totals.program.iter_mut().zip(program) {
            *sum = Amount { packets: c.packets, bytes: c.bytes };
        }
        totals
    }

    fn count(&mut self, s: &PortStats) {
        self.received.add(Amount { packets: s.rx_packets.get(), bytes: s.rx_bytes.get() });
        self.forwarded
            .add(Amount { packets: s.forwarded_packets.get(), bytes: s.forwarded_bytes.get() });
        self.tx_packets += s.tx_packets.get();
        self.tx_refused += s.tx_refused.get();
        self.csum_completed += s.csum_completed.get();
        for (sum, c) in self.drops.iter_mut().zip(&s.drops) {
            *sum += c.get();
        }
        for (sum, c) in self.punts.iter_mut().zip(&s.punts) {
            *sum += c.get();
        }
    }

    /// Combines two sets, number by number.
    #[must_use]
    fn zip(mut self, other: &Self, op: impl Fn(u64, u64) -> u64) -> Self {
        let amount = |a: &mut Amount, b: &Amount| {
            a.packets = op(a.packets, b.packets);
            a.bytes = op(a.bytes, b.bytes);
        };
        amount(&mut self.received, &other.received);
        amount(&mut self.forwarded, &other.forwarded);
        for (a, b) in self.program.iter_mut().zip(&other.program) {
            amount(a, b);
        }
        self.tx_packets = op(self.tx_packets, other.tx_packets);
        self.tx_refused = op(self.tx_refused, other.tx_refused);
        self.csum_completed = op(self.csum_completed, other.csum_completed);
        self.punts_failed = op(self.punts_failed, other.punts_failed);
        for (a, b) in self.drops.iter_mut().zip(&other.drops) {
            *a = op(*a, *b);
        }
        for (a, b) in self.punts.iter_mut().zip(&other.punts) {
            *a = op(*a, *b);
        }
        self
    }

    /// What was counted since `base` was read.
    #[must_use]
    pub fn since(self, base: &Self) -> Self {
        self.zip(base, u64::wrapping_sub)
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: &Self) -> Self {
        self.zip(other, u64::wrapping_add)
    }

    /// For showing.
    #[must_use]
    pub fn view(&self, netns: &str) -> view::Counters {
        let by_name = |names: &[&'static str], counts: &[u64]| -> BTreeMap<String, u64> {
            names
                .iter()
                .zip(counts)
                .filter(|(_, n)| **n > 0)
                .map(|(r, n)| ((*r).to_owned(), *n))
                .collect()
        };
        let redirected = PassReason::Redirected as usize;
        view::Counters {
            netns: netns.to_owned(),
            userspace: view::Userspace {
                received: self.received,
                forwarded: self.forwarded,
                tx_packets: self.tx_packets,
                tx_refused: self.tx_refused,
                csum_completed: self.csum_completed,
                drops: by_name(&DropReason::ALL.map(DropReason::name), &self.drops),
                punts: by_name(&PuntReason::ALL.map(PuntReason::name), &self.punts),
                punts_failed: self.punts_failed,
            },
            kernel: view::Kernel {
                redirected: self.program[redirected],
                passed: PassReason::ALL
                    .iter()
                    .zip(&self.program)
                    .skip(redirected + 1)
                    .filter(|(_, a)| a.packets > 0)
                    .map(|(r, a)| (r.name().to_owned(), *a))
                    .collect(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_minus_its_base_plus_the_base_is_the_reading() {
        let stats = WorkerStats::new(2);
        let port = PortId(1);
        let read = |program| Totals::read(port, std::iter::once(&stats), &program, 3);
        let base = read([Counter::default(); PASS_REASONS]);
        stats.port(port).rx_packets.add(5);
        stats.port(port).punts[PuntReason::TooBig as usize].add(2);
        let mut program = [Counter::default(); PASS_REASONS];
        program[PassReason::Ttl as usize] = Counter { packets: 7, bytes: 700 };
        let now = read(program);
        let grown = now.clone().since(&base);
        assert_eq!(grown.clone().plus(&base), now);
        let shown = grown.view("blue");
        assert_eq!(shown.userspace.received.packets, 5);
        assert_eq!(shown.userspace.punts, BTreeMap::from([("too_big".to_owned(), 2)]));
        assert_eq!(shown.kernel.passed["ttl"], Amount { packets: 7, bytes: 700 });
        assert_eq!(shown.userspace.punts_failed, 0, "the base had them already");
    }
}
