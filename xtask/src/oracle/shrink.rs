//! Makes a plan that shows a difference small: packets, then commands and settings, then
//! what is special of the packets, as long as the twins still differ.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::packet::{Above, Packet, Sum};
use super::plan::Plan;

/// How long it may take.
const BUDGET: Duration = Duration::from_secs(60);

/// Whether a plan shows the difference.
type Differs<'a> = dyn FnMut(&Plan) -> Result<bool> + 'a;

/// The least plan that was found within the time.
///
/// # Errors
/// As those of `differs`.
pub(super) fn shrink(plan: &Plan, case: Option<u16>, differs: &mut Differs<'_>) -> Result<Plan> {
    let end = Instant::now() + BUDGET;
    let mut within = |plan: &Plan| Ok(Instant::now() < end && differs(plan)?);
    let mut plan = cases(plan.clone(), case, &mut within)?;
    let places = |plan: &Plan, count: &dyn Fn(&super::plan::Phase) -> usize| {
        let phases = plan.phases.iter().enumerate();
        phases.flat_map(|(n, phase)| (0..count(phase)).map(move |i| (n, i))).collect::<Vec<_>>()
    };
    let lines = places(&plan, &|phase| phase.lines.len());
    plan = without(plan, lines, &mut within, |plan, gone| {
        keep(plan, |phase| &mut phase.lines, gone);
    })?;
    let sysctls = places(&plan, &|phase| phase.sysctls.len());
    plan = without(plan, sysctls, &mut within, |plan, gone| {
        keep(plan, |phase| &mut phase.sysctls, gone);
    })?;
    let hosts: Vec<usize> = (0..plan.hosts.len()).collect();
    plan = without(plan, hosts, &mut within, |plan, gone| {
        let mut at = 0;
        plan.hosts.retain(|_| {
            at += 1;
            !gone.contains(&(at - 1))
        });
    })?;
    plan = one_phase(plan, &mut within)?;
    packets(plan, &mut within)
}

fn cases(plan: Plan, case: Option<u16>, differs: &mut Differs<'_>) -> Result<Plan> {
    if let Some(case) = case {
        let alone = plan.only(|id| id == case);
        if differs(&alone)? {
            return Ok(alone);
        }
    }
    let ids: Vec<u16> = plan.cases().map(|case| case.id).collect();
    without(plan, ids, differs, |plan, gone| *plan = plan.only(|id| !gone.contains(&id)))
}

/// Takes away as many of `all` as may go: halves first, single ones last.
fn without<T: Clone>(
    mut plan: Plan,
    all: Vec<T>,
    differs: &mut Differs<'_>,
    take: impl Fn(&mut Plan, &[T]),
) -> Result<Plan> {
    let mut kept = all;
    let mut gone: Vec<T> = Vec::new();
    let whole = plan.clone();
    let mut size = kept.len().div_ceil(2);
    while size > 0 && !kept.is_empty() {
        let mut at = 0;
        while at < kept.len() {
            let end = (at + size).min(kept.len());
            let mut tried = gone.clone();
            tried.extend_from_slice(&kept[at..end]);
            let mut smaller = whole.clone();
            take(&mut smaller, &tried);
            if differs(&smaller)? {
                plan = smaller;
                gone = tried;
                kept.drain(at..end);
            } else {
                at = end;
            }
        }
        size /= 2;
    }
    Ok(plan)
}

/// Keeps the items of all phases but those at the places that are `gone`.
fn keep<T>(
    plan: &mut Plan,
    of: impl Fn(&mut super::plan::Phase) -> &mut Vec<T>,
    gone: &[(usize, usize)],
) {
    for (n, phase) in plan.phases.iter_mut().enumerate() {
        let mut at = 0;
        of(phase).retain(|_| {
            at += 1;
            !gone.contains(&(n, at - 1))
        });
    }
}

/// All phases' configuration at once, if that shows it, too.
fn one_phase(plan: Plan, differs: &mut Differs<'_>) -> Result<Plan> {
    if plan.phases.len() < 2 {
        return Ok(plan);
    }
    let mut one = plan.clone();
    let mut phases = std::mem::take(&mut one.phases).into_iter();
    let mut first = phases.next().unwrap_or_default();
    for phase in phases {
        first.lines.extend(phase.lines);
        first.sysctls.extend(phase.sysctls);
        first.cases.extend(phase.cases);
    }
    one.phases = vec![first];
    Ok(if differs(&one)? { one } else { plan })
}

/// Each way to make a packet more ordinary.
const SIMPLER: &[fn(&mut Packet)] = &[
    |p| p.tags.clear(),
    |p| p.ethertype = None,
    |p| p.ttl = 64,
    |p| p.tos = 0,
    |p| p.fragment = 0,
    |p| p.options.clear(),
    |p| p.extensions.clear(),
    |p| drop(p.extensions.pop()),
    |p| p.above = Above::Udp(9, Sum::Right),
    |p| p.payload = p.payload.min(16),
    |p| p.longer = 0,
    |p| p.first = None,
    |p| p.checksum = 0,
    |p| p.padding = 0,
    |p| p.cut = None,
];

fn packets(mut plan: Plan, differs: &mut Differs<'_>) -> Result<Plan> {
    for phase in 0..plan.phases.len() {
        for case in 0..plan.phases[phase].cases.len() {
            for simpler in SIMPLER {
                let mut other = plan.clone();
                let packet = &mut other.phases[phase].cases[case].packet;
                simpler(packet);
                if *packet != plan.phases[phase].cases[case].packet && differs(&other)? {
                    plan = other;
                }
            }
        }
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::super::topology;
    use super::*;

    #[test]
    fn what_does_not_matter_goes() {
        let mut plan = topology::plan(3, 20);
        let case = plan.phases[0].cases[4].id;
        plan.phases[0].lines.push((0, "the culprit".to_owned()));
        plan.phases[0].cases[4].packet.ttl = 2;
        let mut tried = 0;
        let small = shrink(&plan, Some(case), &mut |plan| {
            tried += 1;
            let culprit = plan.phases[0].lines.iter().any(|(_, line)| line == "the culprit");
            Ok(culprit && plan.cases().any(|c| c.id == case && c.packet.ttl == 2))
        })
        .unwrap();
        assert_eq!(small.phases.len(), 1);
        assert_eq!(small.phases[0].lines, [(0, "the culprit".to_owned())]);
        assert_eq!(small.phases[0].sysctls, []);
        assert_eq!(small.cases().map(|case| case.id).collect::<Vec<_>>(), [case]);
        assert!(tried < 200, "{tried} runs");
    }
}
