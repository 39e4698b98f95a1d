//! One bound socket: made in its device's namespace, asked what it really got.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::bind::bind;
use super::region::Mode;
use super::{Error, Memory, Queue};
use crate::id::IfIndex;

/// `XDP_OPTIONS` and `XDP_MAX_TX_SKB_BUDGET` of `linux/if_xdp.h`.
const XDP_OPTIONS: libc::c_int = 8;
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
const XDP_OPTIONS_ZEROCOPY: u32 = 1;

/// A queue of a device, in the calling thread's namespace.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// The device's name.
    pub device: &'a str,
    /// The device's number, by which it is known; the name is what the library takes.
    pub ifindex: IfIndex,
    /// The queue.
    pub queue: u16,
}

/// A queue with what the kernel gave.
pub struct Bound {
    /// The rings.
    pub queue: Queue,
    /// Copy or zero-copy, as the kernel says (`XDP_OPTIONS`).
    pub mode: Mode,
    /// For the XSKMAP and for [`stats`]; valid as long as the queue lives.
    pub fd: RawFd,
    /// Frames that it was given to receive into.
    pub posted: usize,
}

/// Binds a queue. The calling thread must be in the device's namespace. Blocks for
/// some ten milliseconds, and for up to `patience` while the queue is busy: one that
/// was just given up is taken off the device by a work item of the kernel's, seen to
/// need up to 24 ms.
///
/// # Errors
/// The queue is held by another socket, the device cannot do the mode, another
/// device has its name now, or the kernel refused.
pub fn open(memory: &Memory, at: At<'_>, patience: Duration) -> Result<Bound, Error> {
    let At { device, ifindex, queue } = at;
    let end = Instant::now() + patience;
    let rings = loop {
        match bind(memory, device, queue) {
            Err(Error::QueueBusy { .. }) if Instant::now() < end => {
                sleep(Duration::from_millis(10));
            }
            other => break other?,
        }
    };
    // Names change hands; a socket on another device would send packets out of it.
    if number_of(device) != Some(ifindex) {
        return Err(Error::Renamed { device: device.to_owned(), ifindex: ifindex.0 });
    }
    let fd = rings.1.fd().as_raw_fd();
    // Kernels before 6.17 do not have it: then the budget stays 32 a call.
    let _ = set_u32(fd, XDP_MAX_TX_SKB_BUDGET, memory.options().ring_size);
    let flags = get_u32(fd, XDP_OPTIONS).map_err(|source| Error::Option {
        call: "getsockopt(XDP_OPTIONS)",
        device: device.to_owned(),
        source,
    })?;
    let mode = if flags & XDP_OPTIONS_ZEROCOPY != 0 { Mode::ZeroCopy } else { Mode::Copy };
    Ok(Bound { queue: Queue::new(memory.clone(), rings), mode, fd, posted: 0 })
}

/// What the kernel counted on a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SocketStats {
    /// Dropped on receive: no frame in the fill ring, or longer than a frame.
    pub rx_dropped: u64,
    /// Dropped on receive: RX ring full.
    pub rx_ring_full: u64,
    /// Times the fill ring was found empty.
    pub fill_ring_empty: u64,
    /// TX descriptors that the kernel found invalid.
    pub tx_invalid: u64,
}

/// Reads a socket's counters (`XDP_STATISTICS`).
///
/// # Errors
/// The socket is closed.
pub fn stats(fd: RawFd) -> io::Result<SocketStats> {
    let mut raw = [0u64; 6];
    get(fd, (libc::SOL_XDP, libc::XDP_STATISTICS), &mut raw)?;
    Ok(SocketStats {
        rx_dropped: raw[0],
        tx_invalid: raw[2],
        rx_ring_full: raw[3],
        fill_ring_empty: raw[4],
    })
}

/// The socket still has its device: it neither moved to another namespace nor was
/// deleted. Nothing else tells of that, but for a failing send. The answer "no" is
/// given once: it is the socket's pending error (`SO_ERROR`).
#[must_use]
pub fn has_device(fd: RawFd) -> bool {
    let mut error = 0;
    let read = get(fd, (libc::SOL_SOCKET, libc::SO_ERROR), &mut error);
    read.is_ok() && error != libc::ENETDOWN
}

fn number_of(device: &str) -> Option<IfIndex> {
    let name = CString::new(device).ok()?;
    // SAFETY: the name is a C string that lives through the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        n => Some(IfIndex(n)),
    }
}

fn set_u32(fd: RawFd, option: libc::c_int, value: u32) -> io::Result<()> {
    // SAFETY: `value` lives through the call, and the length is its size.
    let r = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_XDP,
            option,
            (&raw const value).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn get_u32(fd: RawFd, option: libc::c_int) -> io::Result<u32> {
    let mut value = 0;
    get(fd, (libc::SOL_XDP, option), &mut value)?;
    Ok(value)
}

fn get<T: Copy>(
    fd: RawFd,
    (level, option): (libc::c_int, libc::c_int),
    value: &mut T,
) -> io::Result<()> {
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` and `len` live through the call; the kernel writes at most
    // `len` bytes, and T is plain integers, for which every byte pattern is valid.
    let r = unsafe {
        libc::getsockopt(fd, level, option, std::ptr::from_mut(value).cast(), &raw mut len)
    };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
