//! The config file: what it says is done, a new one is applied while traffic flows, and
//! a wrong one changes nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use nsplane_bench::{Frame, Generator, Load, Sink};
use nsplane_tests::frame::Udp;
use nsplane_tests::process::Nsplane;
use nsplane_tests::raw::Raw;
use nsplane_tests::tenant::{Family, Host, Tenant, TenantSpec};
use nsplane_tests::wait::wait_until;

const SOON: Duration = Duration::from_secs(10);
const MARK: u32 = 0x5a;
/// Packets a second: low enough for the smallest queue on the way to last a stall.
const RATE: u64 = 1_000;

/// A config file that goes with its guard.
struct File(PathBuf);

impl File {
    fn new(text: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("nslab-{}-{number}.toml", std::process::id());
        let file = Self(std::env::temp_dir().join(name));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        fs::write(&self.0, text).unwrap();
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn drives(tenants: &[&Tenant]) -> String {
    let table = |t: &&Tenant| format!("[[namespace]]\nnetns = \"{}\"\n", t.router().name());
    tenants.iter().map(table).collect()
}

fn start(file: &File, args: &[&str]) -> Nsplane {
    let args: Vec<&str> =
        ["--config", file.path()].into_iter().chain(args.iter().copied()).collect();
    Nsplane::start(&[], &args).unwrap()
}

fn binary(args: &[&str]) -> Output {
    Command::new(Nsplane::binary().unwrap()).args(args).output().unwrap()
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}

fn reload(nsplane: &Nsplane) -> serde_json::Value {
    let out = nsplane.tell(&["reload", "--json"]).unwrap();
    assert!(out.status.success(), "{}", said(&out));
    serde_json::from_slice(&out.stdout).unwrap()
}

fn names(nsplane: &Nsplane) -> Vec<String> {
    let shown = nsplane.show("namespaces", &[]).unwrap();
    shown.as_array().unwrap().iter().map(|n| n["name"].as_str().unwrap().to_owned()).collect()
}

/// The ports of a tenant's router, by device.
fn ports(nsplane: &Nsplane, tenant: &Tenant) -> Vec<String> {
    let Ok(shown) = nsplane.show("ports", &["--netns", tenant.router().name()]) else {
        return Vec::new();
    };
    let ports = shown.as_array().unwrap().iter().filter(|p| p["port"] != "");
    let mut devices: Vec<String> =
        ports.map(|p| p["device"].as_str().unwrap().to_owned()).collect();
    devices.sort();
    devices
}

#[track_caller]
fn wait_ports(nsplane: &Nsplane, tenant: &Tenant, wanted: &[&str]) {
    let same = || ports(nsplane, tenant) == wanted;
    wait_until(SOON, &format!("ports {wanted:?}"), same)
        .unwrap_or_else(|e| panic!("{e}: {:?}", ports(nsplane, tenant)));
}

fn tenant(label: &str) -> Tenant {
    Tenant::new(label, &TenantSpec::default()).unwrap()
}

/// Waits until nsplane itself forwards what is sent in the tenant.
fn wait_forwarded(nsplane: &Nsplane, tenant: &Tenant) {
    let forwarded = || {
        let counters = nsplane.show("counters", &["--netns", tenant.router().name()]);
        counters.map_or(0, |c| c[0]["userspace"]["forwarded"]["packets"].as_u64().unwrap())
    };
    wait_until(SOON, "packets to be forwarded", || {
        let before = forwarded();
        let seen = nsplane_tests::flow::ping(tenant.host(Host::A), Host::B.v4().into(), 2);
        seen.is_ok_and(|s| s.received == 2) && forwarded() > before
    })
    .unwrap();
}

#[test]
#[ignore = "needs root"]
fn namespaces_come_and_go_while_traffic_in_another_loses_nothing() {
    let (kept, other) = (tenant("kept"), tenant("other"));
    let file = File::new(&drives(&[&kept]));
    let nsplane = start(&file, &[]);
    wait_forwarded(&nsplane, &kept);
    let sink = Sink::attach(kept.host(Host::B), Host::DEVICE, MARK).unwrap();
    let frame = Frame::across(&kept, Host::A, Family::V4, MARK).unwrap();
    let stop = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut generator = Generator::new(kept.host(Host::A), Host::DEVICE, &frame).unwrap();
            let load = Load { cpu: Some(0), ..Load::paced(u64::MAX, RATE) };
            generator.run(&load, &stop).unwrap().packets
        });
        let changes = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_until(SOON, "the load", || sink.counts().unwrap().own > 100).unwrap();
            for _ in 0..3 {
                file.write(&drives(&[&other, &kept]));
                let report = reload(&nsplane);
                assert_eq!(report["taken_in"][0], other.router().name(), "{report}");
                wait_ports(&nsplane, &other, &["a0", "b0"]);
                wait_forwarded(&nsplane, &other);
                file.write(&drives(&[&kept]));
                let report = reload(&nsplane);
                assert_eq!(report["let_go"][0], other.router().name(), "{report}");
                assert_eq!(names(&nsplane), [kept.router().name()]);
            }
        }));
        // Whatever happens in there, the sender must end, or the scope never does.
        stop.store(true, Ordering::Relaxed);
        let sent = sender.join().unwrap();
        if let Err(panic) = changes {
            std::panic::resume_unwind(panic);
        }
        sent
    });
    let arrived = wait_until(SOON, "all packets", || sink.counts().unwrap().own >= sent);
    let counts = sink.counts().unwrap();
    println!("sent {sent}, arrived {}", counts.own);
    arrived.unwrap_or_else(|e| panic!("{e}: {}", nsplane.show("counters", &[]).unwrap()));
    assert_eq!((counts.own, counts.foreign), (sent, 0));
}

