//! What can happen in a namespace, as values.
//!
//! Only what forwarding and its reports need is kept of a message.

use std::fmt;
use std::net::IpAddr;

use super::hook::{Hook, HookSource, Qdisc, Tcx};
use super::look::{Number, Switch};
use super::policy::{NextHopObject, Rule};
use crate::id::{IfIndex, Mac};

/// An address family that we route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(addr: IpAddr) -> Self {
        if addr.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Bits of an address.
    #[must_use]
    pub fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

/// An address and how many of its bits count. Routes have their host bits zero,
/// addresses do not. Ordered so that a prefix comes before those inside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    /// The address.
    pub addr: IpAddr,
    /// Number of leading bits that count.
    pub len: u8,
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// `lo`.
    Loopback,
    /// One end of a pair.
    Veth,
    /// A MAC of another device.
    Macvlan,
    /// Ethernet, and made by no rtnetlink kind: a NIC.
    Physical,
    /// A device that swallows what it is given.
    Dummy,
    /// A switch.
    Bridge,
    /// A VLAN of another device.
    Vlan,
    /// A routing domain.
    Vrf,
    /// Another kind, as `ip -details link` calls it, or the number of its link type.
    Other(String),
}

/// How an XDP program is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// Not at all.
    #[default]
    None,
    /// In the driver.
    Native,
    /// In the stack, for any driver.
    Generic,
    /// In the hardware.
    Offload,
    /// More than one of these.
    Several,
}

/// Which frames a device has of those of the device below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkPart {
    /// Those to its own Ethernet address.
    Macvlan {
        /// How macvlans of the same device see each other: `MACVLAN_MODE_*`.
        mode: u32,
    },
    /// Those that carry a VLAN tag.
    Vlan {
        /// The tag's Ethertype.
        proto: u16,
        /// The VLAN.
        id: u16,
        /// Tags' priorities are mapped, one way or both.
        priorities: bool,
    },
}

/// `MACVLAN_MODE_PRIVATE`: other macvlans are not seen.
pub const MACVLAN_PRIVATE: u32 = 1;
/// `MACVLAN_MODE_VEPA`: other macvlans are seen through the switch outside.
pub const MACVLAN_VEPA: u32 = 2;
/// `MACVLAN_MODE_BRIDGE`: frames to other macvlans stay inside.
pub const MACVLAN_BRIDGE: u32 = 4;

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub ifindex: IfIndex,
    /// Its name.
    pub name: String,
    /// Its Ethernet address, if it has one.
    pub mac: Option<Mac>,
    /// Longest packet, in bytes, link header excluded.
    pub mtu: u32,
    /// The same for IPv6, where the kernel says so: may be less.
    pub mtu6: Option<u32>,
    /// Administratively up.
    pub up: bool,
    /// Packets can go out: the link is there and its state operational.
    pub carrier: bool,
    /// What it is.
    pub kind: LinkKind,
    /// The bridge, bond or VRF that it is a member of.
    pub master: Option<IfIndex>,
    /// The device it belongs with: a veth's other end, a macvlan's lower device.
    pub peer: Option<IfIndex>,
    /// The namespace of `peer`, as this namespace numbers others; None: the same.
    pub peer_nsid: Option<i32>,
    /// What it has of the device below it, where it is a part of one.
    pub part: Option<LinkPart>,
    /// The group that the administrator put it in.
    pub group: u32,
    /// Receive queues allocated. [`super::channels`] tells those in use.
    pub rx_queues: u32,
    /// Transmit queues allocated.
    pub tx_queues: u32,
    /// How an XDP program is attached.
    pub xdp: XdpMode,
    /// The attached program's id; 0 where there is none, or several.
    pub xdp_prog: u32,
}

/// An address of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// The device.
    pub ifindex: IfIndex,
    /// The address (host bits kept) and its network's length.
    pub prefix: Prefix,
}

/// What becomes of packets that a route matches (`RTN_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// They go to a next hop.
    Unicast,
    /// They are ours.
    Local,
    /// They are ours and everybody's on the link.
    Broadcast,
    /// They are ours, and others' elsewhere.
    Anycast,
    /// They are a group's.
    Multicast,
    /// The lookup goes on in the next table.
    Throw,
    /// Another: blackhole, unreachable, prohibit, and what is yet to come.
    Other(u8),
}

/// One way that a route may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hop {
    /// The device.
    pub oif: Option<IfIndex>,
    /// The router; of either family. None: the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// A lightweight tunnel puts something around the packet.
    pub encap: bool,
    /// Its part of the packets, relative to the others'; 1 where it is the only one.
    pub weight: u16,
    /// One of several: the kernel does not send by it (`RTNH_F_DEAD`).
    pub dead: bool,
}

/// A route. That a next hop's link is down is not kept: the link's own state tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The table (`RT_TABLE_*`).
    pub table: u32,
    /// Which destinations.
    pub dst: Prefix,
    /// IPv6 only: which sources, where the route asks.
    pub source: Option<Prefix>,
    /// IPv4 only: which DSCP, 0 for any.
    pub tos: u8,
    /// The metric: the least wins.
    pub priority: u32,
    /// What becomes of matching packets.
    pub kind: RouteKind,
    /// The source address of the host's own packets.
    pub prefsrc: Option<IpAddr>,
    /// The longest packet that may take the route, where it says so.
    pub mtu: Option<u32>,
    /// The next-hop object it leads to; `hops` is empty then.
    pub nexthop: Option<u32>,
    /// The ways: none (blackhole), one, or several to be balanced over.
    pub hops: Vec<Hop>,
    /// The kernel will stop using it at some time, without saying so at once.
    pub expires: bool,
    /// It carries something that we do not know.
    pub unknown: bool,
}

