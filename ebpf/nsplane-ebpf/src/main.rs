//! The XDP program of a port: what is not the dataplane's to route goes to the
//! kernel's stack, the rest is tagged and redirected to the port's AF_XDP socket.
//!
//! One instance is loaded for each port, with the constants in [`globals`]; all
//! instances share the [`maps`]. A frame once redirected cannot be given back, so
//! every doubt is decided for the stack: the default is always `XDP_PASS`, and an
//! all-zero `PORTS` entry passes everything.
//!
//! ```text
//!  Stale, Punted ─► whose? ─► TooLong ─► Vlan ─► headers ─► NotRouted ─► Local ─► KernelRoute
//!      ─► NoSocket ─► Checksum, NoRoom ─► tag, XSKMAP
//! ```
//! Cheap questions first; maps are asked only for what the headers let through. A frame may
//! come in several pieces (multi-buffer XDP): headers are read from the first, and where
//! they are not all in there, the frame passes.
//!
//! A frame may belong to another namespace than its device ([`members`]). Where the
//! kernel has a device for such frames, passing brings them there. Where it has not, a
//! pass would bring them into the wrong namespace: then the worker has to bring them
//! to the right one, and what it cannot have is dropped.
#![no_std]
#![no_main]

mod above;
mod globals;
mod long;
mod maps;
mod members;
mod memory;
mod packet;
mod short;
mod skb;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT};
use aya_ebpf::helpers::bpf_xdp_get_buff_len;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use nsplane_abi::headers::{self, Candidate};
use nsplane_abi::tag::{TAG_CROSS, TAG_PUNT};
use nsplane_abi::vlan::Without;
use nsplane_abi::{
    Local4, Local6, PORT_KERNEL_ROUTES_V4, PORT_KERNEL_ROUTES_V6, PORT_MEMBERS, PORT_ROUTE_V4,
    PORT_ROUTE_V6, PassReason, PortConf, Prefix4, Prefix6, QUEUES_PER_PORT, ROUTE_KERNEL, xsk_slot,
};

use crate::members::Owner;
use crate::packet::Packet;
use crate::skb::Checksum;

/// The program of a port.
#[xdp(frags)]
fn nsplane(ctx: XdpContext) -> u32 {
    // SAFETY: the context is the one this program was called with.
    let frame_len = unsafe { bpf_xdp_get_buff_len(ctx.ctx) };
    let port = globals::PORT.load();
    if globals::CROSS.load() != 0 {
        return cross(&ctx, port, frame_len);
    }
    let mut owner = Owner::port(port);
    let decided = decide(&ctx, port, frame_len, &mut owner);
    let otherwise = if owner.stated { XDP_DROP } else { XDP_PASS };
    let (reason, action) = match decided {
        Ok(slot) => redirect(slot, otherwise),
        Err(reason) if owner.stated => (reason, bring(&ctx, port, &owner, reason)),
        Err(reason) => (reason, XDP_PASS),
    };
    maps::count(owner.number, reason, frame_len);
    action
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
fn decide(
    ctx: &XdpContext,
    port: u32,
    frame_len: u64,
    owner: &mut Owner,
) -> Result<u32, PassReason> {
    let mut conf = current(port)?;
    if globals::GENERIC.load() != 0 && maps::take_injecting(ctx.ingress_ifindex() as u32) {
        return Err(PassReason::Punted);
    }
    if conf.flags == 0 {
        return Err(PassReason::NotRouted);
    }
    let packet = Packet::new(ctx, frame_len);
    let skb = skb::beside(ctx);
    if conf.flags & PORT_MEMBERS != 0 {
        if globals::TRUNK.load() == 0 {
            // Another instance is on its way that can tell whose it is.
            return Err(PassReason::Stale);
        }
        if let Some(member) = owner.find(ctx, conf.flags, &packet, skb) {
            conf = member?;
        }
    }
    if frame_len > u64::from(conf.max_frame) {
        return Err(PassReason::TooLong);
    }
    if owner.tag.vlan_proto == 0 && skb::has_vlan(skb) {
        return Err(PassReason::Vlan);
    }
    let unfinished = match owner.skip {
        0 => routable::<0>(&packet, conf, owner.ns)?,
        4 => routable::<4>(&packet, conf, owner.ns)?,
        _ => routable::<8>(&packet, conf, owner.ns)?,
    };
    let slot = socket(ctx, port)?;
    if unfinished {
        return Err(PassReason::Checksum);
    }
    let checksum = skb::checksum(skb)?;
    tag(ctx, port, owner, checksum, 0)?;
    Ok(slot)
}

/// The port's settings, if they are those of this instance.
#[inline(always)]
fn current(port: u32) -> Result<&'static PortConf, PassReason> {
    let conf = maps::PORTS.get(port).ok_or(PassReason::Stale)?;
    if conf.generation != globals::GENERATION.load() {
        return Err(PassReason::Stale);
    }
    Ok(conf)
}

