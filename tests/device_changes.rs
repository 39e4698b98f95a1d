//! A device that changes while it is a port goes on being one: with another name,
//! Ethernet address, MTU, number of queues, down for a while, or made anew with its
//! old name and number. All under traffic, beside a tenant alike that loses nothing
//! by it and gets nothing of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nsplane_bench::{Frame, Generator, Load, Sink};
use nsplane_tests::flow;
use nsplane_tests::frame::Udp;
use nsplane_tests::netns::{Netns, show_mac};
use nsplane_tests::process::Nsplane;
use nsplane_tests::raw::Raw;
use nsplane_tests::tenant::{Family, Host, Tenant, TenantSpec};
use nsplane_tests::wait::wait_until;

const SOON: Duration = Duration::from_secs(10);
/// Packets a second and tenant: far below what loses any by itself.
const RATE: u64 = 1000;
const MARKS: [u32; 2] = [0x1e, 0x2e];

/// Two tenants alike, both driven; the first one's devices change.
struct Lab {
    tenants: [Tenant; 2],
    sinks: [Sink; 2],
    nsplane: Nsplane,
}

impl Lab {
    fn new(queues: u32) -> Self {
        let spec = TenantSpec { mac_seed: Some(5), queues, ..TenantSpec::default() };
        let tenants = ["one", "two"].map(|label| Tenant::new(label, &spec).unwrap());
        Self::start(tenants)
    }

    fn start(tenants: [Tenant; 2]) -> Self {
        let nsplane = Nsplane::start(&tenants.each_ref().map(Tenant::router), &[]).unwrap();
        for tenant in &tenants {
            let seen = flow::ping(tenant.host(Host::A), Host::B.v4().into(), 2).unwrap();
            assert!(seen.received > 0, "nothing comes through the router");
        }
        let sink = |t: usize| Sink::attach(tenants[t].host(Host::B), Host::DEVICE, MARKS[t]);
        let sinks = [sink(0).unwrap(), sink(1).unwrap()];
        Self { tenants, sinks, nsplane }
    }

    fn router(&self) -> &Netns {
        self.tenants[0].router()
    }

    /// Runs `body` while A of each tenant sends to its B. What is the second one's
    /// arrives there, all of it, and nothing else.
    fn under_traffic(&self, body: impl FnOnce()) {
        let stop = AtomicBool::new(false);
        let frame = |t: usize| Frame::across(&self.tenants[t], Host::A, Family::V4, MARKS[t]);
        let frames = [frame(0).unwrap(), frame(1).unwrap()];
        let sent = std::thread::scope(|scope| {
            let senders = [0, 1].map(|t| {
                let (host, frame, stop) = (self.tenants[t].host(Host::A), &frames[t], &stop);
                scope.spawn(move || {
                    let mut generator = Generator::new(host, Host::DEVICE, frame).unwrap();
                    generator.run(&Load::paced(u64::MAX, RATE), stop).unwrap().packets
                })
            });
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                self.flows("before the change");
                body();
            }));
            stop.store(true, Ordering::Relaxed);
            let sent = senders.map(|sender| sender.join().unwrap());
            if let Err(panic) = done {
                std::panic::resume_unwind(panic);
            }
            sent
        });
        let all = || self.sinks[1].counts().unwrap().own >= sent[1];
        let arrived = wait_until(SOON, "all packets of the tenant that nothing happens to", all);
        let counts = self.sinks.each_ref().map(|sink| sink.counts().unwrap());
        arrived.unwrap_or_else(|e| panic!("{e}: {sent:?} {counts:?} {}", self.state()));
        assert_eq!(counts.map(|c| c.foreign), [0, 0], "leaked: {counts:?}");
    }

    /// Waits until nsplane forwards for the first tenant, and what it forwards arrives.
    fn flows(&self, when: &str) {
        let (before, by_us) = (self.sinks[0].counts().unwrap().own, self.forwarded());
        wait_until(SOON, &format!("packets {when}"), || {
            self.sinks[0].counts().unwrap().own > before + 100 && self.forwarded() > by_us + 100
        })
        .unwrap_or_else(|e| panic!("{e}: {}", self.state()));
    }

    /// The kernel may be in the way for a moment; then nothing of the first tenant
    /// arrives any more.
    fn stands(&self, when: &str) {
        wait_until(SOON, &format!("no packets {when}"), || {
            let before = self.sinks[0].counts().unwrap().own;
            std::thread::sleep(Duration::from_millis(100));
            self.sinks[0].counts().unwrap().own == before
        })
        .unwrap_or_else(|e| panic!("{e}: {}", self.state()));
    }

    fn counters(&self) -> serde_json::Value {
        self.nsplane.ask("counters", Some(self.router())).unwrap()[0].take()
    }

    fn forwarded(&self) -> u64 {
        self.counters()["userspace"]["forwarded"]["packets"].as_u64().unwrap()
    }

    /// The row of a device of the first tenant.
    fn port(&self, device: &str) -> serde_json::Value {
        let ports = self.nsplane.ask("ports", Some(self.router())).unwrap();
        let found = ports.as_array().unwrap().iter().find(|p| p["device"] == device);
        found.cloned().unwrap_or_default()
    }

    fn state(&self) -> String {
        let shown = ["ports", "counters"].map(|what| self.nsplane.ask(what, None).unwrap());
        format!("{} {}", shown[0], shown[1])
    }
}

