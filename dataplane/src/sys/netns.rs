//! Network namespaces: enter one, make one, tell which one it is.
//!
//! Everything here acts on the calling *thread*; `crate::netns` keeps such
//! threads apart from those that must stay where they are.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use thiserror::Error;

/// `SO_NETNS_COOKIE` of include/uapi/asm-generic/socket.h (Linux 5.14).
const SO_NETNS_COOKIE: libc::c_int = 71;
/// Magic number of the file system that namespace files live in.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// A system call that failed.
#[derive(Debug, Error)]
#[error("{call}: {source}")]
pub struct Error {
    /// The call, with what tells it from others of its name.
    pub call: &'static str,
    /// What the kernel said.
    pub source: io::Error,
}

impl Error {
    /// The kernel refused for want of a capability.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        matches!(self.source.raw_os_error(), Some(libc::EPERM | libc::EACCES))
    }

    /// The error of the call that just failed on this thread.
    pub(super) fn last(call: &'static str) -> Self {
        Self { call, source: io::Error::last_os_error() }
    }
}

/// Turns a system call's return value into a result.
pub(super) fn check(call: &'static str, ret: libc::c_int) -> Result<libc::c_int, Error> {
    if ret < 0 { Err(Error::last(call)) } else { Ok(ret) }
}

/// Moves the calling thread into the network namespace of `fd`.
///
/// # Errors
/// `EINVAL` where `fd` is no network namespace, `EPERM` without `CAP_SYS_ADMIN`.
pub fn enter(fd: BorrowedFd<'_>) -> Result<(), Error> {
    // SAFETY: setns takes no pointers; the descriptor is open while it is borrowed.
    check("setns(CLONE_NEWNET)", unsafe { libc::setns(fd.as_raw_fd(), libc::CLONE_NEWNET) })?;
    Ok(())
}

/// Moves the calling thread into a new network namespace.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`; `ENOSPC` where the limit of namespaces is reached.
pub fn unshare() -> Result<(), Error> {
    // SAFETY: unshare takes no pointers.
    check("unshare(CLONE_NEWNET)", unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
    Ok(())
}

/// Is the open file a network namespace?
///
/// Two checks: its file system is nsfs, and the namespace is one of networks.
///
/// # Errors
/// Where `fstatfs` fails.
pub fn is_netns(fd: BorrowedFd<'_>) -> Result<bool, Error> {
    // SAFETY: statfs is plain data; all-zero is a valid value of it.
    let mut st: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open while it is borrowed, `st` is ours to be written.
    check("fstatfs", unsafe { libc::fstatfs(fd.as_raw_fd(), &raw mut st) })?;
    if st.f_type as u64 != NSFS_MAGIC {
        return Ok(false);
    }
    // SAFETY: NS_GET_NSTYPE takes no argument and answers by its return value.
    let kind = unsafe { libc::ioctl(fd.as_raw_fd(), libc::NS_GET_NSTYPE) };
    Ok(kind == libc::CLONE_NEWNET)
}

/// The cookie of the calling thread's network namespace: unique while the
/// machine runs, never given to another namespace.
///
/// # Errors
/// `ENOPROTOOPT` on a kernel before 5.14.
pub fn cookie() -> Result<u64, Error> {
    let socket = any_socket()?;
    let mut cookie = 0_u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: `cookie` and `len` are ours, and `len` says how much room there is.
    let ret = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    check("getsockopt(SO_NETNS_COOKIE)", ret)?;
    Ok(cookie)
}

/// Sets `lo` of the calling thread's namespace up.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN` in the namespace.
pub fn loopback_up() -> Result<(), Error> {
    let socket = any_socket()?;
    // SAFETY: ifreq is plain data; all-zero is a valid value of it.
    let mut req: libc::ifreq = unsafe { std::mem::zeroed() };
    req.ifr_name[0] = b'l' as libc::c_char;
    req.ifr_name[1] = b'o' as libc::c_char;
    req.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which `req` is.
    let ret = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const req) };
    check("ioctl(SIOCSIFFLAGS) on lo", ret)?;
    Ok(())
}

/// Lets a socket's receive buffer grow to `bytes`, beyond the system's limit
/// where the caller may (`CAP_NET_ADMIN`), else up to it.
///
/// # Errors
/// Where `setsockopt` fails for another reason than that.
pub fn receive_buffer(socket: BorrowedFd<'_>, bytes: u32) -> Result<(), Error> {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    let set = |option| {
        // SAFETY: the option is an int, read from `value`, which outlives the call.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const value).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        }
    };
    if set(libc::SO_RCVBUFFORCE) == 0 {
        return Ok(());
    }
    check("setsockopt(SO_RCVBUF)", set(libc::SO_RCVBUF))?;
    Ok(())
}

/// A socket that is good for asking the kernel about the thread's namespace.
pub(super) fn any_socket() -> Result<OwnedFd, Error> {
    // SAFETY: socket takes no pointers.
    let fd = check("socket(AF_UNIX)", unsafe {
        libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)
    })?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn an_ordinary_file_is_no_namespace() {
        let file = std::fs::File::open("/proc/self/status").unwrap();
        assert!(!is_netns(file.as_fd()).unwrap());
    }

    #[test]
    fn only_network_namespaces_count() {
        let net = std::fs::File::open("/proc/self/ns/net").unwrap();
        assert!(is_netns(net.as_fd()).unwrap());
        let uts = std::fs::File::open("/proc/self/ns/uts").unwrap();
        assert!(!is_netns(uts.as_fd()).unwrap());
    }

    #[test]
    fn a_thread_that_does_not_move_keeps_its_cookie() {
        assert_eq!(cookie().unwrap(), cookie().unwrap());
    }
}
