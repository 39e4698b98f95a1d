//! The packet as the verifier follows it: two pointers, and reads between them.

use core::mem::size_of;

use aya_ebpf::helpers::bpf_xdp_adjust_meta;
use aya_ebpf::programs::XdpContext;
use nsplane_abi::Tag;
use nsplane_abi::headers::Bytes;
use nsplane_abi::tag::TAG_LEN;

/// The part of the frame that lies in one piece behind its first byte.
pub(crate) struct Packet {
    start: usize,
    end: usize,
}

impl Packet {
    #[inline(always)]
    pub(crate) fn new(ctx: &XdpContext) -> Self {
        Self { start: ctx.data(), end: ctx.data_end() }
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
        self.end - self.start
    }
}

/// Makes room in front of the packet and writes the tag there; None if the driver
/// has no room. Pointers into the packet taken before are void after this.
#[inline(always)]
pub(crate) fn write_in_front(ctx: &XdpContext, tag: Tag) -> Option<()> {
    // SAFETY: the context is the one this program was called with.
    if unsafe { bpf_xdp_adjust_meta(ctx.ctx, -(TAG_LEN as i32)) } != 0 {
        return None;
    }
    let meta = ctx.metadata();
    if meta + size_of::<Tag>() > ctx.data() {
        return None;
    }
    // SAFETY: the metadata area has room for a tag, as just checked; its alignment
    // is whatever the packet's is.
    unsafe { (meta as *mut Tag).write_unaligned(tag) };
    Some(())
}
