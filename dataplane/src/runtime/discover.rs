//! Which namespaces are to be driven: looked for again whenever something may have
//! changed, compared with those that are.
//!
//! Level, not edge: inotify, a roll call and a new config only say *when* to look. What
//! they miss (a process ends without a word) the next look finds. The roll call is
//! each second: is anything mounted that was not, or unmounted, as a namespace is over its
//! name a moment after the name appears? A look at a thousand names takes milliseconds, so
//! it is made only then, where something comes without a word, and once in
//! [`AT_LATEST`].

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::{HashMap, HashSet};
use tracing::{info, warn};

use super::steps::{Steps, steps};
use crate::config;
use crate::control::Driven;
use crate::control::error::told;
use crate::control::view;
use crate::netns::{self, Chosen, FileId, Scan, Selector};
use crate::sys::mounts::Mounts;

/// How soon, and how often, a name that is not a namespace yet is looked at again. After
/// that the roll call does.
const SOON: Duration = Duration::from_millis(10);
const SOON_TIMES: u32 = 25;
/// How long nothing is looked for if nothing tells of a change.
const AT_LATEST: Duration = Duration::from_secs(30);
/// When a namespace that could not be taken in is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// What is looked for, and what was found last.
pub(super) struct Discovery {
    rules: Vec<Arc<config::Namespace>>,
    scan: Scan,
    /// Namespaces to be taken in, one after the other.
    arriving: VecDeque<Chosen>,
    refused: HashMap<FileId, Refusal>,
    /// Selectors that mean nothing.
    unmatched: HashSet<Selector>,
    /// Selectors with wildcards that meant something once.
    met: HashSet<Selector>,
    soon: Option<Instant>,
    soon_left: u32,
    /// None: they cannot be watched.
    mounts: Option<Mounts>,
    /// When it was looked last.
    looked: Option<Instant>,
    failing: bool,
}

/// A namespace that could not be taken in.
struct Refusal {
    why: String,
    until: Instant,
}

/// The selectors of rules, in their order.
pub(super) fn selectors(rules: &[Arc<config::Namespace>]) -> Vec<&Selector> {
    rules.iter().map(|r| &r.netns).collect()
}

impl Discovery {
    pub(super) fn new(rules: Vec<Arc<config::Namespace>>) -> Self {
        Self {
            rules,
            scan: Scan::default(),
            arriving: VecDeque::new(),
            refused: HashMap::new(),
            unmatched: HashSet::new(),
            met: HashSet::new(),
            soon: None,
            soon_left: SOON_TIMES,
            mounts: Mounts::open().ok(),
            looked: None,
            failing: false,
        }
    }

    /// Looks by other rules from now on.
    pub(super) fn set_rules(&mut self, rules: Vec<Arc<config::Namespace>>) {
        self.rules = rules;
        // They are chosen by the rules' numbers, and found again by the next look.
        self.arriving.clear();
        self.unmatched.clear();
        self.met.clear();
        self.refused.clear();
    }

    pub(super) fn rules(&self) -> &[Arc<config::Namespace>] {
        &self.rules
    }

    /// Directories whose changes are worth a look.
    pub(super) fn directories(&self) -> Vec<PathBuf> {
        netns::directories(&selectors(&self.rules))
    }

    /// The rule of something chosen.
    pub(super) fn rule(&self, chosen: &Chosen) -> Arc<config::Namespace> {
        self.rules[chosen.selector].clone()
    }

    /// Something happened: a name that is no namespace yet may become one soon.
    pub(super) fn expect_more(&mut self) {
        self.soon_left = SOON_TIMES;
    }

    /// When to look again, whatever happens.
    pub(super) fn soon(&self) -> Option<Instant> {
        self.soon
    }

    /// The roll call: something was mounted or unmounted.
    pub(super) fn mounts_changed(&self) -> bool {
        // What cannot be watched may change at any time.
        self.mounts.as_ref().is_none_or(|m| m.changed().unwrap_or(true))
    }

