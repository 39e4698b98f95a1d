//! What only the kernel's `sk_buff` knows of a packet: a VLAN tag kept beside it,
//! and a checksum that nobody has finished.
//!
//! Only veth in native mode has an `sk_buff` behind its `xdp_buff`
//! (`struct veth_xdp_buff`, drivers/net/veth.c); where it lies, and where its fields
//! are, the loader knows from the kernel's BTF and says in constants. When the
//! program runs, `skb->data` is the Ethernet header: veth pushes it back before.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::programs::XdpContext;
use nsplane_abi::PassReason;
use nsplane_abi::tag::TAG_CSUM_PARTIAL;

use crate::globals;
use crate::memory::read;

/// `ip_summed` of a packet whose checksum is unfinished (include/linux/skbuff.h).
const CHECKSUM_PARTIAL: u8 = 3;
/// Where an unfinished SCTP checksum is stored, from the start of SCTP's header.
/// It is a CRC; TCP's and UDP's sums lie elsewhere.
const SCTP_CHECKSUM: u16 = 8;

/// The checksum's state, in the tag's terms.
#[derive(Clone, Copy, Default)]
pub(crate) struct Checksum {
    pub(crate) flags: u16,
    pub(crate) start: u16,
    pub(crate) offset: u16,
}

/// Address of the packet's `sk_buff`; 0 if it has none (a NIC's frame, or one that
/// another XDP program redirected to the veth).
#[inline(always)]
pub(crate) fn beside(ctx: &XdpContext) -> u64 {
    match globals::XDP_SKB.load() {
        0 => 0,
        at => read(ctx.as_ptr() as u64, at),
    }
}

/// Whether a VLAN tag is kept beside the packet.
#[inline(always)]
pub(crate) fn has_vlan(skb: u64) -> bool {
    skb != 0 && read::<u32>(skb, globals::SKB_VLAN_ALL.load()) != 0
}

/// The VLAN tag that is kept beside the packet: Ethertype and TCI.
#[inline(always)]
pub(crate) fn vlan(skb: u64) -> Option<(u16, u16)> {
    if skb == 0 {
        return None;
    }
    // `vlan_proto` is in network byte order, `vlan_tci` behind it is not.
    let [a, b, c, d] = read::<u32>(skb, globals::SKB_VLAN_ALL.load()).to_ne_bytes();
    let proto = u16::from_be_bytes([a, b]);
    if proto == 0 { None } else { Some((proto, u16::from_ne_bytes([c, d]))) }
}

/// Whether the kernel has notes of the packet (an unfinished checksum, segments to be
/// cut apart) that cannot be read here.
#[inline(always)]
pub(crate) fn is_hidden() -> bool {
    globals::GENERIC.load() != 0 || globals::CSUM_UNKNOWN.load() != 0
}

/// The checksum's state. Fails where it is not the Internet's sum.
#[inline(always)]
pub(crate) fn checksum(skb: u64) -> Result<Checksum, PassReason> {
    if skb == 0 {
        return Ok(Checksum::default());
    }
    let summed: u8 = read(skb, globals::SKB_IP_SUMMED.load());
    if (summed >> (globals::SKB_IP_SUMMED_SHIFT.load() & 7)) & 3 != CHECKSUM_PARTIAL {
        return Ok(Checksum::default());
    }
    let offset: u16 = read(skb, globals::SKB_CSUM_OFFSET.load());
    if offset == SCTP_CHECKSUM {
        return Err(PassReason::Checksum);
    }
    // csum_start counts from the buffer's head; the tag counts from the packet.
    let from_head: u16 = read(skb, globals::SKB_CSUM_START.load());
    let head: u64 = read(skb, globals::SKB_HEAD.load());
    let data: u64 = read(skb, globals::SKB_DATA.load());
    let start = u64::from(from_head).wrapping_sub(data.wrapping_sub(head)) as u16;
    Ok(Checksum { flags: TAG_CSUM_PARTIAL, start, offset })
}