/// May the packet behind `SKIP` bytes of VLAN tags be routed? True: but its checksum
/// may be unfinished, and the kernel's notes of that are hidden.
#[inline(always)]
fn routable<const SKIP: usize>(
    packet: &Packet,
    conf: &PortConf,
    ns: u32,
) -> Result<bool, PassReason> {
    let packet = Without::<_, SKIP>(packet);
    let candidate = headers::classify(&packet, conf.mac)?;
    match candidate {
        Candidate::V4 { src, dst } => route_v4(conf, ns, src, dst)?,
        Candidate::V6 { src, dst } => route_v6(conf, ns, src, dst)?,
    }
    Ok(skb::is_hidden() && headers::may_be_unfinished(&packet, candidate))
}

/// Has the worker bring a frame to the stack of its member's namespace, where that
/// stack would do anything with it; else drops it.
#[inline(always)]
fn bring(ctx: &XdpContext, port: u32, owner: &Owner, why: PassReason) -> u32 {
    let kernels = matches!(
        why,
        PassReason::Malformed
            | PassReason::NotIp
            | PassReason::Multicast
            | PassReason::Local
            | PassReason::Ttl
            | PassReason::Options
            | PassReason::HopByHop
            | PassReason::Scope
            | PassReason::NotRouted
            | PassReason::KernelRoute
    );
    if !kernels {
        return XDP_DROP;
    }
    let tagged = socket(ctx, port).and_then(|slot| {
        let checksum = skb::checksum(skb::beside(ctx))?;
        tag(ctx, port, owner, checksum, TAG_PUNT)?;
        Ok(slot)
    });
    match tagged {
        Ok(slot) => redirect(slot, XDP_DROP).1,
        Err(_) => XDP_DROP,
    }
}

/// What the kernel of a member's namespace sent out of the member's stand-in: all of
/// it is the worker's, and nothing of it the namespace's that the far end lies in.
#[inline(always)]
fn cross(ctx: &XdpContext, port: u32, frame_len: u64) -> u32 {
    let (reason, action) = match take_across(ctx, port, frame_len) {
        Ok(slot) => redirect(slot, XDP_DROP),
        Err(reason) => (reason, XDP_DROP),
    };
    maps::count(port, reason, frame_len);
    action
}

#[inline(always)]
fn take_across(ctx: &XdpContext, port: u32, frame_len: u64) -> Result<u32, PassReason> {
    let conf = current(port)?;
    if frame_len > u64::from(conf.max_frame) {
        return Err(PassReason::TooLong);
    }
    let skb = skb::beside(ctx);
    if skb::has_vlan(skb) {
        return Err(PassReason::Vlan);
    }
    let slot = socket(ctx, port)?;
    // A checksum may be unfinished, and there is no stack that could finish it.
    if skb::is_hidden() {
        return Err(PassReason::Checksum);
    }
    let checksum = skb::checksum(skb)?;
    tag(ctx, port, &Owner::port(port), checksum, TAG_CROSS)?;
    Ok(slot)
}

/// May IPv4 between these addresses be routed here?
#[inline(always)]
fn route_v4(conf: &PortConf, ns: u32, src: [u8; 4], dst: [u8; 4]) -> Result<(), PassReason> {
    if conf.flags & PORT_ROUTE_V4 == 0 {
        return Err(PassReason::NotRouted);
    }
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
fn route_v6(conf: &PortConf, ns: u32, src: [u8; 16], dst: [u8; 16]) -> Result<(), PassReason> {
    if conf.flags & PORT_ROUTE_V6 == 0 {
        return Err(PassReason::NotRouted);
    }
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
fn tag(
    ctx: &XdpContext,
    port: u32,
    owner: &Owner,
    checksum: Checksum,
    flags: u16,
) -> Result<(), PassReason> {
    let mut tag = nsplane_abi::Tag {
        ns: owner.ns,
        port: port as u16,
        generation: globals::GENERATION.load() as u16,
        flags: checksum.flags | owner.flags | flags,
        csum_start: checksum.start,
        csum_offset: checksum.offset,
        member: 0,
    };
    let written = if owner.flags == 0 {
        packet::write_in_front(ctx, tag)
    } else {
        tag.member = owner.number as u16;
        packet::write_both_in_front(ctx, owner.tag, tag)
    };
    written.ok_or(PassReason::NoRoom)
}

/// Hands the packet to the socket. Between the look at the slot and here it may
/// have been emptied: then it is done with the packet what is said `otherwise`.
#[inline(always)]
fn redirect(slot: u32, otherwise: u32) -> (PassReason, u32) {
    match maps::XSKS.redirect(slot, u64::from(otherwise)) {
        Ok(_) => (PassReason::Redirected, XDP_REDIRECT),
        Err(_) => (PassReason::NoSocket, otherwise),
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here panics; the verifier would not accept this loop if it were reachable.
    loop {}
}
