//! What can go wrong while namespaces and ports are set up.

use crate::{bpf, netlink, netns, xsk};

/// A set-up step that failed; nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// About a namespace.
    #[error(transparent)]
    Netns(#[from] netns::Error),
    /// Reading the namespace's state.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// Two selectors name one namespace.
    #[error("{first} and {second} are the same namespace")]
    SameNamespace {
        /// One name.
        first: String,
        /// The other.
        second: String,
    },
    /// `--device` names nothing.
    #[error("no device {device} that could be a port in {netns}; there are: {known}")]
    NoDevice {
        /// What was asked for.
        device: String,
        /// Where.
        netns: String,
        /// The eligible devices.
        known: String,
    },
    /// Frames are too small for the device's packets.
    #[error(
        "{device} in namespace {netns} has an MTU of {mtu} bytes, and a frame of {frame_size} has \
         room for one of {room} (use --frame-size 4096 for up to {most}, lower the MTU, or, on \
         Linux 6.6 and newer, use --bind copy)"
    )]
    MtuTooLarge {
        /// The device.
        device: String,
        /// Its namespace.
        netns: String,
        /// Its MTU.
        mtu: u32,
        /// Bytes a frame.
        frame_size: u32,
        /// MTU that fits.
        room: u32,
        /// MTU that fits the largest frames.
        most: u32,
    },
    /// The device hides VLAN tags from the XDP program.
    #[error(
        "{device} in namespace {netns} strips VLAN tags, so that tagged frames could not be told \
         from its own (`ethtool -K {device} rxvlan off` inside the namespace, or leave it out)"
    )]
    VlansStripped {
        /// The device.
        device: String,
        /// Its namespace.
        netns: String,
    },
    /// More queues than a port may have.
    #[error(
        "{device} in namespace {netns} has {queues} queues; a port may have {most} (ethtool -L)"
    )]
    TooManyQueues {
        /// The device.
        device: String,
        /// Its namespace.
        netns: String,
        /// Its queues.
        queues: u32,
        /// The limit.
        most: u32,
    },
    /// All port slots are taken.
    #[error("all {0} ports are in use (see --max-ports)")]
    PortsFull(usize),
    /// All of the memory is shared out.
    #[error(
        "all {frames} frames of memory are shared out to the ports there are (use more --frames)"
    )]
    MemoryFull {
        /// Frames in all.
        frames: u32,
    },
    /// All namespace slots are taken.
    #[error("all {0} namespaces are in use")]
    NamespacesFull(usize),
    /// AF_XDP.
    #[error("namespace {netns}: {source}")]
    Xsk {
        /// The namespace.
        netns: String,
        /// What failed.
        source: xsk::Error,
    },
    /// The XDP program.
    #[error("namespace {netns}: {}", advised(.source))]
    Bpf {
        /// The namespace.
        netns: String,
        /// What failed.
        source: bpf::Error,
    },
    /// A map of the XDP program.
    #[error("the XDP program's maps: {0}")]
    Map(#[source] bpf::Error),
    /// A worker thread does not answer.
    #[error("worker {0} does not answer")]
    WorkerSilent(u16),
}

impl Error {
    /// Something else has the device's queue, or the place of its program.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(
            self,
            Self::Xsk { source: xsk::Error::QueueBusy { .. }, .. }
                | Self::Bpf { source: bpf::Error::Busy { .. }, .. }
        )
    }
}

/// An error and its causes in one line, each once: some have their cause's words in
/// their own.
#[must_use]
pub fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(c) = cause {
        let words = c.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = c.source();
    }
    text
}

/// An error with what to do about it, where that is known.
pub fn advised(error: &bpf::Error) -> String {
    error.advice().map_or_else(|| error.to_string(), |advice| format!("{error} ({advice})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let source = std::io::Error::from_raw_os_error(libc::ENODEV);
        let words = source.to_string();
        let bind = xsk::Error::Bind { device: "eth0".to_owned(), queue: 3, source };
        let text = told(&Error::Xsk { netns: "blue".to_owned(), source: bind });
        for once in ["blue", "queue 3 of eth0", &words] {
            assert_eq!(text.matches(once).count(), 1, "{once:?} in {text:?}");
        }
    }
}
