//! How long a moved device was without packets, and whose time that was.

use std::time::Duration;

use serde::Serialize;

/// One move's gap, in its parts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gap {
    /// From the last packet where it was until it was up where it is: moving it,
    /// its address, setting it up. The kernel's and the operator's.
    pub(super) move_and_set_up: Duration,
    /// From then until the first packet, whoever forwarded it.
    pub(super) until_packets: Duration,
    /// From then until nsplane forwarded one, where that was waited for.
    pub(super) until_nsplane: Option<Duration>,
    /// Packets into the tenant from behind the device that did not arrive, from
    /// setting it up to the end of its stay.
    pub(super) lost: u64,
}

/// All moves' gaps.
#[derive(Clone, Debug, Default)]
pub(super) struct Gaps(Vec<Gap>);

/// Median and worst, in milliseconds or packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) of: usize,
    pub(super) median: f64,
    pub(super) p99: f64,
    pub(super) worst: f64,
}

/// What is told of the gaps.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Summary {
    /// Last packet where it was, to first packet where it is.
    pub(super) whole_ms: Spread,
    /// The part until it was up again.
    pub(super) move_and_set_up_ms: Spread,
    /// The rest.
    pub(super) until_packets_ms: Spread,
    /// From up until nsplane forwards; the kernel does until then.
    pub(super) until_nsplane_ms: Spread,
    /// Packets lost in a stay.
    pub(super) lost: Spread,
}

impl Gaps {
    pub(super) fn add(&mut self, gap: Gap) {
        self.0.push(gap);
    }

    pub(super) fn summary(&self) -> Summary {
        let of = |part: fn(&Gap) -> Option<f64>| spread(self.0.iter().filter_map(part).collect());
        Summary {
            whole_ms: of(|g| Some(ms(g.move_and_set_up + g.until_packets))),
            move_and_set_up_ms: of(|g| Some(ms(g.move_and_set_up))),
            until_packets_ms: of(|g| Some(ms(g.until_packets))),
            until_nsplane_ms: of(|g| g.until_nsplane.map(ms)),
            lost: of(|g| Some(g.lost as f64)),
        }
    }
}

impl Summary {
    /// The summary as a table.
    pub(super) fn table(&self) -> String {
        let rows = [
            ("gap: last packet there to first here (ms)", self.whole_ms),
            ("  until moved, addressed and up (ms)", self.move_and_set_up_ms),
            ("  from up to the first packet (ms)", self.until_packets_ms),
            ("from up until nsplane forwards (ms)", self.until_nsplane_ms),
            ("packets lost in a stay", self.lost),
        ];
        let mut text =
            format!("{:<42} {:>7} {:>9} {:>9} {:>9}\n", "", "of", "median", "p99", "worst");
        for (what, s) in rows {
            text.push_str(&format!(
                "{what:<42} {:>7} {:>9.1} {:>9.1} {:>9.1}\n",
                s.of, s.median, s.p99, s.worst
            ));
        }
        text
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn spread(mut values: Vec<f64>) -> Spread {
    values.sort_by(f64::total_cmp);
    let at = |part: f64| {
        let last = values.len().saturating_sub(1);
        values.get((last as f64 * part).round() as usize).copied().unwrap_or(0.0)
    };
    Spread { of: values.len(), median: at(0.5), p99: at(0.99), worst: at(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_and_the_worst_at_the_end() {
        let s = spread(vec![5.0, 1.0, 3.0]);
        assert_eq!((s.of, s.median, s.worst), (3, 3.0, 5.0));
        assert_eq!(spread(Vec::new()), Spread::default());
    }
}
