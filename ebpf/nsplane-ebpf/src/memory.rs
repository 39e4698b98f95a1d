//! Reads of the kernel's own memory, at places that the loader knows from its BTF.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

/// Reads kernel memory at `base + at`; all zero if that is not readable.
#[inline(always)]
pub(crate) fn read<T: Copy>(base: u64, at: u32) -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    let from = base.wrapping_add(u64::from(at));
    // SAFETY: the helper writes `T`'s bytes to `value`, and checks the source itself.
    unsafe {
        bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, from as *const _)
    };
    // SAFETY: zeroed at first, and the helper zeroes it again where it fails; only
    // integers are read, for which all bytes are valid.
    unsafe { value.assume_init() }
}
