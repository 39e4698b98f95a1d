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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Own packets by their time on the way, by [`latency_slot`].
    pub latency: [u64; LATENCIES],
}

impl Default for Counts {
    fn default() -> Self {
        let latency = [0; LATENCIES];
        Self {
            own: 0,
            own_bytes: 0,
            foreign: 0,
            foreign_mark: 0,
            passed: 0,
            late: 0,
            next: 0,
            latency,
        }
    }
}

impl Counts {
    /// The time, in ns, that so many per mille of the packets stayed below: the end of the
    /// element that it lies in. None without packets.
    #[must_use]
    pub fn latency_below(&self, per_mille: u64) -> Option<u64> {
        let all: u64 = self.latency.iter().sum();
        let mut left = (all * per_mille).div_ceil(1000).max(1);
        for (slot, &count) in self.latency.iter().enumerate() {
            if count >= left {
                return Some(latency_from(slot + 1));
            }
            left -= count;
        }
        None
    }
}

/// Elements of [`Counts::latency`]; the last begins at nearly a second.
pub const LATENCIES: usize = 28 * 8;

/// The element that counts a time: eight for each power of two, so that a time is known
/// to an eighth; the last counts all above.
#[must_use]
#[inline(always)]
pub fn latency_slot(ns: u64) -> usize {
    // The position of the highest bit, less 3: eBPF has no instruction for it.
    let mut rest = ns >> 4;
    let mut octave = 0_usize;
    while rest != 0 && octave < LATENCIES / 8 - 2 {
        rest >>= 1;
        octave += 1;
    }
    if ns < 8 {
        return ns as usize;
    }
    let eighth = (ns >> octave) as usize;
    let slot = if eighth > 15 { 7 } else { eighth & 7 };
    (octave + 1) * 8 + slot
}

/// The least time, in ns, that an element counts.
#[must_use]
pub const fn latency_from(slot: usize) -> u64 {
    if slot < 8 { slot as u64 } else { (8 + slot as u64 % 8) << (slot / 8 - 1) }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_known_to_an_eighth() {
        for slot in 0..LATENCIES - 1 {
            let (from, to) = (latency_from(slot), latency_from(slot + 1));
            assert_eq!((latency_slot(from), latency_slot(to - 1)), (slot, slot));
            assert!(to - from <= (from / 8).max(1));
        }
        let mut counts = Counts::default();
        assert_eq!(counts.latency_below(500), None);
        for ns in 0..1000 {
            counts.latency[latency_slot(ns * 100)] += 1;
        }
        let p99 = counts.latency_below(990).unwrap();
        assert!((99_000..=112_000).contains(&p99), "{p99}");
        assert_eq!(latency_slot(u64::MAX), LATENCIES - 1);
        assert_eq!(latency_from(LATENCIES - 1), 15 << 26);
    }
}
