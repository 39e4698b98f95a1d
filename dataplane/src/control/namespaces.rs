//! Namespaces: taken in, kept in step with their kernel state, let go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::Control;
use super::closer::Ticket;
use super::compile::{Compiled, Touched, Which};
use super::devices::{passed_over, unfit, wanted};
use super::error::{Error, told};
use super::mirror::{Dirty, Mirror};
use super::parts::{PARTS, set_up, tear_down};
use super::plan;
use super::ports::Use;
use super::totals::Totals;
use crate::config;
use crate::id::{IfIndex, NsId, PortId};
use crate::netlink::{Event, Link};
use crate::netns::Netns;
use crate::xsk;

/// When a refused device is tried again for the first time; each time after that
/// the wait is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Longest wait for the next try.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// A namespace that nsplane drives.
pub struct NamespaceState {
    /// The namespace, held open.
    pub netns: Arc<Netns>,
    /// What the operator says of it.
    pub rule: Arc<config::Namespace>,
    /// Its kernel state as last heard.
    pub mirror: Mirror,
    /// Its ports by device.
    pub ports: BTreeMap<IfIndex, PortId>,
    /// Ports whose link a message was about: their queues are to be counted.
    pub relinked: BTreeSet<IfIndex>,
    /// Devices that could not become ports.
    pub refused: BTreeMap<IfIndex, Refused>,
    /// Counters of ports that are gone.
    pub retired: Totals,
    /// What was made of the state last.
    pub compiled: Compiled,
    /// What of it is out of date.
    pub stale: Which,
    /// Single prefixes that are, beside that.
    pub touched: Touched,
    /// What the program's maps hold of the namespace.
    pub maps: plan::State,
    /// What reads its changes; dropping it closes the sockets.
    pub follower: Option<Box<dyn Follower>>,
    /// How often changes were lost, or could not be followed, and all was read again.
    pub resyncs: u64,
    /// Devices that are to become ports as soon as closings up to a number are done:
    /// what is closed may be the same device, in another namespace.
    after: BTreeMap<IfIndex, Ticket>,
}

/// Whoever reads a namespace's changes, and gives them to control.
pub trait Follower {
    /// Read the whole state anew, and give it to [`Control::replace_state`].
    fn resync(&self);
}

/// What a namespace is made from.
pub(super) struct Seed(Option<(Arc<Netns>, Mirror, Arc<config::Namespace>)>);

/// A device that could not become a port. It is tried again when it changes, and
/// from time to time: who held its queue or its place for a program may be gone,
/// as nsplane itself is when a device comes from another of its namespaces.
pub struct Refused {
    /// The device as it was.
    link: Link,
    /// Why, for users.
    pub reason: String,
    /// When it is tried again.
    again: Instant,
    wait: Duration,
}

impl Control {
    /// Takes a namespace in, with its state as dumped, to be driven by `rule`. Its
    /// devices become ports by [`Self::grow`]; its changes come by [`Self::follow`].
    ///
    /// # Errors
    /// The namespace is there already under another name, or there are too many.
    pub fn add_namespace(
        &mut self,
        netns: Arc<Netns>,
        mirror: Mirror,
        rule: Arc<config::Namespace>,
    ) -> Result<NsId, Error> {
        let full = Error::NamespacesFull(usize::from(u16::MAX));
        let (index, generation) = self.namespaces.next().ok_or(full)?;
        let ns = NsId { index: index as u16, generation: generation as u16 };
        set_up(&PARTS, self, ns, &mut Seed(Some((netns, mirror, rule))))?;
        Ok(ns)
    }

    /// Part `slot`.
    pub(super) fn take_slot(&mut self, ns: NsId, seed: &mut Seed) -> Result<(), Error> {
        let Some((netns, mirror, rule)) = seed.0.take() else { return Ok(()) };
        let same = self.by_cookie(netns.cookie());
        if let Some(n) = same.and_then(|ns| self.namespace(ns)) {
            return Err(Error::SameNamespace {
                first: n.netns.name().to_owned(),
                second: netns.name().to_owned(),
            });
        }
        info!(netns = netns.name(), cookie = netns.cookie().0, id = %ns, "namespace");
        warn_of_bypass(&netns, &rule);
        self.by_cookie.insert(netns.cookie(), ns);
        self.members_stale = true;
        self.namespaces.put(NamespaceState {
            netns,
            rule,
            mirror,
            ports: BTreeMap::new(),
            relinked: BTreeSet::new(),
            refused: BTreeMap::new(),
            retired: Totals::default(),
            compiled: Compiled::default(),
            stale: Which::ALL,
            touched: Touched::default(),
            maps: plan::State::default(),
            follower: None,
            resyncs: 0,
            after: BTreeMap::new(),
        });
        Ok(())
    }

    /// Part `slot`.
    pub(super) fn free_slot(&mut self, ns: NsId) {
        if self.namespace(ns).is_none() {
            return;
        }
        if let Some(state) = self.namespaces.take(usize::from(ns.index)) {
            info!(netns = state.netns.name(), "namespace let go");
            self.known.forget(state.netns.cookie());
            self.by_cookie.remove(&state.netns.cookie());
            self.members_stale = true;
        }
    }

