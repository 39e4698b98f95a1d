//! Packets too long for one page, on their way into the stack.

/// The longest packet that is routed by the dataplane, in bytes from the Ethernet header
/// on: 8 frames of 2,048 bytes, and less than what the kernel lets a program make of a
/// socket buffer (`SKB_MAX_ALLOC`, 16 KiB less what it needs itself).
pub const LONGEST: usize = PIECE * PIECES;

/// Bytes that are copied at once.
pub const PIECE: usize = 1024;
/// So many of them are the longest packet.
pub const PIECES: usize = 14;

/// A packet to inject.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct LongPacket {
    /// The device that it shall be received on, in the namespace of who runs the program.
    pub ifindex: u32,
    /// Bytes, at most [`LONGEST`].
    pub len: u32,
    /// The packet; what lies behind `len` counts for nothing.
    pub pieces: [[u8; PIECE]; PIECES],
}
