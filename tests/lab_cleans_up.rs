//! Promise: the lab removes what it made, also when a test panics, and what a
//! killed process left behind; and what it builds carries packets.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;

use nsplane_tests::flow::{Transfer, ping};
use nsplane_tests::netns::{Netns, sweep};
use nsplane_tests::tenant::{Host, Tenant, TenantSpec};

fn exists(name: &str) -> bool {
    PathBuf::from("/run/netns").join(name).exists()
}

#[test]
#[ignore = "needs root"]
fn a_namespace_goes_with_its_guard() {
    let netns = Netns::new("drop").unwrap();
    let name = netns.name().to_owned();
    assert!(exists(&name));
    drop(netns);
    assert!(!exists(&name));
}

#[test]
#[ignore = "needs root"]
fn a_panic_leaves_nothing() {
    let mut name = String::new();
    let result = catch_unwind(AssertUnwindSafe(|| {
        let netns = Netns::new("panic").unwrap();
        netns.name().clone_into(&mut name);
        panic!("as a failing test would");
    }));
    assert!(result.is_err());
    assert!(!name.is_empty() && !exists(&name));
}

#[test]
#[ignore = "needs root"]
fn leftovers_of_dead_processes_are_swept_and_others_kept() {
    let mut child = Command::new("true").spawn().unwrap();
    let dead = child.id();
    child.wait().unwrap();
    let leftover = format!("nslab-{dead}-0-left");
    assert!(Command::new("ip").args(["netns", "add", &leftover]).status().unwrap().success());
    let alive = Netns::new("alive").unwrap();

    let removed = sweep().unwrap();

    assert!(removed.contains(&leftover));
    assert!(!exists(&leftover));
    assert!(exists(alive.name()));
}

#[test]
#[ignore = "needs root"]
fn a_tenant_of_the_kernel_carries_ping_and_tcp() {
    let spec = TenantSpec { mac_seed: Some(7), ..TenantSpec::default() };
    let [one, two] = ["one", "two"].map(|label| Tenant::new(label, &spec).unwrap());
    for tenant in [&one, &two] {
        let (a, b) = (tenant.host(Host::A), tenant.host(Host::B));
        for address in [Host::B.v4().into(), Host::B.v6().into()] {
            assert_eq!(ping(a, address, 2).unwrap().received, 2);
            let transfer = Transfer { from: a, to: b, address, bytes: 1 << 20 };
            transfer.run().unwrap();
        }
    }
}

#[test]
#[ignore = "needs root"]
fn a_router_that_does_not_forward_is_silent() {
    let spec = TenantSpec { forwarding: false, ..TenantSpec::default() };
    let tenant = Tenant::new("off", &spec).unwrap();
    let seen = ping(tenant.host(Host::A), Host::B.v4().into(), 1).unwrap();
    assert_eq!(seen.received, 0);
    assert_eq!(tenant.router().read_sysctl("net/ipv4/ip_forward").unwrap(), "0");
}