#[test]
#[ignore = "needs root"]
fn renamed_while_up() {
    let lab = Lab::new(1);
    let before = ["a0", "b0"].map(|device| lab.port(device)["port"].clone());
    lab.under_traffic(|| {
        for (device, name) in [("a0", "left"), ("b0", "right")] {
            lab.router().ip(&format!("link set {device} name {name}")).unwrap();
            wait_until(SOON, "the new name", || lab.port(name)["port"] != "").unwrap();
            lab.flows(&format!("after {device} is called {name}"));
        }
    });
    let after = ["left", "right"].map(|device| lab.port(device)["port"].clone());
    assert_eq!(before, after, "not the same ports");
}

#[test]
#[ignore = "needs root"]
fn down_and_up_again() {
    let lab = Lab::new(1);
    let before = ["a0", "b0"].map(|device| lab.port(device)["port"].clone());
    lab.under_traffic(|| {
        for device in ["a0", "b0"] {
            lab.router().ip(&format!("link set {device} down")).unwrap();
            lab.stands(&format!("while {device} is down"));
            lab.router().ip(&format!("link set {device} up")).unwrap();
            lab.flows(&format!("after {device} is up again"));
        }
    });
    assert_eq!(before, ["a0", "b0"].map(|device| lab.port(device)["port"].clone()));
}

#[test]
#[ignore = "needs root"]
fn another_ethernet_address() {
    let lab = Lab::new(1);
    let (near, far) = raws(&lab);
    let old = lab.router().mac("a0").unwrap();
    let new = [2, 0, 0, 0, 0xee, 1];
    lab.under_traffic(|| {
        lab.router().ip(&format!("link set a0 address {}", show_mac(new))).unwrap();
        // To the old address: not a router's any more, whoever looks.
        lab.stands("to the old address");
        let to =
            |mac| Udp::new((mac, near.1), Host::A.v4().into(), Host::B.v4().into(), b"to whom");
        let by_us = lab.forwarded();
        wait_until(SOON, "packets to the new address", || {
            near.0.send(&to(new).bytes()).unwrap();
            received(&far, b"to whom").is_some() && lab.forwarded() > by_us
        })
        .unwrap_or_else(|e| panic!("{e}: {}", lab.state()));
        near.0.send(&to(old).bytes()).unwrap();
        assert!(received(&far, b"to whom").is_none(), "routed what was sent to the old address");

        // And what leaves carries the new one.
        let leaving = [2, 0, 0, 0, 0xee, 2];
        lab.router().ip(&format!("link set b0 address {}", show_mac(leaving))).unwrap();
        wait_until(SOON, "packets from the new address", || {
            near.0.send(&to(new).bytes()).unwrap();
            received(&far, b"to whom").is_some_and(|frame| frame[6..12] == leaving)
        })
        .unwrap_or_else(|e| panic!("{e}: {}", lab.state()));
        lab.router().ip(&format!("link set a0 address {}", show_mac(old))).unwrap();
        lab.flows("with the old address");
    });
}

#[test]
#[ignore = "needs root"]
fn another_mtu() {
    let lab = Lab::new(1);
    let (near, far) = raws(&lab);
    let mac = lab.router().mac("a0").unwrap();
    let set = |mtu: u32| {
        lab.router().ip_batch(&format!("link set a0 mtu {mtu}\nlink set b0 mtu {mtu}\n")).unwrap();
        for host in [Host::A, Host::B] {
            let host = lab.tenants[0].host(host);
            host.ip(&format!("link set {} mtu {mtu}", Host::DEVICE)).unwrap();
        }
    };
    let long = |len: usize| {
        let payload: Vec<u8> =
            b"long".iter().copied().chain((0..len - 46).map(|i| i as u8)).collect();
        Udp::new((mac, near.1), Host::A.v4().into(), Host::B.v4().into(), &payload).bytes()
    };
    let too_long =
        || lab.counters()["kernel"]["passed"]["too_long"]["packets"].as_u64().unwrap_or(0);
    lab.under_traffic(|| {
        // As long as one frame of memory holds, and as several: nsplane's.
        for mtu in [1778, 3000] {
            set(mtu);
            let len = mtu as usize + 14;
            wait_until(SOON, &format!("frames of {len} bytes by nsplane"), || {
                let before = too_long();
                near.0.send(&long(len)).unwrap();
                received(&far, b"long").is_some_and(|f| f.len() == len) && too_long() == before
            })
            .unwrap_or_else(|e| panic!("{e}: {}", lab.state()));
            assert_eq!(lab.port("a0")["reason"], "");
        }
        lab.flows("with an MTU of 3000");
        // And back: what is too long for the link is refused by the kernel as ever.
        set(1500);
        lab.flows("with an MTU of 1500");
        assert_eq!(lab.port("a0")["reason"], "");
    });
}

