//! What generator, sink and their userspace agree on: the marked UDP packet.
//!
//! ```text
//!  IPv4   0        14       34       42      44     48         56          64
//!         │ Ethernet │  IPv4  │  UDP   │ magic │ mark │ sequence │ time stamp │ filler
//!  IPv6   0        14       54       62      64     68         76          84
//! ```
//!
//! Mark, sequence and time stamp are in the machine's byte order: a packet does
//! not leave the machine it was made on. Lengths are those of a frame as software
//! sees it, without the checksum that a wire adds.

use crate::headers::ETH_LEN;

/// First two bytes of the payload, as they lie in the packet.
pub const MAGIC: [u8; 2] = [0x6e, 0x50];
/// UDP port, source and destination: "discard", so that nobody answers.
pub const PORT: u16 = 9;

/// Bytes of payload that the marks take.
pub const PAYLOAD_LEN: usize = 22;
/// Bytes of a UDP header.
pub const UDP_LEN: usize = 8;

/// Offset of the UDP header of an IPv4 packet without options.
pub const UDP_V4: usize = ETH_LEN + 20;
/// Offset of the UDP header of an IPv6 packet without extension headers.
pub const UDP_V6: usize = ETH_LEN + 40;

/// Bytes that the generator writes anew for each IPv4 packet; the shortest frame.
pub const HEAD_V4: usize = 64;
/// As [`HEAD_V4`] for IPv6, rounded up to whole words.
pub const HEAD_V6: usize = 88;
/// Longest frame: what a live frame has room for.
pub const MAX_FRAME: usize = 3408;

/// What the generator works by, and where it keeps its sequence. The one value of
/// the `GENERATOR` map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generator {
    /// The next packet's sequence number; how many were made, when read back.
    pub sequence: u64,
    /// Start of the packet. Checksums, the last four bytes of the destination,
    /// sequence and time stamp are zero.
    pub head: [u64; HEAD_V6 / 8],
    /// Sum of the 16-bit words of the IPv4 header, in memory order; 0 for IPv6.
    pub ip_sum: u32,
    /// Sum of the 16-bit words of pseudo header, UDP header and payload.
    pub udp_sum: u32,
    /// Last four bytes of the first destination address, as a number.
    pub destination: u32,
    /// Destinations in use, one after the other; at least 1.
    pub destinations: u32,
}

/// What the sink saw. The one value, per CPU, of the `SINK` map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Marked packets with the sink's own mark.
    pub own: u64,
    /// Bytes of them, from the Ethernet header on.
    pub own_bytes: u64,
    /// Marked packets with another mark: leaked from elsewhere.
    pub foreign: u64,
    /// The mark of the last of those.
    pub foreign_mark: u64,
    /// Packets without mark, passed to the kernel.
    pub passed: u64,
    /// Own packets whose sequence was not above all before: late ones and copies.
    pub late: u64,
    /// Highest sequence of own packets plus 1; 0: there was none.
    pub next: u64,
    /// Own packets by their time on the way: element n counts those of
    /// 2^n to 2^(n+1) - 1 ns (0 ns counts as 1), the last one all above.
    pub latency: [u64; LATENCIES],
}

/// Elements of [`Counts::latency`]; the last begins at half a second.
pub const LATENCIES: usize = 30;

/// Constants that the loader sets, read-only globals by these names.
pub mod consts {
    /// Generator, `u32`: 1 for IPv6.
    pub const V6: &str = "V6";
    /// Generator, `u32`: the device it sends from. On another, where it is only
    /// attached, it passes everything.
    pub const DEVICE: &str = "DEVICE";
    /// Sink, `u32`: its own mark.
    pub const MARK: &str = "MARK";
    /// Sink, `u32`: 1 to read the clock for each packet and count latencies.
    pub const LATENCY: &str = "LATENCY";
}

/// Adds the 16-bit halves of `word` to a running sum of 16-bit words.
#[must_use]
#[inline(always)]
pub const fn add32(sum: u64, word: u32) -> u64 {
    sum + (word & 0xffff) as u64 + (word >> 16) as u64
}

/// As [`add32`], for 64 bits.
#[must_use]
#[inline(always)]
pub const fn add64(sum: u64, word: u64) -> u64 {
    add32(add32(sum, word as u32), (word >> 32) as u32)
}

/// The Internet checksum (RFC 1071) of what was summed, in the words' own order.
/// `sum` is below 2^32.
#[must_use]
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}
