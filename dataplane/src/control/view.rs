//! What `nsplane show` shows: plain values, made by control, printed or sent as JSON.
//!
//! Field names are the interface: users' scripts read them. Counts are since
//! nsplane started; bytes include the Ethernet header.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a client may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// The namespaces that nsplane drives.
    Namespaces,
    /// Selectors of namespaces, with what each means now.
    Selectors,
    /// Devices that are ports, and devices that are not, with the reason.
    Ports,
    /// Routes as the workers know them.
    Routes,
    /// Resolved neighbours as the workers know them.
    Neighbors,
    /// What of the kernel's configuration forwarding must obey, and what becomes of it.
    Ledger,
    /// Worker threads.
    Workers,
    /// Packets and bytes by namespace and tier, drops and punts by reason.
    Counters,
    /// Where the frames of the memory are.
    Memory,
    /// What nsplane holds: namespaces, ports, sockets, frames, map entries.
    Resources,
}

/// An answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum View {
    /// To [`Subject::Namespaces`].
    Namespaces(Vec<Namespace>),
    /// To [`Subject::Selectors`].
    Selectors(Vec<Selector>),
    /// To [`Subject::Ports`].
    Ports(Vec<Port>),
    /// To [`Subject::Routes`].
    Routes(Vec<Route>),
    /// To [`Subject::Neighbors`].
    Neighbors(Vec<Neighbor>),
    /// To [`Subject::Ledger`].
    Ledger(Vec<LedgerRow>),
    /// To [`Subject::Workers`].
    Workers(Vec<Worker>),
    /// To [`Subject::Counters`].
    Counters(Vec<Counters>),
    /// To [`Subject::Memory`].
    Memory(Vec<Memory>),
    /// To [`Subject::Resources`]: one.
    Resources(Vec<Resources>),
}

/// What nsplane holds, as counted now. What is let go must be gone from here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Namespaces that are driven.
    pub namespaces: usize,
    /// Devices that are ports.
    pub ports: usize,
    /// Ports whose sockets and links are being closed.
    pub closing: usize,
    /// Sockets at the workers.
    pub sockets: usize,
    /// Frames in all.
    pub frames: u32,
    /// Frames in the sockets' rings.
    pub frames_in_rings: usize,
    /// Ports whose entry in the program's map is not empty.
    pub map_ports: usize,
    /// Local addresses in the program's maps.
    pub map_addresses: usize,
    /// Routes in the program's maps.
    pub map_routes: usize,
    /// Tables that were replaced, and that a worker may still read.
    pub worlds_retired: usize,
}

/// A namespace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Namespace {
    /// Name, path or `pid:N`, as the user gave it.
    pub name: String,
    /// The kernel's net cookie.
    pub cookie: u64,
    /// The number inside nsplane: index and generation.
    pub id: String,
    /// Devices that are ports.
    pub ports: usize,
    /// IPv4 routes in the workers' table.
    pub routes_v4: usize,
    /// IPv6 routes in the workers' table.
    pub routes_v6: usize,
    /// Resolved neighbours.
    pub neighbors: usize,
    /// How often changes were lost, and all of the state was read again.
    #[serde(default)]
    pub resyncs: u64,
    /// Who forwards IPv4: "userspace", or "kernel" with the reason.
    pub tier_v4: String,
    /// Who forwards IPv6.
    pub tier_v6: String,
}

/// A selector of namespaces, as the operator wrote it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Selector {
    /// The selector.
    pub selector: String,
    /// The namespaces that are driven because of it.
    pub namespaces: Vec<String>,
    /// Why there are none; else empty.
    pub note: String,
}

/// A device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Port {
    /// Its namespace.
    pub netns: String,
    /// Its name there.
    pub device: String,
    /// Its number there.
    pub ifindex: u32,
    /// The port's number and generation; empty for a device that is not a port.
    pub port: String,
    /// Ethernet address.
    pub mac: String,
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up, with carrier.
    pub up: bool,
    /// How the XDP program runs: "native" or "generic"; empty if not a port.
    pub xdp: String,
    /// How the sockets are bound: "copy" or "zero-copy"; empty if not a port.
    pub bind: String,
    /// Number of queues.
    pub queues: u16,
    /// Which worker drives each queue.
    pub workers: Vec<u16>,
    /// IPv4 that arrives is routed.
    pub forward_v4: bool,
    /// IPv6 that arrives is routed.
    pub forward_v6: bool,
    /// Kernel's counts on the sockets, summed over queues.
    pub socket: SocketCounts,
    /// Why the device is not a port, or what of a port's traffic is the kernel's; else empty.
    pub reason: String,
    /// Of which port it is a part, if it is none by itself.
    pub member: Option<Member>,
}

