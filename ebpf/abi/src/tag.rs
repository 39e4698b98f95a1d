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

/// Bytes of a tag; a multiple of 4, at most 32, as XDP metadata must be.
pub const TAG_LEN: usize = 16;

/// The L4 checksum holds the pseudo header's sum only; the rest is to be added
/// from `csum_start` on and stored at `csum_start + csum_offset`.
pub const TAG_CSUM_PARTIAL: u16 = 1 << 0;

/// The tag in front of a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// The namespace of the device, as `NsId` packs it.
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
    /// Zero; room for a member's selector (a VLAN, a VNI's index).
    pub reserved: u16,
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
            reserved: half(14),
        }
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
        out[14..16].copy_from_slice(&self.reserved.to_ne_bytes());
        out
    }
}