#[test]
#[ignore = "needs root"]
fn devices_and_tiers_change_on_sighup() {
    let tenant = tenant("hup");
    let of = |keys: &str| format!("{}{keys}\n", drives(&[&tenant]));
    let file = File::new(&of("devices = [\"a*\"]"));
    let mut nsplane = start(&file, &[]);
    wait_ports(&nsplane, &tenant, &["a0"]);
    let a0 = |nsplane: &Nsplane| {
        let shown = nsplane.show("ports", &["--netns", tenant.router().name()]).unwrap();
        shown.as_array().unwrap().iter().find(|p| p["device"] == "a0").unwrap()["port"].clone()
    };
    let before = a0(&nsplane);
    file.write(&of("devices = [\"?0\"]"));
    let hup = |n: &mut Nsplane| n.signal(libc::SIGHUP).unwrap();
    hup(&mut nsplane);
    wait_ports(&nsplane, &tenant, &["a0", "b0"]);
    assert_eq!(a0(&nsplane), before, "it is the same port");
    wait_forwarded(&nsplane, &tenant);
    file.write(&of("tier = \"kernel\""));
    hup(&mut nsplane);
    wait_ports(&nsplane, &tenant, &[]);
    let seen = nsplane_tests::flow::ping(tenant.host(Host::A), Host::B.v4().into(), 2).unwrap();
    assert_eq!(seen.received, 2, "the kernel forwards");
    let shown = nsplane.show("ports", &[]).unwrap();
    assert!(shown[0]["reason"].as_str().unwrap().contains("tier"), "{shown}");
    file.write("[[namespace]]\nnetns = 7\n");
    hup(&mut nsplane);
    let logged = || nsplane.log().contains(&format!("{}:2:9", file.path()));
    wait_until(SOON, "the log to say what is wrong", logged).unwrap();
    assert_eq!(names(&nsplane), [tenant.router().name()]);
    assert!(nsplane.exited().is_none());
}

#[test]
#[ignore = "needs root"]
fn a_wrong_config_changes_nothing_and_says_where() {
    let tenant = tenant("wrong");
    let router = tenant.router().name();
    let good = drives(&[&tenant]);
    let file = File::new(&good);
    let nsplane = start(&file, &[]);
    wait_ports(&nsplane, &tenant, &["a0", "b0"]);
    let state = || (nsplane.show("ports", &[]).unwrap(), nsplane.show("selectors", &[]).unwrap());
    let before = state();
    let member = |netns: &str| {
        format!(
            "[[member]]\nnetns = \"{netns}\"\nlink = \"v\"\nvlan = 7\n\
             port = {{ netns = \"{router}\", device = \"a0\" }}\n"
        )
    };
    let owners = format!("{good}{}{}", member(router), member(router));
    let wrong: [(&str, &[&str]); 6] = [
        ("[[namespace]\n", &[":1:"]),
        ("[[namespace]]\nnetns = \"x\"\ntiers = \"auto\"\n", &[":3:1:", "`tier`"]),
        ("[[namespace]]\nnetns = \"pid:4194304\"\n", &[":2:9:", "4194304"]),
        ("[memory]\nframe-size = 100\n", &[":2:14:", "2048"]),
        (&owners, &[":11:8:", "two owners", "line 3"]),
        (&member("elsewhere"), &[":2:9:", "elsewhere", "not driven"]),
    ];
    for (text, words) in wrong {
        file.write(text);
        let out = nsplane.tell(&["reload"]).unwrap();
        assert_eq!(out.status.code(), Some(1), "{text}: {}", said(&out));
        for word in words {
            assert!(said(&out).contains(word), "{word:?} for {text}: {}", said(&out));
        }
        if !text.contains("pid:") {
            let check = binary(&["config", "check", file.path()]);
            assert_eq!(check.status.code(), Some(1), "{}", said(&check));
            assert_eq!(said(&check), said(&out));
        }
        assert_eq!(state(), before, "{text}");
    }
    fs::remove_file(file.path()).unwrap();
    let out = nsplane.tell(&["reload"]).unwrap();
    assert!(!out.status.success() && said(&out).contains(file.path()), "{}", said(&out));
    assert_eq!(state(), before);
    file.write(&good);
    assert_eq!(said(&nsplane.tell(&["reload"]).unwrap()), "nothing changed\n");
}

