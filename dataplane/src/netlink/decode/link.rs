//! Devices: `struct ifinfomsg` and `IFLA_*` (include/uapi/linux/if_link.h).

use super::super::event::{Event, Link, LinkKind, LinkPart, XdpMode};
use super::Skip;
use super::attrs::{Value, split, word};
use crate::id::{IfIndex, Mac};

const ADDRESS: u16 = 1;
const IFNAME: u16 = 3;
const MTU: u16 = 4;
const LINK: u16 = 5;
const MASTER: u16 = 10;
const LINKINFO: u16 = 18;
const AF_SPEC: u16 = 26;
const GROUP: u16 = 27;
const NUM_TX_QUEUES: u16 = 31;
const NUM_RX_QUEUES: u16 = 32;
const LINK_NETNSID: u16 = 37;
const XDP: u16 = 43;

const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const MACVLAN_MODE: u16 = 1;
const VLAN_ID: u16 = 1;
const VLAN_EGRESS_QOS: u16 = 3;
const VLAN_INGRESS_QOS: u16 = 4;
const VLAN_PROTOCOL: u16 = 5;
const XDP_ATTACHED: u16 = 2;
const XDP_PROG_ID: u16 = 4;
const INET6_CONF: u16 = 2;
/// `DEVCONF_MTU6`: index into the array of `INET6_CONF`.
const DEVCONF_MTU6: usize = 2;

const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 1 << 3;
const IFF_RUNNING: u32 = 1 << 6;
const IFF_LOWER_UP: u32 = 1 << 16;
const ARPHRD_ETHER: u16 = 1;

/// A link message. Those of other families than `AF_UNSPEC` tell about a part of
/// the link only: a bridge's `DELLINK` is a port that left it, not a dead device.
pub(super) fn link(payload: &[u8], gone: bool) -> Result<Event, Skip> {
    let (head, rest) = split::<16>(payload)?;
    if head[0] != 0 {
        return Err(Skip::Ignored);
    }
    let ifindex = IfIndex(word(&head, 4)?);
    if gone {
        return Ok(Event::LinkGone(ifindex));
    }
    let flags = word(&head, 8)?;
    let mut link = Link {
        ifindex,
        name: String::new(),
        mac: None,
        mtu: 0,
        mtu6: None,
        up: flags & IFF_UP != 0,
        carrier: flags & (IFF_RUNNING | IFF_LOWER_UP) == IFF_RUNNING | IFF_LOWER_UP,
        kind: kind_without_name(flags, u16::from_ne_bytes([head[2], head[3]])),
        master: None,
        peer: None,
        peer_nsid: None,
        part: None,
        group: 0,
        rx_queues: 1,
        tx_queues: 1,
        xdp: XdpMode::None,
        xdp_prog: 0,
    };
    for attr in rest.attrs() {
        let (kind, value) = attr?;
        fill(&mut link, kind, value)?;
    }
    // A wireless driver's own events come as link messages without most of the link.
    if link.name.is_empty() || link.mtu == 0 {
        return Err(Skip::Ignored);
    }
    Ok(Event::Link(link))
}

fn fill(link: &mut Link, kind: u16, value: Value<'_>) -> Result<(), Skip> {
    let some = |index: u32| (index != 0).then_some(IfIndex(index));
    match kind {
        ADDRESS => link.mac = value.0.try_into().ok().map(Mac),
        IFNAME => link.name = value.text(),
        MTU => link.mtu = value.u32()?,
        LINK => link.peer = some(value.u32()?),
        MASTER => link.master = some(value.u32()?),
        LINK_NETNSID => link.peer_nsid = Some(value.i32()?),
        GROUP => link.group = value.u32()?,
        NUM_TX_QUEUES => link.tx_queues = value.u32()?,
        NUM_RX_QUEUES => link.rx_queues = value.u32()?,
        // Nested, and a driver may put anything there: what cannot be read is
        // left at what it was, the link itself is still a link.
        LINKINFO => {
            link.kind = info_kind(value).unwrap_or(link.kind.clone());
            link.part = part(&link.kind, value);
        }
        AF_SPEC => link.mtu6 = mtu6(value),
        XDP => (link.xdp, link.xdp_prog) = xdp(value),
        _ => {}
    }
    Ok(())
}

fn kind_without_name(flags: u32, link_type: u16) -> LinkKind {
    if flags & IFF_LOOPBACK != 0 {
        LinkKind::Loopback
    } else if link_type == ARPHRD_ETHER {
        LinkKind::Physical
    } else {
        LinkKind::Other(format!("type {link_type}"))
    }
}

