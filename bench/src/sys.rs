//! Pinning a thread, and giving it the right of way.

use std::io;
use std::mem;

/// Keeps the calling thread on one CPU.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    if cpu >= 8 * mem::size_of::<libc::cpu_set_t>() {
        return Err(io::Error::other(format!("sched_setaffinity: there is no CPU {cpu}")));
    }
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: `cpu` is a bit of the set, checked above.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the set is valid for its size and outlives the call; 0 is this thread.
    let result = unsafe { libc::sched_setaffinity(0, mem::size_of_val(&set), &raw const set) };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(io::Error::new(error.kind(), format!("sched_setaffinity to CPU {cpu}: {error}")))
}

/// Gives the calling thread the right of way over all ordinary ones. False where the
/// system does not let us.
pub(crate) fn hurry() -> bool {
    let how = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameter is valid and outlives the call; 0 is this thread.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const how) == 0 }
}