/// How a route goes in beside those of the same destination and metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insert {
    /// Before them (or alone).
    First,
    /// Behind them.
    Last,
    /// Instead of the first.
    Replace,
}

/// A neighbour. The kernel does not announce those that need no resolving (noarp)
/// when it makes them; a dump has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// The device it is reached by.
    pub ifindex: IfIndex,
    /// Its address.
    pub addr: IpAddr,
    /// Its Ethernet address, where it is known.
    pub mac: Option<Mac>,
    /// `NUD_*` bit.
    pub state: u16,
}

/// `NUD_*` states in which a neighbour's address may be used.
const USABLE: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80;
/// `NUD_STALE`: usable, but nobody confirmed it lately.
const STALE: u16 = 0x04;

impl Neighbor {
    /// The address to send to, if the kernel would send to it now: reachable,
    /// stale, delay, probe, permanent, noarp.
    #[must_use]
    pub fn usable(&self) -> Option<Mac> {
        if self.state & USABLE == 0 { None } else { self.mac }
    }

    /// The kernel would have it confirmed, did it send the packets itself.
    #[must_use]
    pub fn stale(&self) -> bool {
        self.state & STALE != 0
    }
}

/// Whose settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// `conf/all`.
    All,
    /// `conf/default`.
    Default,
    /// A device's.
    Device(IfIndex),
}

/// Settings of a namespace or a device; those that a message did not name are None.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Netconf {
    /// The family.
    pub family: Family,
    /// Whose.
    pub scope: Scope,
    /// `forwarding`.
    pub forwarding: Option<bool>,
    /// `rp_filter` (IPv4): 0, 1 or 2.
    pub rp_filter: Option<u8>,
    /// `mc_forwarding`: a multicast router is at work.
    pub mc_forwarding: Option<bool>,
    /// `proxy_ndp` (IPv6) or `proxy_arp` (IPv4).
    pub proxy_neigh: Option<bool>,
    /// `force_forwarding` (IPv6): the device forwards, whatever `all` says.
    pub force_forwarding: Option<bool>,
}

impl Netconf {
    /// One that names nothing.
    #[must_use]
    pub fn silent(family: Family) -> Self {
        Self {
            family,
            scope: Scope::All,
            forwarding: None,
            rp_filter: None,
            mc_forwarding: None,
            proxy_neigh: None,
            force_forwarding: None,
        }
    }
}

/// What happened, or, in a dump, what is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A device appeared or changed.
    Link(Link),
    /// A device went away: deleted, or moved into another namespace.
    LinkGone(IfIndex),
    /// An address appeared or changed.
    Address(Address),
    /// An address went away.
    AddressGone(Address),
    /// A route appeared or changed.
    Route(Route, Insert),
    /// A route went away.
    RouteGone(Route),
    /// A rule appeared.
    Rule(Rule),
    /// A rule went away.
    RuleGone(Rule),
    /// A neighbour appeared or changed.
    Neighbor(Neighbor),
    /// A neighbour went away.
    NeighborGone(IfIndex, IpAddr),
    /// Settings changed.
    Netconf(Netconf),
    /// A device's settings went away with it.
    NetconfGone(Family, Scope),
    /// A next-hop object appeared or changed.
    NextHop(NextHopObject),
    /// A next-hop object went away.
    NextHopGone(u32),
    /// All hooks of a source, as they are now.
    Hooks(HookSource, Vec<Hook>),
    /// A device has a queueing discipline.
    Qdisc(Qdisc),
    /// A device has a queueing discipline no more.
    QdiscGone(Qdisc),
    /// The devices with BPF programs on tcx, all of them, as they are now.
    Tcx(Vec<Tcx>),
    /// A setting that is looked at from time to time.
    Switch(Switch, bool),
    /// A number that is looked at from time to time.
    Number(Number, u32),
    /// A message about routing of a family came, and could not be read.
    Unreadable(Family),
    /// Messages were lost: dump again.
    Overrun,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_without_an_address_is_never_usable() {
        let mut n = Neighbor {
            ifindex: IfIndex(1),
            addr: IpAddr::from([10, 0, 0, 1]),
            mac: None,
            state: 0x02,
        };
        assert_eq!(n.usable(), None);
        n.mac = Some(Mac([2, 0, 0, 0, 0, 1]));
        for (state, usable) in
            [(0x01, false), (0x02, true), (0x04, true), (0x20, false), (0x40, true), (0x80, true)]
        {
            n.state = state;
            assert_eq!(n.usable().is_some(), usable, "{state:#x}");
        }
    }

    #[test]
    fn a_prefix_sorts_before_those_inside_it() {
        let p = |a, len| Prefix { addr: IpAddr::from(a), len };
        let mut v = vec![p([10, 0, 1, 0], 24), p([10, 0, 0, 0], 24), p([10, 0, 0, 0], 8)];
        v.sort();
        assert_eq!(v, [p([10, 0, 0, 0], 8), p([10, 0, 0, 0], 24), p([10, 0, 1, 0], 24)]);
    }
}