    /// The roll call: it is time to look, whether something tells of a change or not.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let long_ago = self.looked.is_none_or(|at| now.duration_since(at) >= AT_LATEST);
        long_ago
            || self.failing
            || self.scan.linked
            || self.rules.iter().any(|r| !r.netns.is_by_name())
            || self.refused.values().any(|r| r.until <= now)
    }

    /// Looks, and says what is meant now.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub(super) fn look(&mut self) -> Result<Vec<Chosen>, netns::Error> {
        let selectors = selectors(&self.rules);
        self.scan = netns::scan(&selectors)?;
        let chosen = self.scan.choose(&selectors);
        self.looked = Some(Instant::now());
        self.soon = None;
        if self.scan.unfinished && self.soon_left > 0 {
            self.soon_left -= 1;
            self.soon = Some(Instant::now() + SOON);
        }
        self.refused.retain(|id, _| self.scan.found.contains_key(id));
        self.tell_unmatched(&chosen);
        Ok(chosen)
    }

    /// Looks, and says what to do. What is to be taken in waits in [`Self::arrival`].
    pub(super) fn follow(&mut self, driven: &[Driven]) -> Steps {
        let chosen = match self.look() {
            Ok(chosen) => chosen,
            Err(e) => {
                if !std::mem::replace(&mut self.failing, true) {
                    warn!(error = told(&e), "looking for namespaces; tried again each second");
                }
                return Steps::default();
            }
        };
        self.failing = false;
        let mut steps = steps(driven, &self.scan.found, &chosen, &self.rules);
        self.arriving = std::mem::take(&mut steps.take_in).into();
        steps
    }

    /// The next namespace to be taken in.
    pub(super) fn arrival(&mut self, now: Instant) -> Option<Chosen> {
        while let Some(next) = self.arriving.pop_front() {
            if self.refused.get(&next.id).is_none_or(|r| r.until <= now) {
                return Some(next);
            }
        }
        None
    }

    /// The namespace is driven now.
    pub(super) fn accept(&mut self, id: FileId) {
        self.refused.remove(&id);
    }

    /// Some are still to be taken in.
    pub(super) fn is_expecting(&self) -> bool {
        !self.arriving.is_empty()
    }

    /// A namespace cannot be driven; it is tried again later, and told only if the
    /// reason is another one.
    pub(super) fn refuse(&mut self, id: FileId, name: &str, why: String) {
        let before = self.refused.get(&id);
        if before.is_none_or(|b| b.why != why) {
            warn!(netns = name, error = why, "not taken in; tried again from time to time");
        }
        self.refused.insert(id, Refusal { why, until: Instant::now() + AGAIN });
    }

    /// Says of each selector that means nothing that it is waited for. Of one with
    /// wildcards once: later its namespaces come and go, the last too, and that is told.
    fn tell_unmatched(&mut self, chosen: &[Chosen]) {
        for (i, rule) in self.rules.iter().enumerate() {
            let selector = &rule.netns;
            if selector.is_exclude() {
                continue;
            }
            let known = self.met.contains(selector);
            if chosen.iter().any(|c| c.selector == i) {
                if self.unmatched.remove(selector) && !known {
                    info!(%selector, "now means a namespace");
                }
                if !known && !selector.is_exact() {
                    self.met.insert(selector.clone());
                }
            } else if self.unmatched.insert(selector.clone()) && !known {
                let reason = self.scan.why_none(selector);
                warn!(%selector, reason, "selects no namespace yet; waiting for one");
            }
        }
    }

    /// Each selector with what it means, for users.
    pub(super) fn view(&self, driven: &[Driven]) -> Vec<view::Selector> {
        let row = |rule: &Arc<config::Namespace>| {
            let by_it = driven.iter().filter(|d| Arc::ptr_eq(&d.rule, rule));
            let namespaces: Vec<String> = by_it.map(|d| d.netns.name().to_owned()).collect();
            let excludes = rule.netns.is_exclude();
            let note = if excludes {
                "left out".to_owned()
            } else if namespaces.is_empty() {
                self.scan.why_none(&rule.netns)
            } else {
                String::new()
            };
            view::Selector { selector: rule.netns.to_string(), namespaces, note }
        };
        self.rules.iter().map(row).collect()
    }

    /// Selectors that mean nothing.
    pub(super) fn unmatched(&self) -> Vec<String> {
        let rules = self.rules.iter().map(|r| &r.netns);
        rules.filter(|s| self.unmatched.contains(*s)).map(ToString::to_string).collect()
    }
}
