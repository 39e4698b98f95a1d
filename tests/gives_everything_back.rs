//! What a namespace took is given back when it goes: descriptors, threads, sockets,
//! frames, map entries, tables; and it goes at once.

use std::fs;
use std::time::{Duration, Instant};

use nsplane_tests::netns::{End, Netns, veth};
use nsplane_tests::process::Nsplane;
use nsplane_tests::raw::Raw;
use nsplane_tests::tenant::{Family, Host, Tenant, TenantSpec};
use nsplane_tests::wait::wait_until;
use nsplane_tests::{flow, frame::Udp};

const SOON: Duration = Duration::from_secs(10);

/// Everything that can be counted.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    threads: usize,
    resources: serde_json::Value,
}

fn held(nsplane: &Nsplane) -> Held {
    let count = |what| fs::read_dir(format!("/proc/{}/{what}", nsplane.pid())).unwrap().count();
    // Of some readings the least: the connection of the last question ends a little later.
    let descriptors = (0..5).map(|_| {
        std::thread::sleep(Duration::from_millis(5));
        count("fd")
    });
    let descriptors = descriptors.min().unwrap();
    let mut resources = nsplane.show("resources", &[]).unwrap()[0].clone();
    // A world that was replaced goes when its last reader has looked up.
    resources["worlds_retired"] = 0.into();
    Held { descriptors, threads: count("task"), resources }
}

/// The counts when they have not changed for a while: some descriptors of a namespace
/// are opened only when it is first looked at, a second after it was taken in.
fn settled(nsplane: &Nsplane) -> Held {
    let (mut seen, mut since) = (vec![held(nsplane)], Instant::now());
    wait_until(SOON, "the counts to stay as they are", || {
        let now = held(nsplane);
        if Some(&now) != seen.last() {
            seen.push(now);
            since = Instant::now();
        }
        since.elapsed() > Duration::from_secs(3)
    })
    .unwrap_or_else(|e| panic!("{e}: {seen:#?}"));
    seen.pop().unwrap()
}

/// Resident memory, in KiB.
fn memory(nsplane: &Nsplane) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", nsplane.pid())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A namespace that forwards, with two devices, whose other ends are in `far`.
fn guest(far: &Netns, round: usize, label: &str) -> Netns {
    let guest = Netns::new(label).unwrap();
    guest.sysctl("net/ipv4/ip_forward", "1").unwrap();
    for (n, side) in ["a", "b"].into_iter().enumerate() {
        let (near, peer) = (format!("{side}0"), format!("{label}{side}{round}"));
        veth(&End::new(&guest, &near), &End::new(far, &peer)).unwrap();
        guest.ip(&format!("addr add 10.{n}.0.1/24 dev {near}")).unwrap();
    }
    // A route that is the kernel's, so that these maps have something to hold too.
    guest.ip("route add unreachable 10.99.0.0/16").unwrap();
    guest
}

fn wait_for_ports(nsplane: &Nsplane, netns: &str, ports: usize) {
    wait_until(SOON, "its devices to be ports", || {
        let shown = nsplane.show("ports", &["--netns", netns]);
        let are = |p: &&serde_json::Value| p["port"] != "" && p["forward_v4"] == true;
        shown.is_ok_and(|s| s.as_array().unwrap().iter().filter(are).count() == ports)
    })
    .unwrap_or_else(|e| panic!("{e}: {}", nsplane.show("ports", &[]).unwrap()));
}

fn wait_until_held(nsplane: &Nsplane, before: &Held) {
    let mut now = held(nsplane);
    let same = || {
        now = held(nsplane);
        now == *before
    };
    let waited = wait_until(SOON, "everything to be given back", same);
    waited.unwrap_or_else(|e| panic!("{e}\nbefore: {before:?}\nnow:    {now:?}"));
}

