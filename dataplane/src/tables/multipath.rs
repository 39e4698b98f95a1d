//! Which of several next hops a packet takes.
//!
//! The kernel's own way (`fib_multipath_hash`, `rt6_multipath_hash`): a hash of what
//! [`Fields`] names of the packet, the same both ways of a flow, falls below the bound of
//! one of the next hops; bounds are weights, added up. With `fib_multipath_hash_seed` set
//! the choice is the kernel's. Without, the kernel's seed is its secret, and ours is
//! another: the choice is as even and as steady, but not the same.
//!
//! Namespacing: *replicated*, with the next hops.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::OnceLock;

use crate::id::PortId;

/// What of a packet the choice depends on (`fib_multipath_hash_policy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fields {
    /// 0: the addresses; IPv6's flow label and next header too.
    #[default]
    Addresses,
    /// 0 too, where rules make the kernel look at IPv6's ports before: ICMPv6 is told apart
    /// by what it found then.
    AddressesDissected,
    /// 1: addresses, protocol and ports.
    Ports,
}

/// How next hops are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct How {
    /// What of a packet.
    pub fields: Fields,
    /// The seed.
    pub seed: u32,
}

impl How {
    /// The kernel's, where the user has set a seed; else one of this process.
    #[must_use]
    pub fn new(fields: Fields, seed: u32) -> Self {
        static OWN: OnceLock<u32> = OnceLock::new();
        let own = || *OWN.get_or_init(|| RandomState::new().hash_one(0) as u32 | 1);
        Self { fields, seed: if seed == 0 { own() } else { seed } }
    }
}

/// One of several next hops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Hashes up to this one are its own, as far as no earlier member has them.
    pub bound: u32,
    /// The port.
    pub port: PortId,
    /// The router to send to; the packet's own destination if None.
    pub gateway: Option<IpAddr>,
    /// Longest IP packet that may take it.
    pub mtu: u32,
}

/// Several next hops of one route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// How one is chosen.
    pub how: How,
    /// In the kernel's order, bounds rising.
    pub members: Box<[Member]>,
}

/// The bounds of members with such weights: each has a part of 31 bits' numbers that is as
/// large as its weight is of all (`fib_rebalance`).
#[must_use]
pub fn bounds(weights: &[u16]) -> Vec<u32> {
    let total: u64 = weights.iter().map(|w| u64::from(*w)).sum::<u64>().max(1);
    let mut sum = 0;
    let bound = |weight: &u16| {
        sum += u64::from(*weight);
        // Rounded to the nearest (`DIV_ROUND_CLOSEST_ULL`).
        let bound = ((sum << 31) + total / 2) / total;
        u32::try_from(bound.saturating_sub(1)).unwrap_or(u32::MAX)
    };
    weights.iter().map(bound).collect()
}

impl Group {
    /// The one whose part the hash falls in.
    #[must_use]
    #[inline]
    pub fn choose(&self, hash: u32) -> Option<&Member> {
        self.members.iter().find(|m| hash <= m.bound)
    }

    /// One of them leads out of the port.
    #[must_use]
    pub fn uses(&self, port: PortId) -> bool {
        self.members.iter().any(|m| m.port == port)
    }
}

/// A packet as the kernel's `struct flow_keys` has it, from `basic` on, which is what is
/// hashed: words in memory's order.
///
/// ```text
///  0 n_proto ip_proto  4 flow_label  8 vlan  16 cvlan  24 keyid  28 ports  32 icmp  36 addresses  (48 | 72)
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct FlowKey {
    /// Protocol of the payload, where it counts.
    pub proto: u8,
    /// Flow label, as the kernel holds it.
    pub label: u32,
    /// Source and destination port, where they count.
    pub ports: (u16, u16),
}

const PROTO: usize = 2;
const LABEL: usize = 4;
const PORTS: usize = 28;
const ADDRESSES: usize = 36;
const LEN_V4: usize = 48;
const LEN_V6: usize = 72;

impl FlowKey {
    fn head<const N: usize>(&self) -> [u8; N] {
        let mut key = [0; N];
        key[PROTO] = self.proto;
        key[LABEL..LABEL + 4].copy_from_slice(&self.label.to_ne_bytes());
        let (a, b) = (self.ports.0.to_be_bytes(), self.ports.1.to_be_bytes());
        let swap = u16::from_ne_bytes(b) < u16::from_ne_bytes(a);
        let (first, second) = if swap { (b, a) } else { (a, b) };
        key[PORTS..PORTS + 2].copy_from_slice(&first);
        key[PORTS + 2..PORTS + 4].copy_from_slice(&second);
        key
    }

    /// The hash of an IPv4 packet: 31 bits.
    #[must_use]
    pub fn hash_v4(&self, seed: u32, src: [u8; 4], dst: [u8; 4]) -> u32 {
        let mut key = self.head::<LEN_V4>();
        let swap = u32::from_ne_bytes(dst) < u32::from_ne_bytes(src);
        let (first, second) = if swap { (dst, src) } else { (src, dst) };
        key[ADDRESSES..ADDRESSES + 4].copy_from_slice(&first);
        key[ADDRESSES + 4..ADDRESSES + 8].copy_from_slice(&second);
        hash(seed, &key)
    }

    /// The hash of an IPv6 packet.
    #[must_use]
    pub fn hash_v6(&self, seed: u32, src: [u8; 16], dst: [u8; 16]) -> u32 {
        let mut key = self.head::<LEN_V6>();
        let (first, second) = if dst < src { (dst, src) } else { (src, dst) };
        key[ADDRESSES..ADDRESSES + 16].copy_from_slice(&first);
        key[ADDRESSES + 16..ADDRESSES + 32].copy_from_slice(&second);
        hash(seed, &key)
    }
}

/// `flow_hash_from_keys_seed` and the shift of its callers.
fn hash(seed: u32, key: &[u8]) -> u32 {
    let half = u64::from(seed);
    let word = half << 32 | half;
    // No hash is 0.
    (siphash(word, word, key) as u32).max(1) >> 1
}

/// SipHash-2-4 (Aumasson, Bernstein, 2012) of whole words.
fn siphash(k0: u64, k1: u64, bytes: &[u8]) -> u64 {
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        absorb(&mut v, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    absorb(&mut v, u64::from_le_bytes(last) | (bytes.len() as u64) << 56);
    v[2] ^= 0xff;
    for _ in 0..4 {
        round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[inline]
fn absorb(v: &mut [u64; 4], word: u64) {
    v[3] ^= word;
    round(v);
    round(v);
    v[0] ^= word;
}

#[inline]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests;
