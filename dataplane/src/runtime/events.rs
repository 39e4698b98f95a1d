//! What the kernel says, on its way to control.
//!
//! One task a namespace reads its netlink socket; all send into one channel, in
//! which a namespace's messages keep their order.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::{info, warn};

use super::{Config, Error};
use crate::control::mirror::Mirror;
use crate::control::{self, Control};
use crate::id::NsId;
use crate::netlink::{self, Event, Monitor};
use crate::netns::{self, Change, Netns, Selector, Watcher};

/// A namespace with its state and what keeps it up to date.
pub(super) type Subscribed = (Arc<Netns>, Monitor, Mirror);

/// Something heard of a namespace.
pub(super) enum FromKernel {
    /// Changes, in their order.
    Events(NsId, Vec<Event>),
    /// The socket failed; nothing more will be heard.
    Failed(NsId, netlink::Error),
}

/// Everything that is listened to.
pub(super) struct Listeners {
    /// What was heard.
    pub(super) heard: mpsc::Receiver<FromKernel>,
    /// Names of namespaces as they come and go.
    pub(super) watcher: Watcher,
    tell: mpsc::Sender<FromKernel>,
    tasks: Vec<(NsId, AbortHandle)>,
}

impl Listeners {
    /// Listens to nobody yet but the names of namespaces.
    pub(super) fn new() -> Result<Self, Error> {
        let (tell, heard) = mpsc::channel(256);
        Ok(Self { heard, watcher: Watcher::new()?, tell, tasks: Vec::new() })
    }

    /// Listens to a namespace from now on.
    pub(super) fn listen(&mut self, ns: NsId, monitor: Monitor) {
        let task = tokio::task::spawn_local(read(ns, monitor, self.tell.clone()));
        self.tasks.push((ns, task.abort_handle()));
    }

    /// Listens no more, and closes the socket.
    fn forget(&mut self, ns: NsId) {
        self.tasks.retain(|(n, task)| {
            if *n == ns {
                task.abort();
            }
            *n != ns
        });
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for (_, task) in &self.tasks {
            task.abort();
        }
    }
}

async fn read(ns: NsId, mut monitor: Monitor, tell: mpsc::Sender<FromKernel>) {
    loop {
        let (message, last) = match monitor.next().await {
            Ok(events) => (FromKernel::Events(ns, events), false),
            Err(e) => (FromKernel::Failed(ns, e), true),
        };
        if tell.send(message).await.is_err() || last {
            return;
        }
    }
}

/// Subscribes to a namespace, then dumps it: what changes in between is heard
/// again and applied over the dump.
pub(super) fn subscribe_and_dump(netns: &Arc<Netns>) -> Result<(Monitor, Mirror), control::Error> {
    let monitor = Monitor::open(netns)?;
    let mirror = Mirror::from_dump(netlink::dump(netns)?);
    Ok((monitor, mirror))
}

/// Applies what was heard; returns the namespace where it is to be settled.
pub(super) fn apply(control: &mut Control, heard: FromKernel) -> Option<NsId> {
    match heard {
        FromKernel::Events(ns, events) => {
            let dirty = control.apply_events(ns, events);
            if !dirty.resync {
                return dirty.any().then_some(ns);
            }
            let netns = control.netns(ns)?;
            warn!(netns = netns.name(), "its changes were not all read; reading all of it again");
            match netlink::dump(&netns) {
                Ok(events) => {
                    control.replace_state(ns, Mirror::from_dump(events));
                    Some(ns)
                }
                Err(e) => give_up(control, ns, &e),
            }
        }
        FromKernel::Failed(ns, e) => give_up(control, ns, &e),
    }
}

/// A namespace whose changes are not heard must not be forwarded for.
fn give_up(control: &mut Control, ns: NsId, why: &netlink::Error) -> Option<NsId> {
    let netns = control.netns(ns)?;
    warn!(netns = netns.name(), error = %why, "its state cannot be followed; it is the kernel's again");
    control.remove_namespace(ns);
    None
}

/// Takes in namespaces that appeared, lets go those that went.
pub(super) fn follow(
    control: &mut Control,
    config: &Config,
    listeners: &mut Listeners,
    changes: Vec<Change>,
) {
    for change in changes {
        match change {
            Change::Removed(name) => {
                if let Some(ns) = control.named(&name) {
                    listeners.forget(ns);
                    control.remove_namespace(ns);
                }
            }
            Change::Added(name) => appear(control, config, listeners, &name),
            Change::Rescan => {
                for netns in netns::list_all().unwrap_or_default() {
                    appear(control, config, listeners, netns.name());
                }
            }
        }
    }
}

fn appear(control: &mut Control, config: &Config, listeners: &mut Listeners, name: &str) {
    let selector = Selector::Name(name.to_owned());
    let asked_for = config.all || config.selectors.contains(&selector);
    if !asked_for || control.named(name).is_some() {
        return;
    }
    let taken = || -> Result<(), Error> {
        let netns = Arc::new(netns::open(&selector)?);
        let (monitor, mirror) = subscribe_and_dump(&netns)?;
        let ns = control.add_namespace(netns, mirror)?;
        listeners.listen(ns, monitor);
        Ok(control.settle(ns, false)?)
    };
    match { taken }() {
        Ok(()) => info!(netns = name, "taken in"),
        Err(e) => warn!(netns = name, error = %e, "not taken in"),
    }
}
