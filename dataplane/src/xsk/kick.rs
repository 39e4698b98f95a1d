//! Making the kernel send: `sendto`, and what its answers mean.
//!
//! In copy mode the kernel sends only inside the call, up to its budget. Its
//! answers (net/xdp/xsk.c):
//!
//! | answer | meaning | what we do |
//! |---|---|---|
//! | 0 | done, or stopped behind an invalid descriptor | look at the ring again |
//! | `EAGAIN` | budget used up, completion ring full, or the device is busy | again |
//! | `EBUSY` | one packet was dropped *and completed*; the rest waits | count, again |
//! | `ENOBUFS` | no memory for a socket buffer | later |
//! | `ENETDOWN` | link down: frames wait in the ring | when there is more to send |
//! | `ENXIO` | the socket lost its device | dead |

use std::io;
use std::os::fd::RawFd;

/// What a kick did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kick {
    /// System calls made.
    pub calls: u32,
    /// Packets that the kernel completed without sending them.
    pub refused: u32,
    /// Frames are still in the ring; kick again later.
    pub pending: bool,
    /// The socket lost its device.
    pub dead: bool,
}

/// Calls without progress before a kick gives up for this round.
const PATIENCE: u32 = 4;

/// Calls `sendto` until the ring is empty or no progress is made. `left` says how
/// many descriptors the kernel has not taken yet.
pub(super) fn kick(fd: RawFd, mut left: impl FnMut() -> u32) -> Kick {
    let mut done = Kick::default();
    let mut before = left();
    let mut idle = 0;
    while before > 0 && idle < PATIENCE {
        done.calls += 1;
        match send(fd) {
            Ok(()) | Err(libc::EAGAIN) => {}
            Err(libc::EBUSY) => done.refused += 1,
            Err(libc::ENETDOWN) => return done,
            Err(libc::ENXIO) => {
                done.dead = true;
                return done;
            }
            // ENOBUFS, EINVAL and whatever a newer kernel may say: nothing moves, so
            // stop and try again later.
            Err(_) => break,
        }
        let now = left();
        idle = if now == before { idle + 1 } else { 0 };
        before = now;
    }
    done.pending = before > 0;
    done
}

fn send(fd: RawFd) -> Result<(), i32> {
    // SAFETY: no buffer and no address are passed.
    let r =
        unsafe { libc::sendto(fd, std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
    if r >= 0 { Ok(()) } else { Err(io::Error::last_os_error().raw_os_error().unwrap_or(0)) }
}

/// Wakes the driver for the fill ring (zero-copy drivers that sleep).
pub(super) fn wake_rx(fd: RawFd) {
    // SAFETY: no buffer and no address are passed.
    unsafe {
        libc::recvfrom(
            fd,
            std::ptr::null_mut(),
            0,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
}
