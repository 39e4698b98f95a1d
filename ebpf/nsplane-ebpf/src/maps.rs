//! The maps that all instances share.
//!
//! The sizes here are what the loader starts from: `PORTS`, `XSKS` and `COUNTERS`
//! are made as large as it wants ports to be.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, PerCpuArray, XskMap};
use nsplane_abi::layout::Layout;
use nsplane_abi::member::{MemberEntry, MemberKey};
use nsplane_abi::{
    Counter, DEFAULT_MAX_PORTS, Local4, Local6, PassReason, PortConf, Prefix4, Prefix6,
    QUEUES_PER_PORT, counter_slot,
};

/// Room for addresses and routes of all namespaces together; memory is taken as
/// they come.
const MAX_ADDRESSES: u32 = 1 << 20;

/// Room for what tells members' frames apart; likewise.
const MAX_MEMBERS: u32 = 1 << 16;

#[map]
pub(crate) static PORTS: Array<PortConf> = Array::with_max_entries(DEFAULT_MAX_PORTS, 0);

#[map]
pub(crate) static XSKS: XskMap = XskMap::with_max_entries(DEFAULT_MAX_PORTS * QUEUES_PER_PORT, 0);

#[map]
static LOCAL4: HashMap<Local4, u8> = HashMap::with_max_entries(MAX_ADDRESSES, BPF_F_NO_PREALLOC);

#[map]
static LOCAL6: HashMap<Local6, u8> = HashMap::with_max_entries(MAX_ADDRESSES, BPF_F_NO_PREALLOC);

#[map]
static KERNEL4: LpmTrie<Prefix4, u8> = LpmTrie::with_max_entries(MAX_ADDRESSES, 0);

#[map]
static KERNEL6: LpmTrie<Prefix6, u8> = LpmTrie::with_max_entries(MAX_ADDRESSES, 0);

#[map]
static MEMBERS: HashMap<MemberKey, MemberEntry> =
    HashMap::with_max_entries(MAX_MEMBERS, BPF_F_NO_PREALLOC);

#[map]
static LAYOUT: Array<Layout> = Array::with_max_entries(1, 0);

#[map]
static COUNTERS: PerCpuArray<Counter> =
    PerCpuArray::with_max_entries(DEFAULT_MAX_PORTS * PassReason::COUNT, 0);

/// The ifindex of the device that this CPU is injecting a packet to, or 0.
#[map]
static INJECTING: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);

#[inline(always)]
pub(crate) fn is_local4(key: Local4) -> bool {
    LOCAL4.get_ptr(key).is_some()
}

#[inline(always)]
pub(crate) fn is_local6(key: Local6) -> bool {
    LOCAL6.get_ptr(key).is_some()
}

#[inline(always)]
pub(crate) fn longest4(key: Prefix4) -> Option<u8> {
    KERNEL4.get(Key::new(64, key)).copied()
}

#[inline(always)]
pub(crate) fn longest6(key: Prefix6) -> Option<u8> {
    KERNEL6.get(Key::new(160, key)).copied()
}

#[inline(always)]
pub(crate) fn member(key: MemberKey) -> Option<&'static MemberEntry> {
    // SAFETY: an entry's memory is not given away while a program runs that found it;
    // where control replaces it meanwhile, the generations tell.
    unsafe { MEMBERS.get(key) }
}

#[inline(always)]
pub(crate) fn layout() -> Option<&'static Layout> {
    LAYOUT.get(0)
}

/// Counts a packet. The counter is this CPU's own, and XDP is not interrupted by
/// XDP on the same CPU, so adding needs no atomics.
#[inline(always)]
pub(crate) fn count(port: u32, reason: PassReason, bytes: u64) {
    if let Some(counter) = COUNTERS.get_ptr_mut(counter_slot(port, reason)) {
        // SAFETY: the pointer is the map's, to this CPU's value.
        let counter = unsafe { &mut *counter };
        counter.packets += 1;
        counter.bytes += bytes;
    }
}

#[inline(always)]
pub(crate) fn set_injecting(ifindex: u32) {
    if let Some(slot) = INJECTING.get_ptr_mut(0) {
        // SAFETY: the pointer is the map's, to this CPU's value.
        unsafe { *slot = ifindex };
    }
}

/// Whether this CPU is injecting a packet to the device; says so once.
#[inline(always)]
pub(crate) fn take_injecting(ifindex: u32) -> bool {
    let Some(slot) = INJECTING.get_ptr_mut(0) else { return false };
    // SAFETY: the pointer is the map's, to this CPU's value.
    let slot = unsafe { &mut *slot };
    let found = *slot == ifindex && ifindex != 0;
    if found {
        *slot = 0;
    }
    found
}
