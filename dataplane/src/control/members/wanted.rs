//! Which members there should be: pure, from what the kernel shows and what the
//! operator stated.
//!
//! The kernel shows macvlans and VLANs: a device in one namespace with a device below it
//! in another. Stated members stand for what no device of the kernel shows; their
//! *stand-in* is any link of the namespace. Where that is one end of a veth, its other end
//! is the *far end*: what the kernel sends out of the stand-in arrives there.

use hashbrown::HashSet;
use nsplane_abi::member::MemberKey;
use nsplane_abi::vlan::{DOT1AD, DOT1Q};

use crate::config::{self, Match, VlanProto};
use crate::control::devices::{passed_over, unfit};
use crate::control::mirror::Mirror;
use crate::id::{IfIndex, Mac, NsId, PortId};
use crate::netlink::{
    Hook, Link, LinkKind, LinkPart, MACVLAN_BRIDGE, MACVLAN_PRIVATE, MACVLAN_VEPA, Qdisc,
};
use crate::wire::vlan::Tags;

/// A link of a namespace that we drive.
pub(in crate::control) type Device = (NsId, IfIndex);

/// How a member's frames are told from others of its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum How {
    /// They are to this address, and without a VLAN tag.
    Mac(Mac),
    /// They carry these VLAN tags.
    Vlan(Tags),
    /// They come in on this queue.
    Queue(u16),
}

impl How {
    /// The key of the program's map, for frames of a port.
    pub(super) fn key(self, port: PortId) -> MemberKey {
        let port = u32::from(port.0);
        match self {
            Self::Mac(mac) => MemberKey::mac(port, mac.0),
            Self::Vlan(tags) => MemberKey::vlan(port, tags.outer(), tags.inner()),
            Self::Queue(queue) => MemberKey::queue(port, queue),
        }
    }

    /// The VLAN tags that the frames carry.
    #[must_use]
    pub fn tags(self) -> Tags {
        match self {
            Self::Vlan(tags) => tags,
            Self::Mac(_) | Self::Queue(_) => Tags::NONE,
        }
    }

    fn stated(by: &Match) -> Option<Self> {
        let tag = |t: &config::VlanTag| {
            let proto = match t.proto {
                VlanProto::Dot1Q => DOT1Q,
                VlanProto::Dot1Ad => DOT1AD,
            };
            (proto, t.id)
        };
        match by {
            Match::Vlan(tags) => match tags.as_slice() {
                [one] => Some(Self::Vlan(Tags::new(tag(one), None))),
                [outer, inner] => Some(Self::Vlan(Tags::new(tag(outer), Some(tag(inner))))),
                _ => None,
            },
            Match::Queue(queue) => Some(Self::Queue(*queue)),
            Match::Mac(mac) => Some(Self::Mac(*mac)),
        }
    }
}

impl std::fmt::Display for How {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tag = |f: &mut std::fmt::Formatter<'_>, (proto, id): (u16, u16)| {
            write!(f, " {} {id}", if proto == DOT1AD { "802.1ad" } else { "802.1Q" })
        };
        match self {
            Self::Mac(mac) => write!(f, "address {mac}"),
            Self::Queue(queue) => write!(f, "queue {queue}"),
            Self::Vlan(tags) => {
                f.write_str("VLAN")?;
                tag(f, tags.outer())?;
                if tags.inner().0 == 0 { Ok(()) } else { tag(f, tags.inner()) }
            }
        }
    }
}

/// A member that there should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control) struct Wanted {
    /// The link that its packets arrive on and leave by. None: a stated one whose
    /// namespace or link is not there, or down. Then its frames are nobody's.
    pub(super) link: Option<Device>,
    /// The device that its frames come in on.
    pub(super) parent: Device,
    /// Which of them.
    pub(super) how: How,
    /// By the configuration.
    pub(super) stated: bool,
    /// The far end of its stand-in, if that has one that we drive.
    pub(super) far: Option<Device>,
}

/// A namespace, as far as it matters here.
pub(super) struct Seen<'a> {
    pub(super) ns: NsId,
    pub(super) name: &'a str,
    pub(super) mirror: &'a Mirror,
    pub(super) rule: &'a config::Namespace,
}

