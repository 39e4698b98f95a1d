//! Members: parts of a port that belong to another namespace than the port's device.
//!
//! A member is an entry among the ports, of its own namespace: routes lead to it,
//! neighbours are on it, what comes in on it is that namespace's. Only how its frames
//! leave and how they are recognised is the port's: its *parent*.
//!
//! Namespacing: replicated, as ports are.

use std::sync::Arc;

use crate::id::{Generation, Mac, PortId};
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
    /// The VLAN tags that they carry there.
    pub tags: Tags,
    /// Sorted addresses to which the kernel hands frames of this member without
    /// sending them: those of the other macvlans of the same device.
    pub local: Arc<[Mac]>,
}

impl Member {
    /// The kernel would not put a frame to this address on the wire.
    #[must_use]
    #[inline]
    pub fn is_local(&self, mac: Mac) -> bool {
        !self.local.is_empty() && self.local.binary_search(&mac).is_ok()
    }
}
