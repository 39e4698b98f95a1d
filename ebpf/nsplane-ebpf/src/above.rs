//! Whether the device that the kernel has for a member's frames is where it was when the
//! member was made: asked of the kernel's own state, for each frame, at the moment that
//! the frame arrives.
//!
//! A macvlan or a VLAN may move to another namespace at any time, and no socket of it is
//! unbound by that. What is asked here is what the kernel itself asks (`macvlan_handle_frame`
//! in drivers/net/macvlan.c, `vlan_do_receive` in net/8021q/vlan_core.c), by the same
//! tables. A device leaves them, or is down, before it moves, and the kernel waits for an
//! RCU grace period meanwhile, which a running program holds up. So a frame for which the
//! answer was yes arrived while the device was there.
//!
//! Whatever cannot be read or is not found is a no: then the frame passes, and the kernel
//! does with it what its state says.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::programs::XdpContext;
use nsplane_abi::headers::{Bytes, eth};
use nsplane_abi::layout::{LAYOUT_MACVLAN, LAYOUT_VLAN, Layout, VLAN_PART_LEN, VLAN_PARTS};
use nsplane_abi::member::MemberEntry;
use nsplane_abi::vlan::{DOT1AD, Tags};

use crate::maps;
use crate::memory::read;
use crate::packet::Packet;

/// `net_device.flags`: the device is up (include/uapi/linux/if.h).
const IFF_UP: u32 = 1;
/// Macvlans of one bucket that are looked at. There are 256 buckets.
const DEPTH: usize = 16;
/// Bytes of a pointer.
const POINTER: u32 = 8;

/// True: the kernel would give the frame to the member's device.
#[inline(always)]
pub(crate) fn is_there(ctx: &XdpContext, entry: &MemberEntry, packet: &Packet, tags: Tags) -> bool {
    let Some(layout) = maps::layout() else { return false };
    let rxq: u64 = read(ctx.as_ptr() as u64, layout.xdp_rxq);
    let dev: u64 = read(rxq, layout.rxq_dev);
    let above = if tags.outer.0 == 0 {
        let Some(mac) = packet.load(eth::DST) else { return false };
        macvlan(layout, dev, entry.bucket, mac)
    } else if tags.inner.0 == 0 {
        vlan(layout, dev, tags.outer)
    } else {
        let outer = vlan(layout, dev, tags.outer);
        if outer == 0 || !is_up(layout, outer) {
            return false;
        }
        vlan(layout, outer, tags.inner)
    };
    above != 0
        && is_up(layout, above)
        && read::<u32>(above, layout.dev_ifindex) == entry.ifindex
        && read::<u64>(read(above, layout.dev_net), layout.net_cookie) == entry.cookie
}

#[inline(always)]
fn is_up(layout: &Layout, dev: u64) -> bool {
    read::<u32>(dev, layout.dev_flags) & IFF_UP != 0
}

/// The macvlan of a device that has an address; 0 if there is none. One that is down is
/// not in the table.
#[inline(always)]
fn macvlan(layout: &Layout, dev: u64, bucket: u32, mac: [u8; 6]) -> u64 {
    if layout.known & LAYOUT_MACVLAN == 0 {
        return 0;
    }
    let port: u64 = read(dev, layout.dev_rx_data);
    // A bridge's or bond's data would lie there just so, and mean something else.
    if port == 0 || read::<u64>(port, layout.macvlan_port_dev) != dev {
        return 0;
    }
    let mut node: u64 = read(port, layout.macvlan_port_hash + bucket * POINTER);
    for _ in 0..DEPTH {
        if node == 0 {
            return 0;
        }
        let this = node.wrapping_sub(u64::from(layout.macvlan_hlist));
        let above: u64 = read(this, layout.macvlan_dev);
        let addr: [u8; 6] = read(read(above, layout.dev_addr), 0);
        if addr == mac {
            return if read::<u64>(this, layout.macvlan_port) == port { above } else { 0 };
        }
        node = read(node, 0);
    }
    0
}

/// The VLAN device of a device for a tag; 0 if there is none.
#[inline(always)]
fn vlan(layout: &Layout, dev: u64, (proto, id): (u16, u16)) -> u64 {
    if layout.known & LAYOUT_VLAN == 0 {
        return 0;
    }
    let info: u64 = read(dev, layout.dev_vlans);
    let kind = if proto == DOT1AD { VLAN_PARTS } else { 0 };
    let part = kind + u32::from(id) / VLAN_PART_LEN;
    let devices: u64 = if info == 0 { 0 } else { read(info, layout.vlan_arrays + part * POINTER) };
    if devices == 0 { 0 } else { read(devices, u32::from(id) % VLAN_PART_LEN * POINTER) }
}
