//! Reasons and counters of the userspace tier.
//!
//! Each worker has a [`WorkerStats`] of its own, which it alone writes; everybody
//! may read. A reason's value is the index of its counter, so that no verdict is
//! ever without one. The XDP program's reasons are in `nsplane_abi::PassReason`.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::id::PortId;

/// Why the worker dropped a packet. Dropping is for what the kernel would not
/// have either; whatever the kernel might do better is punted.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The tag, the ring and the tables do not agree on namespace, port and
    /// generation: the device is on the move.
    Stale,
    /// No tables for the port any more.
    PortGone,
    /// The egress ring was full.
    TxFull,
    /// The egress port or its socket went away between decision and send.
    EgressGone,
    /// The ring to the worker that owns the egress queue was full.
    HandoverFull,
    /// The namespace's punts are over their rate limit.
    PuntLimit,
    /// The queue to the punt thread was full.
    PuntFull,
    /// With its VLAN tags it does not fit the frame, or not the port.
    NoRoom,
    /// The namespace had more frames in transmit rings than its share.
    TxShare,
    /// The namespace had more packets waiting at the other worker than its share.
    HandoverShare,
    /// The namespace had more packets waiting to be punted than its share.
    PuntShare,
}

impl DropReason {
    /// Number of reasons.
    pub const COUNT: usize = 11;
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Stale,
        Self::PortGone,
        Self::TxFull,
        Self::EgressGone,
        Self::HandoverFull,
        Self::PuntLimit,
        Self::PuntFull,
        Self::NoRoom,
        Self::TxShare,
        Self::HandoverShare,
        Self::PuntShare,
    ];

    /// The name shown to users.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::PortGone => "port_gone",
            Self::TxFull => "tx_full",
            Self::EgressGone => "egress_gone",
            Self::HandoverFull => "handover_full",
            Self::PuntLimit => "punt_limit",
            Self::PuntFull => "punt_full",
            Self::NoRoom => "no_room",
            Self::TxShare => "tx_share",
            Self::HandoverShare => "handover_share",
            Self::PuntShare => "punt_share",
        }
    }
}

/// Why the worker gave a packet to the kernel's stack of its namespace.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PuntReason {
    /// A header that the kernel is to judge: length, version, checksum.
    Header,
    /// No route matches: the kernel answers.
    NoRoute,
    /// The route is one that only the kernel can follow.
    KernelRoute,
    /// The neighbour is not resolved: the kernel asks for it and sends.
    NoNeighbor,
    /// Longer than the route's MTU: the kernel fragments or answers.
    TooBig,
    /// The source address does not pass the port's reverse-path filter.
    SourceCheck,
    /// The packet leaves by the device it came in on: the kernel may send a redirect.
    Hairpin,
    /// The neighbour is stale: a sample, so that the kernel confirms it as if it sent.
    StaleNeighbor,
    /// TTL or hop limit is used up.
    Ttl,
    /// Not IPv4 or IPv6 to this port, or the port does not route it (any more).
    NotRouted,
    /// The program would have passed it, were it not for a member that no device of the
    /// kernel stands for.
    Member,
}

impl PuntReason {
    /// Number of reasons.
    pub const COUNT: usize = 11;
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Header,
        Self::NoRoute,
        Self::KernelRoute,
        Self::NoNeighbor,
        Self::TooBig,
        Self::SourceCheck,
        Self::Hairpin,
        Self::StaleNeighbor,
        Self::Ttl,
        Self::NotRouted,
        Self::Member,
    ];

    /// The name shown to users.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::NoRoute => "no_route",
            Self::KernelRoute => "kernel_route",
            Self::NoNeighbor => "no_neighbor",
            Self::TooBig => "too_big",
            Self::SourceCheck => "source_check",
            Self::Hairpin => "hairpin",
            Self::StaleNeighbor => "stale_neighbor",
            Self::Ttl => "ttl",
            Self::NotRouted => "not_routed",
            Self::Member => "member",
        }
    }
}

/// A counter with one writer: adding is a load and a store, not an atomic add.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`. Only the owning thread may call this.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Makes it `n`, where it says how much there is now. Only the owning thread may
    /// call this.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The value, from any thread.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one worker did with packets that came in on one port.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PortStats {
    /// Packets taken from the port's RX rings.
    pub rx_packets: Count,
    /// Bytes of them, Ethernet header included.
    pub rx_bytes: Count,
    /// Packets that came in here and were put into an egress ring.
    pub forwarded_packets: Count,
    /// Bytes of them.
    pub forwarded_bytes: Count,
    /// Drops, by `DropReason`.
    pub drops: [Count; DropReason::COUNT],
    /// Packets put into the punt queue, by `PuntReason`.
    pub punts: [Count; PuntReason::COUNT],
    /// Packets put into an egress ring of this port, those of `tx_refused` included.
    pub tx_packets: Count,
    /// Packets that the kernel refused when sending out of this port
    /// (sendto said `EBUSY`, `ENOBUFS`, or the link was down).
    pub tx_refused: Count,
    /// Unfinished L4 checksums of packets that came in here which the worker completed.
    pub csum_completed: Count,
}

/// One worker's counters; written by that worker only.
#[derive(Debug)]
pub struct WorkerStats {
    ports: Box<[PortStats]>,
    /// Rounds of the run loop.
    pub rounds: Count,
    /// Rounds that found at least one packet.
    pub busy_rounds: Count,
    /// Times the worker went to sleep.
    pub sleeps: Count,
    /// System calls to start transmission.
    pub kicks: Count,
    /// Packets received.
    pub packets: Count,
    /// Packets handed to another worker.
    pub handed_over: Count,
    /// Free frames that the worker holds, at the end of its last round.
    pub free_frames: Count,
}

impl WorkerStats {
    /// Counters for `max_ports` ports, all zero.
    #[must_use]
    pub fn new(max_ports: usize) -> Self {
        Self {
            ports: (0..max_ports).map(|_| PortStats::default()).collect(),
            rounds: Count::default(),
            busy_rounds: Count::default(),
            sleeps: Count::default(),
            kicks: Count::default(),
            packets: Count::default(),
            handed_over: Count::default(),
            free_frames: Count::default(),
        }
    }

    /// The counters of a port.
    ///
    /// # Panics
    /// If the port is not below the `max_ports` given at the start: our bug.
    #[must_use]
    #[inline]
    pub fn port(&self, port: PortId) -> &PortStats {
        &self.ports[port.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_the_index_of_its_counter() {
        for (i, r) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(r as usize, i);
        }
        for (i, r) in PuntReason::ALL.into_iter().enumerate() {
            assert_eq!(r as usize, i);
        }
        for (i, r) in nsplane_abi::PassReason::ALL.into_iter().enumerate() {
            assert_eq!(r as usize, i);
        }
    }
}
