//! Which devices can be ports, and what can be known to fail before anything is tried.

use super::Settings;
use super::error::Error;
use super::mirror::Mirror;
use crate::netlink::{self, Link, LinkKind};
use crate::netns::Netns;
use crate::xsk;

const ETHERNET: u32 = nsplane_abi::headers::ETH_LEN as u32;

/// Why a device cannot be a port, whatever is asked for; None where it can.
#[must_use]
pub fn unfit(link: &Link) -> Option<String> {
    match &link.kind {
        LinkKind::Veth | LinkKind::Macvlan | LinkKind::Physical if link.mac.is_some() => {}
        LinkKind::Other(kind) => return Some(format!("devices of kind {kind} are not driven")),
        kind => return Some(format!("devices of kind {kind:?} are not driven").to_lowercase()),
    }
    link.master.map(|m| format!("a member of device {} (bridge, bond or VRF)", m.0))
}

/// The devices that should be ports now: fit, chosen, and up, for a socket can be
/// bound only then.
pub fn wanted<'a>(settings: &'a Settings, mirror: &'a Mirror) -> impl Iterator<Item = &'a Link> {
    mirror.links.values().filter(|l| unfit(l).is_none() && settings.chooses(l) && l.up)
}

impl Settings {
    /// `--device` names it, or nothing.
    #[must_use]
    pub fn chooses(&self, link: &Link) -> bool {
        self.devices.is_empty() || self.devices.contains(&link.name)
    }
}

/// Looks at namespaces before anything is changed.
///
/// # Errors
/// A `--device` that nowhere exists; in strict mode the first device that cannot
/// become a port.
pub fn check(settings: &Settings, seen: &[(&Netns, &Mirror)]) -> Result<(), Error> {
    let fit = || seen.iter().flat_map(|(_, m)| m.links.values()).filter(|l| unfit(l).is_none());
    for device in &settings.devices {
        if !fit().any(|l| l.name == *device) {
            let netns: Vec<&str> = seen.iter().map(|(n, _)| n.name()).collect();
            let known: Vec<&str> = fit().map(|l| l.name.as_str()).collect();
            return Err(Error::NoDevice {
                device: device.clone(),
                netns: netns.join(", "),
                known: if known.is_empty() { "none".to_owned() } else { known.join(", ") },
            });
        }
    }
    if settings.strict {
        for (netns, mirror) in seen {
            for link in wanted(settings, mirror) {
                check_device(netns, link, &settings.memory)?;
            }
        }
    }
    Ok(())
}

/// The namespace of the first device that will be a port: a zero-copy memory is
/// registered there.
#[must_use]
pub fn first_namespace<'a>(
    settings: &Settings,
    seen: &[(&'a Netns, &Mirror)],
) -> Option<&'a Netns> {
    seen.iter().find(|(_, m)| wanted(settings, m).next().is_some()).map(|(n, _)| *n)
}

/// Looks at one device. Returns the number of its queues.
///
/// A NIC that takes VLAN tags out of its frames is refused: a tagged frame, which
/// belongs to a VLAN device and perhaps to another namespace, would look like the
/// NIC's own. (Of a veth's packets the program sees the tag beside them.)
///
/// # Errors
/// Its MTU does not fit a frame, it strips VLAN tags, or it has too many queues.
pub fn check_device(netns: &Netns, link: &Link, memory: &xsk::Options) -> Result<u16, Error> {
    let room = memory.max_packet() - ETHERNET;
    if link.mtu > room {
        return Err(Error::MtuTooLarge {
            device: link.name.clone(),
            netns: netns.name().to_owned(),
            mtu: link.mtu,
            frame_size: memory.frame_size,
            room,
            most: xsk::Options { frame_size: 4096, ..*memory }.max_packet() - ETHERNET,
        });
    }
    if link.kind == LinkKind::Physical && netlink::strips_vlans(netns, &link.name)? {
        let (device, netns) = (link.name.clone(), netns.name().to_owned());
        return Err(Error::VlansStripped { device, netns });
    }
    let queues = netlink::channels(netns, &link.name)?.rx;
    if queues > nsplane_abi::QUEUES_PER_PORT {
        return Err(Error::TooManyQueues {
            device: link.name.clone(),
            netns: netns.name().to_owned(),
            queues,
            most: nsplane_abi::QUEUES_PER_PORT,
        });
    }
    Ok(queues as u16)
}
