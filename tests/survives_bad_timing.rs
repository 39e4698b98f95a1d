//! What is there one moment and gone the next: a namespace while it is taken in, a
//! device while it becomes a port. Nothing breaks, nothing is left behind.

use std::time::Duration;

use nsplane_tests::flow;
use nsplane_tests::netns::{End, Netns, veth};
use nsplane_tests::process::Nsplane;
use nsplane_tests::tenant::{Host, Tenant, TenantSpec};
use nsplane_tests::wait::wait_until;

const SOON: Duration = Duration::from_secs(10);

/// nsplane over all namespaces, one tenant that stays, and a place for other ends.
struct Scene {
    far: Netns,
    tenant: Tenant,
    nsplane: Nsplane,
    before: serde_json::Value,
}

impl Scene {
    fn new() -> Self {
        let far = Netns::new("far").unwrap();
        let tenant = Tenant::new("stays", &TenantSpec::default()).unwrap();
        let args = ["--all", "--device", "a0", "--device", "b0"];
        let nsplane = Nsplane::start(&[], &args).unwrap();
        let ports = || nsplane.show("resources", &[]).unwrap()[0]["ports"] == 2;
        wait_until(SOON, "the tenant's ports", ports).unwrap();
        let before = nsplane.show("resources", &[]).unwrap()[0].clone();
        Self { far, tenant, nsplane, before }
    }

    fn pair(&self, netns: &Netns, device: &str, round: u32) {
        let peer = format!("p{device}{round}");
        veth(&End::new(netns, device), &End::new(&self.far, &peer)).unwrap();
    }

    fn assert_well(&mut self) {
        assert!(self.nsplane.exited().is_none(), "{}", self.nsplane.log());
        let counted = ["namespaces", "ports", "closing", "sockets", "map_ports", "map_addresses"];
        let same = || {
            let now = self.nsplane.show("resources", &[]).unwrap()[0].clone();
            counted.iter().all(|what| now[what] == self.before[what])
        };
        wait_until(SOON, "everything to be given back", same)
            .unwrap_or_else(|e| panic!("{e}: {}", self.nsplane.show("resources", &[]).unwrap()));
        let tenant = &self.tenant;
        let seen = flow::ping(tenant.host(Host::A), Host::B.v4().into(), 3).unwrap();
        assert_eq!(seen.received, 3, "the tenant that stays is not forwarded");
    }
}

#[test]
#[ignore = "needs root"]
fn a_namespace_that_disappears_while_it_is_set_up() {
    let mut scene = Scene::new();
    for round in 0..30 {
        let brief = Netns::new("brief").unwrap();
        scene.pair(&brief, "a0", round);
        scene.pair(&brief, "b0", round);
        // From at once to well after both are ports.
        std::thread::sleep(Duration::from_millis(u64::from(round) * 4));
        brief.remove().unwrap();
    }
    let left = || scene.far.ip_json("link show type veth").unwrap().as_array().unwrap().len();
    wait_until(SOON, "the dead namespaces' devices to be gone", || left() == 0).unwrap();
    scene.assert_well();
}

#[test]
#[ignore = "needs root"]
fn a_device_that_is_taken_away_while_it_becomes_a_port() {
    let mut scene = Scene::new();
    let here = Netns::new("here").unwrap();
    let there = Netns::new("there").unwrap();
    let driven = || scene.nsplane.show("resources", &[]).unwrap()[0]["namespaces"].clone();
    let both = scene.before["namespaces"].as_u64().unwrap() + 2;
    wait_until(SOON, "both namespaces to be taken in", || driven() == both).unwrap();
    scene.before["namespaces"] = both.into();
    let local = |netns: &Netns| netns.ip("link set lo up").unwrap();
    local(&here);
    local(&there);
    let addresses = || scene.nsplane.show("resources", &[]).unwrap()[0]["map_addresses"].clone();
    let mut seen = addresses();
    wait_until(SOON, "their addresses to settle", || {
        let before = std::mem::replace(&mut seen, addresses());
        std::thread::sleep(Duration::from_millis(100));
        before == seen
    })
    .unwrap();
    scene.before["map_addresses"] = seen;
    for round in 0..40 {
        scene.pair(&here, "a0", round);
        std::thread::sleep(Duration::from_millis(u64::from(round)));
        match round % 4 {
            0 => here.ip("link del a0").unwrap(),
            1 => here.ip("link set a0 down").and_then(|_| here.ip("link del a0")).unwrap(),
            2 => here.ip("link set a0 name c0").and_then(|_| here.ip("link del c0")).unwrap(),
            _ => {
                here.ip(&format!("link set a0 netns {}", there.name())).unwrap();
                there.ip("link set a0 up").unwrap();
                std::thread::sleep(Duration::from_millis(u64::from(round)));
                there.ip("link del a0").unwrap()
            }
        };
    }
    scene.assert_well();
    // A device of the same name is a port again, in either namespace.
    for (round, netns) in [&here, &there].into_iter().enumerate() {
        scene.pair(netns, "a0", 100 + round as u32);
        let ports = || scene.nsplane.show("ports", &["--netns", netns.name()]).unwrap();
        let is_port = || ports().as_array().unwrap().iter().any(|p| p["port"] != "");
        wait_until(SOON, "a new device to be a port", is_port)
            .unwrap_or_else(|e| panic!("{e}: {}", ports()));
    }
}