/// All members that there should be; of two with the same frames the first, stated ones
/// before others. Of two stated ones with one link the second has none: its frames are
/// nobody's, and still not the port's own. `below` says in which namespace the other end of a link lies.
pub(super) fn wanted(
    seen: &[Seen<'_>],
    stated: &[config::Member],
    below: &mut dyn FnMut(NsId, &Link) -> Option<NsId>,
) -> Vec<Wanted> {
    let mut of_config: Vec<Wanted> =
        stated.iter().filter_map(|m| from_config(seen, m, below)).collect();
    let stand_ins: HashSet<Device> = of_config.iter().filter_map(|w| w.link).collect();
    for s in seen {
        let parts = s.mirror.links.values().filter(|l| l.part.is_some());
        for link in parts.filter(|l| passed_over(s.rule, l).is_none()) {
            if !stand_ins.contains(&(s.ns, link.ifindex)) {
                of_config.extend(from_kernel(seen, s.ns, link, below));
            }
        }
    }
    let mut taken: HashSet<(Device, How)> = HashSet::new();
    let mut links: HashSet<Device> = HashSet::new();
    of_config.retain_mut(|w| {
        if taken.contains(&(w.parent, w.how)) {
            return false;
        }
        if w.link.is_some_and(|l| !links.insert(l)) {
            if !w.stated {
                return false;
            }
            (w.link, w.far) = (None, None);
        }
        taken.insert((w.parent, w.how))
    });
    of_config
}

fn mirror<'a>(seen: &[Seen<'a>], ns: NsId) -> Option<&'a Mirror> {
    seen.iter().find(|s| s.ns == ns).map(|s| s.mirror)
}

fn named<'a>(seen: &[Seen<'a>], netns: &str, device: &str) -> Option<(NsId, &'a Link)> {
    let s = seen.iter().find(|s| s.name == netns)?;
    Some((s.ns, s.mirror.links.values().find(|l| l.name == device)?))
}

fn from_config(
    seen: &[Seen<'_>],
    m: &config::Member,
    below: &mut dyn FnMut(NsId, &Link) -> Option<NsId>,
) -> Option<Wanted> {
    let (parent_ns, parent) = named(seen, &m.port.netns, &m.port.device)?;
    let how = How::stated(&m.matches)?;
    let stand_in = named(seen, &m.netns, &m.link)
        .filter(|(_, l)| works(l) && untouched(seen, (parent_ns, parent.ifindex)));
    let far = stand_in.filter(|(_, l)| l.kind == LinkKind::Veth).and_then(|(ns, l)| {
        let there = (below(ns, l)?, l.peer?);
        mirror(seen, there.0)?.links.contains_key(&there.1).then_some(there)
    });
    Some(Wanted {
        link: stand_in.map(|(ns, l)| (ns, l.ifindex)),
        parent: (parent_ns, parent.ifindex),
        how,
        stated: true,
        far,
    })
}

/// A macvlan, or a VLAN, or a VLAN in a VLAN, of a device that we may drive.
fn from_kernel(
    seen: &[Seen<'_>],
    ns: NsId,
    link: &Link,
    below: &mut dyn FnMut(NsId, &Link) -> Option<NsId>,
) -> Option<Wanted> {
    if !works(link) {
        return None;
    }
    let mut parent = (below(ns, link)?, link.peer?);
    let how = match link.part? {
        // `passthru` has all frames of its device, `source` those from some addresses:
        // neither are they told apart by the address they are to.
        LinkPart::Macvlan { mode: MACVLAN_BRIDGE | MACVLAN_PRIVATE | MACVLAN_VEPA } => {
            How::Mac(link.mac?)
        }
        LinkPart::Vlan { proto, id, priorities: false } => {
            let own = (proto, id);
            let lower = mirror(seen, parent.0)?.links.get(&parent.1)?;
            let tags = match lower.part {
                None => Tags::new(own, None),
                Some(LinkPart::Vlan { proto, id, priorities: false }) if works(lower) => {
                    parent = (below(parent.0, lower)?, lower.peer?);
                    Tags::new((proto, id), Some(own))
                }
                Some(_) => return None,
            };
            How::Vlan(tags)
        }
        _ => return None,
    };
    let clean = untouched(seen, parent);
    let link = Some((ns, link.ifindex));
    clean.then_some(Wanted { link, parent, how, stated: false, far: None })
}

/// Frames that arrive on the link are its namespace's to route.
fn works(link: &Link) -> bool {
    link.up
        && link.mac.is_some()
        && link.master.is_none()
        && (matches!(link.kind, LinkKind::Vlan | LinkKind::Dummy) || unfit(link).is_none())
}

/// The device exists, is not a part of another, and no filter on it acts upon frames
/// before they are told apart, or upon those that leave.
fn untouched(seen: &[Seen<'_>], (ns, ifindex): Device) -> bool {
    let Some(mirror) = mirror(seen, ns) else { return false };
    let acts = |q: &Qdisc| q.on_ingress() || q.on_egress();
    mirror.links.get(&ifindex).is_some_and(|l| l.part.is_none() && unfit(l).is_none())
        && !mirror.qdiscs(ifindex).any(acts)
        && !mirror.tcx.iter().any(|t| t.ifindex == ifindex && (t.ingress || t.egress))
        && !mirror.hooks.values().flatten().any(Hook::on_device)
}

#[cfg(test)]
mod tests;