/// A part of a port, or the far end of what stands for one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Member {
    /// The port's namespace (or the stand-in's).
    pub netns: String,
    /// The port's device there (or the stand-in).
    pub device: String,
    /// Which of the port's frames are its own: "address ...", "VLAN 802.1Q 100",
    /// "queue 3"; or "far end".
    pub by: String,
}

/// What the kernel counted on a port's sockets.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct SocketCounts {
    /// No frame in the fill ring, or longer than a frame.
    pub rx_dropped: u64,
    /// RX ring full: the worker is too slow.
    pub rx_ring_full: u64,
    /// Times the fill ring was found empty.
    pub fill_ring_empty: u64,
    /// Invalid TX descriptors.
    pub tx_invalid: u64,
}

/// A route.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Route {
    /// Its namespace.
    pub netns: String,
    /// The kernel's table, where rules tell tables apart.
    #[serde(default)]
    pub table: Option<u32>,
    /// `prefix/length`.
    pub dst: String,
    /// The router, if any.
    pub via: Option<String>,
    /// Egress device; None where the kernel follows the route.
    pub dev: Option<String>,
    /// Longest IP packet, in bytes.
    pub mtu: Option<u32>,
    /// "userspace" or "kernel".
    pub tier: String,
}

/// A resolved neighbour.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Neighbor {
    /// Its namespace.
    pub netns: String,
    /// Address.
    pub dst: String,
    /// Device.
    pub dev: String,
    /// Ethernet address.
    pub lladdr: String,
    /// Nobody confirmed it lately; a packet to it goes to the kernel now and then,
    /// which then does.
    pub stale: bool,
}

/// A line of a namespace's ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRow {
    /// The namespace.
    pub netns: String,
    /// The item's name, as docs/ledger.md has it.
    pub item: String,
    /// What of the namespace is concerned.
    pub scope: String,
    /// "converted", "harmless", "kernel", or "bypassed" where the operator said so.
    pub status: String,
    /// Who forwards what is concerned, all lines considered; empty for an item that
    /// is not in use.
    pub tier: String,
    /// What exactly is there; empty for an item that is not in use.
    pub reason: String,
    /// Why the item has that status.
    pub why: String,
    /// How a change is noticed.
    pub watched: String,
    /// What to write to have it passed by.
    pub bypass: Option<String>,
}

/// A worker thread.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Worker {
    /// Its number.
    pub worker: u16,
    /// The processor it is pinned to.
    pub cpu: Option<usize>,
    /// Queues it drives.
    pub queues: usize,
    /// Packets received.
    pub packets: u64,
    /// Rounds of its loop.
    pub rounds: u64,
    /// Rounds that found a packet.
    pub busy_rounds: u64,
    /// Times it went to sleep.
    pub sleeps: u64,
    /// System calls to start transmission.
    pub kicks: u64,
}

/// The frames of the memory, each in one of these places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Frames in all.
    pub frames: u64,
    /// In a ring of some socket: to receive into, received, being sent, or sent.
    pub rings: u64,
    /// Free, held by the workers.
    pub workers: u64,
    /// Free, held by the punt thread.
    pub punt: u64,
    /// Free, for whoever needs them.
    pub free: u64,
    /// The rest: packets on their way between those places. 0 while there is no traffic.
    pub moving: i64,
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Packets.
    pub packets: u64,
    /// Bytes, Ethernet header included.
    pub bytes: u64,
}

impl Amount {
    /// Adds another amount.
    pub fn add(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// Counters of one namespace: what came in on its ports, and who did what with it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Counters {
    /// The namespace.
    pub netns: String,
    /// The userspace tier.
    pub userspace: Userspace,
    /// The kernel tier: passed by the XDP program.
    pub kernel: Kernel,
}

/// What the workers did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Userspace {
    /// Received from the ports' rings.
    pub received: Amount,
    /// Forwarded: put into an egress ring.
    pub forwarded: Amount,
    /// Sent out of the namespace's ports.
    pub tx_packets: u64,
    /// Refused by the kernel when sending.
    pub tx_refused: u64,
    /// Unfinished L4 checksums completed.
    pub csum_completed: u64,
    /// Drops by reason; reasons with a count only.
    pub drops: BTreeMap<String, u64>,
    /// Punts by reason; reasons with a count only.
    pub punts: BTreeMap<String, u64>,
    /// Punted packets that the kernel's stack did not take.
    pub punts_failed: u64,
}

/// What the XDP program did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Kernel {
    /// Handed to the workers (not the kernel's in the end).
    pub redirected: Amount,
    /// Passed to the stack, by reason; reasons with a count only.
    pub passed: BTreeMap<String, Amount>,
}
