//! A tenant under nsplane, probed packet by packet.
//!
//! For tests only: what fails panics, and says what nsplane counted.

use std::net::IpAddr;
use std::time::Duration;

use crate::flow;
use crate::frame::Udp;
use crate::process::Nsplane;
use crate::raw::Raw;
use crate::tenant::{Family, Host, Tenant, TenantSpec};
use crate::wait::wait_until;

/// How long a change may take to show.
pub const SOON: Duration = Duration::from_secs(5);

/// A tenant that nsplane routes, and a way to send a packet and see where it goes.
pub struct Lab {
    /// The tenant.
    pub tenant: Tenant,
    /// nsplane, which drives the router.
    pub nsplane: Nsplane,
    near: Raw,
    macs: ([u8; 6], [u8; 6]),
}

impl Lab {
    /// Builds the tenant, starts nsplane and waits until both families get through.
    #[must_use]
    pub fn new(label: &str) -> Self {
        Self::with(label, &[])
    }

    /// The same, with more arguments for nsplane.
    #[must_use]
    pub fn with(label: &str, args: &[&str]) -> Self {
        let tenant = Tenant::new(label, &TenantSpec::default()).unwrap();
        let nsplane = Nsplane::start(&[tenant.router()], args).unwrap();
        for family in Family::BOTH {
            let seen = flow::ping(tenant.host(Host::A), Host::B.address(family), 2).unwrap();
            assert!(seen.received > 0, "no {family} through the router");
        }
        let near = Raw::open(tenant.host(Host::A), Host::DEVICE).unwrap();
        let macs =
            (tenant.router().mac("a0").unwrap(), tenant.host(Host::A).mac(Host::DEVICE).unwrap());
        Self { tenant, nsplane, near, macs }
    }

    /// Sends a packet to `dst`; its frame as it arrives at `far`, if it does.
    #[must_use]
    pub fn probe(&self, far: &Raw, dst: &str) -> Option<Vec<u8>> {
        self.probe_for(far, dst, Duration::from_millis(100))
    }

    /// The same, waiting so long for the arrival.
    #[must_use]
    pub fn probe_for(&self, far: &Raw, dst: &str, patience: Duration) -> Option<Vec<u8>> {
        let dst: IpAddr = dst.parse().unwrap();
        let src = if dst.is_ipv4() { Host::A.v4().into() } else { Host::A.v6().into() };
        far.clear();
        let mark = b"where does it go";
        self.near.send(&Udp::new(self.macs, src, dst, mark).bytes()).unwrap();
        far.receive(patience, |f| f.windows(mark.len()).any(|w| w == mark))
    }

    /// Packets that nsplane forwarded itself.
    #[must_use]
    pub fn forwarded(&self) -> u64 {
        let counters = self.nsplane.show("counters", &[]).unwrap();
        counters[0]["userspace"]["forwarded"]["packets"].as_u64().unwrap()
    }

    /// Waits until packets to `dst` arrive at `far`, forwarded by nsplane itself.
    pub fn wait_forwarded(&self, far: &Raw, dst: &str) {
        wait_until(SOON, &format!("packets to {dst}"), || {
            let before = self.forwarded();
            self.probe(far, dst).is_some() && self.forwarded() > before
        })
        .unwrap_or_else(|e| panic!("{e}: {}", self.nsplane.show("counters", &[]).unwrap()));
    }

    /// Waits until packets to `dst` arrive at `far`, forwarded by the kernel.
    pub fn wait_kernel(&self, far: &Raw, dst: &str) {
        wait_until(SOON, &format!("packets to {dst} by the kernel"), || {
            let before = self.forwarded();
            self.probe(far, dst).is_some() && self.forwarded() == before
        })
        .unwrap_or_else(|e| panic!("{e}: {}", self.nsplane.show("counters", &[]).unwrap()));
    }

    /// Waits until packets to `dst` do not arrive at `far`.
    pub fn wait_silent(&self, far: &Raw, dst: &str) {
        wait_until(SOON, &format!("no packets to {dst}"), || self.probe(far, dst).is_none())
            .unwrap();
    }
}
