//! Policy rules: those that packets of ours can match, as the workers go through them.
//!
//! What is known of every packet that we route decides here already: it came in on a
//! port that is a member of no VRF, chose no device to leave by, and has the mark 0.
//! Rules by user keep the family with the kernel.

use crate::control::ledger::default_rules;
use crate::control::mirror::Mirror;
use crate::id::PortId;
use crate::netlink::{self, Family, Prefix, RuleAction, Selector, Suppress};
use crate::tables::policy::Ports;

/// A rule that some packets of ours match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// The rule's place in the order.
    pub(super) priority: u32,
    /// What it asks for; None: nothing, it matches all.
    pub(super) asks: Option<Asks>,
    /// What it does.
    pub(super) does: Does,
}

/// What a rule asks for of a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asks {
    pub(super) invert: bool,
    pub(super) iif: Option<PortId>,
    pub(super) src: Option<Prefix>,
    pub(super) dst: Option<Prefix>,
    pub(super) tos: (u8, u8),
    pub(super) proto: u8,
    pub(super) sport: Ports,
    pub(super) dport: Ports,
}

/// What a rule does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Does {
    Table(u32, Suppress),
    /// On at that step, a later one.
    Goto(usize),
    Refuse,
}

/// More rules than that are not gone through for each packet; nor are more tables kept
/// apart, nor more conditions on results told from each other.
const MAX_STEPS: usize = 1000;
const MAX_TABLES: usize = 250;
const MAX_CONDITIONS: usize = 8;

/// The family's steps. `port` says which port has a device name.
pub(super) fn steps(
    mirror: &Mirror,
    family: Family,
    port: impl Fn(&str) -> Option<PortId>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    // Priorities of the steps, and where a rule leads on, as a priority.
    let (mut at, mut goto) = (Vec::new(), Vec::new());
    for rule in mirror.rules.iter().filter(|r| r.family == family) {
        // Only where the operator says that what is not known does not count.
        if strange(rule).is_some() {
            continue;
        }
        let asks = match asks(&rule.selector, &port) {
            Match::Never => continue,
            Match::Always => None,
            Match::Some(asks) => Some(asks),
        };
        let does = match rule.action {
            RuleAction::Table(table) => Does::Table(table, rule.suppress),
            RuleAction::Goto(priority) => {
                // The target need not be there: then the rule does nothing.
                let mut there = mirror.rules.iter().filter(|r| r.family == family);
                if !there.any(|r| r.priority == priority) {
                    continue;
                }
                goto.push((steps.len(), priority));
                Does::Goto(0)
            }
            RuleAction::Refuse => Does::Refuse,
            RuleAction::Nop | RuleAction::Unknown => continue,
        };
        at.push(rule.priority);
        steps.push(Step { priority: rule.priority, asks, does });
    }
    for (step, priority) in goto {
        // The first of that priority; or, where that matches nothing, what follows it.
        steps[step].does = Does::Goto(at.partition_point(|p| *p < priority));
    }
    steps
}

/// The priority of the rule that is a step.
pub(in super::super) fn rule_priority(
    mirror: &Mirror,
    family: Family,
    port: impl Fn(&str) -> Option<PortId>,
    step: usize,
) -> Option<u32> {
    steps(mirror, family, port).get(step).map(|s| s.priority)
}

/// The family's rules as the workers can follow them: one table after the other for every
/// packet, or steps.
pub(super) enum Rules {
    Tables(Vec<u32>),
    Steps(Vec<Step>),
}

/// What the rules of the family come to. More than there is room for are left to the
/// kernel; where the operator says that they do not count, they are not there.
pub(super) fn rules(
    mirror: &Mirror,
    family: Family,
    port: impl Fn(&str) -> Option<PortId>,
) -> Rules {
    if too_many(mirror, family) {
        return Rules::Tables(default_rules(family).iter().map(|(_, table)| *table).collect());
    }
    let steps = steps(mirror, family, port);
    plain(&steps).map_or(Rules::Steps(steps), Rules::Tables)
}

