//! The config file as plain data.
//!
//! [`File`] is what the TOML text says, every default filled in. What it means for
//! the running whole is decided above: `control` obeys a namespace's [`Namespace`],
//! `runtime` compares two files and applies the difference.
//!
//! Not here: what is in the kernel. A file is right or wrong by itself, whatever
//! namespaces and devices there are.
//!
//! ```
//! let text = "[[namespace]]\nnetns = 'tenant-*'\nweight = 2\n";
//! let file = nsplane::config::parse("nsplane.toml", text)?.file;
//! assert_eq!(file.namespaces[0].weight, 2);
//! assert_eq!(file.workers.count, 1);
//! # Ok::<(), nsplane::config::Error>(())
//! ```

mod check;
mod defaults;
mod diff;
mod member;
mod overrides;
mod parse;
mod places;

use serde::Deserialize;

use crate::netns::{Pattern, Selector};
use crate::xsk;

pub use check::{MAX_WEIGHT, MAX_WORKERS};
pub use defaults::DEFAULTS;
pub use diff::{Diff, Setting, diff, obeyable};
pub use member::{Match, Member, PortRef, VlanProto, VlanTag};
pub use overrides::Overrides;
pub use parse::{Error, Finding, Parsed, parse};
pub use places::Place;

/// A whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct File {
    /// Threads.
    pub workers: Workers,
    /// What is shared with the kernel.
    pub memory: Memory,
    /// Bounds.
    pub limits: Limits,
    /// How devices become ports.
    pub devices: Devices,
    /// Which namespaces are driven, and how; the first that fits counts.
    #[serde(rename = "namespace")]
    pub namespaces: Vec<Namespace>,
    /// Parts of ports that belong to other namespaces than the port.
    #[serde(rename = "member")]
    pub members: Vec<Member>,
}

impl File {
    /// The memory's shape.
    #[must_use]
    pub fn memory_options(&self) -> xsk::Options {
        let mode = match self.devices.bind {
            Bind::Copy => xsk::Mode::Copy,
            Bind::ZeroCopy => xsk::Mode::ZeroCopy,
        };
        xsk::Options {
            frames: self.memory.frames,
            frame_size: self.memory.frame_size.unwrap_or_else(|| mode.least_frame_size()),
            ring_size: self.memory.ring_size,
            mode,
        }
    }
}

/// `[workers]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Workers {
    /// Number of threads.
    pub count: u16,
    /// Their processors, in their order; chosen where empty.
    pub pin: Vec<usize>,
}

/// `[memory]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Memory {
    /// Frames, shared by all ports.
    pub frames: u32,
    /// Bytes a frame; None: the least that the way of binding allows.
    pub frame_size: Option<u32>,
    /// Entries of each ring.
    pub ring_size: u32,
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limits {
    /// Most ports at one time.
    pub max_ports: u16,
    /// Packets a second that a namespace may punt, unless it has a rate of its own.
    pub punt_rate: u32,
}

/// `[devices]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Devices {
    /// How sockets are bound.
    pub bind: Bind,
    /// How the program is attached.
    pub xdp: Xdp,
}

/// How sockets are bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Bind {
    /// The kernel copies: every device can do it.
    #[default]
    Copy,
    /// The device reads and writes our memory.
    ZeroCopy,
}

/// How the program is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Xdp {
    /// Native where the driver can, else generic.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// In the stack, for every device.
    Generic,
}

/// `[[namespace]]`: what is to be done with the namespaces that a selector means.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Namespace {
    /// Which namespaces.
    pub netns: Selector,
    /// Only devices with these names become ports; every eligible one if empty.
    #[serde(default)]
    pub devices: Vec<Pattern>,
    /// Who may forward.
    #[serde(default)]
    pub tier: Tier,
    /// What of the namespace's kernel configuration the operator says may be passed by.
    #[serde(default)]
    pub bypass: Vec<Bypass>,
    /// Packets a second that each may punt; None: as `[limits]` says.
    #[serde(default)]
    pub punt_rate: Option<u32>,
    /// Share of a worker's time, relative to the other namespaces; at least 1.
    #[serde(default = "one")]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

impl Namespace {
    /// A selector with the default for all else.
    #[must_use]
    pub fn of(netns: Selector) -> Self {
        Self {
            netns,
            devices: Vec::new(),
            tier: Tier::Auto,
            bypass: Vec::new(),
            punt_rate: None,
            weight: one(),
        }
    }
}

/// Who may forward a namespace's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// The fastest that does it as the kernel would.
    #[default]
    Auto,
    /// No faster than the workers.
    Userspace,
    /// The kernel alone: the namespace is watched and shown, and has no port.
    Kernel,
}

/// A part of a namespace's kernel configuration that packets may be forwarded past,
/// though it would have had a say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Bypass {
    /// nftables and iptables, and BPF programs on their hooks.
    Netfilter,
    /// Connection tracking where no other part of netfilter meets forwarded packets.
    Conntrack,
    /// Services of IPVS.
    Ipvs,
    /// Filters and shapers of devices.
    Tc,
    /// Policies of xfrm.
    Xfrm,
    /// Rules of policy routing.
    Rules,
    /// Redirects that the kernel would follow.
    Redirects,
    /// Learned MTUs that the kernel would obey.
    Pmtu,
    /// Addresses whose neighbour solicitations the kernel would answer.
    ProxyNdp,
    /// Sources in prefixes that are local.
    LocalPrefixes,
}

impl Bypass {
    /// Who says this says `other` too: tracking is netfilter's, and goes on when the last
    /// chain that forwarded packets meet is deleted.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self == other || (self, other) == (Self::Netfilter, Self::Conntrack)
    }

    /// The word for it in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Netfilter => "netfilter",
            Self::Conntrack => "conntrack",
            Self::Ipvs => "ipvs",
            Self::Tc => "tc",
            Self::Xfrm => "xfrm",
            Self::Rules => "rules",
            Self::Redirects => "redirects",
            Self::Pmtu => "pmtu",
            Self::ProxyNdp => "proxy-ndp",
            Self::LocalPrefixes => "local-prefixes",
        }
    }
}

impl Default for Workers {
    fn default() -> Self {
        Self { count: 1, pin: Vec::new() }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self { frames: 32_768, frame_size: None, ring_size: 1024 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_ports: 1024, punt_rate: 20_000 }
    }
}
