//! However nsplane ends, the devices are as before and the kernel forwards.

use std::net::IpAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use nsplane_bench::Sink;
use nsplane_tests::flow;
use nsplane_tests::frame::Udp;
use nsplane_tests::netns::{End, Netns, veth};
use nsplane_tests::process::Nsplane;
use nsplane_tests::raw::Raw;
use nsplane_tests::tenant::{Family, Host, Tenant, TenantSpec};
use nsplane_tests::wait::wait_until;

/// What could have been changed on a device and its peer.
#[derive(Debug, PartialEq, Eq)]
struct Trace {
    programs: Vec<bool>,
    offloads: Vec<String>,
    settings: Vec<String>,
}

fn trace(tenant: &Tenant) -> Trace {
    let ends: [(&Netns, &str); 4] = [
        (tenant.router(), "a0"),
        (tenant.router(), "b0"),
        (tenant.host(Host::A), Host::DEVICE),
        (tenant.host(Host::B), Host::DEVICE),
    ];
    let program = |(netns, device): (&Netns, &str)| {
        let link = netns.ip_json(&format!("link show dev {device}")).unwrap();
        !link[0]["xdp"].is_null()
    };
    let offload = |(netns, device): (&Netns, &str)| netns.exec("ethtool", ["-k", device]).unwrap();
    let settings =
        ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv4/conf/a0/rp_filter"];
    Trace {
        programs: ends.map(program).to_vec(),
        offloads: ends.map(offload).to_vec(),
        settings: settings.map(|s| tenant.router().read_sysctl(s).unwrap()).to_vec(),
    }
}

fn assert_forwards(tenant: &Tenant) {
    for family in Family::BOTH {
        let seen = flow::ping(tenant.host(Host::A), Host::B.address(family), 3).unwrap();
        assert_eq!(seen.received, 3, "{family} is not forwarded");
    }
}

fn assert_as_before(tenant: &Tenant, before: &Trace) {
    // The kernel takes a dead process' links away on its own time.
    let gone = || !trace(tenant).programs.contains(&true);
    wait_until(Duration::from_secs(2), "the programs to be gone", gone).unwrap();
    assert_eq!(&trace(tenant), before);
    assert_forwards(tenant);
}

#[test]
#[ignore = "needs root"]
fn sigterm() {
    let tenant = Tenant::new("leave", &TenantSpec::default()).unwrap();
    assert_forwards(&tenant);
    let before = trace(&tenant);
    let mut nsplane = Nsplane::start(&[tenant.router()], &[]).unwrap();
    assert_eq!(trace(&tenant).programs, [true, true, false, false]);
    assert_forwards(&tenant);
    let api = nsplane.api();
    let status = nsplane.stop().unwrap();
    assert_eq!(status.code(), Some(0), "{}", nsplane.log());
    assert!(!api.exists(), "the API's socket is left behind");
    assert_as_before(&tenant, &before);
}

#[test]
#[ignore = "needs root"]
fn ten_restarts_in_a_row() {
    let tenant = Tenant::new("again", &TenantSpec::default()).unwrap();
    let before = trace(&tenant);
    for round in 0..10 {
        let mut nsplane = Nsplane::start(&[tenant.router()], &[]).unwrap();
        assert_forwards(&tenant);
        // Every second time without a farewell: the next one starts at once.
        let ended = if round % 2 == 0 { nsplane.stop() } else { nsplane.kill() };
        ended.unwrap();
    }
    assert_as_before(&tenant, &before);
}

#[test]
#[ignore = "needs root"]
fn an_error_at_the_start() {
    let tenant = Tenant::new("error", &TenantSpec::default()).unwrap();
    let before = trace(&tenant);
    // The second device has another program: the first must not stay a port.
    let holder = Sink::attach(tenant.router(), "b0", 1).unwrap();
    let mut nsplane = Nsplane::spawn(&[tenant.router()], &[]).unwrap();
    wait_until(Duration::from_secs(10), "nsplane to give up", || nsplane.exited().is_some())
        .unwrap();
    assert_eq!(nsplane.exited().unwrap().code(), Some(1), "{}", nsplane.log());
    drop(holder);
    assert_as_before(&tenant, &before);
}

#[test]
#[ignore = "needs root"]
fn sigterm_during_the_start() {
    let tenant = Tenant::new("early", &TenantSpec::default()).unwrap();
    let more = Netns::new("more").unwrap();
    for n in 0..12 {
        let (near, far) = (format!("c{n}"), format!("eth{n}"));
        veth(&End::new(tenant.router(), &near), &End::new(&more, &far)).unwrap();
    }
    let before = trace(&tenant);
    let mut nsplane = Nsplane::spawn(&[tenant.router()], &[]).unwrap();
    let begun = || trace(&tenant).programs[0];
    wait_until(Duration::from_secs(10), "the first program", begun).unwrap();
    let api = nsplane.api();
    let status = nsplane.stop().unwrap();
    assert_eq!(status.code(), Some(0), "{}", nsplane.log());
    assert!(!nsplane.log().contains("ready"), "the signal waited for the start: {}", nsplane.log());
    assert!(!api.exists(), "the API's socket is left behind");
    assert_as_before(&tenant, &before);
}

/// Sends numbered packets from A to B at a steady pace and returns the longest time
/// in which none arrived, while `disturb` runs once after a third of them.
fn longest_gap(tenant: &Tenant, disturb: impl FnOnce() + Send) -> (Duration, u32) {
    const PACKETS: u32 = 1500;
    const PACE: Duration = Duration::from_millis(1);
    let macs =
        (tenant.router().mac("a0").unwrap(), tenant.host(Host::A).mac(Host::DEVICE).unwrap());
    let near = Raw::open(tenant.host(Host::A), Host::DEVICE).unwrap();
    let far = Raw::open(tenant.host(Host::B), Host::DEVICE).unwrap();
    let (src, dst): (IpAddr, IpAddr) = (Host::A.v4().into(), Host::B.v4().into());
    let mark = b"gap-test";
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut disturb = Some(disturb);
            let start = Instant::now();
            for n in 0..PACKETS {
                if n == PACKETS / 3 {
                    let disturb = disturb.take().unwrap();
                    scope.spawn(disturb);
                }
                let _ = near.send(&Udp::new(macs, src, dst, mark).bytes());
                let due = start + PACE * (n + 1);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        });
        let is_ours = |f: &[u8]| f.windows(mark.len()).any(|w| w == mark);
        let (mut last, mut longest, mut seen) = (None::<Instant>, Duration::ZERO, 0);
        while far.receive(Duration::from_secs(1), is_ours).is_some() {
            let now = Instant::now();
            longest = longest.max(last.map_or(Duration::ZERO, |l| now - l));
            last = Some(now);
            seen += 1;
        }
        (longest, PACKETS - seen)
    })
}

#[test]
#[ignore = "needs root"]
fn kill_9_under_load() {
    let tenant = Tenant::new("kill", &TenantSpec::default()).unwrap();
    assert_forwards(&tenant);
    let before = trace(&tenant);
    let mut nsplane = Nsplane::start(&[tenant.router()], &[]).unwrap();
    assert_forwards(&tenant);
    let (gap, lost) = longest_gap(&tenant, || {
        let status = nsplane.kill().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGKILL));
    });
    println!("kill -9 at 1,000 packets/s: longest gap {gap:?}, {lost} packets lost");
    assert_as_before(&tenant, &before);
}
