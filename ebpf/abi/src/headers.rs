//! Header readers: may this packet be routed by the dataplane at all?
//!
//! [`classify`] looks at headers only; what needs a map (local addresses, the
//! namespace's forwarding switch, kernel routes) is asked by its callers.

use crate::PassReason;

/// Bytes of an Ethernet header without a tag.
pub const ETH_LEN: usize = 14;
/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Bounds-checked reads from a packet. In userspace a slice, in the program a
/// pair of pointers that the verifier follows.
pub trait Bytes {
    /// `N` bytes from offset `at`, or None where the packet ends before.
    fn load<const N: usize>(&self, at: usize) -> Option<[u8; N]>;
}

impl Bytes for [u8] {
    #[inline(always)]
    fn load<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.get(at..at.checked_add(N)?)?.try_into().ok()
    }
}

/// A packet that headers alone do not keep from being routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Candidate {
    /// IPv4: source and destination, network byte order.
    V4 {
        /// Source address.
        src: [u8; 4],
        /// Destination address.
        dst: [u8; 4],
    },
    /// IPv6: source and destination, network byte order.
    V6 {
        /// Source address.
        src: [u8; 16],
        /// Destination address.
        dst: [u8; 16],
    },
}

/// Decides by headers alone whether a frame that came to `mac` may be routed.
///
/// # Errors
/// The reason why it goes to the kernel instead.
#[inline(always)]
pub fn classify<B: Bytes + ?Sized>(_pkt: &B, _mac: [u8; 6]) -> Result<Candidate, PassReason> {
    Err(PassReason::NotIp)
}
