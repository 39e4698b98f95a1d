//! Binding a socket to a queue.

use std::ffi::CString;
use std::io;

use xsk_rs::Socket;
use xsk_rs::config::{BindFlags, Interface, LibxdpFlags, SocketConfig};

use super::region::{Mode, Rings, bad, ring};
use super::{Error, Memory};

/// Binds a socket to a queue of a device in the calling thread's namespace.
pub(super) fn bind(memory: &Memory, device: &str, queue: u16) -> Result<Rings, Error> {
    let options = memory.options();
    let mut flags = match options.mode {
        Mode::Copy => BindFlags::XDP_COPY,
        Mode::ZeroCopy => BindFlags::XDP_ZEROCOPY,
    };
    flags.set(BindFlags::XDP_USE_SG, options.multi_buffer());
    let config = SocketConfig::builder()
        .rx_queue_size(ring(options.ring_size)?)
        .tx_queue_size(ring(options.ring_size)?)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(flags | BindFlags::XDP_USE_NEED_WAKEUP)
        .build();
    let name = Interface::new(CString::new(device).map_err(|e| bad(&e))?);
    // SAFETY: programs are never loaded by the library (flag above), which is
    // what its contract asks for when a queue is bound again.
    let made = unsafe { Socket::new(config, memory.umem(), &name, u32::from(queue)) };
    match made {
        Ok((tx, rx, Some((fill, comp)))) => Ok((tx, rx, fill, comp)),
        Ok((_, _, None)) => Err(Error::QueueBusy { device: device.to_owned(), queue }),
        Err(e) => Err(bind_error(device, queue, options.mode, &e)),
    }
}

fn bind_error(
    device: &str,
    queue: u16,
    mode: Mode,
    e: &xsk_rs::socket::SocketCreateError,
) -> Error {
    let source = std::error::Error::source(e)
        .and_then(|s| s.downcast_ref::<io::Error>())
        .and_then(io::Error::raw_os_error)
        .map_or_else(|| io::Error::other(e.to_string()), io::Error::from_raw_os_error);
    let device = device.to_owned();
    match source.raw_os_error() {
        Some(libc::EBUSY) => Error::QueueBusy { device, queue },
        // A zero-copy bind that a driver cannot do ends in one of these three.
        Some(libc::EOPNOTSUPP) => Error::Unsupported { device, queue, mode: mode.name(), source },
        Some(libc::EINVAL | libc::ENOENT) if mode == Mode::ZeroCopy => {
            Error::Unsupported { device, queue, mode: mode.name(), source }
        }
        // What the first device's going away leads to: a memory whose first socket is
        // used up, or is not bound (decision 4).
        Some(libc::ENOMEM | libc::EBADF) if mode == Mode::ZeroCopy => {
            Error::NotShared { device, queue, source }
        }
        _ => Error::Bind { device, queue, source },
    }
}
