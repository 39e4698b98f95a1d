//! Waiting for sockets and being woken: epoll and eventfd.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// A set of file descriptors to wait for, and a bell.
#[derive(Debug)]
pub struct Poll {
    epoll: OwnedFd,
    bell: Bell,
}

/// Ends a [`Poll::wait`] from another thread.
#[derive(Clone, Debug)]
pub struct Bell(Arc<OwnedFd>);

impl Bell {
    fn new() -> io::Result<Self> {
        // SAFETY: plain system call.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        Ok(Self(Arc::new(own(fd)?)))
    }

    /// Rings. Never blocks: a bell that nobody has heard yet stays rung.
    pub fn ring(&self) {
        let one = 1u64;
        // SAFETY: the buffer lives through the call and has the length given.
        let _ = unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    fn hush(&self) {
        let mut count = 0u64;
        // SAFETY: the buffer lives through the call and has the length given.
        let _ = unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), 8) };
    }
}

impl Poll {
    /// An empty set.
    ///
    /// # Errors
    /// `epoll_create1` or `eventfd` failed.
    pub fn new() -> io::Result<Self> {
        // SAFETY: plain system call.
        let epoll = own(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        let poll = Self { epoll, bell: Bell::new()? };
        poll.add(poll.bell.0.as_raw_fd())?;
        Ok(poll)
    }

    /// The bell of this set.
    #[must_use]
    pub fn bell(&self) -> Bell {
        self.bell.clone()
    }

    /// Waits for `fd` to be readable, too. A descriptor that is closed leaves the
    /// set by itself.
    ///
    /// # Errors
    /// `epoll_ctl` failed.
    pub fn add(&self, fd: RawFd) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: fd as u64 };
        self.control(libc::EPOLL_CTL_ADD, fd, &mut event)
    }

    /// No longer waits for `fd`.
    ///
    /// # Errors
    /// `epoll_ctl` failed.
    pub fn remove(&self, fd: RawFd) -> io::Result<()> {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        self.control(libc::EPOLL_CTL_DEL, fd, &mut event)
    }

    fn control(&self, op: libc::c_int, fd: RawFd, event: &mut libc::epoll_event) -> io::Result<()> {
        // SAFETY: the event lives through the call.
        let r = unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), op, fd, event) };
        if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Waits until a descriptor is readable, the bell rings, or `timeout` is over.
    pub fn wait(&self, timeout: Duration) {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 8];
        let ms = timeout.as_millis().min(60_000) as libc::c_int;
        // SAFETY: the array lives through the call and has the length given.
        let n = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr(), 8, ms) };
        let bell = self.bell.0.as_raw_fd() as u64;
        let rang = events.iter().take(n.max(0) as usize).any(|e| e.u64 == bell);
        if rang {
            self.bell.hush();
        }
    }
}

fn own(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the system call above made the descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn the_bell_ends_a_wait_once() {
        let poll = Poll::new().unwrap();
        poll.bell().ring();
        let start = Instant::now();
        poll.wait(Duration::from_secs(20));
        assert!(start.elapsed() < Duration::from_secs(10), "the bell was not heard");
        let start = Instant::now();
        poll.wait(Duration::from_millis(20));
        assert!(start.elapsed() >= Duration::from_millis(15), "the bell rang twice");
    }
}
