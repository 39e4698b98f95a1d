//! The daemon: everything that happens after it is set up, on one thread.
//!
//! Each piece of work is short, so that signals, the API and the kernel's changes
//! have their turn: devices become ports one at a time, and a device that was let go
//! by one namespace is free before another takes it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use super::events::{self, Applied, FromKernel, Listeners};
use super::signals::Signals;
use super::{Config, Error, leave, workers};
use crate::api::{Call, Listener, Response};
use crate::control::Control;
use crate::control::error::told;
use crate::id::NsId;
use crate::netns::{self, Change, Selector};

/// How often the daemon looks after itself.
const TICK: Duration = Duration::from_millis(250);
/// How often it looks whether each namespace still has its name or process.
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
    pub(super) config: &'a Config,
}

impl Daemon<'_> {
    /// Makes the namespaces' devices ports, then serves until a signal.
    pub(super) async fn take_in_and_serve(
        &mut self,
        states: Vec<events::Subscribed>,
    ) -> Result<(), Error> {
        let strict = self.config.settings.strict;
        for (netns, monitor, mirror) in states {
            let rule = self.config.rule_of(&netns);
            let ns = self.control.add_namespace(netns.clone(), mirror, rule)?;
            self.control.follow(ns, self.listeners.listen(ns, netns, monitor));
            while self.control.grow(ns, Instant::now(), strict)? {
                if let Some(signal) = self.signals.pending().await {
                    return leave(signal);
                }
            }
            self.control.refresh(ns)?;
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
        loop {
            tokio::select! {
                Some(heard) = self.listeners.heard.recv() => self.hear(heard),
                Ok(changes) = self.listeners.watcher.next() => self.follow(changes),
                Some(call) = calls.recv() => self.answer(call),
                freed = self.control.closed() => freed.into_iter().for_each(|ns| self.unsettle(ns)),
                // Never ends; dropped and made anew whenever another branch runs,
                // while its connections are tasks of their own.
                () = self.listener.serve(calls_in.clone()) => {}
                // One device, then all the others have their turn.
                () = tokio::task::yield_now(), if !self.unsettled.is_empty() => self.settle_one(),
                _ = tick.tick() => self.tick()?,
                _ = roll_call.tick() => self.call_the_roll(),
                signal = self.signals.next() => return leave(signal),
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

    fn call_the_roll(&mut self) {
        for ns in self.control.nameless() {
            self.let_go(ns);
        }
    }

    fn unsettle(&mut self, ns: NsId) {
        if !self.unsettled.contains(&ns) {
            self.unsettled.push_back(ns);
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
                Applied::Lost(ns) => self.let_go(ns),
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

    /// Takes in namespaces that appeared, lets go those that went.
    fn follow(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Removed(name) => {
                    if let Some(ns) = self.control.named(&name) {
                        self.let_go(ns);
                    }
                }
                Change::Added(name) => self.appear(&name),
                Change::Rescan => {
                    for netns in netns::list_all().unwrap_or_default() {
                        self.appear(netns.name());
                    }
                }
            }
        }
    }

    fn let_go(&mut self, ns: NsId) {
        self.control.remove_namespace(ns);
    }

    fn appear(&mut self, name: &str) {
        let selector = Selector::Name(name.to_owned());
        let asked_for = self.config.all || self.config.selectors.contains(&selector);
        if !asked_for || self.control.named(name).is_some() {
            return;
        }
        match self.take_in(&selector) {
            Ok(ns) => self.unsettle(ns),
            Err(e) => warn!(netns = name, error = told(&e), "not taken in"),
        }
    }

    fn take_in(&mut self, selector: &Selector) -> Result<NsId, Error> {
        let netns = Arc::new(netns::open(selector)?);
        let (monitor, mirror) = events::subscribe_and_dump(&netns)?;
        let rule = self.config.rule_of(&netns);
        let ns = self.control.add_namespace(netns.clone(), mirror, rule)?;
        self.control.follow(ns, self.listeners.listen(ns, netns, monitor));
        Ok(ns)
    }

    fn answer(&self, call: Call) {
        let view = self.control.query(call.request.show, call.request.netns.as_deref());
        let response = view.map_or_else(Response::Error, Response::Ok);
        // A client that is gone needs no answer.
        let _ = call.reply.send(response);
    }
}
