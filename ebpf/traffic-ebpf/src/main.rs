//! Traffic for tests and benchmarks: `generate` makes marked UDP packets, `sink`
//! counts them. What they have in common with userspace is `nsplane_abi::traffic`.
//!
//! `generate` runs on live frames (`BPF_PROG_RUN`), never on what a device
//! received. The kernel reuses the frames' pages, and routers write to them: so
//! all headers and marks are written for each packet. The filler behind them is
//! what the caller gave as the packet's data.
#![no_std]
#![no_main]

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, PerCpuArray};
use aya_ebpf::programs::XdpContext;
use nsplane_abi::headers::{ETH_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use nsplane_abi::traffic::{
    Counts, Generator, HEAD_V4, HEAD_V6, MAGIC, PAYLOAD_LEN, PORT, UDP_LEN, UDP_V4, UDP_V6, add32,
    add64, fold, latency_slot,
};

#[map]
static GENERATOR: Array<Generator> = Array::with_max_entries(1, 0);
#[map]
static SINK: PerCpuArray<Counts> = PerCpuArray::with_max_entries(1, 0);

#[unsafe(no_mangle)]
static V6: u32 = 0;
#[unsafe(no_mangle)]
static DEVICE: u32 = 0;
#[unsafe(no_mangle)]
static MARK: u32 = 0;
#[unsafe(no_mangle)]
static LATENCY: u32 = 0;

const IPPROTO_UDP: u8 = 17;

/// Reads a constant that the loader set before the program was loaded.
#[inline(always)]
fn constant(value: &'static u32) -> u32 {
    // SAFETY: a reference is valid to read; volatile, since the compiler must not
    // take the value in the object for the one at run time.
    unsafe { core::ptr::read_volatile(value) }
}

/// Where `len` bytes at offset `at` of the packet begin, if it has them all.
#[inline(always)]
fn range(ctx: &XdpContext, at: usize, len: usize) -> Option<usize> {
    let start = ctx.data() + at;
    if start + len > ctx.data_end() { None } else { Some(start) }
}

/// Writes a value to an address within the packet.
///
/// # Safety
/// All bytes of the value lie within a range that [`range`] has returned.
#[inline(always)]
unsafe fn put<T>(address: usize, value: T) {
    // SAFETY: in bounds, says the caller; the packet starts at a multiple of 8 and
    // the offsets used are multiples of the type's size.
    unsafe { (address as *mut T).write(value) };
}

/// Reads a value from an address within the packet.
///
/// # Safety
/// As [`put`].
#[inline(always)]
unsafe fn get<T: Copy>(address: usize) -> T {
    // SAFETY: in bounds, says the caller; alignment does not matter to eBPF
    // programs on packet data, and read_unaligned would read byte by byte.
    unsafe { (address as *const T).read() }
}

/// Makes a packet and sends it out of the device that the run was given.
#[xdp]
pub fn generate(ctx: XdpContext) -> u32 {
    if ctx.ingress_ifindex() as u32 != constant(&DEVICE) {
        return XDP_PASS;
    }
    let made = if constant(&V6) != 0 {
        make::<HEAD_V6, UDP_V6>(&ctx)
    } else {
        make::<HEAD_V4, UDP_V4>(&ctx)
    };
    // For a live frame XDP_TX means: redirect to the device it pretends to come from.
    if made.is_some() { XDP_TX } else { XDP_ABORTED }
}

/// Writes the packet's first `HEAD` bytes; its UDP header is at `UDP`, and the
/// last four bytes of its destination address end where that begins.
#[inline(always)]
fn make<const HEAD: usize, const UDP: usize>(ctx: &XdpContext) -> Option<()> {
    let generator = GENERATOR.get_ptr_mut(0)?;
    // SAFETY: a pointer into a map's value is valid while the program runs; only
    // one thread runs this instance.
    let generator = unsafe { &mut *generator };
    let data = range(ctx, 0, HEAD)?;
    let sequence = generator.sequence;
    generator.sequence = sequence + 1;
    // SAFETY: the helper has no precondition.
    let time = unsafe { bpf_ktime_get_ns() };
    let nth = sequence.checked_rem(u64::from(generator.destinations))? as u32;
    let destination = generator.destination.wrapping_add(nth).to_be();

    let mut i = 0;
    while i < HEAD / 8 {
        // SAFETY: `range` has checked HEAD bytes, a multiple of 8.
        unsafe { put(data + i * 8, generator.head[i]) };
        i += 1;
    }
    let udp = data + UDP;
    let payload = udp + UDP_LEN;
    let sum = add32(u64::from(generator.udp_sum), destination);
    let sum = match fold(add64(add64(sum, sequence), time)) {
        // RFC 768: zero means that there is no checksum.
        0 => 0xffff,
        sum => sum,
    };
    // SAFETY: all within the HEAD bytes that `range` has checked; offsets of fields
    // are multiples of 2 (the marks' of 4), which is as wide as they are written.
    unsafe {
        put(udp - 4, destination as u16);
        put(udp - 2, (destination >> 16) as u16);
        put(udp + 6, sum);
        put(payload + 6, sequence as u32);
        put(payload + 10, (sequence >> 32) as u32);
        put(payload + 14, time as u32);
        put(payload + 18, (time >> 32) as u32);
        if UDP == UDP_V4 {
            put(data + 24, fold(add32(u64::from(generator.ip_sum), destination)));
        }
    }
    Some(())
}

/// Counts and drops marked packets, passes all others.
#[xdp]
pub fn sink(ctx: XdpContext) -> u32 {
    let Some(counts) = SINK.get_ptr_mut(0) else { return XDP_ABORTED };
    // SAFETY: a pointer into a map's value is valid while the program runs, and
    // this CPU's value is not touched by others.
    let counts = unsafe { &mut *counts };
    let Some(payload) = marked(&ctx) else {
        counts.passed += 1;
        return XDP_PASS;
    };
    let bytes = (ctx.data_end() - ctx.data()) as u64;
    // SAFETY: `marked` has checked PAYLOAD_LEN bytes from here on.
    let (mark, sequence, time) = unsafe {
        let pair = |at: usize| {
            u64::from(get::<u32>(payload + at)) | (u64::from(get::<u32>(payload + at + 4)) << 32)
        };
        (get::<u32>(payload + 2), pair(6), pair(14))
    };
    if mark != constant(&MARK) {
        counts.foreign += 1;
        counts.foreign_mark = u64::from(mark);
        return XDP_DROP;
    }
    counts.own += 1;
    counts.own_bytes += bytes;
    if sequence < counts.next {
        counts.late += 1;
    } else {
        counts.next = sequence + 1;
    }
    if constant(&LATENCY) != 0 {
        count_latency(counts, time);
    }
    XDP_DROP
}

/// Where the payload begins, if the packet is a marked one.
#[inline(always)]
fn marked(ctx: &XdpContext) -> Option<usize> {
    let data = range(ctx, 0, UDP_V4 + UDP_LEN + PAYLOAD_LEN)?;
    // SAFETY: `range` has checked as many bytes as an IPv4 packet has.
    let (ethertype, v4_start, v4_protocol, v6_next) = unsafe {
        (
            u16::from_be(get(data + 12)),
            get::<u8>(data + ETH_LEN),
            get::<u8>(data + ETH_LEN + 9),
            get::<u8>(data + ETH_LEN + 6),
        )
    };
    let udp = match ethertype {
        ETHERTYPE_IPV4 if v4_start == 0x45 && v4_protocol == IPPROTO_UDP => data + UDP_V4,
        ETHERTYPE_IPV6 if v6_next == IPPROTO_UDP => range(ctx, UDP_V6, UDP_LEN + PAYLOAD_LEN)?,
        _ => return None,
    };
    // SAFETY: both ways above have checked UDP header and payload.
    let (port, magic) = unsafe { (u16::from_be(get(udp + 2)), get::<[u8; 2]>(udp + UDP_LEN)) };
    if port == PORT && magic == MAGIC { Some(udp + UDP_LEN) } else { None }
}

#[inline(always)]
fn count_latency(counts: &mut Counts, sent: u64) {
    // SAFETY: the helper has no precondition.
    let ns = unsafe { bpf_ktime_get_ns() }.saturating_sub(sent);
    if let Some(count) = counts.latency.get_mut(latency_slot(ns)) {
        *count += 1;
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier would have refused a program that can come here.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
