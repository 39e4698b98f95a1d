//! A topology with its packets, as data: what a seed makes, what is built twice, what
//! is shrunk, and what a replay file holds.
//!
//! ```text
//!            outside (one namespace: it only holds the far ends)
//!              w0        w1                  w2
//!              │         │                   │
//!              d0        d1                  d2
//!            ┌─────────────┐   d3     u3   ┌────┐
//!            │   space 0   │───────────────│ 1  │      tenant 0; a second tenant has the
//!            └─────────────┘               └────┘      same addresses in spaces of its own
//! ```

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::packet::Packet;

/// An Ethernet address.
pub(super) type Mac = [u8; 6];

/// All of a topology's life.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Plan {
    /// What it was made from.
    pub(super) seed: u64,
    /// How many namespaces forward.
    pub(super) spaces: usize,
    /// The veth pairs.
    pub(super) wires: Vec<Wire>,
    /// Who answers ARP and neighbour solicitations at the far ends.
    pub(super) hosts: Vec<Host>,
    /// One after the other: what changes, then what is sent.
    pub(super) phases: Vec<Phase>,
}

/// A veth pair. Its number is its place in [`Plan::wires`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Wire {
    /// The space that its device `d<number>` is in.
    pub(super) near: usize,
    /// The space that its device `u<number>` is in; None: it is `w<number>`, outside.
    pub(super) far: Option<usize>,
    /// The two devices' Ethernet addresses.
    pub(super) macs: (Mac, Mac),
    /// The two devices' MTU.
    pub(super) mtu: u32,
    /// In nsplane's twin it is a VLAN of a trunk, and `d<number>` a stand-in: what the
    /// configuration calls a member. Nobody at its ends sees a difference.
    #[serde(default)]
    pub(super) vlan: Option<u16>,
}

/// Somebody behind a far end who answers for an address.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Host {
    /// The wire.
    pub(super) wire: usize,
    /// The address.
    pub(super) addr: IpAddr,
    /// The answer.
    pub(super) mac: Mac,
}

/// What is configured, and what is sent then.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Phase {
    /// Settings below /proc/sys: space, path, value.
    pub(super) sysctls: Vec<(usize, String, String)>,
    /// `ip` commands: space, words.
    pub(super) lines: Vec<(usize, String)>,
    /// The packets.
    pub(super) cases: Vec<Case>,
}

/// A packet put in at a far end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Case {
    /// Which case it is: unique in the plan, and marked in the packet.
    pub(super) id: u16,
    /// The wire.
    pub(super) wire: usize,
    /// The packet.
    pub(super) packet: Packet,
}

impl Wire {
    /// It leads outside.
    pub(super) fn is_outer(&self) -> bool {
        self.far.is_none()
    }
}

impl Plan {
    /// The wires that lead outside, by number.
    pub(super) fn outer(&self) -> impl Iterator<Item = (usize, &Wire)> {
        self.wires.iter().enumerate().filter(|(_, wire)| wire.is_outer())
    }

    /// nsplane follows it while it is configured; most it finds complete.
    pub(super) fn is_followed(&self) -> bool {
        self.seed.is_multiple_of(4)
    }

    /// All cases of all phases.
    pub(super) fn cases(&self) -> impl Iterator<Item = &Case> {
        self.phases.iter().flat_map(|phase| &phase.cases)
    }

    /// The same with these cases only.
    pub(super) fn only(&self, wanted: impl Fn(u16) -> bool) -> Self {
        let mut plan = self.clone();
        for phase in &mut plan.phases {
            phase.cases.retain(|case| wanted(case.id));
        }
        plan
    }
}
