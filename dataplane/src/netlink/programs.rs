//! BPF programs of others on the ways of forwarded packets: on netfilter's hooks and
//! on devices' tcx. No notices are made of them, so they are looked for.
//!
//! Two looks, of which the first is cheap however many namespaces there are:
//!
//! - The host's programs and links carry numbers that only grow (they begin anew
//!   after 2^31). Once in [`PROGRAMS_PERIOD`] it is asked whether there are new ones,
//!   and whether those that matter are still there: a few system calls.
//! - Where the host has a program that can be put on tcx, each namespace is entered
//!   and asked for its devices' programs: at the next look after such a program or
//!   link came or went, and once in [`QUERY`] in any case, for a program may be put on
//!   a device without a link.
//!
//! The kernel does not say in which namespace a netfilter hook's program is. So such a
//! program keeps every namespace of the host with its kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::event::{Event, Family};
use super::hook::{Hook, HookSource, Tcx};
use crate::id::IfIndex;
use crate::netns::Netns;
use crate::sys::programs::{self, Link};

/// How often the host's programs are looked at.
pub const PROGRAMS_PERIOD: Duration = Duration::from_secs(1);
/// How often namespaces are asked for programs that no link holds.
const QUERY: Duration = Duration::from_secs(10);
/// How often the numbers are gone through from the start.
const RECOUNT: Duration = Duration::from_mins(5);
/// `NFPROTO_INET`, `_IPV4` and `_IPV6`.
const FAMILIES: [(u32, Option<Family>); 3] =
    [(1, None), (2, Some(Family::V4)), (10, Some(Family::V6))];
/// `NF_INET_LOCAL_IN` and `NF_INET_LOCAL_OUT`.
const LOCAL: [u32; 2] = [1, 3];

/// What of the host's programs matters.
#[derive(Debug, Default)]
struct Host {
    /// When it was looked at, and from the start.
    looked: Option<(Instant, Instant)>,
    last_link: u32,
    last_program: u32,
    /// Links on netfilter's hooks that forwarded packets meet, with the hook.
    netfilter: BTreeMap<u32, Hook>,
    tcx: BTreeSet<u32>,
    /// Programs of others that can be put on tcx.
    classifiers: BTreeSet<u32>,
    /// Our own of that type, which are not put on anything.
    own: Vec<u32>,
    /// Counts changes of `tcx` and `classifiers`.
    changes: u64,
    /// Why it cannot be looked at.
    refused: Option<String>,
}

/// What the last look at the host's programs showed.
pub(super) struct Glance {
    hooks: Vec<Hook>,
    /// [`Host::changes`].
    changes: u64,
    /// There are programs that can be put on tcx.
    any: bool,
}

static HOST: Mutex<Option<Host>> = Mutex::new(None);

/// What one namespace was told.
#[derive(Debug, Default)]
pub(super) struct Programs {
    hooks: Option<Vec<Hook>>,
    tcx: Option<Vec<Tcx>>,
    /// When the devices were asked for, at which of the host's changes.
    asked: Option<(Instant, u64)>,
}

impl Programs {
    /// What has changed since it was called last; at first, everything.
    pub(super) fn look(&mut self, ns: &Netns) -> Vec<Event> {
        let host = glance();
        let mut events = Vec::new();
        if self.hooks.as_ref() != Some(&host.hooks) {
            self.hooks = Some(host.hooks.clone());
            events.push(Event::Hooks(HookSource::Bpf, host.hooks.clone()));
        }
        if let Some(tcx) = self.tcx(ns, Instant::now(), &host)
            && self.tcx.as_ref() != Some(&tcx)
        {
            self.tcx = Some(tcx.clone());
            events.push(Event::Tcx(tcx));
        }
        events
    }

    /// A look would tell something, or ask the devices.
    pub(super) fn is_other(&self, now: Instant, host: &Glance) -> bool {
        let tcx = self.tcx.as_ref();
        self.hooks.as_ref() != Some(&host.hooks)
            || if host.any { self.is_to_ask(now, host) } else { tcx.is_none_or(|t| !t.is_empty()) }
    }

    /// Tells everything at the next look.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Asks at the next look: the namespace has another device.
    pub(super) fn ask_again(&mut self) {
        self.asked = None;
    }

    /// None: it is not yet time to ask, or could not be asked.
    fn tcx(&mut self, ns: &Netns, now: Instant, host: &Glance) -> Option<Vec<Tcx>> {
        if !host.any {
            return Some(Vec::new());
        }
        if !self.is_to_ask(now, host) {
            return None;
        }
        self.asked = Some((now, host.changes));
        match ns.run(devices) {
            Ok(Ok(found)) => Some(found),
            Ok(Err(e)) => {
                tracing::warn!(netns = ns.name(), error = %e, "programs on tcx cannot be seen");
                None
            }
            // The namespace is on its way out.
            Err(_) => None,
        }
    }
}

