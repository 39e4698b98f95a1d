//! Whether something was mounted or unmounted.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// The mounts that this process sees.
#[derive(Debug)]
pub struct Mounts(File);

impl Mounts {
    /// Those of the process' mount namespace.
    ///
    /// # Errors
    /// There is no /proc.
    pub fn open() -> io::Result<Self> {
        File::open("/proc/self/mountinfo").map(Self)
    }

    /// They are others than at the last call, or since opening. Does not wait.
    ///
    /// # Errors
    /// `poll` failed.
    pub fn changed(&self) -> io::Result<bool> {
        // Readable it is always; a change is announced as urgent (proc(5), since Linux 2.6.15).
        let mut fd = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLPRI, revents: 0 };
        // SAFETY: the one entry lives through the call.
        let n = unsafe { libc::poll(&raw mut fd, 1, 0) };
        if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n > 0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_that_stay_are_no_change() {
        let mounts = Mounts::open().unwrap();
        // Other processes of this machine may mount something between two calls.
        assert!((0..100).any(|_| !mounts.changed().unwrap()));
    }
}
