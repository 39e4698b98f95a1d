//! Putting a packet into the stack that is longer than what `inject` can be given.
//!
//! `BPF_PROG_RUN` makes an XDP frame of one page at most, and a socket buffer of little more;
//! but a program may make a socket buffer longer. So this one gets an Ethernet header to
//! begin with, fetches the packet from a map, and hands it to the device's receive side.

use aya_ebpf::bindings::BPF_F_INGRESS;
use aya_ebpf::helpers::generated::{bpf_clone_redirect, bpf_skb_change_tail, bpf_skb_store_bytes};
use aya_ebpf::macros::{classifier, map};
use aya_ebpf::maps::Array;
use aya_ebpf::programs::TcContext;
use nsplane_abi::long::{LongPacket, PIECE};

/// The packet that is to be injected now: there is one thread that does so.
#[map]
static LONG: Array<LongPacket> = Array::with_max_entries(1, 0);

/// Run by `BPF_PROG_RUN`, in the packet's namespace. 0 where the stack took the packet.
///
/// The packet does not meet a native XDP program again; a generic one it would.
#[classifier]
fn inject_long(ctx: TcContext) -> i32 {
    let Some(packet) = LONG.get(0) else { return -1 };
    let skb = ctx.skb.skb;
    // Whole pieces first, so that every write has a length that the verifier knows.
    let pieces = packet.len.div_ceil(PIECE as u32);
    // SAFETY: the context is the one this program was called with.
    if unsafe { bpf_skb_change_tail(skb, pieces * PIECE as u32, 0) } != 0 {
        return -2;
    }
    for (n, piece) in packet.pieces.iter().enumerate() {
        if n as u32 >= pieces {
            break;
        }
        let at = (n * PIECE) as u32;
        // SAFETY: as above; the piece is `PIECE` bytes of the map's value.
        let stored =
            unsafe { bpf_skb_store_bytes(skb, at, piece.as_ptr().cast(), PIECE as u32, 0) };
        if stored != 0 {
            return -3;
        }
    }
    // SAFETY: as above.
    if unsafe { bpf_skb_change_tail(skb, packet.len, 0) } != 0 {
        return -4;
    }
    // SAFETY: as above.
    unsafe { bpf_clone_redirect(skb, packet.ifindex, u64::from(BPF_F_INGRESS)) as i32 }
}
