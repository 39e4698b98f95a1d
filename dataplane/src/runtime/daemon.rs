//! The daemon: everything that happens after it is set up, on one thread.
//!
//! Each piece of work is short, so that signals, the API and the kernel's changes
//! have their turn: devices become ports one at a time, and a device that was let go
//! by one namespace is free before another takes it.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use super::discover::Discovery;
use super::events::{self, Applied, FromKernel, Listeners};
use super::progress::Progress;
use super::signals::{Asked, Signals};
use super::steps::Steps;
use super::{Config, Error, Start, leave, look_into, workers};
use crate::api::{Call, Listener, Request, Response};
use crate::config;
use crate::control::Control;
use crate::control::error::told;
use crate::control::view::{Subject, View};
use crate::id::NsId;
use crate::netlink;
use crate::netns::Chosen;

/// How often the daemon looks after itself.
const TICK: Duration = Duration::from_millis(250);
/// How often it asks whether namespaces may have come or gone without a word.
const ROLL_CALL: Duration = Duration::from_secs(1);

/// The running whole.
pub(super) struct Daemon<'a> {
    pub(super) control: Control,
    pub(super) handles: workers::Handles,
    pub(super) listener: Listener,
    pub(super) listeners: Listeners,
    pub(super) signals: Signals,
    /// Namespaces with devices that may have to become ports.
    pub(super) unsettled: VecDeque<NsId>,
    /// Which namespaces are to be driven.
    pub(super) discovery: Discovery,
    /// What was asked for, and where to read it again.
    pub(super) config: &'a Config,
    /// The config as it is obeyed now.
    pub(super) file: config::File,
}

