//! What the kernel says, on its way to control.
//!
//! One task a namespace reads its netlink socket; all send into one channel, in
//! which a namespace's messages keep their order.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::warn;

use super::Error;
use crate::control::error::told;
use crate::control::mirror::Mirror;
use crate::control::{self, Control};
use crate::id::NsId;
use crate::netlink::{self, Event, Monitor};
use crate::netns::{Netns, Watcher};

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
    /// Tells when namespaces may have come or gone.
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
    pub(super) fn forget(&mut self, ns: NsId) {
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

/// What became of something heard.
pub(super) enum Applied {
    /// Nothing that anybody sees.
    Nothing,
    /// The namespace's state changed.
    Changed(NsId),
    /// The namespace can no longer be followed, so it must not be forwarded for.
    Lost(NsId),
}

/// Applies what was heard.
pub(super) fn apply(control: &mut Control, heard: FromKernel) -> Applied {
    let (ns, why) = match heard {
        FromKernel::Events(ns, events) => {
            let dirty = control.apply_events(ns, events);
            let Some(netns) = control.netns(ns).filter(|_| dirty.any()) else {
                return Applied::Nothing;
            };
            if !dirty.resync {
                return Applied::Changed(ns);
            }
            warn!(netns = netns.name(), "its changes were not all read; reading all of it again");
            match netlink::dump(&netns) {
                Ok(events) => {
                    control.replace_state(ns, Mirror::from_dump(events));
                    return Applied::Changed(ns);
                }
                Err(e) => (ns, e),
            }
        }
        FromKernel::Failed(ns, e) => (ns, e),
    };
    if let Some(netns) = control.netns(ns) {
        let (netns, error) = (netns.name(), told(&why));
        warn!(netns, error, "its state cannot be followed; it is the kernel's again");
    }
    Applied::Lost(ns)
}