/// The tables that are looked into one after the other for every packet, if that is all
/// that the steps do.
fn plain(steps: &[Step]) -> Option<Vec<u32>> {
    let table = |step: &Step| match step {
        Step { asks: None, does: Does::Table(table, suppress), .. } if !suppress.any_given() => {
            Some(*table)
        }
        _ => None,
    };
    steps.iter().map(table).collect()
}

/// Why the rules of the family cannot be obeyed here.
pub(in super::super) fn strange_rule(mirror: &Mirror, family: Family) -> Option<String> {
    let rules = || mirror.rules.iter().filter(move |r| r.family == family);
    if rules().next().is_none() {
        return Some("there are no policy rules: nothing is routed".to_owned());
    }
    if let Some((rule, what)) = rules().find_map(|r| Some((r, strange(r)?))) {
        return Some(format!("policy rule {} asks for {what}", rule.priority));
    }
    let why = "there are more policy rules than are gone through here";
    too_many(mirror, family).then(|| why.to_owned())
}

/// Rules, tables or conditions that there is no room for: going through them would take
/// the time of all namespaces.
fn too_many(mirror: &Mirror, family: Family) -> bool {
    let rules = || mirror.rules.iter().filter(move |r| r.family == family);
    if rules().nth(MAX_STEPS).is_some() {
        return true;
    }
    let mut tables: Vec<u32> = Vec::new();
    let mut conditions: Vec<Suppress> = Vec::new();
    for rule in rules() {
        if let RuleAction::Table(table) = rule.action {
            tables.push(table);
            conditions.push(rule.suppress);
        }
    }
    tables.sort_unstable();
    tables.dedup();
    conditions.retain(|c| c.any_given());
    conditions.sort_unstable();
    conditions.dedup();
    tables.len() > MAX_TABLES || conditions.len() > MAX_CONDITIONS
}

/// What a rule asks for that we cannot tell of a packet.
fn strange(rule: &netlink::Rule) -> Option<&'static str> {
    // What no packet of ours can match may say anything.
    if let Match::Never = asks(&rule.selector, &|_| Some(PortId(0))) {
        return None;
    }
    match (rule.unknown, rule.action) {
        (Some(what), _) => Some(what),
        (None, RuleAction::Unknown) => Some("something that nsplane does not know"),
        // Which table that is, the packet's VRF would say.
        (None, _) if rule.selector.l3mdev => Some("packets of no VRF"),
        _ => None,
    }
}

enum Match {
    Never,
    Always,
    Some(Asks),
}

fn asks(s: &Selector, port: &impl Fn(&str) -> Option<PortId>) -> Match {
    // Nothing that we route comes in on `lo`.
    let iif = s.iif.as_ref().map(|name| port(name).filter(|_| name != "lo"));
    let never = iif == Some(None) || s.oif.is_some() || s.l3mdev || s.mark.0 & s.mark.1 != 0;
    if never {
        return if s.invert { Match::Always } else { Match::Never };
    }
    let asks = Asks {
        invert: s.invert,
        iif: iif.flatten(),
        src: s.src,
        dst: s.dst,
        tos: s.tos,
        proto: s.proto,
        sport: ports(s.sport),
        dport: ports(s.dport),
    };
    let any = Asks { invert: asks.invert, ..Asks::default() };
    match asks == any {
        true if s.invert => Match::Never,
        true => Match::Always,
        false => Match::Some(asks),
    }
}

fn ports(p: netlink::Ports) -> Ports {
    match p {
        netlink::Ports { start, mask, .. } if mask != 0 => Ports::Masked(start & mask, mask),
        netlink::Ports { start, end, .. } if start != 0 && end != 0 => Ports::Range(start, end),
        _ => Ports::Any,
    }
}

/// The rules make the kernel look at protocol and ports of every IPv6 packet, by which it
/// reads the flow label in another byte order too.
pub(super) fn dissects(mirror: &Mirror, family: Family) -> bool {
    let asks = |s: &Selector| {
        s.iif.as_deref() != Some("lo")
            && (s.proto != 0 || [s.sport, s.dport].iter().any(|p| p.start != 0 && p.end != 0))
    };
    mirror.rules.iter().any(|r| r.family == family && asks(&r.selector))
}

#[cfg(test)]
mod live;
#[cfg(test)]
mod tests;