fn find(value: Value<'_>, wanted: u16) -> Option<Value<'_>> {
    value.attrs().map_while(Result::ok).find(|(kind, _)| *kind == wanted).map(|(_, v)| v)
}

fn info_kind(value: Value<'_>) -> Option<LinkKind> {
    let name = find(value, INFO_KIND)?.text();
    Some(match name.as_str() {
        "veth" => LinkKind::Veth,
        "macvlan" => LinkKind::Macvlan,
        "dummy" => LinkKind::Dummy,
        "bridge" => LinkKind::Bridge,
        "vlan" => LinkKind::Vlan,
        "vrf" => LinkKind::Vrf,
        _ => LinkKind::Other(name),
    })
}

/// Which frames of its lower device a macvlan or a VLAN has.
fn part(kind: &LinkKind, info: Value<'_>) -> Option<LinkPart> {
    let data = find(info, INFO_DATA)?;
    match kind {
        LinkKind::Macvlan => {
            Some(LinkPart::Macvlan { mode: find(data, MACVLAN_MODE)?.u32().ok()? })
        }
        LinkKind::Vlan => Some(LinkPart::Vlan {
            // In network byte order, unlike the number.
            proto: u16::from_be(find(data, VLAN_PROTOCOL)?.u16().ok()?),
            id: find(data, VLAN_ID)?.u16().ok()?,
            priorities: [VLAN_EGRESS_QOS, VLAN_INGRESS_QOS]
                .iter()
                .any(|m| find(data, *m).is_some()),
        }),
        _ => None,
    }
}

fn mtu6(value: Value<'_>) -> Option<u32> {
    let inet6 = find(value, u16::try_from(libc::AF_INET6).ok()?)?;
    let conf = find(inet6, INET6_CONF)?;
    Value(conf.0.get(DEVCONF_MTU6 * 4..)?).u32().ok()
}

fn xdp(value: Value<'_>) -> (XdpMode, u32) {
    let mode = match find(value, XDP_ATTACHED).and_then(|v| v.u8().ok()) {
        None | Some(0) => XdpMode::None,
        Some(1) => XdpMode::Native,
        Some(2) => XdpMode::Generic,
        Some(3) => XdpMode::Offload,
        Some(_) => XdpMode::Several,
    };
    let prog = find(value, XDP_PROG_ID).and_then(|v| v.u32().ok()).unwrap_or(0);
    (mode, prog)
}

#[cfg(test)]
mod tests {
    use super::super::messages;
    use super::super::tests::raw;
    use super::*;

    fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
        let len = u16::try_from(value.len() + 4).unwrap();
        let mut out = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
        out.extend(value);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    /// The link of a message with this `IFLA_LINKINFO`.
    fn with_info(kind: &[u8], data: &[u8]) -> Link {
        let info = [attr(INFO_KIND, kind), attr(INFO_DATA, data)].concat();
        let mut head = [0; 16];
        head[2..4].copy_from_slice(&ARPHRD_ETHER.to_ne_bytes());
        head[4..8].copy_from_slice(&5_u32.to_ne_bytes());
        let mtu = 1500_u32.to_ne_bytes();
        let (below, nsid) = (2_u32.to_ne_bytes(), 3_i32.to_ne_bytes());
        let attrs: [(u16, &[u8]); 5] = [
            (IFNAME, b"v5\0"),
            (MTU, &mtu),
            (LINK, &below),
            (LINK_NETNSID, &nsid),
            (LINKINFO, &info),
        ];
        let message = raw(16, &head, &attrs);
        let (messages, _) = messages(&message);
        match link(messages[0].payload, false) {
            Ok(Event::Link(link)) => link,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_vlan_says_its_tag() {
        // As the kernel's vlan_fill_info writes it: protocol, number, flags.
        let tag = [
            attr(VLAN_PROTOCOL, &[0x88, 0xa8]),
            attr(VLAN_ID, &100_u16.to_ne_bytes()),
            attr(2, &[1, 0, 0, 0, 255, 255, 255, 255]),
        ];
        let vlan = with_info(b"vlan\0", &tag.concat());
        let plain = LinkPart::Vlan { proto: 0x88a8, id: 100, priorities: false };
        assert_eq!((vlan.kind, vlan.part), (LinkKind::Vlan, Some(plain)));
        assert_eq!((vlan.peer, vlan.peer_nsid), (Some(IfIndex(2)), Some(3)));
        for mapped in [VLAN_EGRESS_QOS, VLAN_INGRESS_QOS] {
            let data = [tag.concat(), attr(mapped, &attr(1, &[0; 8]))].concat();
            let part = with_info(b"vlan\0", &data).part;
            assert_eq!(part, Some(LinkPart::Vlan { proto: 0x88a8, id: 100, priorities: true }));
        }
        // Half of it is nothing.
        assert_eq!(with_info(b"vlan\0", &tag[0]).part, None);
        assert_eq!(with_info(b"vlan\0", &[]).part, None);
    }

    /// Byte by byte what a little-endian kernel with 8021q says of `vlan protocol 802.1Q id
    /// 101` without and with priority maps (include/uapi/linux/if_link.h, `IFLA_VLAN_*`).
    #[test]
    #[cfg(target_endian = "little")]
    #[rustfmt::skip]
    fn a_vlan_in_the_kernels_own_bytes() {
        let plain = [
            6, 0, 5, 0, 0x81, 0x00, 0, 0,
            6, 0, 1, 0, 101, 0, 0, 0,
            12, 0, 2, 0, 1, 0, 0, 0, 255, 255, 255, 255,
        ];
        let maps = [
            16, 0, 4, 0, 12, 0, 1, 0, 6, 0, 0, 0, 7, 0, 0, 0,
            16, 0, 3, 0, 12, 0, 1, 0, 4, 0, 0, 0, 5, 0, 0, 0,
        ];
        let part = |data: &[u8]| with_info(b"vlan\0", data).part;
        let vlan = |priorities| Some(LinkPart::Vlan { proto: 0x8100, id: 101, priorities });
        assert_eq!(part(&plain), vlan(false));
        assert_eq!(part(&[&plain[..], &maps].concat()), vlan(true));
    }

    #[test]
    fn a_macvlan_says_its_mode() {
        let mode = attr(MACVLAN_MODE, &4_u32.to_ne_bytes());
        let macvlan = with_info(b"macvlan\0", &mode);
        assert_eq!(macvlan.part, Some(LinkPart::Macvlan { mode: 4 }));
        assert_eq!(with_info(b"macvtap\0", &mode).part, None);
        assert_eq!(with_info(b"macvlan\0", &mode[..6]).part, None);
    }
}
