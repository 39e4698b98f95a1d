//! What the workers forward by: pure data, no I/O.
//!
//! The control thread builds a [`World`] and publishes it whole; a worker holds
//! one for the length of a batch. Nothing in it changes once it is published.
//!
//! Namespacing: everything here is *replicated*, one [`Namespace`] each, so that
//! publishing, freeing and reasoning about one namespace never touches another;
//! two worlds share the parts that did not change. The one *tagged* table, local
//! addresses, lives in the XDP program's maps.

pub mod fib;
pub mod member;
pub mod multipath;
pub mod neigh;
pub mod policy;

use std::net::IpAddr;
use std::sync::Arc;

use crate::id::{Generation, IfIndex, Mac, NsId, PortId};

pub use member::{Member, Role};

/// All that the workers know.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Namespaces by `NsId::index`.
    pub namespaces: Vec<Option<Arc<Namespace>>>,
    /// Ports and members by `PortId`.
    pub ports: Vec<Option<Port>>,
    /// Each namespace's share of a worker's time, relative to the others', by
    /// `NsId::index`; 1 where there is none.
    pub weights: Vec<u16>,
    /// Packets a second that each namespace may punt through one worker, by
    /// `NsId::index`; the worker's own setting where there is none.
    pub punt_rates: Vec<u32>,
}

/// A port as the workers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The namespace the device is a member of.
    pub ns: NsId,
    /// Which use of the port's slot this is.
    pub generation: Generation,
    /// The device's number in its namespace.
    pub ifindex: IfIndex,
    /// The device's address: source of what leaves here.
    pub mac: Mac,
    /// Longest IP packet that may leave here, in bytes, IP header included.
    pub mtu: u32,
    /// IPv4 that arrives here may be routed (the device's `forwarding` is on).
    pub forward_v4: bool,
    /// IPv6 that arrives here may be routed.
    pub forward_v6: bool,
    /// Reverse-path filter for IPv4 that arrives here.
    pub rp_filter: RpFilter,
    /// Packets can leave here: administratively up, with carrier.
    pub up: bool,
    /// Queues that workers drive, numbered from 0; who drives which is
    /// [`crate::port::owner`]'s to say.
    pub queues: u16,
    /// A device's, or a part of one.
    pub role: Role,
}

/// The kernel's `rp_filter`: which sources are believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RpFilter {
    /// 0: any.
    #[default]
    Off,
    /// 1: the route back to the source leaves by the device the packet came in on.
    Strict,
    /// 2: there is a unicast route back to the source.
    Loose,
}

/// One namespace's tables.
#[derive(Debug, Default)]
pub struct Namespace {
    /// Whose.
    pub id: Option<NsId>,
    /// IPv4 routes: what the tables amount to together. Empty where there is a policy.
    pub v4: Arc<fib::Fib4>,
    /// IPv6 routes, likewise.
    pub v6: Arc<fib::Fib6>,
    /// Policy rules of IPv4 and their tables, if there are more than the usual ones.
    pub policy_v4: Option<Arc<policy::Policy<fib::Fib4>>>,
    /// The same of IPv6.
    pub policy_v6: Option<Arc<policy::Policy<fib::Fib6>>>,
    /// Where routes lead, indexed by the FIBs' results.
    pub next_hops: Arc<[NextHop]>,
    /// Several next hops that a route is balanced over, indexed by [`NextHop::Group`].
    pub groups: Arc<[multipath::Group]>,
    /// Resolved neighbours.
    pub neighbors: Arc<neigh::NeighTable>,
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NextHop {
    /// Out of a port of the same namespace.
    Forward {
        /// The port.
        port: PortId,
        /// The router to send to; the packet's own destination if None.
        gateway: Option<IpAddr>,
        /// Longest IP packet that may take this route: the lesser of the
        /// device's MTU and the route's.
        mtu: u32,
    },
    /// To one of several next hops: an index into [`Namespace::groups`].
    Group(u32),
    /// Somewhere for certain, but only the kernel can follow: through a device that is
    /// no port, with a tunnel around.
    Elsewhere {
        /// The port that the device is, if it is one.
        port: Option<PortId>,
    },
    /// Nowhere: blackhole, unreachable, prohibit. The kernel drops, or answers.
    Refused,
    /// On with the next policy rule (`throw`).
    Throw,
    /// The kernel's to follow, and we do not know where: local, some of several.
    Kernel,
}

impl NextHop {
    /// Packets are forwarded by it here.
    #[must_use]
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Forward { .. } | Self::Group(_))
    }
}