impl Daemon<'_> {
    /// Makes the namespaces' devices ports, then serves until a signal.
    pub(super) async fn take_in_and_serve(&mut self, start: Start) -> Result<(), Error> {
        let mut progress = Progress::new(start.states.len());
        for (subscribed, rule) in start.states {
            let (netns, monitor, mirror) = subscribed;
            let ns = self.control.add_namespace(netns.clone(), mirror, rule)?;
            self.control.follow(ns, self.listeners.listen(ns, netns, monitor));
            while self.control.grow(ns, Instant::now(), start.strict)? {
                if let Some(signal) = self.signals.pending().await {
                    return leave(signal);
                }
            }
            match self.control.refresh(ns) {
                Err(e) if start.strict => return Err(e.into()),
                Err(e) => warn!(error = told(&e), "publishing a namespace"),
                Ok(()) => {}
            }
            progress.one_more();
        }
        self.announce();
        self.serve().await
    }

    async fn serve(&mut self) -> Result<(), Error> {
        let (calls_in, mut calls) = mpsc::channel::<Call>(16);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut roll_call = tokio::time::interval(ROLL_CALL);
        roll_call.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look_around = tokio::time::interval(netlink::LOOK_AROUND);
        look_around.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                Some(heard) = self.listeners.heard.recv() => self.hear(heard),
                Ok(()) = self.listeners.watcher.changed() => self.follow(),
                Some(call) = calls.recv() => self.answer(call),
                freed = self.control.closed() => freed.into_iter().for_each(|ns| self.unsettle(ns)),
                // Never ends; dropped and made anew whenever another branch runs,
                // while its connections are tasks of their own.
                () = self.listener.serve(calls_in.clone()) => {}
                // One namespace or device, then all the others have their turn.
                () = tokio::task::yield_now(), if self.has_work() => self.work(),
                () = until(self.discovery.soon()) => self.look(),
                _ = tick.tick() => self.tick()?,
                _ = look_around.tick() => netlink::look_around(),
                _ = roll_call.tick() => self.roll_call(),
                asked = self.signals.next() => match asked {
                    Asked::End(signal) => return leave(signal),
                    // The log has what came of it.
                    Asked::Reload => drop(self.reload()),
                },
            }
        }
    }

    fn announce(&self) {
        let (namespaces, ports, workers) = self.control.size();
        info!(namespaces, ports, workers, api = %self.config.api.display(), "ready");
        // Without a service manager there is nobody to notify.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    }

    fn tick(&mut self) -> Result<(), Error> {
        if let Some(thread) = self.handles.dead_thread() {
            return Err(Error::ThreadDied(thread));
        }
        for ns in self.control.tick(Instant::now()) {
            self.unsettle(ns);
        }
        Ok(())
    }

    fn unsettle(&mut self, ns: NsId) {
        if !self.unsettled.contains(&ns) {
            self.unsettled.push_back(ns);
        }
    }

    fn has_work(&self) -> bool {
        self.discovery.is_expecting() || !self.unsettled.is_empty()
    }

    fn work(&mut self) {
        match self.discovery.arrival(Instant::now()) {
            Some(chosen) => self.arrive(&chosen),
            None => self.settle_one(),
        }
    }

    /// Makes one device of the first unsettled namespace a port, if it has one left.
    fn settle_one(&mut self) {
        let Some(ns) = self.unsettled.pop_front() else { return };
        let settled = match self.control.grow(ns, Instant::now(), false) {
            Ok(true) => return self.unsettled.push_front(ns),
            Ok(false) => self.control.refresh(ns),
            Err(e) => Err(e),
        };
        if let Err(e) = settled {
            warn!(error = told(&e), "making devices ports");
        }
    }

    /// Applies everything that was heard up to now. All namespaces let go of what
    /// they lost before any takes something: it may be the same device.
    fn hear(&mut self, first: FromKernel) {
        let mut changed: Vec<NsId> = Vec::new();
        let mut next = Some(first);
        while let Some(heard) = next {
            match events::apply(&mut self.control, heard) {
                Applied::Changed(ns) if !changed.contains(&ns) => changed.push(ns),
                Applied::Lost(ns) => self.lose(ns),
                Applied::Changed(_) | Applied::Nothing => {}
            }
            next = self.listeners.heard.try_recv().ok();
        }
        for ns in &changed {
            self.control.release(*ns);
        }
        self.control.refresh_all(&changed);
        for ns in changed {
            self.unsettle(ns);
        }
    }

    /// Names came or went.
    fn follow(&mut self) {
        self.discovery.expect_more();
        self.look();
    }

    /// Looks if there may be others than before.
    fn roll_call(&mut self) {
        let mounted = self.discovery.mounts_changed();
        if mounted && let Err(e) = self.listeners.watcher.watch_again() {
            // Those that were watched still are, and there is the next roll call.
            warn!(error = told(&e), "watching the directories of names");
        }
        if mounted || self.discovery.is_due(Instant::now()) {
            self.look();
        }
    }

    /// Looks which namespaces there are now, and follows.
    pub(super) fn look(&mut self) {
        let steps = self.discovery.follow(&self.control.driven());
        self.take(steps);
    }

    /// Carries out what is to be done at once; what is to be taken in arrives later.
    pub(super) fn take(&mut self, steps: Steps) {
        for ns in steps.let_go {
            self.let_go(ns);
        }
        for (ns, origin) in steps.rename {
            let Some(netns) = self.control.netns(ns) else { continue };
            match netns.known_as(&origin) {
                Ok(renamed) => {
                    info!(netns = renamed.name(), before = netns.name(), "has another name");
                    self.control.set_name(ns, Arc::new(renamed));
                }
                Err(e) => warn!(error = told(&e), "renaming a namespace"),
            }
        }
        let ruled: Vec<NsId> = steps.rule.iter().map(|(ns, _)| *ns).collect();
        for (ns, rule) in steps.rule {
            self.control.set_rule(ns, rule);
            self.control.release(ns);
        }
        for ns in ruled {
            if let Err(e) = self.control.refresh(ns) {
                warn!(error = told(&e), "applying a rule");
            }
            self.unsettle(ns);
        }
    }

    fn let_go(&mut self, ns: NsId) {
        self.control.remove_namespace(ns);
    }

    /// Lets go of a namespace that cannot be followed; it is looked at again later.
    fn lose(&mut self, ns: NsId) {
        if let Some(netns) = self.control.netns(ns) {
            let why = "its state cannot be followed".to_owned();
            self.discovery.refuse(netns.file_id(), netns.name(), why);
        }
        self.let_go(ns);
    }

    fn arrive(&mut self, chosen: &Chosen) {
        match self.take_in(chosen) {
            Ok(ns) => {
                self.discovery.accept(chosen.id);
                self.unsettle(ns);
            }
            // As fast as it came.
            Err(Error::Netns(e)) if e.is_gone() => {}
            Err(e) => {
                let name = chosen.known.origin.label();
                self.discovery.refuse(chosen.id, &name, told(&e));
            }
        }
    }

    fn take_in(&mut self, chosen: &Chosen) -> Result<NsId, Error> {
        let (netns, monitor, mirror) = look_into(chosen)?;
        let rule = self.discovery.rule(chosen);
        let ns = self.control.add_namespace(netns.clone(), mirror, rule)?;
        self.control.follow(ns, self.listeners.listen(ns, netns, monitor));
        Ok(ns)
    }

    fn answer(&mut self, call: Call) {
        let response = match call.request {
            Request::Reload => {
                let done = self.reload();
                done.map_or_else(|e| Response::Error(told(&e)), Response::Reloaded)
            }
            Request::Explain(question) => {
                let done = super::explain::explain(&self.control, question);
                done.map_or_else(Response::Error, |e| Response::Explained(Box::new(e)))
            }
            Request::Show { show: Subject::Selectors, .. } => {
                Response::Ok(View::Selectors(self.discovery.view(&self.control.driven())))
            }
            Request::Show { show, netns } => {
                let view = self.control.query(show, netns.as_deref());
                view.map_or_else(Response::Error, Response::Ok)
            }
        };
        // A client that is gone needs no answer.
        let _ = call.reply.send(response);
    }
}

/// Waits until then; for ever without a time.
async fn until(then: Option<Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then.into()).await,
        None => pending().await,
    }
}
