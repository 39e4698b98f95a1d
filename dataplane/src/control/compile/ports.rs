//! Ports' settings, as their devices and the namespace have them.

use super::{Compiler, replace};
use crate::control::mirror::Mirror;
use crate::id::{IfIndex, Mac, PortId};
use crate::netlink::{Family, Link};
use crate::tables::RpFilter;

/// A port's settings, as its device and namespace have them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSettings {
    /// The port.
    pub port: PortId,
    /// Its device.
    pub ifindex: IfIndex,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Longest IP packet that may leave here, in bytes.
    pub mtu: u32,
    /// Up, with carrier, and a router's port.
    pub up: bool,
    /// IPv4 that arrives here may be routed by us.
    pub forward_v4: bool,
    /// IPv6 that arrives here may be routed by us.
    pub forward_v6: bool,
    /// Reverse-path filter in force.
    pub rp_filter: RpFilter,
    /// A member of a bridge, bond or VRF: what arrives here is its master's.
    pub enslaved: bool,
}

impl Compiler<'_> {
    pub(super) fn all_ports(&mut self, ports: &[(PortId, IfIndex)]) -> bool {
        let settings = ports.iter().filter_map(|(port, ifindex)| self.port(*port, *ifindex));
        let settings = settings.collect();
        replace(&mut self.out.ports, settings)
    }

    fn port(&self, port: PortId, ifindex: IfIndex) -> Option<PortSettings> {
        let mirror = self.mirror;
        let link = mirror.links.get(&ifindex)?;
        let enslaved = link.master.is_some();
        let ledger = &self.out.ledger;
        Some(PortSettings {
            port,
            ifindex,
            mac: link.mac.unwrap_or_default(),
            mtu: link.mtu,
            up: usable(link),
            forward_v4: !enslaved
                && !ledger.keeps_arriving(ifindex, Family::V4)
                && self.out.stays_with_kernel_v4.is_none()
                && mirror.forwards_v4(ifindex),
            forward_v6: !enslaved
                && !ledger.keeps_arriving(ifindex, Family::V6)
                && self.out.stays_with_kernel_v6.is_none()
                && mirror.forwards_v6()
                && has_ipv6(mirror, ifindex),
            rp_filter: match mirror.rp_filter(ifindex) {
                0 => RpFilter::Off,
                // A device without an address believes only what would leave by it.
                2 if has_ipv4(mirror, ifindex) => RpFilter::Loose,
                _ => RpFilter::Strict,
            },
            enslaved,
        })
    }
}

/// Packets can leave by the device, and it is a router's port by itself.
fn usable(link: &Link) -> bool {
    link.up && link.carrier && link.master.is_none()
}

/// IPv6 is at work on the device. The kernel drops what arrives where it is
/// disabled, but does not announce that: it takes the addresses away.
fn has_ipv6(mirror: &Mirror, ifindex: IfIndex) -> bool {
    mirror.addresses.iter().any(|a| a.ifindex == ifindex && a.prefix.addr.is_ipv6())
}

fn has_ipv4(mirror: &Mirror, ifindex: IfIndex) -> bool {
    mirror.addresses.iter().any(|a| a.ifindex == ifindex && a.prefix.addr.is_ipv4())
}
