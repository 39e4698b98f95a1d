//! Namespaces come and go; nothing of nsplane keeps a dead one alive.

use std::time::Duration;

use nsplane_tests::flow;
use nsplane_tests::netns::{End, Netns, veth};
use nsplane_tests::process::Nsplane;
use nsplane_tests::tenant::{Host, Tenant, TenantSpec};
use nsplane_tests::wait::wait_until;

const SOON: Duration = Duration::from_secs(5);

fn names(nsplane: &Nsplane) -> Vec<String> {
    let shown = nsplane.show("namespaces", &[]).unwrap();
    shown.as_array().unwrap().iter().map(|n| n["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
#[ignore = "needs root"]
fn all_takes_later_ones_in_and_lets_them_go() {
    let first = Netns::new("first").unwrap();
    let nsplane = Nsplane::start(&[], &["--all"]).unwrap();
    assert!(names(&nsplane).contains(&first.name().to_owned()));
    let tenant = Tenant::new("later", &TenantSpec::default()).unwrap();
    let router = tenant.router().name().to_owned();
    wait_until(SOON, "the namespace to be taken in", || names(&nsplane).contains(&router)).unwrap();
    let ports = || nsplane.show("ports", &["--netns", &router]).unwrap();
    let both = || ports().as_array().unwrap().iter().filter(|p| p["port"] != "").count() == 2;
    wait_until(SOON, "its devices to be ports", both).unwrap();
    let seen = flow::ping(tenant.host(Host::A), Host::B.v4().into(), 3).unwrap();
    assert_eq!(seen.received, 3);
    drop(tenant);
    wait_until(SOON, "the namespace to be let go", || !names(&nsplane).contains(&router)).unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_deleted_namespace_dies_with_its_devices() {
    let keeper = Netns::new("keeper").unwrap();
    let doomed = Netns::new("doomed").unwrap();
    veth(&End::new(&doomed, "d0"), &End::new(&keeper, "k0")).unwrap();
    doomed.sysctl("net/ipv4/ip_forward", "1").unwrap();
    let nsplane = Nsplane::start(&[&doomed], &[]).unwrap();
    doomed.remove().unwrap();
    // The peer goes when the namespace really dies, and not before.
    wait_until(SOON, "the peer to be gone", || keeper.ifindex("k0").is_err()).unwrap();
    assert!(names(&nsplane).is_empty());
}

#[test]
#[ignore = "needs root"]
fn path_and_pid_name_a_namespace_too() {
    let tenant = Tenant::new("pid", &TenantSpec::default()).unwrap();
    let name = tenant.router().name();
    let path = format!("/run/netns/{name}");
    let by_path = Nsplane::start(&[], &["--netns", &path]).unwrap();
    assert_eq!(by_path.show("ports", &[]).unwrap().as_array().unwrap().len(), 2);
    drop(by_path);
    let mut sleeper = std::process::Command::new("ip")
        .args(["netns", "exec", name, "sleep", "60"])
        .spawn()
        .unwrap();
    let inside = || {
        let of = |p: &str| std::fs::read_link(format!("/proc/{p}/ns/net")).ok();
        of(&sleeper.id().to_string()) != of("self")
    };
    wait_until(SOON, "the process to be in the namespace", inside).unwrap();
    let by_pid = Nsplane::start(&[], &["--netns", &format!("pid:{}", sleeper.id())]);
    let ports = by_pid.as_ref().map(|n| n.show("ports", &[]).unwrap());
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    assert_eq!(ports.unwrap().as_array().unwrap().len(), 2);
    // Without the process there is nothing to know the namespace by.
    let by_pid = by_pid.unwrap();
    wait_until(SOON, "the namespace to be let go", || names(&by_pid).is_empty()).unwrap();
}

#[test]
#[ignore = "needs root"]
fn an_idle_nsplane_sleeps() {
    let tenant = Tenant::new("idle", &TenantSpec::default()).unwrap();
    let nsplane = Nsplane::start(&[tenant.router()], &["--workers", "2"]).unwrap();
    let workers = || nsplane.show("workers", &[]).unwrap().as_array().unwrap().clone();
    let sum = |what: &str| workers().iter().map(|w| w[what].as_u64().unwrap()).sum::<u64>();
    // Asleep it counts sleeps; spinning it would count rounds by the million.
    let sleeps = sum("sleeps");
    wait_until(SOON, "both to sleep", || sum("sleeps") > sleeps + 4).unwrap();
    let (sleeps, rounds) = (sum("sleeps"), sum("rounds"));
    wait_until(SOON, "some more sleeps", || sum("sleeps") > sleeps + 4).unwrap();
    let a_sleep = (sum("rounds") - rounds) / (sum("sleeps") - sleeps);
    assert!(a_sleep < 10_000, "{a_sleep} rounds for each sleep");
}
