//! What the operator asked for.

use crate::bpf;
use crate::config;
use crate::xsk;

/// How devices become ports. Which do is each namespace's rule.
#[derive(Clone, Debug)]
pub struct Settings {
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
