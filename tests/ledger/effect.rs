//! What the ledger is for: verdicts that take effect, an operator who overrides them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nsplane_bench::{Frame, Generator, Load, Sink};
use nsplane_tests::lab::SOON;
use nsplane_tests::process::Nsplane;
use nsplane_tests::tenant::{Family, Host, Tenant, TenantSpec};
use nsplane_tests::wait::wait_until;

use super::Way::{Nobody, Ours};
use super::{Bench, DROP_ALL};

/// What the operator says is not obeyed, and is shown so.
#[test]
#[ignore = "needs root"]
fn bypass() {
    let b = Bench::new("ledby", &["--bypass", "netfilter"]);
    let router = b.lab.tenant.router();
    router.exec("nft", ["add table inet t"]).unwrap();
    router.exec("nft", [&format!("add chain inet t f {DROP_ALL}")]).unwrap();
    let row = [("scope", "IPv4, IPv6"), ("status", "bypassed"), ("tier", "userspace")];
    b.wait_row("netfilter", &row);
    b.wait_ways(Ours, Ours);
    let log = b.lab.nsplane.log();
    assert!(log.contains("WARN") && log.contains("bypassed") && log.contains("t/f"), "{log}");
    // Only what was named.
    let policy = "dir fwd src 10.0.0.0/24 dst 10.0.1.0/24";
    router.ip(&format!("xfrm policy add {policy} action block")).unwrap();
    b.wait_row("xfrm", &[("status", "kernel")]);
    b.wait_ways(Nobody, Ours);
}

#[test]
#[ignore = "needs root"]
fn what_is_not_in_use_is_listed_on_request() {
    let b = Bench::new("ledall", &[]);
    let all = b.lab.nsplane.show("ledger", &["--all-items"]).unwrap();
    let all = all.as_array().unwrap();
    assert!(all.len() > 30 && all.iter().all(|r| r["tier"] == ""), "{all:#?}");
}

/// As the config file has it, and taken back while nsplane runs.
#[test]
#[ignore = "needs root"]
fn bypass_by_the_config_file() {
    let tenant = Tenant::new("ledcfg", &TenantSpec::default()).unwrap();
    let router = tenant.router();
    router.exec("nft", ["add table inet t"]).unwrap();
    router.exec("nft", [&format!("add chain inet t f {DROP_ALL}")]).unwrap();
    let path = std::env::temp_dir().join(format!("{}.toml", router.name()));
    let write = |bypass: &str| {
        let text = format!("[[namespace]]\nnetns = '{}'\nbypass = [{bypass}]\n", router.name());
        std::fs::write(&path, text).unwrap();
    };
    write("'netfilter', 'tc'");
    let mut nsplane = Nsplane::start(&[], &["--config", &path.to_string_lossy()]).unwrap();
    let status = |nsplane: &Nsplane| {
        let rows = nsplane.show("ledger", &[]).unwrap();
        rows[0]["status"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(status(&nsplane), "bypassed");
    assert!(nsplane.log().contains("netfilter, tc"), "{}", nsplane.log());
    write("");
    nsplane.signal(libc::SIGHUP).unwrap();
    wait_until(SOON, "the filter to count", || status(&nsplane) == "kernel").unwrap();
    std::fs::remove_file(&path).unwrap();
}

/// How long the fast path outlives a filter, and how long it takes to come back, with
/// 2,000 packets a second on their way.
#[test]
#[ignore = "needs root"]
fn there_and_back() {
    const MARK: u32 = 0x1ed9;
    let b = Bench::new("ledfast", &[]);
    let nft = |words: &str| b.lab.tenant.router().exec("nft", [words]).map(drop).unwrap();
    nft("add table inet t");
    let sink = Sink::attach(b.lab.tenant.host(Host::B), Host::DEVICE, MARK).unwrap();
    let arrived = || sink.counts().unwrap().own;
    let (mut past, mut back) = (Vec::new(), Vec::new());
    under_load(&b, MARK, || {
        for _ in 0..5 {
            let before = (arrived(), b.lab.forwarded());
            let both = || arrived() > before.0 + 20 && b.lab.forwarded() > before.1 + 20;
            wait_until(SOON, "the load, by nsplane", both).unwrap();
            nft(&format!("add chain inet t f {DROP_ALL}"));
            let start = Instant::now();
            let (mut last, mut count) = (Duration::ZERO, arrived());
            while start.elapsed() < Duration::from_millis(500) {
                std::thread::sleep(Duration::from_micros(200));
                let now = arrived();
                if now != count {
                    (last, count) = (start.elapsed(), now);
                }
            }
            past.push(last);
            let before = b.lab.forwarded();
            nft("delete chain inet t f");
            let start = Instant::now();
            wait_until(SOON, "nsplane again", || b.lab.forwarded() > before).unwrap();
            back.push(start.elapsed());
        }
    });
    println!("last packet past the filter, after the command ended: {past:?}");
    println!("nsplane forwards again, after the command ended: {back:?}");
    assert!(past.iter().all(|t| *t < Duration::from_millis(450)), "{past:?}");
}

/// Does `work` while 2,000 packets a second go from one host to the other.
pub(crate) fn under_load(b: &Bench, mark: u32, work: impl FnOnce()) {
    let tenant = &b.lab.tenant;
    let stop = AtomicBool::new(false);
    let frame = Frame::across(tenant, Host::A, Family::V4, mark).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut generator = Generator::new(tenant.host(Host::A), Host::DEVICE, &frame).unwrap();
            generator.run(&Load::paced(u64::MAX, 2_000), &stop).unwrap()
        });
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = worked {
            std::panic::resume_unwind(panic);
        }
    });
}
