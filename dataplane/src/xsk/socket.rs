//! One bound socket: made in its device's namespace, asked what it really got.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::region::{Mode, bind};
use super::{Error, Memory, Queue};

/// `XDP_OPTIONS` and `XDP_MAX_TX_SKB_BUDGET` of `linux/if_xdp.h`.
const XDP_OPTIONS: libc::c_int = 8;
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
const XDP_OPTIONS_ZEROCOPY: u32 = 1;

/// How long a queue that was just given up may stay busy: the kernel takes it off
/// the device in a work item, seen to need up to 24 ms.
const REBIND: Duration = Duration::from_millis(300);

/// A queue with what the kernel gave.
pub struct Bound {
    /// The rings.
    pub queue: Queue,
    /// Copy or zero-copy, as the kernel says (`XDP_OPTIONS`).
    pub mode: Mode,
    /// For the XSKMAP and for [`stats`]; valid as long as the queue lives.
    pub fd: RawFd,
}

/// Binds queue `queue` of `device`. The calling thread must be in the device's
/// namespace. Blocks for some ten milliseconds.
///
/// # Errors
/// The queue is held by another socket, the device cannot do the mode, or the
/// kernel refused.
pub fn open(memory: &Memory, device: &str, queue: u16) -> Result<Bound, Error> {
    let end = Instant::now() + REBIND;
    let rings = loop {
        match bind(memory, device, queue) {
            Err(Error::QueueBusy { .. }) if Instant::now() < end => {
                sleep(Duration::from_millis(10));
            }
            other => break other?,
        }
    };
    let fd = rings.1.fd().as_raw_fd();
    // Kernels before 6.17 do not have it: then the budget stays 32 a call.
    let _ = set_u32(fd, XDP_MAX_TX_SKB_BUDGET, memory.options().ring_size);
    let flags = get_u32(fd, XDP_OPTIONS).map_err(|source| Error::Option {
        call: "getsockopt(XDP_OPTIONS)",
        device: device.to_owned(),
        source,
    })?;
    let mode = if flags & XDP_OPTIONS_ZEROCOPY != 0 { Mode::ZeroCopy } else { Mode::Copy };
    Ok(Bound { queue: Queue::new(memory.clone(), rings), mode, fd })
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
    get(fd, libc::XDP_STATISTICS, &mut raw)?;
    Ok(SocketStats {
        rx_dropped: raw[0],
        tx_invalid: raw[2],
        rx_ring_full: raw[3],
        fill_ring_empty: raw[4],
    })
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
    get(fd, option, &mut value)?;
    Ok(value)
}

fn get<T: Copy>(fd: RawFd, option: libc::c_int, value: &mut T) -> io::Result<()> {
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` and `len` live through the call; the kernel writes at most
    // `len` bytes, and T is plain integers, for which every byte pattern is valid.
    let r = unsafe {
        libc::getsockopt(fd, libc::SOL_XDP, option, std::ptr::from_mut(value).cast(), &raw mut len)
    };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
