//! What the kernel says, on its way to control.
//!
//! One task a namespace reads its netlink sockets; all send into one channel, in
//! which a namespace's messages keep their order.
//!
//! # When changes were lost
//!
//! The task hears it from the kernel, reads the socket empty ([`Monitor`] says why),
//! and tells control. Control leaves the namespace to the kernel from there on, so that
//! nothing is forwarded by what may be wrong, and asks the task to dump: on another
//! thread, for it may take long, while the socket keeps what changes meanwhile. When
//! it is done, the socket is read again before control has it: were changes lost
//! during the dump, it is wrong already, and made anew. The dump travels the same
//! channel, before whatever is read after it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, spawn_blocking};
use tracing::warn;

use super::Error;
use crate::control::error::told;
use crate::control::mirror::Mirror;
use crate::control::namespaces::Follower;
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
    /// All of the state, read anew.
    State(NsId, Box<Mirror>),
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
}

impl Listeners {
    /// Listens to nobody yet but the names of namespaces.
    pub(super) fn new() -> Result<Self, Error> {
        let (tell, heard) = mpsc::channel(256);
        Ok(Self { heard, watcher: Watcher::new()?, tell })
    }

    /// Listens to a namespace until what is returned is dropped.
    pub(super) fn listen(
        &self,
        ns: NsId,
        netns: Arc<Netns>,
        monitor: Monitor,
    ) -> Box<dyn Follower> {
        let resync = Rc::new(Notify::new());
        let reader = Reader { ns, netns, monitor, resync: resync.clone(), tell: self.tell.clone() };
        let task = tokio::task::spawn_local(reader.run()).abort_handle();
        Box::new(Task { resync, task })
    }
}

/// Control's hold on a task.
struct Task {
    resync: Rc<Notify>,
    task: AbortHandle,
}

impl Follower for Task {
    fn resync(&self) {
        self.resync.notify_one();
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Shortest wait after a dump that the state changed under, again and again.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);
/// Longest.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// What a task works with.
struct Reader {
    ns: NsId,
    netns: Arc<Netns>,
    monitor: Monitor,
    resync: Rc<Notify>,
    tell: mpsc::Sender<FromKernel>,
}

impl Reader {
    async fn run(mut self) {
        loop {
            let read = tokio::select! {
                events = self.monitor.next() => events.map(|e| FromKernel::Events(self.ns, e)),
                () = self.resync.notified() => self.dump().await,
            };
            let failed = read.is_err();
            let message = read.unwrap_or_else(|e| FromKernel::Failed(self.ns, e));
            if self.tell.send(message).await.is_err() || failed {
                return;
            }
        }
    }

    /// All of the state. What changes faster than it can be read, as under a storm of
    /// changes, is tried again: meanwhile the kernel forwards.
    async fn dump(&mut self) -> Result<FromKernel, netlink::Error> {
        let mut wait = SHORTEST_WAIT;
        loop {
            self.monitor.forget();
            let netns = self.netns.clone();
            let dumped = spawn_blocking(move || Mirror::of(&netns)).await;
            let mirror = match dumped {
                Ok(dumped) => over(dumped, &mut self.monitor)?,
                Err(e) => std::panic::resume_unwind(e.into_panic()),
            };
            if !mirror.lost {
                return Ok(FromKernel::State(self.ns, Box::new(mirror)));
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
}

/// What was dumped, with what changed meanwhile. [`Mirror::lost`]: it has to be dumped
/// again.
fn over(
    dumped: Result<Mirror, netlink::Error>,
    monitor: &mut Monitor,
) -> Result<Mirror, netlink::Error> {
    match dumped {
        Ok(mut mirror) => {
            for event in monitor.queued()? {
                // All of it is new to whoever gets it.
                let _ = mirror.apply(event);
            }
            Ok(mirror)
        }
        Err(netlink::Error::Unsteady { .. }) => Ok(Mirror { lost: true, ..Mirror::default() }),
        Err(e) => Err(e),
    }
}

/// Subscribes to a namespace, then dumps it. Where it changed faster than it can be
/// read, it is dumped again while the kernel forwards.
pub(super) fn subscribe_and_dump(netns: &Arc<Netns>) -> Result<(Monitor, Mirror), control::Error> {
    let mut monitor = Monitor::open(netns)?;
    let mirror = over(Mirror::of(netns), &mut monitor)?;
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
    match heard {
        FromKernel::Events(ns, events) => {
            let dirty = control.apply_events(ns, events);
            if dirty.resync {
                control.resync(ns);
            }
            if dirty.any() { Applied::Changed(ns) } else { Applied::Nothing }
        }
        FromKernel::State(ns, mirror) => {
            control.replace_state(ns, *mirror);
            Applied::Changed(ns)
        }
        FromKernel::Failed(ns, why) => {
            if let Some(netns) = control.netns(ns) {
                let (netns, error) = (netns.name(), told(&why));
                warn!(netns, error, "its state cannot be followed; it is the kernel's again");
            }
            Applied::Lost(ns)
        }
    }
}