    /// Lets a namespace go, with all that there is of it (`PARTS`). Its sockets and
    /// links are closed a little later.
    pub fn remove_namespace(&mut self, ns: NsId) {
        if self.namespace(ns).is_some() {
            tear_down(&PARTS, self, ns);
            // Its devices may have had members, or been members, of others.
            if let Err(e) = self.follow_members() {
                warn!(error = told(&e), "members");
            }
        }
    }

    /// Part `ports`.
    pub(super) fn remove_all_ports(&mut self, ns: NsId) {
        let Some(state) = self.namespace(ns) else { return };
        let ports: Vec<PortId> = state.ports.values().copied().collect();
        self.remove_ports(&ports);
    }

    /// From here on `follower` tells of the namespace's changes.
    pub fn follow(&mut self, ns: NsId, follower: Box<dyn Follower>) {
        let Some(n) = self.namespace_mut(ns) else { return };
        n.follower = Some(follower);
        if n.mirror.lost {
            self.resync(ns);
        }
    }

    /// Part `follower`.
    pub(super) fn stop_following(&mut self, ns: NsId) {
        if let Some(n) = self.namespace_mut(ns) {
            n.follower = None;
        }
    }

    /// The namespace's state was lost or is new: takes it over whole.
    pub fn replace_state(&mut self, ns: NsId, mirror: Mirror) {
        if let Some(n) = self.namespace_mut(ns) {
            n.mirror = mirror;
            n.stale = Which::ALL;
            // What was lost may have been about any of them.
            n.relinked.extend(n.ports.keys());
            self.members_stale = true;
        }
    }

    /// What is known of the namespace may be wrong: has all of it read again. Until
    /// then its packets are the kernel's ([`Mirror::lost`]).
    pub fn resync(&mut self, ns: NsId) {
        let Some(n) = self.namespace_mut(ns) else { return };
        n.resyncs += 1;
        warn!(netns = n.netns.name(), "what is known of it may be wrong; reading all of it again");
        if let Some(follower) = &n.follower {
            follower.resync();
        }
    }

    /// Changes of a namespace's state. They take effect by [`Self::release`], for all
    /// namespaces that changed, and then [`Self::refresh`].
    /// Returns what kinds of state changed, and whether some was lost.
    pub fn apply_events(&mut self, ns: NsId, events: Vec<Event>) -> Dirty {
        let relinked = Dirty { links: self.note_relinked(ns, &events), ..Dirty::default() };
        let Some(n) = self.namespace_mut(ns) else { return Dirty::default() };
        let mut dirty = relinked;
        n.stale = n.stale.and(relinked.into());
        for event in events {
            let named = Touched::named_by(&event);
            let changed = n.mirror.apply(event);
            let rest = n.touched.note(named, changed, &mut n.mirror);
            n.stale = n.stale.and(rest.into());
            dirty = dirty.and(changed);
        }
        self.members_stale |= dirty.links | dirty.hooks;
        dirty
    }

    /// Lets go of the namespace's devices that are no longer what they were: gone,
    /// moved away (also if they are back again: their sockets are not), now members of
    /// something, with other queues, or not wanted by the rule.
    pub fn release(&mut self, ns: NsId) {
        let Some(state) = self.namespace_mut(ns) else { return };
        let links = &state.mirror.links;
        state.refused.retain(|i, _| links.contains_key(i));
        state.after.retain(|i, _| links.contains_key(i));
        let rule = &state.rule;
        let fit = |l: &Link| unfit(l).is_none() && passed_over(rule, l).is_none();
        let seen: Vec<(PortId, Option<bool>)> =
            state.ports.iter().map(|(i, p)| (*p, links.get(i).map(fit))).collect();
        let lost = seen.into_iter().filter(|(p, fit)| match fit {
            None => true,
            // What becomes of a member is decided with those of all namespaces.
            Some(fit) => (!fit && !self.is_part(*p)) || self.is_lost(*p),
        });
        let lost: Vec<PortId> = lost.map(|(p, _)| p).collect();
        self.remove_ports(&lost);
        let requeued = self.requeued(ns);
        self.remove_ports(&requeued);
    }

    fn is_part(&self, port: PortId) -> bool {
        let port = self.ports.get(port.index());
        port.is_some_and(|p| p.part != Use::Whole)
    }

    pub(super) fn is_lost(&self, port: PortId) -> bool {
        let port = self.ports.get(port.index());
        port.is_some_and(|p| p.queues.iter().any(|q| !xsk::has_device(q.fd)))
    }

