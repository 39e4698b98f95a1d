//! Two tenants alike whose routers reach the wire by macvlans of one device, which lies in
//! a third namespace; under nsplane.
//!
//! ```text
//!  wire: o0 ─────── trunk0 (infra)
//!                     ├ macvlan a0 (router one, 10.0.0.1) ── b0 ── B of one, 10.0.1.2
//!                     └ macvlan a0 (router two, 10.0.0.1) ── b0 ── B of two, 10.0.1.2
//! ```
//! For tests only: what fails panics, and says what nsplane counted.

use std::net::IpAddr;
use std::time::Duration;

use crate::frame::Udp;
use crate::netns::{End, Netns, show_mac, veth};
use crate::process::Nsplane;
use crate::raw::Raw;
use crate::tenant::{Host, Tenant, TenantSpec};
use crate::wait::wait_until;

/// How long a change may take to show.
pub const SOON: Duration = Duration::from_secs(5);
/// How long a packet may take.
pub const SHORT: Duration = Duration::from_millis(100);
/// The host out on the wire, one address in both tenants' views.
pub const OUTSIDE: &str = "10.0.0.2";
/// Its Ethernet address.
pub const OUTSIDE_MAC: [u8; 6] = [2, 0, 0, 0, 0x0e, 2];

/// The lab; gone on drop.
pub struct Lab {
    /// The tenants.
    pub tenants: [Tenant; 2],
    /// Where the macvlans' device lies.
    pub infra: Netns,
    _wire: Netns,
    /// At the other end of the wire.
    pub outside: Raw,
    /// At each tenant's host B.
    pub far: [Raw; 2],
    /// nsplane, which drives all but the wire and the hosts.
    pub nsplane: Nsplane,
}

/// The address of a tenant's macvlan.
#[must_use]
pub fn mac_of(tenant: usize) -> [u8; 6] {
    [2, 0, 0, 0, 0x0f, tenant as u8 + 1]
}

/// Gives a router its side to the wire: a macvlan of the device in `infra`.
fn add_macvlan(infra: &Netns, router: &Netns, mac: [u8; 6], mode: &str) {
    let (name, mac) = (router.name(), show_mac(mac));
    infra
        .ip(&format!("link add a0 link trunk0 netns {name} address {mac} type macvlan mode {mode}"))
        .unwrap();
    set_up(router);
}

/// Gives a macvlan that has come its address, and the host on the wire.
pub fn set_up(router: &Netns) {
    router.ip_batch("link set a0 up\naddr replace 10.0.0.1/24 dev a0\n").unwrap();
    set_up_neighbor(router);
}

/// Makes the host on the wire a neighbour.
pub fn set_up_neighbor(router: &Netns) {
    let outside = show_mac(OUTSIDE_MAC);
    router.ip(&format!("neigh replace {OUTSIDE} lladdr {outside} dev a0 nud permanent")).unwrap();
}

impl Lab {
    /// Builds it; both macvlans are members.
    #[must_use]
    pub fn new(mode: &str) -> Self {
        // Same addresses, same routes, same MACs but for the macvlans'.
        let spec = TenantSpec { mac_seed: Some(5), ..TenantSpec::default() };
        let tenants = ["one", "two"].map(|label| Tenant::new(label, &spec).unwrap());
        let infra = Netns::new("infra").unwrap();
        let wire = Netns::new("wire").unwrap();
        veth(&End::new(&infra, "trunk0"), &End::new(&wire, "o0")).unwrap();
        for (t, tenant) in tenants.iter().enumerate() {
            let router = tenant.router();
            router.ip("link del a0").unwrap();
            add_macvlan(&infra, router, mac_of(t), mode);
            let b = tenant.host(Host::B);
            let mac = show_mac(b.mac(Host::DEVICE).unwrap());
            router
                .ip(&format!("neigh replace 10.0.1.2 lladdr {mac} dev b0 nud permanent"))
                .unwrap();
        }
        let outside = Raw::open(&wire, "o0").unwrap();
        let far = tenants.each_ref().map(|t| Raw::open(t.host(Host::B), Host::DEVICE).unwrap());
        let driven = [&infra, tenants[0].router(), tenants[1].router()];
        let nsplane = Nsplane::start(&driven, &[]).unwrap();
        let lab = Self { tenants, infra, _wire: wire, outside, far, nsplane };
        (0..2).for_each(|t| lab.wait_member(t));
        lab
    }

