//! The XDP program of a port: what is not the dataplane's to route goes to the
//! kernel's stack, the rest is tagged and redirected to the port's AF_XDP socket.
//!
//! One instance is loaded for each port, with the constants in [`globals`]; all
//! instances share the [`maps`]. A frame once redirected cannot be given back, so
//! every doubt is decided for the stack: the default is always `XDP_PASS`, and an
//! all-zero `PORTS` entry passes everything.
//!
//! ```text
//!  Stale, Punted ─► TooLong ─► Vlan ─► headers ─► NotRouted ─► Local ─► KernelRoute
//!      ─► NoSocket ─► Checksum, NoRoom ─► tag, XSKMAP
//! ```
//! Cheap questions first; maps are asked only for what the headers let through.
#![no_std]
#![no_main]

mod globals;
mod maps;
mod packet;
mod skb;

use aya_ebpf::bindings::xdp_action::{XDP_PASS, XDP_REDIRECT};
use aya_ebpf::helpers::bpf_xdp_get_buff_len;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use nsplane_abi::headers::{self, Bytes, Candidate};
use nsplane_abi::{
    Local4, Local6, PORT_KERNEL_ROUTES_V4, PORT_KERNEL_ROUTES_V6, PORT_ROUTE_V4, PORT_ROUTE_V6,
    PassReason, PortConf, Prefix4, Prefix6, QUEUES_PER_PORT, ROUTE_KERNEL, xsk_slot,
};

use crate::packet::Packet;
use crate::skb::Checksum;

/// The program of a port.
#[xdp(frags)]
fn nsplane(ctx: XdpContext) -> u32 {
    // SAFETY: the context is the one this program was called with.
    let frame_len = unsafe { bpf_xdp_get_buff_len(ctx.ctx) };
    let port = globals::PORT.load();
    let reason = match decide(&ctx, port, frame_len) {
        Ok(slot) => redirect(slot),
        Err(reason) => reason,
    };
    maps::count(port, reason, frame_len);
    if matches!(reason, PassReason::Redirected) { XDP_REDIRECT } else { XDP_PASS }
}

/// Run by `BPF_PROG_RUN` to put a packet into the stack as if it were received.
///
/// A native program is not run for such a packet. A generic one is: it finds the
/// device's number here and lets the packet pass.
#[xdp]
fn inject(ctx: XdpContext) -> u32 {
    maps::set_injecting(ctx.ingress_ifindex() as u32);
    XDP_PASS
}

/// Decides, and writes the tag. The result is the socket's slot in `XSKS`.
#[inline(always)]
fn decide(ctx: &XdpContext, port: u32, frame_len: u64) -> Result<u32, PassReason> {
    let conf = maps::PORTS.get(port).ok_or(PassReason::Stale)?;
    if conf.generation != globals::GENERATION.load() {
        return Err(PassReason::Stale);
    }
    if globals::GENERIC.load() != 0 && maps::take_injecting(ctx.ingress_ifindex() as u32) {
        return Err(PassReason::Punted);
    }
    if conf.flags == 0 {
        return Err(PassReason::NotRouted);
    }
    let packet = Packet::new(ctx);
    if frame_len != packet.len() as u64 || frame_len > u64::from(conf.max_frame) {
        return Err(PassReason::TooLong);
    }
    let skb = skb::beside(ctx);
    if skb::has_vlan(skb) {
        return Err(PassReason::Vlan);
    }
    let candidate = headers::classify(&packet, conf.mac)?;
    match candidate {
        Candidate::V4 { src, dst } => route_v4(conf, src, dst)?,
        Candidate::V6 { src, dst } => route_v6(conf, src, dst)?,
    }
    let slot = socket(ctx, port)?;
    if skb::is_hidden() && headers::may_be_unfinished(&packet, candidate) {
        return Err(PassReason::Checksum);
    }
    let checksum = skb::checksum(skb)?;
    tag(ctx, port, checksum)?;
    Ok(slot)
}

/// May IPv4 between these addresses be routed here?
#[inline(always)]
fn route_v4(conf: &PortConf, src: [u8; 4], dst: [u8; 4]) -> Result<(), PassReason> {
    if conf.flags & PORT_ROUTE_V4 == 0 {
        return Err(PassReason::NotRouted);
    }
    let ns = globals::NS.load();
    if maps::is_local4(Local4 { ns, addr: dst }) || maps::is_local4(Local4 { ns, addr: src }) {
        return Err(PassReason::Local);
    }
    if conf.flags & PORT_KERNEL_ROUTES_V4 != 0 {
        let key = Prefix4 { ns: ns.to_be_bytes(), addr: dst };
        if maps::longest4(key) == Some(ROUTE_KERNEL) {
            return Err(PassReason::KernelRoute);
        }
    }
    Ok(())
}

/// May IPv6 between these addresses be routed here?
#[inline(always)]
fn route_v6(conf: &PortConf, src: [u8; 16], dst: [u8; 16]) -> Result<(), PassReason> {
    if conf.flags & PORT_ROUTE_V6 == 0 {
        return Err(PassReason::NotRouted);
    }
    let ns = globals::NS.load();
    if maps::is_local6(Local6 { ns, addr: dst }) || maps::is_local6(Local6 { ns, addr: src }) {
        return Err(PassReason::Local);
    }
    if conf.flags & PORT_KERNEL_ROUTES_V6 != 0 {
        let key = Prefix6 { ns: ns.to_be_bytes(), addr: dst };
        if maps::longest6(key) == Some(ROUTE_KERNEL) {
            return Err(PassReason::KernelRoute);
        }
    }
    Ok(())
}

/// The slot of the socket of this queue, if there is one that can take the packet:
/// the kernel would drop what is redirected to a socket of another queue.
#[inline(always)]
fn socket(ctx: &XdpContext, port: u32) -> Result<u32, PassReason> {
    let queue = ctx.rx_queue_index();
    if queue >= QUEUES_PER_PORT {
        return Err(PassReason::NoSocket);
    }
    let slot = xsk_slot(port, queue);
    if maps::XSKS.get(slot) != Some(queue) {
        return Err(PassReason::NoSocket);
    }
    Ok(slot)
}

/// Writes the tag in front of the packet.
#[inline(always)]
fn tag(ctx: &XdpContext, port: u32, checksum: Checksum) -> Result<(), PassReason> {
    let tag = nsplane_abi::Tag {
        ns: globals::NS.load(),
        port: port as u16,
        generation: globals::GENERATION.load() as u16,
        flags: checksum.flags,
        csum_start: checksum.start,
        csum_offset: checksum.offset,
        reserved: 0,
    };
    packet::write_in_front(ctx, tag).ok_or(PassReason::NoRoom)
}

/// Hands the packet to the socket. Between the look at the slot and here it may
/// have been emptied: then the packet passes, with metadata that nobody reads.
#[inline(always)]
fn redirect(slot: u32) -> PassReason {
    match maps::XSKS.redirect(slot, u64::from(XDP_PASS)) {
        Ok(_) => PassReason::Redirected,
        Err(_) => PassReason::NoSocket,
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here panics; the verifier would not accept this loop if it were reachable.
    loop {}
}