#[test]
#[ignore = "needs root"]
fn what_needs_a_restart_is_told_and_the_rest_is_done() {
    let (one, two) = (tenant("one"), tenant("two"));
    let file = File::new(&format!("{}[workers]\ncount = 2\n", drives(&[&one])));
    // The command line counts more than the file.
    let nsplane = start(&file, &["--workers", "1", "--frames", "8192"]);
    assert_eq!(nsplane.show("workers", &[]).unwrap().as_array().unwrap().len(), 1);
    file.write(&format!(
        "{}[workers]\ncount = 4\n[memory]\nring-size = 512\nframes = 4096\n[limits]\npunt-rate = 7\n",
        drives(&[&one, &two])
    ));
    for _ in 0..2 {
        let report = reload(&nsplane);
        let restart = report["needs_restart"].as_array().unwrap();
        assert_eq!(restart.len(), 1, "{report}");
        assert_eq!(restart[0]["name"], "memory.ring-size");
        assert_eq!((&restart[0]["from"], &restart[0]["to"]), (&"1024".into(), &"512".into()));
        wait_ports(&nsplane, &two, &["a0", "b0"]);
    }
    let out = said(&nsplane.tell(&["reload"]).unwrap());
    assert_eq!(out, "nothing changed\nneeds a restart: memory.ring-size 1024 -> 512\n");
}

/// Sends packets that only the kernel can forward, and returns how many got to it.
fn punted(nsplane: &Nsplane, tenant: &Tenant) -> (u64, u64) {
    let counts = || {
        let shown = nsplane.show("counters", &["--netns", tenant.router().name()]).unwrap();
        let of = |what: &str, why: &str| shown[0]["userspace"][what][why].as_u64().unwrap_or(0);
        (of("punts", "no_neighbor"), of("drops", "punt_limit"))
    };
    let near = Raw::open(tenant.host(Host::A), Host::DEVICE).unwrap();
    let macs =
        (tenant.router().mac("a0").unwrap(), tenant.host(Host::A).mac(Host::DEVICE).unwrap());
    let nobody = "10.0.1.77".parse().unwrap();
    let frame = Udp::new(macs, Host::A.v4().into(), nobody, b"to nobody").bytes();
    let before = counts();
    for _ in 0..200 {
        near.send(&frame).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    let now = || (counts().0 - before.0, counts().1 - before.1);
    wait_until(SOON, "all to be counted", || now().0 + now().1 >= 200)
        .unwrap_or_else(|e| panic!("{e}: {:?}", now()));
    now()
}

#[test]
#[ignore = "needs root"]
fn a_namespaces_punt_rate_is_its_own_and_changes() {
    let (slow, fast) = (tenant("slow"), tenant("fast"));
    let limits = "[limits]\npunt-rate = 5000\n";
    let all = |of_slow: &str| format!("{}{of_slow}{}{limits}", drives(&[&slow]), drives(&[&fast]));
    let file = File::new(&all("punt-rate = 1\n"));
    let nsplane = start(&file, &[]);
    wait_forwarded(&nsplane, &slow);
    wait_forwarded(&nsplane, &fast);
    // What may be punted at once is 64, and some was before.
    let (punts, drops) = punted(&nsplane, &slow);
    assert!(punts <= 70 && drops >= 130, "{punts} punted, {drops} dropped");
    assert_eq!(punted(&nsplane, &fast), (200, 0));
    file.write(&all(""));
    let report = reload(&nsplane);
    assert_eq!(report["changed"][0]["settings"][0], "punt-rate", "{report}");
    // The bucket fills at the new rate.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(punted(&nsplane, &slow), (200, 0));
}

#[test]
#[ignore = "needs root"]
fn files_are_looked_at_without_a_running_nsplane() {
    let defaults = binary(&["config", "show-defaults"]);
    let text = said(&defaults);
    assert!(defaults.status.success() && text.contains("[workers]\n"), "{text}");
    let file = File::new(&text);
    let check = binary(&["config", "check", file.path()]);
    assert!(check.status.success(), "{}", said(&check));
    assert!(said(&check).contains("good"), "{}", said(&check));
    let absent = binary(&["config", "check", "/nowhere/at/all"]);
    assert!(!absent.status.success() && said(&absent).contains("/nowhere/at/all"));
    for other in ["--netns=x", "--all", "--device=x"] {
        let both = binary(&["run", "--config", file.path(), other]);
        assert_eq!(both.status.code(), Some(2), "{}", said(&both));
    }
    let nobody = binary(&["reload", "--api", "/run/nslab-nobody"]);
    assert!(!nobody.status.success() && said(&nobody).contains("/run/nslab-nobody"));
    assert!(Path::new(file.path()).exists());
}

#[test]
#[ignore = "needs root"]
fn without_a_file_there_is_nothing_to_read_again() {
    let tenant = tenant("flags");
    let mut nsplane = Nsplane::start(&[tenant.router()], &[]).unwrap();
    let out = nsplane.tell(&["reload"]).unwrap();
    assert!(!out.status.success() && said(&out).contains("--config"), "{}", said(&out));
    nsplane.signal(libc::SIGHUP).unwrap();
    wait_forwarded(&nsplane, &tenant);
    assert!(nsplane.exited().is_none());
}
