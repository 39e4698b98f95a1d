//! Local TCP through nsplane: checksums that the sender left to the device are
//! completed, and every byte arrives, both ways, over IPv4 and IPv6.

use nsplane_tests::flow::Transfer;
use nsplane_tests::process::Nsplane;
use nsplane_tests::tenant::{Family, Host, Tenant, TenantSpec};

fn gigabyte(xdp: &str, bytes: u64) {
    let tenant = Tenant::new("tcp", &TenantSpec::default()).unwrap();
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
    let counters = nsplane.show("counters", &[]).unwrap();
    let userspace = &counters[0]["userspace"];
    let completed = userspace["csum_completed"].as_u64().unwrap();
    let forwarded = userspace["forwarded"]["packets"].as_u64().unwrap();
    // The bytes went through the workers, with checksums that they completed.
    assert!(forwarded > 4 * bytes / 1500, "{counters}");
    assert!(completed > 4 * bytes / 1500, "{counters}");
}

#[test]
#[ignore = "needs root"]
fn native() {
    gigabyte("native", 256 << 20);
}

#[test]
#[ignore = "needs root"]
fn generic() {
    gigabyte("generic", 32 << 20);
}