    /// Makes one more device of the namespace a port, if there is one that should be:
    /// true, and there may be another. It takes some 30 ms; so one at a time, that
    /// the caller may look after other things in between. False: all is done, and
    /// [`Self::refresh`] is due; or the device may yet have to be closed elsewhere, and
    /// [`Self::closed`] will name the namespace.
    ///
    /// # Errors
    /// In strict mode, why the device cannot become a port, unless it was taken away
    /// meanwhile. Else it is kept as refused, and tried again later.
    pub fn grow(&mut self, ns: NsId, now: Instant, strict: bool) -> Result<bool, Error> {
        let Some(mut link) = self.next_wanted(ns, now) else { return Ok(false) };
        if link.part.is_some() {
            // A part of a port is a member of it rather than a port by itself.
            match self.follow_members() {
                Err(e) if strict => return Err(e),
                Err(e) => warn!(error = told(&e), "members"),
                Ok(()) => {}
            }
            let Some(next) = self.next_wanted(ns, now) else { return Ok(false) };
            link = next;
        }
        if self.clear_above((ns, link.ifindex)) {
            let last = self.closer.last();
            if let Some(n) = self.namespace_mut(ns) {
                n.after.insert(link.ifindex, last);
            }
        }
        if !self.is_free(ns, link.ifindex) {
            self.wait_for_closing(ns);
            return Ok(false);
        }
        match self.add_port(ns, &link, strict) {
            Ok(port) => {
                let state = self.namespace_mut(ns).expect("there a moment ago");
                state.refused.remove(&link.ifindex);
                state.after.remove(&link.ifindex);
                state.ports.insert(link.ifindex, port);
                state.stale = Which::ALL;
            }
            Err(e) if e.is_busy() && self.remove_lost_ports() => {
                // One of ours had it, in the namespace that it left, of which the news
                // is still to come.
                if let Some(n) = self.namespace_mut(ns) {
                    n.after.remove(&link.ifindex);
                }
            }
            Err(e) if strict && self.is_still(ns, &link) => return Err(e),
            Err(e) => self.refuse(ns, link, told(&e), now),
        }
        Ok(true)
    }

    /// The kernel has the device as it was: what failed did not fail for its going away.
    fn is_still(&self, ns: NsId, link: &Link) -> bool {
        let Some(netns) = self.netns(ns) else { return false };
        let now = Mirror::of(&netns);
        let now = now.ok().and_then(|mirror| mirror.links.get(&link.ifindex).cloned());
        now.is_some_and(|now| now.name == link.name && now.up && unfit(&now).is_none())
    }

    /// Nothing is being closed that may be the device. Asked first when the device is
    /// heard of, and then only what was being closed at that time counts.
    fn is_free(&mut self, ns: NsId, ifindex: IfIndex) -> bool {
        let last = self.closer.last();
        let Some(n) = self.namespace_mut(ns) else { return true };
        let after = *n.after.entry(ifindex).or_insert(last);
        self.closer.passed(after)
    }

    /// A device that should be a port, is none, and may be tried now.
    fn next_wanted(&self, ns: NsId, now: Instant) -> Option<Link> {
        let state = self.namespace(ns)?;
        let free = |l: &&Link| {
            !state.ports.contains_key(&l.ifindex)
                && !state.waits(l, now)
                && !self.is_spoken_for((ns, l.ifindex))
        };
        let far_ends = self.far_ends_in(ns).filter_map(|i| state.mirror.links.get(&i));
        let far_ends = far_ends.filter(|l| unfit(l).is_none() && l.up);
        wanted(&state.rule, &state.mirror).chain(far_ends).find(free).cloned()
    }

    /// Something is being closed that may be a device of the namespace.
    pub(super) fn waits(&self, ns: NsId) -> bool {
        self.namespace(ns).is_some_and(|n| n.after.values().any(|t| !self.closer.passed(*t)))
    }

    fn refuse(&mut self, ns: NsId, link: Link, reason: String, now: Instant) {
        let Some(n) = self.namespace_mut(ns) else { return };
        let before = n.refused.remove(&link.ifindex);
        if before.as_ref().is_none_or(|b| b.reason != reason) {
            let (netns, device) = (n.netns.name(), &link.name);
            warn!(netns, device, reason, "not a port; tried again from time to time");
        }
        let again = before.filter(|b| b.link == link).map(|b| b.wait * 2);
        let wait = again.unwrap_or(FIRST_WAIT).min(LONGEST_WAIT);
        n.refused.insert(link.ifindex, Refused { link, reason, again: now + wait, wait });
        self.break_promises();
    }

    /// Namespaces with a refused device that is to be tried again now.
    pub(super) fn due(&self, now: Instant) -> Vec<NsId> {
        let due = |n: &NamespaceState| n.refused.values().any(|r| r.again <= now);
        self.namespaces.iter().filter(|(_, n)| due(n)).map(|(i, _)| self.ns_id(i)).collect()
    }
}

impl NamespaceState {
    /// The device was refused as it is now, not long ago.
    fn waits(&self, link: &Link, now: Instant) -> bool {
        self.refused.get(&link.ifindex).is_some_and(|r| r.link == *link && now < r.again)
    }
}

/// Says at the start what the operator has said, whether it matters by now or not.
pub(super) fn warn_of_bypass(netns: &Netns, rule: &config::Namespace) {
    if !rule.bypass.is_empty() {
        let bypass: Vec<&str> = rule.bypass.iter().map(|b| b.name()).collect();
        let (netns, bypass) = (netns.name(), bypass.join(", "));
        warn!(netns, bypass, "parts of its configuration are not obeyed, as the operator says");
    }
}
