//! What can go wrong on the cold path, and on which device.

use std::io;

/// An AF_XDP operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The options do not fit each other.
    #[error("memory for frames: {0}")]
    Options(String),
    /// The memory could not be mapped or registered (`XDP_UMEM_REG`).
    #[error(
        "registering {mib} MiB of memory with the kernel (XDP_UMEM_REG) failed{}",
        if source.raw_os_error() == Some(libc::ENOBUFS) {
            " (use fewer --frames, raise RLIMIT_MEMLOCK, or give CAP_IPC_LOCK)"
        } else {
            ""
        }
    )]
    Register {
        /// Size asked for.
        mib: u64,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel has no AF_XDP (`socket(AF_XDP)` fails).
    #[error(
        "this kernel has no AF_XDP sockets (CONFIG_XDP_SOCKETS is needed): socket(AF_XDP): {0}"
    )]
    NoAfXdp(io::Error),
    /// Somebody else has the queue.
    #[error(
        "queue {queue} of {device} is held by another AF_XDP socket \
         (stop the program that has it, or choose others with --device)"
    )]
    QueueBusy {
        /// The device.
        device: String,
        /// The queue.
        queue: u16,
    },
    /// The device or its driver cannot do what was asked for.
    #[error("queue {queue} of {device} cannot be bound in {mode} mode{}", other(mode))]
    Unsupported {
        /// The device.
        device: String,
        /// The queue.
        queue: u16,
        /// "copy" or "zero-copy".
        mode: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The socket that the zero-copy memory was registered with is no longer bound, or
    /// (for the library says `ENOMEM` to that, too) there is no memory for the rings.
    #[error(
        "queue {queue} of {device} cannot share the zero-copy memory; if the device that became \
         a port first was deleted or moved, nsplane has to be restarted"
    )]
    NotShared {
        /// The device.
        device: String,
        /// The queue.
        queue: u16,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The device has another name by now, or is gone.
    #[error("{device} is no longer the name of device {ifindex}")]
    Renamed {
        /// The name.
        device: String,
        /// The device's number.
        ifindex: u32,
    },
    /// Any other failure of `bind`.
    #[error("binding an AF_XDP socket to queue {queue} of {device} failed")]
    Bind {
        /// The device.
        device: String,
        /// The queue.
        queue: u16,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A socket option could not be read or set.
    #[error("{call} on the socket of {device} failed")]
    Option {
        /// The call and its option.
        call: &'static str,
        /// The device.
        device: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

fn other(mode: &str) -> &'static str {
    if mode == "copy" { "" } else { " (use --bind copy)" }
}
