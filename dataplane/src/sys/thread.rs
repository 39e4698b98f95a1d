//! Threads: names, processors, time.

use std::io;

/// Pins the calling thread to one processor.
///
/// # Errors
/// `sched_setaffinity` refused: no such processor, or not in this process' set.
pub fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // CPU_SET indexes without a check of its own.
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: the index is below CPU_SETSIZE.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the set lives through the call, and the size is its own.
    let r = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The processors this process may run on, in ascending order.
///
/// # Errors
/// `sched_getaffinity` failed.
pub fn processors() -> io::Result<Vec<usize>> {
    // SAFETY: an all-zero cpu_set_t is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set lives through the call, and the size is its own.
    let r = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    if r != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the index is below CPU_SETSIZE.
    let has = |cpu: usize| unsafe { libc::CPU_ISSET(cpu, &set) };
    Ok((0..libc::CPU_SETSIZE as usize).filter(|&c| has(c)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_that_does_not_exist_is_refused() {
        assert!(pin(usize::MAX).is_err());
        assert!(!processors().unwrap().is_empty());
    }
}
