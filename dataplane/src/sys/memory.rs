//! How the C library keeps memory.

/// Has all threads that are started from now on allocate from one heap.
///
/// glibc gives threads heaps of their own, up to eight a processor. Work in a namespace is done
/// by short-lived threads ([`crate::netns::Netns::run`]), each by the heap of the moment, and what
/// they make is freed elsewhere: the heaps fragment, one after the other, for as long as one can
/// watch (200 bytes for each device that moves). Nothing of ours allocates so often that
/// threads would wait for each other: workers do not at all.
pub fn one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: plain library call; it only changes how later threads choose their heap.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
