//! Two tenants alike, and a device that is now in one's router, now in the other's.
//!
//! ```text
//!  one: A ── router ── B        two: A ── router ── B
//!              └──── m0 (10.0.2.1) ────┘
//!                     └ host: eth0 (10.0.2.2)
//! ```
//!
//! The tenants have the same addresses, routes and Ethernet addresses. Behind the
//! device is a host that thinks nothing of where it is.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;

use crate::netns::{End, Netns, show_mac, veth};
use crate::tenant::{Host, Tenant, TenantSpec};

/// The lab; gone on drop.
#[derive(Debug)]
pub struct Mover {
    tenants: [Tenant; 2],
    host: Netns,
    at: AtomicUsize,
}

impl Mover {
    /// The device's name in the routers.
    pub const DEVICE: &'static str = "m0";
    /// The device's Ethernet address.
    pub const MAC: [u8; 6] = [2, 0, 0, 0, 0x0d, 1];
    /// That of the host behind it.
    pub const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0x0d, 2];
    /// The router's address on the device, with its length.
    pub const ROUTER: &'static str = "10.0.2.1/24";

    /// Builds it; the device is in the first tenant's router, and set up there.
    ///
    /// # Errors
    /// A step failed, by its command; what was built until then is removed.
    pub fn new() -> Result<Self> {
        let spec = TenantSpec { mac_seed: Some(9), ..TenantSpec::default() };
        let tenants = [Tenant::new("one", &spec)?, Tenant::new("two", &spec)?];
        let host = Netns::new("mover")?;
        let end = End { mac: Some(Self::MAC), ..End::new(tenants[0].router(), Self::DEVICE) };
        let behind = End { mac: Some(Self::HOST_MAC), ..End::new(&host, Host::DEVICE) };
        veth(&end, &behind)?;
        let mac = show_mac(Self::MAC);
        host.ip_batch(&format!(
            "addr add {address}/24 dev eth0\nneigh add 10.0.2.1 lladdr {mac} dev eth0\n\
             route add default via 10.0.2.1\n",
            address = Self::address(),
        ))?;
        let mover = Self { tenants, host, at: AtomicUsize::new(0) };
        mover.arrive(false)?;
        Ok(mover)
    }

    /// The address of the host behind the device.
    #[must_use]
    pub fn address() -> IpAddr {
        IpAddr::from([10, 0, 2, 2])
    }

    /// The tenants.
    #[must_use]
    pub fn tenants(&self) -> &[Tenant; 2] {
        &self.tenants
    }

    /// A tenant's router.
    #[must_use]
    pub fn router(&self, tenant: usize) -> &Netns {
        self.tenants[tenant].router()
    }

    /// The host behind the device.
    #[must_use]
    pub fn host(&self) -> &Netns {
        &self.host
    }

    /// Which tenant's router the device is in.
    #[must_use]
    pub fn at(&self) -> usize {
        self.at.load(Ordering::Relaxed)
    }

    /// Moves the device to the other router; there it is down and has no address.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn depart(&self) -> Result<()> {
        let from = self.at();
        let to = 1 - from;
        let words = format!("link set {} netns {}", Self::DEVICE, self.router(to).name());
        self.router(from).ip(&words)?;
        self.at.store(to, Ordering::Relaxed);
        Ok(())
    }

    /// What an operator does with a device that has come: address, up. The host behind
    /// it is a static neighbour, or is to be resolved (`arp`).
    ///
    /// # Errors
    /// `ip` failed.
    pub fn arrive(&self, arp: bool) -> Result<()> {
        let (device, address) = (Self::DEVICE, Self::ROUTER);
        let mut lines = format!("addr add {address} dev {device}\nlink set {device} up\n");
        if !arp {
            let (host, mac) = (Self::address(), show_mac(Self::HOST_MAC));
            lines += &format!("neigh add {host} lladdr {mac} dev {device}\n");
        }
        self.router(self.at()).ip_batch(&lines)
    }
}
