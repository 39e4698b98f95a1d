//! System calls that no library wraps the way we need them. Unsafe is allowed
//! here and in `xsk`; each function is a safe, small wrapper that names its
//! system call in its error.

pub mod bpf;
pub mod cap;
pub mod cpu;
pub mod ethtool;
pub mod limits;
pub mod lines;
pub mod memory;
pub mod mounts;
pub mod netns;
pub mod poll;
pub mod programs;
pub mod readable;
pub mod thread;

/// Starts fetching what lies at `at`, if anything does, into the cache.
#[inline(always)]
pub fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch touches no memory that the program can see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