impl Programs {
    fn is_to_ask(&self, now: Instant, host: &Glance) -> bool {
        let asked = |(at, changes)| changes == host.changes && now.duration_since(at) < QUERY;
        !self.asked.is_some_and(asked)
    }
}

/// The host's programs, looked at when it is time to. What is told of them is the same
/// for all namespaces.
pub(super) fn glance() -> Glance {
    let mut host = HOST.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let host = host.get_or_insert_default();
    host.look(Instant::now());
    Glance { hooks: host.hooks(), changes: host.changes, any: !host.classifiers.is_empty() }
}

/// Programs that are not to be looked for on devices: nobody puts them there. To be said
/// before the first look.
pub fn own_programs(ids: Vec<u32>) {
    let mut host = HOST.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    host.get_or_insert_default().own = ids;
}

/// The devices of the calling thread's namespace that have programs on tcx.
fn devices() -> io::Result<Vec<Tcx>> {
    let mut found = Vec::new();
    for index in programs::devices()? {
        let [ingress, egress] = programs::tcx(index)?;
        if ingress || egress {
            found.push(Tcx { ifindex: IfIndex(index), ingress, egress });
        }
    }
    Ok(found)
}

impl Host {
    fn look(&mut self, now: Instant) {
        let Some((at, recount)) = self.looked else {
            self.looked = Some((now, now));
            return self.count();
        };
        // A namespace's look may come a little early.
        if now.duration_since(at) < PROGRAMS_PERIOD * 9 / 10 {
            return;
        }
        let again = now.duration_since(recount) >= RECOUNT;
        if again {
            (self.last_link, self.last_program) = (0, 0);
        }
        self.looked = Some((now, if again { now } else { recount }));
        self.count();
    }

    fn count(&mut self) {
        self.refused = self.go().err().map(|e| e.to_string());
    }

    fn go(&mut self) -> io::Result<()> {
        let before = (self.tcx.clone(), self.classifiers.clone());
        self.drop_gone()?;
        while let Some(id) = programs::next_link(self.last_link)? {
            match programs::link(id)? {
                Some(Link::Netfilter { pf, hook }) => {
                    self.netfilter.extend(netfilter(pf, hook).map(|hook| (id, hook)));
                }
                Some(Link::Tcx) => drop(self.tcx.insert(id)),
                Some(Link::Other) | None => {}
                // Somebody attaches a program at this moment: seen by the next look.
                Some(Link::Unfinished) => break,
            }
            self.last_link = id;
        }
        while let Some(id) = programs::next_program(self.last_program)? {
            if !self.own.contains(&id) && programs::is_classifier(id)? == Some(true) {
                self.classifiers.insert(id);
            }
            self.last_program = id;
        }
        self.changes += u64::from(before != (self.tcx.clone(), self.classifiers.clone()));
        Ok(())
    }

    fn drop_gone(&mut self) -> io::Result<()> {
        let links: Vec<u32> = self.netfilter.keys().chain(&self.tcx).copied().collect();
        for id in links {
            if programs::link(id)?.is_none() {
                self.netfilter.remove(&id);
                self.tcx.remove(&id);
            }
        }
        for id in self.classifiers.clone() {
            if programs::is_classifier(id)?.is_none() {
                self.classifiers.remove(&id);
            }
        }
        Ok(())
    }

    fn hooks(&self) -> Vec<Hook> {
        let mut found = Vec::new();
        for hook in self.netfilter.values() {
            hook.clone().join(&mut found);
        }
        if let Some(why) = &self.refused {
            let name = format!("BPF programs that cannot be seen: {why}");
            // Nor can those on tcx.
            Hook { family: None, name, on_device: true }.join(&mut found);
        }
        found
    }
}

/// A program on this hook; None where forwarded packets do not meet it.
fn netfilter(pf: u32, hook: u32) -> Option<Hook> {
    let (_, family) = FAMILIES.into_iter().find(|(number, _)| *number == pf)?;
    let name = "a BPF program on a netfilter hook, of this namespace or another".to_owned();
    (!LOCAL.contains(&hook)).then_some(Hook { family, name, on_device: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_that_forwarded_packets_meet() {
        let family = |pf, hook| netfilter(pf, hook).map(|h| h.family);
        assert_eq!(family(2, 2), Some(Some(Family::V4)));
        assert_eq!(family(10, 0), Some(Some(Family::V6)));
        assert_eq!(family(1, 4), Some(None));
        assert_eq!((family(2, 1), family(10, 3), family(7, 2)), (None, None, None));
    }

    #[test]
    fn what_cannot_be_seen_may_be_any() {
        let host = Host { refused: Some("no".to_owned()), ..Host::default() };
        assert!(host.hooks()[0].meets(Family::V4) && host.hooks()[0].meets(Family::V6));
        assert_eq!(Host::default().hooks(), []);
    }
}
