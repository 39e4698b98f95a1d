//! What the XDP program and the dataplane agree on.
//!
//! Both sides compile this crate: the eBPF program for the kernel, the dataplane
//! for userspace. It holds map layouts, the tag in front of a packet, and the
//! readers that decide whether a packet may be routed at all ([`headers`]), so
//! that there is one parser, tested in userspace, run in the kernel.
//!
//! Not here: anything that needs a kernel, a map or an allocation.
#![no_std]
#![warn(missing_docs)]

pub mod headers;
pub mod layout;
pub mod long;
pub mod member;
pub mod reason;
pub mod tag;
pub mod traffic;
pub mod vlan;

pub use reason::PassReason;
pub use tag::{MemberTag, Tag};

/// XSK slots a port has in the XSKMAP; also the most queues a port may have.
pub const QUEUES_PER_PORT: u32 = 32;

/// Ports that the maps have room for unless the loader asks for another number.
pub const DEFAULT_MAX_PORTS: u32 = 1024;

/// Index of a queue's slot in the XSKMAP.
#[must_use]
pub const fn xsk_slot(port: u32, queue: u32) -> u32 {
    port * QUEUES_PER_PORT + queue
}

/// Index of a counter in the `COUNTERS` map.
#[must_use]
pub const fn counter_slot(port: u32, reason: PassReason) -> u32 {
    port * PassReason::COUNT + reason as u32
}

/// One entry of the `PORTS` map, indexed by port (or member): what the program must know of
/// a port and what may change while it is attached.
///
/// All-zero means "pass everything", which is also what an array map holds
/// before anyone writes to it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortConf {
    /// The device's own address: only frames to it are routed.
    pub mac: [u8; 6],
    /// Set of `PORT_*` bits.
    pub flags: u16,
    /// Longest frame that is routed, in bytes from the Ethernet header on.
    pub max_frame: u32,
    /// Generation of the port that these settings belong to. A program with
    /// another generation in its constants passes everything.
    pub generation: u32,
}

/// Route IPv4 that arrives on the port.
pub const PORT_ROUTE_V4: u16 = 1 << 0;
/// Route IPv6 that arrives on the port.
pub const PORT_ROUTE_V6: u16 = 1 << 1;
/// The namespace has IPv4 routes that only the kernel can follow: ask `KERNEL4`.
pub const PORT_KERNEL_ROUTES_V4: u16 = 1 << 2;
/// The namespace has IPv6 routes that only the kernel can follow: ask `KERNEL6`.
pub const PORT_KERNEL_ROUTES_V6: u16 = 1 << 3;
/// Some queue of the port is a member's: ask `MEMBERS`.
pub const PORT_MEMBER_QUEUES: u16 = 1 << 4;
/// Some VLAN of the port is a member's.
pub const PORT_MEMBER_VLANS: u16 = 1 << 5;
/// Some Ethernet address behind the port is a member's.
pub const PORT_MEMBER_MACS: u16 = 1 << 6;
/// The port has members. Without one of these bits `MEMBERS` is not asked.
pub const PORT_MEMBERS: u16 = PORT_MEMBER_QUEUES | PORT_MEMBER_VLANS | PORT_MEMBER_MACS;

/// Key of `LOCAL4`: an IPv4 address that the namespace delivers or broadcasts itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Local4 {
    /// The namespace.
    pub ns: u32,
    /// The address, network byte order.
    pub addr: [u8; 4],
}

/// Key of `LOCAL6`: an IPv6 address that the namespace delivers itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Local6 {
    /// The namespace.
    pub ns: u32,
    /// The address, network byte order.
    pub addr: [u8; 16],
}

/// Data part of a `KERNEL4` key. The prefix length of the trie's key is
/// 32 (the namespace) plus the route's.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix4 {
    /// The namespace, big endian so that it is a prefix of the key.
    pub ns: [u8; 4],
    /// The prefix, network byte order, host bits zero.
    pub addr: [u8; 4],
}

/// Data part of a `KERNEL6` key, as [`Prefix4`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix6 {
    /// The namespace, big endian so that it is a prefix of the key.
    pub ns: [u8; 4],
    /// The prefix, network byte order, host bits zero.
    pub addr: [u8; 16],
}

/// Value in `KERNEL4` and `KERNEL6`: the route is the dataplane's.
pub const ROUTE_OURS: u8 = 0;
/// Value in `KERNEL4` and `KERNEL6`: the route is the kernel's, pass the packet.
pub const ROUTE_KERNEL: u8 = 1;

/// One per-CPU counter of the `COUNTERS` map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes, Ethernet header included.
    pub bytes: u64,
}

/// Constants of one program instance, set by the loader before loading.
///
/// Each is a read-only global of the object by the name given here.
pub mod consts {
    /// `u32`: the port.
    pub const PORT: &str = "PORT";
    /// `u32`: the namespace, as `NsId` packs it.
    pub const NS: &str = "NS";
    /// `u32`: the port's generation.
    pub const GENERATION: &str = "GENERATION";
    /// `u32`: 1 where the program runs in generic mode. Implies `CSUM_UNKNOWN`.
    pub const GENERIC: &str = "GENERIC";
    /// `u32`: 1 where the driver may hand over packets with unfinished checksums and
    /// the loader could not learn where the kernel notes it: what may be one passes.
    pub const CSUM_UNKNOWN: &str = "CSUM_UNKNOWN";
    /// `u32`: 1 where the device is the far end of a member's stand-in: all that it
    /// receives goes to the worker, and nothing ever to the stack it lies in.
    pub const CROSS: &str = "CROSS";
    /// `u32`: 1 where the program can tell members' frames apart. Most of it is for that,
    /// and of its verification; a port without members does without.
    pub const TRUNK: &str = "TRUNK";
    /// `u32`: offset of the `sk_buff` pointer behind the kernel's `xdp_buff`; 0
    /// where the driver has none. The `SKB_*` constants count only if it is set.
    pub const XDP_SKB: &str = "XDP_SKB";
    /// `u32`: byte offset of the `ip_summed` bits in `sk_buff`.
    pub const SKB_IP_SUMMED: &str = "SKB_IP_SUMMED";
    /// `u32`: right shift that brings `ip_summed` to bit 0 of that byte.
    pub const SKB_IP_SUMMED_SHIFT: &str = "SKB_IP_SUMMED_SHIFT";
    /// `u32`: byte offset of `csum_start` (u16, from `skb->head`).
    pub const SKB_CSUM_START: &str = "SKB_CSUM_START";
    /// `u32`: byte offset of `csum_offset` (u16).
    pub const SKB_CSUM_OFFSET: &str = "SKB_CSUM_OFFSET";
    /// `u32`: byte offset of `vlan_all` (u32: protocol and TCI).
    pub const SKB_VLAN_ALL: &str = "SKB_VLAN_ALL";
    /// `u32`: byte offset of `head` (pointer).
    pub const SKB_HEAD: &str = "SKB_HEAD";
    /// `u32`: byte offset of `data` (pointer).
    pub const SKB_DATA: &str = "SKB_DATA";
}
