//! A tenant: two hosts and the router between them, each a namespace.
//!
//! ```text
//!   host A                    router                     host B
//!   eth0 ─────────────── a0          b0 ─────────────── eth0
//!   10.0.0.2/24     10.0.0.1/24    10.0.1.1/24     10.0.1.2/24
//!   fd00::2/64      fd00::1/64     fd00:0:0:1::1/64  fd00:0:0:1::2/64
//! ```
//!
//! Every tenant has these very addresses; only marks and, unless asked for,
//! Ethernet addresses tell tenants apart.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use crate::netns::{End, Netns, veth};

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, for tests that try each.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Which of a tenant's two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// The host behind the router's `a0`.
    A,
    /// The host behind the router's `b0`.
    B,
}

impl Host {
    /// The host's device.
    pub const DEVICE: &'static str = "eth0";

    /// The router's device towards the host.
    #[must_use]
    pub fn router_device(self) -> &'static str {
        match self {
            Self::A => "a0",
            Self::B => "b0",
        }
    }

    /// The host's IPv4 address.
    #[must_use]
    pub fn v4(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, self.number(), 2)
    }

    /// The host's IPv6 address.
    #[must_use]
    pub fn v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0, 0, u16::from(self.number()), 0, 0, 0, 2)
    }

    /// The other host.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// The host's address of one family.
    #[must_use]
    pub fn address(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4().into(),
            Family::V6 => self.v6().into(),
        }
    }

    /// The router's IPv4 address on the host's network.
    #[must_use]
    pub fn router_v4(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, self.number(), 1)
    }

    /// The router's IPv6 address on the host's network.
    #[must_use]
    pub fn router_v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0, 0, u16::from(self.number()), 0, 0, 0, 1)
    }

    fn number(self) -> u8 {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }
}

/// How a tenant is built.
#[derive(Clone, Debug)]
pub struct TenantSpec {
    /// Ethernet addresses are `02:00:<seed>:00:<net>:<end>`; tenants with the
    /// same seed have the same addresses. None lets the kernel choose.
    pub mac_seed: Option<u8>,
    /// Queues of each device.
    pub queues: u32,
    /// Whether the router's namespace forwards.
    pub forwarding: bool,
}

impl Default for TenantSpec {
    fn default() -> Self {
        Self { mac_seed: None, queues: 1, forwarding: true }
    }
}

/// Two hosts and a router; gone on drop.
#[derive(Debug)]
pub struct Tenant {
    host_a: Netns,
    host_b: Netns,
    router: Netns,
}

impl Tenant {
    /// Builds the namespaces, wires and addresses them.
    ///
    /// # Errors
    /// A step failed, by its command; what was built until then is removed.
    pub fn new(label: &str, spec: &TenantSpec) -> Result<Self> {
        let tenant = Self {
            host_a: Netns::new(&format!("{label}-a"))?,
            host_b: Netns::new(&format!("{label}-b"))?,
            router: Netns::new(&format!("{label}-r"))?,
        };
        let forwarding = if spec.forwarding { "1" } else { "0" };
        tenant.router.sysctl("net/ipv4/ip_forward", forwarding)?;
        tenant.router.sysctl("net/ipv6/conf/all/forwarding", forwarding)?;
        tenant.wire(Host::A, spec)?;
        tenant.wire(Host::B, spec)?;
        Ok(tenant)
    }

    fn wire(&self, side: Host, spec: &TenantSpec) -> Result<()> {
        let mac = |end| spec.mac_seed.map(|seed| [2, 0, seed, 0, side.number(), end]);
        let host = self.host(side);
        let router_device = side.router_device();
        veth(
            &End {
                mac: mac(1),
                queues: spec.queues,
                ..End::new(&self.router, side.router_device())
            },
            &End { mac: mac(2), queues: spec.queues, ..End::new(host, Host::DEVICE) },
        )?;
        self.router.ip_batch(&format!(
            "addr add {}/24 dev {router_device}\naddr add {}/64 dev {router_device} nodad\n",
            side.router_v4(),
            side.router_v6(),
        ))?;
        let device = Host::DEVICE;
        host.ip_batch(&format!(
            "addr add {}/24 dev {device}\naddr add {}/64 dev {device} nodad\n\
             route add default via {}\nroute add default via {}\n",
            side.v4(),
            side.v6(),
            side.router_v4(),
            side.router_v6(),
        ))
    }

    /// One of the hosts.
    #[must_use]
    pub fn host(&self, which: Host) -> &Netns {
        match which {
            Host::A => &self.host_a,
            Host::B => &self.host_b,
        }
    }

    /// The router, the namespace that `nsplane` is to drive.
    #[must_use]
    pub fn router(&self) -> &Netns {
        &self.router
    }

    /// Switches GRO of the router's device towards a host. On, it makes that device
    /// poll (NAPI) even without an XDP program: frames that XDP redirects into a
    /// veth whose peer does not poll are lost without a word.
    ///
    /// # Errors
    /// `ethtool` failed.
    pub fn set_gro(&self, towards: Host, on: bool) -> Result<()> {
        let device = towards.router_device();
        let switch = if on { "on" } else { "off" };
        self.router.exec("ethtool", ["-K", device, "gro", switch]).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_drawing() {
        assert_eq!(Host::A.v4().to_string(), "10.0.0.2");
        assert_eq!(Host::B.router_v4().to_string(), "10.0.1.1");
        assert_eq!(Host::A.v6().to_string(), "fd00::2");
        assert_eq!(Host::B.router_v6().to_string(), "fd00:0:0:1::1");
    }
}