#[test]
#[ignore = "needs root"]
fn every_count_is_as_before() {
    let far = Netns::new("far").unwrap();
    let stays = Tenant::new("stays", &TenantSpec::default()).unwrap();
    // Few frames: if those of closed sockets were lost, later ports would have none.
    let args =
        ["--all", "--device", "a0", "--device", "b0", "--frames", "4096", "--max-ports", "64"];
    let nsplane = Nsplane::start(&[], &args).unwrap();
    let router = stays.router().name().to_owned();
    wait_for_ports(&nsplane, &router, 2);
    let rounds = 20;
    let mut before = None;
    let mut after_first = 0;
    for round in 0..rounds {
        let guests: Vec<Netns> =
            ["x", "y", "z"].into_iter().map(|label| guest(&far, round, label)).collect();
        for guest in &guests {
            wait_for_ports(&nsplane, guest.name(), 2);
        }
        let most = held(&nsplane);
        assert_ne!(Some(&most), before.as_ref(), "the guests are not in the counts");
        guests.into_iter().for_each(|guest| guest.remove().unwrap());
        match &before {
            Some(before) => wait_until_held(&nsplane, before),
            // The first round makes what is made once.
            None => {
                let ports = || nsplane.show("resources", &[]).unwrap()[0].clone();
                let gone = || ports()["ports"] == 2 && ports()["closing"] == 0;
                wait_until(SOON, "the first guests to be let go", gone).unwrap();
                before = Some(settled(&nsplane));
                after_first = memory(&nsplane);
            }
        }
    }
    let grown = memory(&nsplane).saturating_sub(after_first);
    println!("{rounds} rounds of 3 namespaces: resident memory grew by {grown} KiB");
    assert!(grown < 4096, "memory is not given back");
    for family in Family::BOTH {
        let seen = flow::ping(stays.host(Host::A), Host::B.address(family), 3).unwrap();
        assert_eq!(seen.received, 3, "{family} is not forwarded any more");
    }
}

#[test]
#[ignore = "needs root"]
fn many_that_are_deleted_under_traffic_die_at_once() {
    const GUESTS: usize = 20;
    let far = Netns::new("far").unwrap();
    let guests: Vec<Netns> = (0..GUESTS).map(|n| guest(&far, n, "g")).collect();
    let nsplane = Nsplane::start(&guests.iter().collect::<Vec<_>>(), &[]).unwrap();
    let peers: Vec<(String, [u8; 6], [u8; 6])> = (0..GUESTS)
        .map(|n| {
            let peer = format!("ga{n}");
            (peer.clone(), guests[n].mac("a0").unwrap(), far.mac(&peer).unwrap())
        })
        .collect();
    let took = std::thread::scope(|scope| {
        scope.spawn(|| {
            let raws: Vec<_> = peers.iter().map(|(p, ..)| Raw::open(&far, p).unwrap()).collect();
            let (src, dst) = ([10, 0, 0, 2].into(), [10, 1, 0, 2].into());
            // Until the last device is gone, and with it the sending.
            let all_gone = |sent: usize| sent == 0;
            let mut sent = GUESTS;
            while !all_gone(sent) {
                sent = 0;
                for (raw, (_, to, from)) in raws.iter().zip(&peers) {
                    let udp = Udp::new((*to, *from), src, dst, b"until the end");
                    sent += usize::from(raw.send(&udp.bytes()).is_ok());
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let received = || {
            let counters = nsplane.show("counters", &[]).unwrap();
            let of =
                |c: &serde_json::Value| c["userspace"]["received"]["packets"].as_u64().unwrap();
            counters.as_array().unwrap().iter().all(|c| of(c) > 3)
        };
        wait_until(SOON, "traffic in all of them", received).unwrap();
        let deleted = Instant::now();
        guests.into_iter().for_each(|guest| guest.remove().unwrap());
        let last = Instant::now();
        let left = || far.ip_json("link show type veth").unwrap().as_array().unwrap().len();
        wait_until(SOON, "the devices' peers to be gone", || left() == 0).unwrap();
        (last - deleted, last.elapsed())
    });
    println!(
        "{GUESTS} namespaces of 2 devices deleted under traffic in {:?}; all devices gone {:?} later",
        took.0, took.1
    );
    wait_until(SOON, "all to be let go", || {
        nsplane.show("resources", &[]).unwrap()[0]["closing"] == 0
    })
    .unwrap();
    let resources = nsplane.show("resources", &[]).unwrap();
    for what in ["namespaces", "ports", "sockets", "map_ports", "map_addresses", "map_routes"] {
        assert_eq!(resources[0][what], 0, "{what}");
    }
}
