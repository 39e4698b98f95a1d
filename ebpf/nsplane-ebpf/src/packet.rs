//! The packet as the verifier follows it: two pointers, and reads between them.

use core::mem::size_of;

use aya_ebpf::helpers::bpf_xdp_adjust_meta;
use aya_ebpf::programs::XdpContext;
use nsplane_abi::headers::Bytes;
use nsplane_abi::{MemberTag, Tag};

/// A frame: the part that lies in one piece behind its first byte, which can be read,
/// and how long the whole of it is.
pub(crate) struct Packet {
    start: usize,
    end: usize,
    len: u64,
}

impl Packet {
    /// `len` is that of the whole frame.
    #[inline(always)]
    pub(crate) fn new(ctx: &XdpContext, len: u64) -> Self {
        Self { start: ctx.data(), end: ctx.data_end(), len }
    }
}

impl Bytes for Packet {
    #[inline(always)]
    fn load<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        if self.start + at + N > self.end {
            return None;
        }
        // SAFETY: the bytes lie between the packet's start and end; they have no
        // alignment to keep.
        Some(unsafe { *((self.start + at) as *const [u8; N]) })
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.len as usize
    }
}

/// Makes room in front of the packet and writes the tag there; None if the driver
/// has no room. Pointers into the packet taken before are void after this.
#[inline(always)]
pub(crate) fn write_in_front(ctx: &XdpContext, tag: Tag) -> Option<()> {
    put(ctx, tag)
}

/// The same with a member's tag below.
#[inline(always)]
pub(crate) fn write_both_in_front(ctx: &XdpContext, member: MemberTag, tag: Tag) -> Option<()> {
    put(ctx, Both { member, tag })
}

/// A member's tag and the tag, as they lie in front of the packet.
#[repr(C)]
struct Both {
    member: MemberTag,
    tag: Tag,
}

#[inline(always)]
fn put<T>(ctx: &XdpContext, value: T) -> Option<()> {
    // SAFETY: the context is the one this program was called with.
    if unsafe { bpf_xdp_adjust_meta(ctx.ctx, -(size_of::<T>() as i32)) } != 0 {
        return None;
    }
    let meta = ctx.metadata();
    if meta + size_of::<T>() > ctx.data() {
        return None;
    }
    // SAFETY: the metadata area has room for the value, as just checked; its alignment
    // is whatever the packet's is.
    unsafe { (meta as *mut T).write_unaligned(value) };
    Some(())
}
