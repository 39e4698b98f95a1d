//! What this kernel's AF_XDP can do.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;

use super::Error;

/// `XDP_USE_SG` of `linux/if_xdp.h`.
const XDP_USE_SG: u16 = 1 << 4;

/// Says clearly when the kernel has no AF_XDP at all.
pub(super) fn probe_af_xdp() -> Result<(), Error> {
    socket().map(drop).map_err(Error::NoAfXdp)
}

/// The kernel knows packets of several frames (since 6.6).
///
/// It looks at the flags of a bind before it looks for the device: so a bind to a device
/// that cannot exist tells.
pub(super) fn has_multi_buffer() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        let Ok(socket) = socket() else { return false };
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: XDP_USE_SG,
            sxdp_ifindex: i32::MAX as u32,
            sxdp_queue_id: 0,
            sxdp_shared_umem_fd: 0,
        };
        // SAFETY: the address lives through the call and has the length given.
        let bound = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_xdp>() as libc::socklen_t,
            )
        };
        bound < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ENODEV)
    })
}

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: plain system call without pointers.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was made above and is used by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_is_answered_alike_each_time() {
        assert_eq!(has_multi_buffer(), has_multi_buffer());
    }
}
