//! A namespace's network state: kernel bytes to typed events.
//!
//! [`Monitor`] is one rtnetlink socket in one namespace, subscribed to all that
//! forwarding depends on. [`dump()`] asks for the whole state. Both speak in the
//! same [`Event`]s, which `control::mirror` turns into state.
//!
//! Not here: what events mean for forwarding.
//!
//! # Subscribe, dump, replay
//!
//! The order is: open the [`Monitor`], then [`dump()`], build a mirror of the dump,
//! then apply everything the monitor has queued, then go on with its events. An
//! update that happens at any moment is either in the dump or in the queue, often
//! in both, never in neither; and since the queue is applied last, an object's
//! last event has the last word. Applying an event twice must not hurt, which the
//! mirror sees to. To dump before subscribing loses what happens in between.
//!
//! Some deletions have no message of their own: a device that goes down takes
//! IPv4 routes and next-hop objects along. Only the link's message tells, and it
//! is sent *before* the routes go, under the kernel's RTNL lock. Therefore a dump
//! asks for links first, which waits for that lock: what was announced before has
//! then been done, and what is announced later is in the queue.
//!
//! When the kernel could not queue a message it says so once ([`Event::Overrun`]);
//! what was lost is not known, hence: dump again, replay again.
//!
//! # Hooks
//!
//! Netfilter, IPsec and tc act upon packets that the kernel forwards. What of them
//! there is comes as [`Event::Hooks`], always all of one source: its notices say
//! that something changed, and it is read again. tc speaks rtnetlink
//! ([`Event::Qdisc`]). What has no notices is looked at: legacy iptables, IPVS and some
//! settings by their files, BPF programs by the kernel's lists of them.
//!
//! Not seen: filters at queueing disciplines that otherwise only order packets.
//!
//! # Reading
//!
//! Requests and answers are framed by `netlink-packet-core`. Attributes are read
//! by our own short reader over its iterator, for three reasons: an attribute that
//! we have no use for must not cost us the message that carries it (a route with
//! an unknown kind of tunnel is still a route that hides a shorter one); malformed
//! bytes must not panic; and netconf and next-hop objects have no other reader.
//! What cannot be read is counted, and where it counts for forwarding it is
//! told ([`Event::Unreadable`]), so that the namespace stays with the kernel.

mod around;
mod decode;
mod dump;
mod event;
mod hook;
mod look;
mod monitor;
mod nftables;
mod policy;
mod programs;
mod question;
mod request;
mod scratch;
mod watch;

use std::io;

use thiserror::Error;

use crate::netns::{self, Netns};
use crate::sys;

pub use crate::sys::ethtool::Channels;
pub use around::{LOOK_AROUND, look_around};
pub use decode::{Tally, decode};
pub use dump::dump;
pub use event::*;
pub use hook::{Hook, HookSource, Qdisc, Tcx};
pub(crate) use hook::{INGRESS, ROOT};
pub use look::{FILES_PERIOD, Number, Switch};
pub use monitor::Monitor;
pub use policy::{
    NextHopKind, NextHopObject, Ports, Rule, RuleAction, Selector, Suppress, everything,
};
pub use programs::{PROGRAMS_PERIOD, own_programs};
pub use question::{Asker, RouteQuestion};

/// Why the kernel's state could not be had.
#[derive(Debug, Error)]
pub enum Error {
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] netns::Error),
    /// A system call on the netlink socket failed.
    #[error("network namespace {name}: netlink: {call}: {source}")]
    Socket {
        /// The namespace.
        name: String,
        /// The call.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused a dump.
    #[error("network namespace {name}: asking for {what}: {source}")]
    Refused {
        /// The namespace.
        name: String,
        /// What was to be dumped.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The state changed during each of several dumps.
    #[error("network namespace {name}: dump of {what}: it changes faster than it can be read")]
    Unsteady {
        /// The namespace.
        name: String,
        /// What was to be dumped.
        what: &'static str,
    },
    /// A system call about a device failed.
    #[error("network namespace {name}: device {device}: {source}")]
    Device {
        /// The namespace.
        name: String,
        /// The device.
        device: String,
        /// The call.
        source: sys::netns::Error,
    },
}

/// The queues that device `device` uses; one of each where its driver does not
/// say (macvlan, tun).
///
/// # Errors
/// Where there is no such device in the namespace.
pub fn channels(ns: &Netns, device: &str) -> Result<Channels, Error> {
    let answer = ns.run(|| sys::ethtool::channels(device))?;
    let channels = answer.map_err(|source| Error::Device {
        name: ns.name().to_owned(),
        device: device.to_owned(),
        source,
    })?;
    let one = |n: u32| n.max(1);
    Ok(channels.map_or(Channels { rx: 1, tx: 1 }, |c| Channels { rx: one(c.rx), tx: one(c.tx) }))
}

/// Whether device `device` takes VLAN tags out of what it receives.
///
/// # Errors
/// Where there is no such device in the namespace.
pub fn strips_vlans(ns: &Netns, device: &str) -> Result<bool, Error> {
    let answer = ns.run(|| sys::ethtool::strips_vlans(device))?;
    answer.map_err(|source| Error::Device {
        name: ns.name().to_owned(),
        device: device.to_owned(),
        source,
    })
}
