//! A new config while nsplane runs: read, compared, then applied.
//!
//! All that can be wrong with it is found before anything is changed. What cannot be
//! changed while nsplane runs is told and stays as it is; the rest is applied, as
//! services do whose settings are of both kinds.

use std::sync::Arc;

use sd_notify::NotifyState;
use tracing::{error, info, warn};

use super::daemon::Daemon;
use super::discover::selectors;
use super::steps::{Steps, steps};
use super::{Error, Source};
use crate::api::{ChangedNamespace, Reloaded};
use crate::config::{self, Diff};
use crate::control::error::told;
use crate::control::{Driven, PortChanges};
use crate::netns;

/// What is to be done, and what came of comparing the files.
pub(super) struct Plan {
    pub(super) steps: Steps,
    pub(super) rules: Vec<Arc<config::Namespace>>,
    pub(super) file: config::File,
    pub(super) report: Reloaded,
}

impl Daemon<'_> {
    /// Reads the config again and applies it; for the operator's eyes, what changed.
    ///
    /// # Errors
    /// What is wrong with it. Nothing has changed then.
    pub(super) fn reload(&mut self) -> Result<Reloaded, Error> {
        if matches!(self.config.source, Source::Flags(_)) {
            return Err(Error::NoConfig);
        }
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            // Without a service manager there is nobody to notify.
            let _ = sd_notify::notify(&[NotifyState::Reloading, now]);
        }
        let done = self.plan_anew().and_then(|plan| self.apply(plan));
        let _ = sd_notify::notify(&[NotifyState::Ready]);
        match &done {
            Ok(report) => {
                for line in report.to_string().lines() {
                    info!("config read again: {line}");
                }
            }
            Err(e) => error!(error = told(e), "config read again, and not applied"),
        }
        done
    }

    fn plan_anew(&self) -> Result<Plan, Error> {
        let parsed = self.config.load()?;
        let old = self.discovery.rules();
        // A process that has ended since is nothing new.
        self.config.check_selectors(&parsed, |s| !old.iter().any(|o| o.netns == *s))?;
        let config::Parsed { file, notes, .. } = parsed;
        let rules = super::rules(&file);
        let selectors = selectors(&rules);
        let scan = netns::scan(&selectors)?;
        let chosen = scan.choose(&selectors);
        let driven = self.control.driven();
        let steps = steps(&driven, &scan.found, &chosen, &rules);
        let diff = config::diff(&self.file, &file);
        let ports = |d: &Driven, rule: &config::Namespace| self.control.port_changes(d.ns, rule);
        let report = Reloaded { notes, ..report(&driven, &steps, &diff, ports) };
        let file = config::obeyable(&self.file, file);
        Ok(Plan { steps, rules, file, report })
    }

    fn apply(&mut self, plan: Plan) -> Result<Reloaded, Error> {
        let Plan { steps, rules, file, mut report } = plan;
        self.discovery.set_rules(rules);
        if let Err(e) = self.listeners.watcher.watch(self.discovery.directories()) {
            // The roll call finds what is not announced.
            warn!(error = told(&e), "watching for namespaces");
        }
        if let Err(e) = self.control.set_members(file.members.clone()) {
            warn!(error = told(&e), "members");
        }
        self.file = file;
        self.take(steps);
        // Takes in what is new, and tells of selectors that mean nothing.
        self.look();
        report.waiting = self.discovery.unmatched();
        Ok(report)
    }
}

/// The plan as the operator sees it.
fn report(
    driven: &[Driven],
    steps: &Steps,
    diff: &Diff,
    ports: impl Fn(&Driven, &config::Namespace) -> PortChanges,
) -> Reloaded {
    let of = |ns| driven.iter().find(|d| d.ns == ns);
    let let_go = steps.let_go.iter().filter_map(|ns| of(*ns));
    let changed = steps.rule.iter().filter_map(|(ns, rule)| {
        let d = of(*ns)?;
        let PortChanges { added, removed } = ports(d, rule);
        let settings = settings(&d.rule, rule);
        let nothing = settings.is_empty() && added.is_empty() && removed.is_empty();
        (!nothing).then(|| ChangedNamespace {
            netns: d.netns.name().to_owned(),
            settings,
            ports_added: added,
            ports_removed: removed,
        })
    });
    let members = |all: &[config::Member]| all.iter().map(ToString::to_string).collect();
    Reloaded {
        taken_in: steps.take_in.iter().map(|c| c.known.origin.label()).collect(),
        let_go: let_go.map(|d| d.netns.name().to_owned()).collect(),
        changed: changed.collect(),
        settings: diff.live.clone(),
        members_added: members(&diff.members_added),
        members_removed: members(&diff.members_removed),
        needs_restart: diff.restart.clone(),
        waiting: Vec::new(),
        notes: Vec::new(),
    }
}

/// The names of the settings in which two rules differ; that another selector leads to
/// the namespace is none.
fn settings(old: &config::Namespace, new: &config::Namespace) -> Vec<String> {
    let differs = [
        ("devices", old.devices != new.devices),
        ("tier", old.tier != new.tier),
        ("bypass", old.bypass != new.bypass),
        ("punt-rate", old.punt_rate != new.punt_rate),
        ("weight", old.weight != new.weight),
    ];
    differs.into_iter().filter(|(_, d)| *d).map(|(name, _)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Namespace;

    #[test]
    fn settings_that_differ_are_named() {
        let old = Namespace::of("*".parse().unwrap());
        let new = Namespace {
            netns: "a".parse().unwrap(),
            weight: 2,
            tier: config::Tier::Kernel,
            ..old.clone()
        };
        assert_eq!(settings(&old, &new), ["tier", "weight"]);
        assert_eq!(settings(&old, &Namespace::of("b".parse().unwrap())), Vec::<String>::new());
    }
}
