//! What can fail in this room, and what to do about it.

use std::io;
use std::path::PathBuf;

use aya::programs::ProgramError;
use thiserror::Error;

use crate::id::{PortId, QueueId};

/// Lines of the verifier's log that an error shows: the last ones say what it refused.
const LOG_LINES: usize = 12;

/// Why something about the XDP program failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The object named by `NSPLANE_EBPF_OBJECT` cannot be read.
    #[error("reading {}: {source}", path.display())]
    ReadObject {
        /// The file.
        path: PathBuf,
        /// What reading it said.
        source: io::Error,
    },
    /// The object is not one that this nsplane can use.
    #[error("the eBPF object is not usable: {what}")]
    BadObject {
        /// What is wrong with it.
        what: String,
    },
    /// There is no bpffs for the maps.
    #[error("making a private bpffs: {0}")]
    Bpffs(#[source] io::Error),
    /// The maps cannot be made or opened.
    #[error("creating the eBPF maps: {0}")]
    Create(#[source] Box<aya::EbpfError>),
    /// The kernel does not accept a program.
    #[error("the kernel refuses XDP program {program}: {source}{log}")]
    Refused {
        /// Name of the program in the object.
        program: &'static str,
        /// What `bpf(BPF_PROG_LOAD)` said.
        source: io::Error,
        /// The end of the verifier's log, on lines of its own; may be empty.
        log: String,
    },
    /// Loading a program failed before the kernel saw it.
    #[error("loading XDP program {program}: {source}")]
    Load {
        /// Name of the program in the object.
        program: &'static str,
        /// What failed.
        source: Box<ProgramError>,
    },
    /// A map operation failed.
    #[error("{what} in eBPF map {map}: {source}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// What was to be done.
        what: &'static str,
        /// What the kernel said.
        source: Box<aya::maps::MapError>,
    },
    /// The maps have no room for a port of that number.
    #[error("port {} is beyond the {max} that the maps have room for", port.0)]
    NoSuchPort {
        /// The port.
        port: PortId,
        /// Ports there is room for.
        max: u32,
    },
    /// A queue number beyond what a port may have.
    #[error("queue {} is beyond the {} that a port may have", queue.0, nsplane_abi::QUEUES_PER_PORT)]
    NoSuchQueue {
        /// The queue.
        queue: QueueId,
    },
    /// A prefix length beyond the address' bits.
    #[error("prefix length {len} is more than an address has bits")]
    PrefixTooLong {
        /// The length.
        len: u8,
    },
    /// The device has another XDP program.
    #[error("another XDP program holds {device}")]
    Busy {
        /// The device.
        device: String,
    },
    /// The device is gone, or in another namespace.
    #[error("no device {device} (ifindex {ifindex}) in this namespace")]
    NoDevice {
        /// The device.
        device: String,
        /// The number it should have had.
        ifindex: u32,
    },
    /// Privileges are missing.
    #[error("not permitted to attach an XDP program to {device}")]
    NotPermitted {
        /// The device.
        device: String,
    },
    /// Fewer receive queues than the driver needs for XDP.
    #[error("{device} has too few queues for XDP")]
    TooFewQueues {
        /// The device.
        device: String,
    },
    /// The device's MTU, or its veth peer's, is too large for XDP.
    #[error("the MTU of {device} or of its peer is too large for XDP")]
    MtuTooLarge {
        /// The device.
        device: String,
    },
    /// The driver has no native XDP.
    #[error("the driver of {device} has no native XDP")]
    NotSupported {
        /// The device.
        device: String,
    },
    /// Attaching failed for another reason.
    #[error("attaching the XDP program to {device}: bpf(BPF_LINK_CREATE): {source}")]
    Attach {
        /// The device.
        device: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    /// What the operator can do about it, where that is known.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        Some(match self {
            Self::ReadObject { .. } => "unset NSPLANE_EBPF_OBJECT to use the built-in one".into(),
            Self::BadObject { .. } => "build it again with `cargo xtask build-ebpf`".into(),
            Self::Bpffs(e) | Self::Refused { source: e, .. } if is_not_permitted(e) => {
                "run as root, or with CAP_SYS_ADMIN, CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN".into()
            }
            Self::Busy { device } => format!(
                "`ip link show dev {device}` names the program: stop what attached it, or leave the device out"
            ),
            Self::NotPermitted { .. } => {
                "run as root, or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN".into()
            }
            Self::TooFewQueues { device } => format!(
                "a veth needs as many receive queues as its peer sends on: `ethtool -L {device} rx N`, or fewer on the peer"
            ),
            Self::MtuTooLarge { device } => format!("lower the MTU of {device} and of its peer"),
            Self::NotSupported { device } => format!("use generic mode for {device}"),
            Self::NoDevice { .. } => "the device was removed, renamed or moved: look again".into(),
            Self::Attach { source, .. } if source.raw_os_error() == Some(libc::EINVAL) => {
                "drivers say so of a large MTU or of LRO: see the kernel's log, or use generic mode"
                    .into()
            }
            _ => return None,
        })
    }

    /// What `bpf(BPF_PROG_LOAD)`, or what comes before it, said.
    pub(super) fn from_program(program: &'static str, error: ProgramError) -> Self {
        match error {
            ProgramError::LoadError { io_error, verifier_log } => {
                Self::Refused { program, source: io_error, log: end_of(&verifier_log.to_string()) }
            }
            other => Self::Load { program, source: Box::new(other) },
        }
    }

    /// What `bpf(BPF_LINK_CREATE)` said of a device.
    pub(super) fn from_link(device: &str, ifindex: u32, error: io::Error) -> Self {
        let device = device.to_owned();
        match error.raw_os_error() {
            Some(libc::EBUSY | libc::EEXIST) => Self::Busy { device },
            Some(libc::ENODEV | libc::ENOLINK) => Self::NoDevice { device, ifindex },
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted { device },
            Some(libc::ENOSPC) => Self::TooFewQueues { device },
            Some(libc::ERANGE) => Self::MtuTooLarge { device },
            Some(libc::EOPNOTSUPP) => Self::NotSupported { device },
            _ => Self::Attach { device, source: error },
        }
    }
}

fn is_not_permitted(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// The last lines of a verifier's log, without its statistics.
fn end_of(log: &str) -> String {
    let told = |line: &&str| {
        !line.trim().is_empty()
            && !line.starts_with("verification time")
            && !line.starts_with("stack depth")
            && !line.starts_with("processed ")
    };
    let lines: Vec<&str> = log.lines().filter(told).collect();
    let from = lines.len().saturating_sub(LOG_LINES);
    lines[from..].iter().map(|line| format!("\n    {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifiers_log_is_cut_to_its_end() {
        let log: String = (0..100).map(|i| format!("{i}: r0 = {i}\n")).collect();
        let log = log + "invalid access\nverification time 3 usec\nprocessed 100 insns\n\n";
        let end = end_of(&log);
        assert_eq!(end.lines().count(), LOG_LINES + 1);
        assert!(end.ends_with("\n    invalid access"), "{end}");
        assert_eq!(end_of(""), "");
    }

    #[test]
    fn errors_of_a_device_name_it() {
        for errno in [libc::EBUSY, libc::ENODEV, libc::EPERM, libc::ENOSPC, libc::EOPNOTSUPP] {
            let error = Error::from_link("veth7", 3, io::Error::from_raw_os_error(errno));
            assert!(error.to_string().contains("veth7"), "{error}");
            assert!(error.advice().is_some(), "{error}");
        }
    }
}
