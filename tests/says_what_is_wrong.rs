//! Bad input: an error that names the thing and says what to do, exit status 1 (2 for
//! wrong usage), and nothing changed on the host.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use nsplane_bench::Sink;
use nsplane_tests::netns::Netns;
use nsplane_tests::process::Nsplane;
use nsplane_tests::tenant::{Tenant, TenantSpec};

fn nsplane(args: &[&str]) -> Output {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let api = std::env::temp_dir().join(format!("nslab-{}-bad-{number}", std::process::id()));
    let mut command = Command::new(Nsplane::binary().unwrap());
    command.args(args);
    if args.first() == Some(&"run") {
        command.arg("--api").arg(api);
    }
    // One that does start, against all expectation, must not stay.
    Command::new("timeout")
        .arg("20")
        .arg(command.get_program())
        .args(command.get_args())
        .output()
        .unwrap()
}

#[track_caller]
fn refused(args: &[&str], status: i32, words: &[&str]) {
    let out = nsplane(args);
    let text = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(status), "nsplane {args:?}: {text}");
    for word in words {
        assert!(text.contains(word), "nsplane {args:?} does not say {word:?}: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

fn has_program(netns: &Netns, device: &str) -> bool {
    !netns.ip_json(&format!("link show dev {device}")).unwrap()[0]["xdp"].is_null()
}

#[test]
#[ignore = "needs root"]
fn wrong_usage() {
    refused(&["run"], 2, &["--netns"]);
    refused(&["run", "--netns", "x", "--workers", "0"], 2, &["--workers"]);
    refused(&["run", "--netns", "pid:x"], 2, &["pid:x", "pid:1234"]);
    refused(&["walk"], 2, &["walk"]);
    refused(&["show", "weather"], 2, &["weather", "counters"]);
}

#[test]
#[ignore = "needs root"]
fn unknown_names() {
    let tenant = Tenant::new("names", &TenantSpec::default()).unwrap();
    let router = tenant.router().name();
    refused(&["run", "--netns", "/etc/hostname"], 1, &["/etc/hostname"]);
    refused(&["run", "--netns", "pid:4194304"], 1, &["4194304"]);
    refused(&["run", "--netns", router, "--device", "eth7"], 1, &["eth7", "a0", "b0"]);
    refused(&["run", "--netns", router, "--frame-size", "3000"], 1, &["3000", "2048"]);
    let short = ["run", "--netns", router, "--bind", "zero-copy", "--frame-size", "2048"];
    refused(&short, 1, &["zero-copy", "4096"]);
    refused(&["run", "--netns", router, "--pin", "4000"], 1, &["4000"]);
    refused(&["show", "ports", "--api", "/run/nslab-nobody"], 1, &["/run/nslab-nobody", "--api"]);
    assert!(!has_program(tenant.router(), "a0"));
}

#[test]
#[ignore = "needs root"]
fn a_device_that_does_not_fit() {
    let tenant = Tenant::new("fit", &TenantSpec::default()).unwrap();
    let router = tenant.router();
    router.ip("link set b0 mtu 9000").unwrap();
    let zero_copy = ["run", "--netns", router.name(), "--bind", "zero-copy"];
    refused(&zero_copy, 1, &["b0", router.name(), "9000", "--bind copy"]);
    assert!(!has_program(router, "a0"));
    router.ip("link set b0 mtu 1500").unwrap();
    refused(
        &["run", "--netns", router.name(), "--bind", "zero-copy"],
        1,
        &["zero-copy", router.name()],
    );
    assert!(!has_program(router, "a0"));
}

#[test]
#[ignore = "needs root"]
fn a_device_that_another_program_holds() {
    let tenant = Tenant::new("program", &TenantSpec::default()).unwrap();
    let router = tenant.router();
    let _holder = Sink::attach(router, "b0", 1).unwrap();
    let said = ["b0", router.name(), "another XDP program", "ip link show"];
    refused(&["run", "--netns", router.name()], 1, &said);
    assert!(!has_program(router, "a0"), "a0 was left with a program");
    assert!(has_program(router, "b0"), "the other program is gone");
}

#[test]
#[ignore = "needs root"]
fn a_device_or_queue_that_somebody_holds() {
    let tenant = Tenant::new("held", &TenantSpec::default()).unwrap();
    let router = tenant.router();
    let first = Nsplane::start(&[router], &["--device", "b0"]).unwrap();
    // The queue is asked for before the program.
    refused(&["run", "--netns", router.name()], 1, &["b0", "queue 0", "another AF_XDP socket"]);
    assert!(!has_program(router, "a0"), "a0 was left with a program");
    // The first one is not disturbed.
    let ports = first.show("ports", &[]).unwrap();
    assert!(ports.as_array().unwrap().iter().any(|p| p["device"] == "b0" && p["port"] != ""));
    let api = first.api();
    let out = Command::new(Nsplane::binary().unwrap())
        .args(["run", "--netns", router.name(), "--device", "a0", "--api"])
        .arg(&api)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{text}");
    assert!(text.contains("another nsplane") && text.contains("--api"), "{text}");
}

#[test]
#[ignore = "needs root"]
fn missing_capabilities() {
    let binary = Nsplane::binary().unwrap();
    let out = Command::new("setpriv")
        .args([
            "--bounding-set",
            "-net_raw",
            "--inh-caps",
            "-all",
            "--reuid",
            "65534",
            "--clear-groups",
            "--",
        ])
        .arg(&binary)
        .args(["run", "--netns", "nslab-nobody", "--api", "/tmp/nslab-nobody-api"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{text}");
    assert!(text.contains("CAP_NET_RAW") && text.contains("CAP_BPF"), "{text}");
}
