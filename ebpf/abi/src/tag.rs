//! The tag: what the XDP program writes in front of a packet.
//!
//! ```text
//!  chunk                                             addr
//!   │ ◄── 256 bytes of XDP headroom ──► [ tag, 16 B ] │ Ethernet header ...
//! ```
//!
//! The tag travels as XDP metadata and is copied into the UMEM frame just below
//! the packet. A plain port's RX ring already proves its namespace; the tag says
//! so again (namespace, port and generation must agree, else the packet is
//! dropped), and carries what only the kernel knows: the checksum's state.
//!
//! A packet of a member (see [`crate::member`]) belongs to another namespace than its
//! port. Its tag says so by a bit, and has a [`MemberTag`] below it; a plain port's
//! packets have and cost nothing of that:
//!
//! ```text
//!  [ member tag, 16 B ][ tag, 16 B ] Ethernet header ...
//! ```

/// Bytes of a tag; a multiple of 4, as XDP metadata must be.
pub const TAG_LEN: usize = 16;
/// Bytes of a member's tag below the tag: both together are the 32 bytes that every
/// kernel allows for metadata.
pub const MEMBER_TAG_LEN: usize = 16;

/// The L4 checksum holds the pseudo header's sum only; the rest is to be added
/// from `csum_start` on and stored at `csum_start + csum_offset`.
pub const TAG_CSUM_PARTIAL: u16 = 1 << 0;
/// The packet is a member's: `ns` is the member's, and a [`MemberTag`] lies below.
pub const TAG_MEMBER: u16 = 1 << 1;
/// Of a member that no device of the kernel stands for: the packet is one that a
/// port's program would pass. It is to be put into the stack of the member's namespace.
pub const TAG_PUNT: u16 = 1 << 2;
/// Sent by the kernel of a member's namespace out of the member's stand-in: it is to
/// leave as it is by the member's port.
pub const TAG_CROSS: u16 = 1 << 3;
/// Any of these: the packet is not simply its port's.
pub const TAG_ODD: u16 = TAG_MEMBER | TAG_PUNT | TAG_CROSS;

/// The tag in front of a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// The namespace of the packet, as `NsId` packs it: the device's, or the member's.
    pub ns: u32,
    /// The port.
    pub port: u16,
    /// Low half of the port's generation.
    pub generation: u16,
    /// Set of `TAG_*` bits. None set: the checksum is as it should be on a wire.
    pub flags: u16,
    /// Where summing starts, in bytes from the Ethernet header.
    pub csum_start: u16,
    /// Where the sum is stored, in bytes from `csum_start`.
    pub csum_offset: u16,
    /// The member, by its number among the ports; 0 where `TAG_MEMBER` is not set.
    pub member: u16,
}

const _: () = assert!(core::mem::size_of::<Tag>() == TAG_LEN);

impl Tag {
    /// Reads a tag from the bytes that the program wrote on this machine.
    #[must_use]
    pub fn from_bytes(b: &[u8; TAG_LEN]) -> Self {
        let half = |i: usize| u16::from_ne_bytes([b[i], b[i + 1]]);
        Self {
            ns: u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
            port: half(4),
            generation: half(6),
            flags: half(8),
            csum_start: half(10),
            csum_offset: half(12),
            member: half(14),
        }
    }

    /// Namespace, port and generation in one word.
    #[must_use]
    #[inline(always)]
    pub fn names(&self) -> u64 {
        // In the order of memory, so that it is one load.
        u64::from(self.ns) | u64::from(self.port) << 32 | u64::from(self.generation) << 48
    }

    /// The bytes of the tag as the program writes them on this machine.
    #[must_use]
    pub fn to_bytes(self) -> [u8; TAG_LEN] {
        let mut out = [0; TAG_LEN];
        out[0..4].copy_from_slice(&self.ns.to_ne_bytes());
        out[4..6].copy_from_slice(&self.port.to_ne_bytes());
        out[6..8].copy_from_slice(&self.generation.to_ne_bytes());
        out[8..10].copy_from_slice(&self.flags.to_ne_bytes());
        out[10..12].copy_from_slice(&self.csum_start.to_ne_bytes());
        out[12..14].copy_from_slice(&self.csum_offset.to_ne_bytes());
        out[14..16].copy_from_slice(&self.member.to_ne_bytes());
        out
    }
}

/// What lies below the tag of a member's packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberTag {
    /// Which use of the member's number it is.
    pub generation: u32,
    /// Ethertype of the VLAN tag that is kept beside the packet instead of in it (a
    /// driver took it out); 0 where there is none.
    pub vlan_proto: u16,
    /// That tag's priority and VLAN.
    pub vlan_tci: u16,
    /// Room for a selector that is no VLAN, as a VNI; 0.
    pub selector: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(core::mem::size_of::<MemberTag>() == MEMBER_TAG_LEN);

impl MemberTag {
    /// Reads it from the bytes that the program wrote on this machine.
    #[must_use]
    pub fn from_bytes(b: &[u8; MEMBER_TAG_LEN]) -> Self {
        let half = |i: usize| u16::from_ne_bytes([b[i], b[i + 1]]);
        let word = |i: usize| u32::from_ne_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        Self {
            generation: word(0),
            vlan_proto: half(4),
            vlan_tci: half(6),
            selector: word(8),
            reserved: word(12),
        }
    }

    /// The bytes as the program writes them on this machine.
    #[must_use]
    pub fn to_bytes(self) -> [u8; MEMBER_TAG_LEN] {
        let mut out = [0; MEMBER_TAG_LEN];
        out[0..4].copy_from_slice(&self.generation.to_ne_bytes());
        out[4..6].copy_from_slice(&self.vlan_proto.to_ne_bytes());
        out[6..8].copy_from_slice(&self.vlan_tci.to_ne_bytes());
        out[8..12].copy_from_slice(&self.selector.to_ne_bytes());
        out[12..16].copy_from_slice(&self.reserved.to_ne_bytes());
        out
    }
}
