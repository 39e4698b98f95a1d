//! Fifty namespaces at once: all driven, none forgotten, and all let go.

use std::time::Duration;

use nsplane_tests::crowd::Crowd;
use nsplane_tests::flow;
use nsplane_tests::netns::Netns;
use nsplane_tests::process::Nsplane;
use nsplane_tests::tenant::{Family, Host, Tenant, TenantSpec};
use nsplane_tests::wait::wait_until;

const COUNT: u32 = 50;
const SOON: Duration = Duration::from_secs(60);

#[test]
#[ignore = "needs root"]
fn fifty_are_driven_and_let_go() {
    let tenant = Tenant::new("amid", &TenantSpec::default()).unwrap();
    let crowd = Crowd::new(COUNT, |_| Ok(())).unwrap();
    let mut driven: Vec<&Netns> = crowd.namespaces().collect();
    driven.push(tenant.router());
    let mut nsplane = Nsplane::spawn(&driven, &["--max-ports", "256"]).unwrap();
    wait_until(SOON, "nsplane to be ready", || {
        assert!(nsplane.exited().is_none(), "{}", nsplane.log());
        nsplane.show("workers", &[]).is_ok()
    })
    .unwrap();
    let resources = |what: &str| nsplane.show("resources", &[]).unwrap()[0][what].clone();
    let all = u64::from(COUNT) + 1;
    assert_eq!(resources("namespaces"), all);
    assert_eq!(resources("ports"), 2 * all);
    let ports = nsplane.show("ports", &[]).unwrap();
    let forwards = |p: &&serde_json::Value| p["port"] != "" && p["forward_v4"] == true;
    assert_eq!(ports.as_array().unwrap().iter().filter(forwards).count() as u64, 2 * all);
    for family in Family::BOTH {
        let seen = flow::ping(tenant.host(Host::A), Host::B.address(family), 5).unwrap();
        assert_eq!(seen.received, 5, "{family} is not forwarded among {COUNT}");
    }
    let far = crowd.delete_namespaces().unwrap();
    let left = || far.ip("-o link show type veth").unwrap().lines().count();
    wait_until(SOON, "their devices to be gone", || left() == 0).unwrap();
    wait_until(SOON, "all to be closed", || resources("closing") == 0).unwrap();
    assert_eq!((resources("namespaces"), resources("ports")), (1.into(), 2.into()));
    assert_eq!(resources("map_ports"), 2);
    let seen = flow::ping(tenant.host(Host::A), Host::B.v4().into(), 5).unwrap();
    assert_eq!(seen.received, 5, "the one that is left is not forwarded");
}
