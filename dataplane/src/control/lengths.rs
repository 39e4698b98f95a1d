//! How long the frames are that are handled here.

use nsplane_abi::headers::ETH_LEN;

use super::Control;
use super::ports::{PortState, Use};
use crate::bpf::{Attached, MAX_PACKET, XdpMode};

impl Control {
    /// The longest frame of a port or member that can be handled here. In generic mode that is
    /// what can be injected past the program; longer ones it would see again.
    pub(super) fn longest(&self, port: &PortState) -> u32 {
        let room = self.settings.memory.longest_packet();
        let attached = match &port.part {
            Use::Member(m) => {
                self.ports.get(m.parent.index()).and_then(|parent| parent.attached.as_ref())
            }
            Use::Whole | Use::FarEnd(_) => port.attached.as_ref(),
        };
        match attached.map(Attached::mode) {
            Some(XdpMode::Generic) => room.min(MAX_PACKET as u32),
            _ => room,
        }
    }
}

/// The longest frame of a port that is routed here; longer ones are the kernel's.
///
/// A device takes frames of its MTU and an Ethernet header (a VLAN's 4 bytes more
/// count for nothing here: tagged frames pass). What is longer is no packet of the
/// link but several in one (GSO, GRO), which generic XDP sees where a driver's does
/// not: only the kernel knows how to cut them apart again.
pub(super) fn max_frame(room: u32, mtu: u32) -> u32 {
    room.min(mtu.saturating_add(ETH_LEN as u32))
}
