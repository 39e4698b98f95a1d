//! Putting a packet into the stack in a socket buffer of its own size.
//!
//! What `inject` is given takes a page, however short it is, and the kernel bounds what it
//! keeps by the memory that it takes: packets that wait for a neighbour, or for a reader.
//! Here `BPF_PROG_RUN` has made a socket buffer of the packet already.

use aya_ebpf::bindings::BPF_F_INGRESS;
use aya_ebpf::helpers::generated::bpf_clone_redirect;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

/// Run by `BPF_PROG_RUN` on a packet of the device that it shall be received on. 0 where
/// the stack took it.
///
/// The packet does not meet a native XDP program again; a generic one it would.
#[classifier]
fn inject_short(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the context is the one this program was called with.
    let ifindex = unsafe { (*skb).ifindex };
    // SAFETY: as above.
    unsafe { bpf_clone_redirect(skb, ifindex, u64::from(BPF_F_INGRESS)) as i32 }
}