#[test]
#[ignore = "needs root"]
fn more_queues() {
    let spec = TenantSpec { mac_seed: Some(5), queues: 4, ..TenantSpec::default() };
    let tenants = ["one", "two"].map(|label| Tenant::new(label, &spec).unwrap());
    // Receive queues of one end, and as many transmit queues of the other.
    let receive =
        |router: &Netns, n: u32| router.exec("ethtool", ["-L", "a0", "rx", &n.to_string()]);
    let send = |host: &Netns, n: u32| {
        host.exec("ethtool", ["-L", Host::DEVICE, "tx", &n.to_string()]).unwrap();
    };
    send(tenants[0].host(Host::A), 1);
    receive(tenants[0].router(), 1).unwrap();
    let lab = Lab::start(tenants);
    let queues = || lab.port("a0")["queues"].as_u64();
    assert_eq!(queues(), Some(1));
    lab.under_traffic(|| {
        for n in [2, 4] {
            receive(lab.router(), n).unwrap();
            send(lab.tenants[0].host(Host::A), n);
            let bound = || queues() == Some(u64::from(n)) && lab.port("a0")["port"] != "";
            wait_until(SOON, &format!("{n} queues"), bound)
                .unwrap_or_else(|e| panic!("{e}: {}", lab.state()));
            lab.flows(&format!("with {n} queues"));
        }
        // Fewer: the kernel does not take away what sockets are bound to.
        send(lab.tenants[0].host(Host::A), 1);
        let refused = receive(lab.router(), 1).unwrap_err().to_string();
        assert!(refused.contains("too low"), "{refused}");
        lab.flows("after the kernel refused to take queues away");
        assert_eq!(queues(), Some(4));
    });
}

#[test]
#[ignore = "needs root"]
fn made_anew_with_its_name_and_number() {
    let mut lab = Lab::new(1);
    for at_once in [true, false] {
        let (router, host) = (lab.router(), lab.tenants[0].host(Host::B));
        let numbers = [router.ifindex("b0").unwrap(), host.ifindex(Host::DEVICE).unwrap()];
        let macs = [router.mac("b0").unwrap(), host.mac(Host::DEVICE).unwrap()].map(show_mac);
        let lines = [
            "link del b0".to_owned(),
            format!(
                "link add b0 index {} address {} type veth \
                 peer name eth0 index {} address {} netns {}",
                numbers[0],
                macs[0],
                numbers[1],
                macs[1],
                host.name()
            ),
            format!("addr add {}/24 dev b0\nlink set b0 up", Host::B.router_v4()),
        ];
        let made = || {
            match at_once {
                true => router.ip_batch(&(lines.join("\n") + "\n")).unwrap(),
                false => {
                    lines.iter().for_each(|line| router.ip_batch(&format!("{line}\n")).unwrap());
                }
            }
            let address = Host::B.v4();
            let via = Host::B.router_v4();
            host.ip_batch(&format!(
                "addr add {address}/24 dev eth0\nlink set eth0 up\nroute add default via {via}\n"
            ))
            .unwrap();
        };
        let before = lab.sinks[0].counts().unwrap();
        assert_eq!(before.foreign, 0, "leaked: {before:?}");
        lab.under_traffic(made);
        // The sink went with its device.
        lab.sinks[0] = Sink::attach(lab.tenants[0].host(Host::B), Host::DEVICE, MARKS[0]).unwrap();
        lab.under_traffic(|| lab.flows("through the device made anew"));
    }
}

/// A raw socket at host A with A's Ethernet address, and one at host B.
fn raws(lab: &Lab) -> ((Raw, [u8; 6]), Raw) {
    let open = |host| Raw::open(lab.tenants[0].host(host), Host::DEVICE).unwrap();
    let mac = lab.tenants[0].host(Host::A).mac(Host::DEVICE).unwrap();
    ((open(Host::A), mac), open(Host::B))
}

/// A frame with these bytes in it, if one arrives.
fn received(at: &Raw, mark: &[u8]) -> Option<Vec<u8>> {
    let wanted = |f: &[u8]| f.windows(mark.len()).any(|w| w == mark);
    at.receive(Duration::from_millis(200), wanted)
}
