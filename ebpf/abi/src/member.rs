//! Members: parts of a port that belong to another namespace than its device.
//!
//! A member has a number among the ports, an entry in `PORTS` as a port has one, and
//! one or more entries in `MEMBERS` that say which of a port's frames are its own.
//! Frames are told apart by the queue they were received on, by their VLAN tags, or
//! by the Ethernet address they are to; the program asks in this order, and only
//! where the port's flags say that there is something to find.
//!
//! Namespacing: *tagged*, one map for all ports, keys begin with the port.

/// Key of `MEMBERS`: a port, and what tells a member's frames from others.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberKey {
    /// The port.
    pub port: u32,
    /// What `selector` is: one of `BY_*`.
    pub by: u32,
    /// The value, zero-padded.
    pub selector: [u8; 8],
}

/// `selector` is an Ethernet address, 6 bytes.
pub const BY_MAC: u32 = 1;
/// `selector` is two VLAN tags, the outer one first: Ethertype and VLAN, 2 bytes each
/// in network byte order. The second is zero where there is one tag.
pub const BY_VLAN: u32 = 2;
/// `selector` is a receive queue, 2 bytes in network byte order.
pub const BY_QUEUE: u32 = 3;

impl MemberKey {
    /// Untagged frames to an Ethernet address.
    #[inline(always)]
    #[must_use]
    pub const fn mac(port: u32, mac: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = mac;
        Self { port, by: BY_MAC, selector: [a, b, c, d, e, f, 0, 0] }
    }

    /// Frames that carry exactly these tags, given as Ethertype and VLAN; no inner
    /// tag is two zeros.
    #[inline(always)]
    #[must_use]
    pub const fn vlan(port: u32, outer: (u16, u16), inner: (u16, u16)) -> Self {
        let [a, b] = outer.0.to_be_bytes();
        let [c, d] = outer.1.to_be_bytes();
        let [e, f] = inner.0.to_be_bytes();
        let [g, h] = inner.1.to_be_bytes();
        Self { port, by: BY_VLAN, selector: [a, b, c, d, e, f, g, h] }
    }

    /// Frames that are received on a queue.
    #[inline(always)]
    #[must_use]
    pub const fn queue(port: u32, queue: u16) -> Self {
        let [a, b] = queue.to_be_bytes();
        Self { port, by: BY_QUEUE, selector: [a, b, 0, 0, 0, 0, 0, 0] }
    }
}

/// Value in `MEMBERS`: whose the frames are. They are nobody's who could be given them
/// while the generations here, in `PORTS` and in the program's constants do not agree.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberEntry {
    /// The member's namespace, as `NsId` packs it.
    pub ns: u32,
    /// The member's number among the ports.
    pub member: u16,
    /// Set of `MEMBER_*` bits.
    pub flags: u16,
    /// Generation of the member's number; as the entry in `PORTS` has it.
    pub generation: u32,
    /// Generation of the port that the frames come in on.
    pub parent: u32,
    /// The device that the kernel has for such frames: the net cookie of its namespace.
    /// Zero where it is stated that they are the member's.
    pub cookie: u64,
    /// That device's number there.
    pub ifindex: u32,
    /// Of a macvlan: the bucket of its parent's hash table that it is in.
    pub bucket: u32,
}

/// No device of the kernel brings such frames into the member's namespace: what the
/// program would pass goes to the worker with `TAG_PUNT`, and what cannot is dropped.
/// Else passing is right, for the kernel has a device (a macvlan, a VLAN) for them.
pub const MEMBER_STATED: u16 = 1 << 0;
/// The configuration gave such frames to a namespace that cannot take them now: they
/// are dropped, lest the port's own namespace take them for its own.
pub const MEMBER_ABSENT: u16 = 1 << 1;
