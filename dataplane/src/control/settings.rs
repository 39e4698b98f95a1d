//! What the operator asked for.

use crate::bpf;
use crate::config;
use crate::xsk;

/// Which devices become ports, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Only these devices; all eligible ones if empty.
    pub devices: Vec<String>,
    /// A device that cannot become a port at the start is an error (else a warning).
    pub strict: bool,
    /// How the program is attached.
    pub xdp: bpf::AttachMode,
    /// The memory's shape.
    pub memory: xsk::Options,
    /// Most ports at one time.
    pub max_ports: u16,
    /// Parts of ports that belong to other namespaces, beside those that the kernel's
    /// own devices show.
    pub members: Vec<config::Member>,
}
