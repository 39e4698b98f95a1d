//! What the XDP program did with a packet, one counter each.

/// Why the XDP program passed a packet to the kernel's stack, or that it did not.
///
/// Where nobody but the dataplane can bring a packet to the stack it belongs to (a
/// member that no device of the kernel stands for), it drops instead, or has the
/// worker bring it there; the reason is the same.
///
/// The value is the index of the counter within a port's block.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PassReason {
    /// Not passed: redirected to the port's AF_XDP socket.
    Redirected = 0,
    /// Cut short, or an invalid header: the kernel drops and counts it.
    Malformed = 1,
    /// Neither IPv4 nor IPv6: ARP, LLDP, VLAN-tagged frames and the like.
    NotIp = 2,
    /// The frame is not addressed to the port's MAC.
    NotForUs = 3,
    /// Multicast or broadcast, as a frame or as a packet.
    Multicast = 4,
    /// To an address of the namespace itself, or from one.
    Local = 5,
    /// TTL or hop limit of 1 or less: the kernel answers.
    Ttl = 6,
    /// IPv4 options.
    Options = 7,
    /// IPv6 hop-by-hop options.
    HopByHop = 8,
    /// An address that never crosses a router: unspecified, loopback, link-local,
    /// reserved.
    Scope = 9,
    /// The port or its namespace does not route this family (forwarding is off,
    /// or its traffic stays with the kernel).
    NotRouted = 10,
    /// Longer than a UMEM frame, or in several buffers.
    TooLong = 11,
    /// The longest route that matches is one only the kernel can follow.
    KernelRoute = 12,
    /// The port has no socket in this queue's slot.
    NoSocket = 13,
    /// A VLAN tag that the driver keeps beside the packet.
    Vlan = 14,
    /// No room for the tag in front of the packet.
    NoRoom = 15,
    /// Injected by the dataplane itself and on its way into the stack.
    Punted = 16,
    /// The program belongs to an older generation of the port.
    Stale = 17,
    /// A checksum that the kernel or a device has to finish: it is not the Internet's
    /// (SCTP's CRC), or it may be unfinished, or the packet be several in one, where
    /// the kernel's notes of that cannot be read (generic mode).
    Checksum = 18,
    /// Dropped, not passed: of a part of the port that the configuration gave to
    /// another namespace, which is not there to take it.
    NoMember = 19,
    /// Of a macvlan or VLAN that is not, or no longer, a device of the namespace that it
    /// was last seen in.
    Moved = 20,
}

impl PassReason {
    /// Number of reasons: counters a port has.
    pub const COUNT: u32 = 21;

    /// All reasons, in the order of their counters.
    pub const ALL: [Self; Self::COUNT as usize] = [
        Self::Redirected,
        Self::Malformed,
        Self::NotIp,
        Self::NotForUs,
        Self::Multicast,
        Self::Local,
        Self::Ttl,
        Self::Options,
        Self::HopByHop,
        Self::Scope,
        Self::NotRouted,
        Self::TooLong,
        Self::KernelRoute,
        Self::NoSocket,
        Self::Vlan,
        Self::NoRoom,
        Self::Punted,
        Self::Stale,
        Self::Checksum,
        Self::NoMember,
        Self::Moved,
    ];

    /// The name shown to users: lower case, words joined by underscores.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redirected => "redirected",
            Self::Malformed => "malformed",
            Self::NotIp => "not_ip",
            Self::NotForUs => "not_for_us",
            Self::Multicast => "multicast",
            Self::Local => "local",
            Self::Ttl => "ttl",
            Self::Options => "options",
            Self::HopByHop => "hop_by_hop",
            Self::Scope => "scope",
            Self::NotRouted => "not_routed",
            Self::TooLong => "too_long",
            Self::KernelRoute => "kernel_route",
            Self::NoSocket => "no_socket",
            Self::Vlan => "vlan",
            Self::NoRoom => "no_room",
            Self::Punted => "punted",
            Self::Stale => "stale",
            Self::Checksum => "checksum",
            Self::NoMember => "no_member",
            Self::Moved => "moved",
        }
    }
}
