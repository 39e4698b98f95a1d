//! Local TCP through nsplane: the sender leaves checksums, and in generic mode the
//! cutting into segments, to the device. Every byte arrives, both ways, over IPv4 and
//! IPv6, whoever finishes the packets, and however long they are.

use nsplane_tests::flow::Transfer;
use nsplane_tests::process::Nsplane;
use nsplane_tests::tenant::{Family, Host, Tenant, TenantSpec};

/// Moves the bytes four times through the router, and returns its counters then.
fn transfer(xdp: &str, mtu: u32, bytes: u64) -> serde_json::Value {
    let tenant = Tenant::new("tcp", &TenantSpec::default()).unwrap();
    for host in [Host::A, Host::B] {
        tenant.router().ip(&format!("link set {} mtu {mtu}", host.router_device())).unwrap();
        tenant.host(host).ip(&format!("link set {} mtu {mtu}", Host::DEVICE)).unwrap();
    }
    let nsplane = Nsplane::start(&[tenant.router()], &["--xdp", xdp]).unwrap();
    for family in Family::BOTH {
        for from in [Host::A, Host::B] {
            let to = from.other();
            let transfer = Transfer {
                from: tenant.host(from),
                to: tenant.host(to),
                address: to.address(family),
                bytes,
            };
            let took = transfer.run().unwrap();
            let mbit = bytes as f64 * 8.0 / took.as_secs_f64() / 1e6;
            println!("{xdp} {family} from {from:?}: {bytes} bytes in {took:?}, {mbit:.0} Mbit/s");
        }
    }
    nsplane.show("counters", &[]).unwrap()[0].take()
}

#[test]
#[ignore = "needs root"]
fn native() {
    let bytes = 1 << 30;
    let counters = transfer("native", 1500, bytes);
    // The bytes went through the workers, with checksums that they completed.
    let userspace = &counters["userspace"];
    assert!(userspace["forwarded"]["packets"].as_u64() > Some(4 * bytes / 1500), "{counters}");
    assert!(userspace["csum_completed"].as_u64() > Some(4 * bytes / 1500), "{counters}");
}

#[test]
#[ignore = "needs root"]
fn native_with_an_mtu_of_9000() {
    let bytes = 1 << 29;
    let counters = transfer("native", 9000, bytes);
    // In packets of six frames each, with checksums over all of them.
    let userspace = &counters["userspace"];
    let forwarded = &userspace["forwarded"];
    assert!(forwarded["bytes"].as_u64() > Some(4 * bytes), "{counters}");
    assert!(forwarded["packets"].as_u64() < Some(4 * bytes / 3000), "{counters}");
    assert!(userspace["csum_completed"].as_u64() > Some(4 * bytes / 9000), "{counters}");
    assert!(counters["kernel"]["passed"]["too_long"]["packets"].as_u64().unwrap_or(0) == 0);
}

#[test]
#[ignore = "needs root"]
fn generic() {
    let bytes = 32 << 20;
    let counters = transfer("generic", 1500, bytes);
    // The kernel, which knows what its packets lack, carried them; no worker guessed.
    let passed = &counters["kernel"]["passed"];
    let by = |reason: &str| passed[reason]["bytes"].as_u64().unwrap_or(0);
    assert!(by("checksum") + by("too_long") > 4 * bytes, "{counters}");
    assert_eq!(counters["userspace"]["csum_completed"], 0, "{counters}");
}
