//! Parts of a port that belong to another namespace than the port itself.

use std::fmt;

use serde::Deserialize;

use crate::id::Mac;

/// `[[member]]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Member {
    /// The namespace whose packets they are, by its name.
    pub netns: String,
    /// The link in that namespace that they arrive on and leave by.
    pub link: String,
    /// The port that they come in on and go out of.
    pub port: PortRef,
    /// Which of the port's packets.
    pub matches: Match,
}

/// A device of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PortRef {
    /// Its namespace, by name.
    pub netns: String,
    /// Its name there.
    pub device: String,
}

/// Which packets of a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Match {
    /// Those that carry exactly these tags, the outer one first; one or two.
    Vlan(Vec<VlanTag>),
    /// Those that are received on this queue.
    Queue(u16),
    /// Those to this address.
    Mac(Mac),
}

impl Match {
    /// The key that it is written with.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::Vlan(_) => "vlan",
            Self::Queue(_) => "queue",
            Self::Mac(_) => "mac",
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vlan(tags) => {
                let ids: Vec<String> = tags.iter().map(|t| t.id.to_string()).collect();
                write!(f, "VLAN {}", ids.join("."))
            }
            Self::Queue(queue) => write!(f, "queue {queue}"),
            Self::Mac(mac) => write!(f, "{mac}"),
        }
    }
}

impl fmt::Display for PortRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.device, self.netns)
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} is {}'s {}", self.matches, self.port, self.netns, self.link)
    }
}

/// A VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VlanTag {
    /// Its Ethertype.
    #[serde(default)]
    pub proto: VlanProto,
    /// The VLAN, from 1 to 4094.
    pub id: u16,
}

/// The Ethertype of a VLAN tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
pub enum VlanProto {
    /// 0x8100
    #[default]
    #[serde(rename = "802.1Q")]
    Dot1Q,
    /// 0x88a8
    #[serde(rename = "802.1ad")]
    Dot1Ad,
}

/// A member as it is written: the ways to match are keys side by side.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Written {
    netns: String,
    link: String,
    port: PortRef,
    vlan: Option<Vlan>,
    queue: Option<u16>,
    mac: Option<Mac>,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a VLAN's number, or a list such as [{ proto = \"802.1ad\", id = 10 }]"
)]
enum Vlan {
    Id(u16),
    Tags(Vec<VlanTag>),
}

impl TryFrom<Written> for Member {
    type Error = &'static str;

    fn try_from(w: Written) -> Result<Self, Self::Error> {
        let matches = match (w.vlan, w.queue, w.mac) {
            (Some(Vlan::Id(id)), None, None) => {
                Match::Vlan(vec![VlanTag { proto: VlanProto::Dot1Q, id }])
            }
            (Some(Vlan::Tags(tags)), None, None) => Match::Vlan(tags),
            (None, Some(queue), None) => Match::Queue(queue),
            (None, None, Some(mac)) => Match::Mac(mac),
            (None, None, None) => {
                return Err("which packets of the port? one of the keys vlan, queue and mac says");
            }
            _ => return Err("only one of the keys vlan, queue and mac may be there"),
        };
        Ok(Self { netns: w.netns, link: w.link, port: w.port, matches })
    }
}
