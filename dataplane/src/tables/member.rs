//! Members: parts of a port that belong to another namespace than the port's device.
//!
//! A member is an entry among the ports, of its own namespace: routes lead to it,
//! neighbours are on it, what comes in on it is that namespace's. Only how its frames
//! are recognised is the port's: its *parent*. Where the kernel has a device for it they
//! leave by queues of that (the entry has some); else by the parent.
//!
//! Namespacing: replicated, as ports are.

use crate::id::{Generation, PortId};
use crate::wire::vlan::Tags;

/// What an entry among the ports is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// A device that we drive.
    #[default]
    Device,
    /// A part of another port.
    Member(Box<Member>),
    /// A device that we drive, but whose namespace gets nothing of what arrives: it is
    /// the far end of the stand-in of a member, and sends to it what the kernel of the
    /// member's namespace sent. None: there is no such member now.
    Cross(Option<(PortId, Generation)>),
}

/// How a member's frames go in and out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The port that they come in on and go out of.
    pub parent: PortId,
    /// Which use of the parent's slot is meant.
    pub parent_generation: Generation,
    /// The VLAN tags that they carry there, and are given where they leave by it.
    pub tags: Tags,
}
