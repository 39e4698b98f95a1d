//! Which devices can be ports, and what can be known to fail before anything is tried.

use super::error::Error;
use super::mirror::Mirror;
use crate::config::{Namespace, Tier};
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
pub fn wanted<'a>(rule: &'a Namespace, mirror: &'a Mirror) -> impl Iterator<Item = &'a Link> {
    mirror.links.values().filter(|l| unfit(l).is_none() && passed_over(rule, l).is_none() && l.up)
}

/// Why the operator's rule does not want a device that could be a port; None if it does.
#[must_use]
pub fn passed_over(rule: &Namespace, link: &Link) -> Option<&'static str> {
    if rule.tier == Tier::Kernel {
        return Some("the namespace is left to the kernel (tier)");
    }
    let chosen = rule.devices.is_empty() || rule.devices.iter().any(|d| d.fits(&link.name));
    (!chosen).then_some("not chosen by --device")
}

/// A namespace with its state and what the operator says of it.
pub type Seen<'a> = (&'a Netns, &'a Mirror, &'a Namespace);

/// Looks at namespaces before anything is changed: all that was asked for is there.
///
/// # Errors
/// A device's name that nowhere exists, or the first device that cannot become a port.
pub fn check(memory: &xsk::Options, seen: &[Seen<'_>]) -> Result<(), Error> {
    let fit = || seen.iter().flat_map(|(_, m, _)| m.links.values()).filter(|l| unfit(l).is_none());
    let names = seen.iter().flat_map(|(_, _, rule)| &rule.devices).filter(|d| d.is_exact());
    for device in names {
        if !fit().any(|l| device.fits(&l.name)) {
            let netns: Vec<&str> = seen.iter().map(|(n, _, _)| n.name()).collect();
            let known: Vec<&str> = fit().map(|l| l.name.as_str()).collect();
            return Err(Error::NoDevice {
                device: device.to_string(),
                netns: netns.join(", "),
                known: if known.is_empty() { "none".to_owned() } else { known.join(", ") },
            });
        }
    }
    for (netns, mirror, rule) in seen {
        for link in wanted(rule, mirror) {
            check_device(netns, link, memory)?;
        }
    }
    Ok(())
}

/// The namespace of the first device that will be a port: a zero-copy memory is
/// registered there.
#[must_use]
pub fn first_namespace<'a>(seen: &[Seen<'a>]) -> Option<&'a Netns> {
    seen.iter().find(|(_, m, rule)| wanted(rule, m).next().is_some()).map(|(n, _, _)| *n)
}

/// Looks at one device. Returns the number of its queues.
///
/// A NIC that takes VLAN tags out of its frames is refused: a tagged frame, which
/// belongs to a VLAN device and perhaps to another namespace, would look like the
/// NIC's own. (Of a veth's packets the program sees the tag beside them.)
///
/// # Errors
/// Its MTU does not fit a frame, and a packet cannot be in several; it strips VLAN tags, or it has too many queues.
pub fn check_device(netns: &Netns, link: &Link, memory: &xsk::Options) -> Result<u16, Error> {
    // With packets in several frames what is longer still is the kernel's.
    let room = memory.max_packet() - ETHERNET;
    if link.mtu > room && !memory.multi_buffer() {
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