    /// A tenant's router.
    #[must_use]
    pub fn router(&self, tenant: usize) -> &Netns {
        self.tenants[tenant].router()
    }

    /// What nsplane shows of a router's device.
    #[must_use]
    pub fn port(&self, tenant: usize, device: &str) -> serde_json::Value {
        let ports = self.nsplane.show("ports", &["--netns", self.router(tenant).name()]).unwrap();
        let all = ports.as_array().unwrap();
        all.iter().find(|p| p["device"] == device).cloned().unwrap_or_default()
    }

    /// Whether a router's macvlan is a member of the device below.
    #[must_use]
    pub fn is_member(&self, tenant: usize) -> bool {
        let port = self.port(tenant, "a0");
        port["member"]["device"] == "trunk0"
            && port["member"]["netns"] == self.infra.name()
            && port["forward_v4"] == true
    }

    /// Waits until it is.
    pub fn wait_member(&self, tenant: usize) {
        wait_until(SOON, "the macvlan to be a member", || self.is_member(tenant))
            .unwrap_or_else(|e| panic!("{e}: {}", self.nsplane.show("ports", &[]).unwrap()));
    }

    /// Packets that workers forwarded of a tenant.
    #[must_use]
    pub fn forwarded(&self, tenant: usize) -> u64 {
        let name = self.router(tenant).name();
        let counters = self.nsplane.show("counters", &["--netns", name]).unwrap();
        counters[0]["userspace"]["forwarded"]["packets"].as_u64().unwrap()
    }

    /// A packet from the wire to a macvlan's address. True if it came out at B of the
    /// tenant; that it comes out at the other's is a leak.
    #[must_use]
    pub fn inwards(&self, mac: [u8; 6], tenant: usize, mark: &str) -> bool {
        let addresses: [IpAddr; 2] = [OUTSIDE.parse().unwrap(), Host::B.v4().into()];
        let sent = Udp::new((mac, OUTSIDE_MAC), addresses[0], addresses[1], mark.as_bytes());
        // A device that is down at its other end takes none; then none arrives.
        let _ = self.outside.send(&sent.bytes());
        let marked = |f: &[u8]| f.windows(mark.len()).any(|w| w == mark.as_bytes());
        let got = self.far[tenant].receive(SHORT, marked).is_some();
        let other = self.far[1 - tenant].receive(Duration::from_millis(1), marked);
        assert!(other.is_none(), "{mark} leaked");
        got
    }

    /// A packet from B to the wire, where it is to come from the macvlan's address.
    #[must_use]
    pub fn outwards(&self, tenant: usize, mac: [u8; 6], mark: &str) -> bool {
        let (router, b) = (self.router(tenant), self.tenants[tenant].host(Host::B));
        let macs = (router.mac("b0").unwrap(), b.mac(Host::DEVICE).unwrap());
        let dst = OUTSIDE.parse().unwrap();
        let sent = Udp::new(macs, Host::B.v4().into(), dst, mark.as_bytes());
        self.far[tenant].send(&sent.bytes()).unwrap();
        let expected = Udp { macs: (OUTSIDE_MAC, mac), ttl: 63, ..sent }.bytes();
        let marked = |f: &[u8]| f.windows(mark.len()).any(|w| w == mark.as_bytes());
        let Some(got) = self.outside.receive(SHORT, marked) else { return false };
        assert_eq!(got, expected, "{mark}");
        true
    }

    /// Both ways, by a worker.
    pub fn assert_forwards(&self, tenant: usize, mac: [u8; 6], what: &str) {
        let before = self.forwarded(tenant);
        let mut n = 0;
        let state = || self.nsplane.show("counters", &[]).unwrap();
        wait_until(SOON, "packets both ways", || {
            n += 1;
            self.inwards(mac, tenant, &format!("{what}: in {n};"))
                && self.outwards(tenant, mac, &format!("{what}: out {n};"))
                && self.forwarded(tenant) >= before + 2
        })
        .unwrap_or_else(|e| panic!("{what}: {e}: {}", state()));
    }
}
