//! Limits of this process.

use std::io;

/// Raises the soft limit of open files to the hard one: a namespace takes five
/// descriptors, a port three, and the usual soft limit of 1024 is soon used up.
/// Returns the limit that holds now.
///
/// # Errors
/// `getrlimit` or `setrlimit` failed.
pub fn raise_open_files() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the struct lives through the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the struct lives through the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raising_twice_changes_nothing_more() {
        assert_eq!(raise_open_files().unwrap(), raise_open_files().unwrap());
    }
}
