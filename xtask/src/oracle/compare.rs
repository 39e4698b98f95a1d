//! What differs between the twins.

use std::collections::BTreeSet;

use serde::Serialize;

use super::exchange::Outcome;
use super::normal;
use super::trunk::NO_WIRE;

/// What differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Difference {
    /// The case, if it is one's.
    pub(super) case: Option<u16>,
    /// What it is about, by which it is known again in another run.
    pub(super) about: String,
    /// The same with all details.
    pub(super) text: String,
}

/// All differences of an outcome.
pub(super) fn differences(outcome: &Outcome) -> Vec<Difference> {
    let [kernel, ours] = &outcome.seen;
    let keys: BTreeSet<_> = kernel.packets.keys().chain(ours.packets.keys()).collect();
    let mut found = Vec::new();
    for key @ (case, wire) in keys {
        let [a, b] =
            [kernel, ours].map(|seen| seen.packets.get(key).map_or(&[][..], Vec::as_slice));
        if a != b {
            let whose = case.map_or("no case's packets".to_owned(), |id| format!("case {id}"));
            let about = match *wire {
                NO_WIRE => format!("{whose} at the trunk, in no wire's VLAN"),
                wire => format!("{whose} at w{wire}"),
            };
            found.push(Difference {
                case: *case,
                text: format!("{about}\n{}{}", list("kernel ", a, b), list("nsplane", b, a)),
                about,
            });
        }
    }
    for (who, more, less) in [("the kernel", kernel, ours), ("nsplane", ours, kernel)] {
        found.extend(more.once.difference(&less.once).map(|(wire, what)| {
            let about = format!("only with {who}, at w{wire}: {what}");
            Difference { case: None, text: about.clone(), about }
        }));
    }
    let [a, b] = &outcome.counters;
    for (space, (kernel, ours)) in a.iter().zip(b).enumerate() {
        found.extend(kernel.differing(ours).into_iter().map(|counter| {
            let name = counter.split(": ").next().unwrap_or_default();
            Difference {
                case: None,
                about: format!("counter {name} of space {space}"),
                text: format!("space {space}, {counter}"),
            }
        }));
    }
    found
}

/// One side's packets, those that the other side has too left out.
fn list(who: &str, frames: &[Vec<u8>], others: &[Vec<u8>]) -> String {
    let mut others = others.to_vec();
    let own = frames.iter().filter(|frame| {
        let same = others.iter().position(|other| other == *frame);
        same.map(|at| others.remove(at)).is_none()
    });
    let lines: String = own.map(|frame| format!("  {who}: {}\n", normal::show(frame))).collect();
    if lines.is_empty() { format!("  {who}: nothing else\n") } else { lines }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(kernel: &[u8], ours: &[u8]) -> Outcome {
        let mut outcome = Outcome::default();
        for (seen, bytes) in outcome.seen.iter_mut().zip([kernel, ours]) {
            if !bytes.is_empty() {
                seen.packets.insert((Some(1), 0), vec![bytes.to_vec()]);
            }
        }
        outcome
    }

    #[test]
    fn a_byte_more_or_less_or_different_is_a_difference() {
        assert_eq!(differences(&outcome(b"abc", b"abc")), []);
        for other in [&b"abx"[..], b"ab", b"abcd", b""] {
            let found = differences(&outcome(b"abc", other));
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].case, Some(1));
        }
    }

    #[test]
    fn the_same_packet_twice_is_a_difference() {
        let mut twice = outcome(b"abc", b"abc");
        twice.seen[1].packets.values_mut().for_each(|packets| packets.push(b"abc".to_vec()));
        assert_eq!(differences(&twice).len(), 1);
    }
}
