//! A device that moves between namespaces belongs to the one it is in: it is a port
//! there, forwards there, and no packet of the namespace it left goes through it.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use nsplane_bench::{Frame, Generator, Load, Sink};
use nsplane_tests::command;
use nsplane_tests::frame::Udp;
use nsplane_tests::netns::{End, Netns, veth};
use nsplane_tests::process::Nsplane;
use nsplane_tests::raw::Raw;
use nsplane_tests::tenant::{Family, Host, Tenant, TenantSpec};
use nsplane_tests::wait::wait_until;

const SOON: Duration = Duration::from_secs(5);
const MAC: &str = "02:00:00:00:0d:01";
static GO: AtomicBool = AtomicBool::new(false);

/// Two tenants alike, both driven, and a device that is now in one router, now in
/// the other. Behind it a host that thinks nothing of it.
///
/// ```text
///  one: A ── router ── B        two: A ── router ── B
///              └──── m0 (10.0.2.1) ────┘
///                     └ mover: eth0 (10.0.2.2)
/// ```
struct Lab {
    tenants: [Tenant; 2],
    mover: Netns,
    near: Raw,
    nsplane: Nsplane,
    /// What nsplane drives where it drives neither.
    _bystander: Tenant,
}

impl Lab {
    fn new() -> Self {
        Self::driving(&[0, 1])
    }

    /// nsplane drives these tenants only.
    fn driving(driven: &[usize]) -> Self {
        let spec = TenantSpec { mac_seed: Some(9), ..TenantSpec::default() };
        let tenants = ["one", "two"].map(|label| Tenant::new(label, &spec).unwrap());
        let mover = Netns::new("mover").unwrap();
        let mac = Some([2, 0, 0, 0, 0x0d, 1]);
        let end = End { mac, ..End::new(tenants[0].router(), "m0") };
        veth(&end, &End::new(&mover, Host::DEVICE)).unwrap();
        mover.ip("addr add 10.0.2.2/24 dev eth0").unwrap();
        mover.ip(&format!("neigh add 10.0.2.1 lladdr {MAC} dev eth0")).unwrap();
        mover.ip("route add default via 10.0.2.1").unwrap();
        let near = Raw::open(&mover, Host::DEVICE).unwrap();
        let bystander = Tenant::new("by", &spec).unwrap();
        let mut routers: Vec<&Netns> = driven.iter().map(|&t| tenants[t].router()).collect();
        if routers.is_empty() {
            routers.push(bystander.router());
        }
        let nsplane = Nsplane::start(&routers, &[]).unwrap();
        let lab = Self { tenants, mover, near, nsplane, _bystander: bystander };
        lab.arrive(0);
        lab
    }

    fn router(&self, tenant: usize) -> &Netns {
        self.tenants[tenant].router()
    }

    /// What an operator does with a device that has come.
    fn arrive(&self, tenant: usize) {
        self.router(tenant).ip_batch("addr add 10.0.2.1/24 dev m0\nlink set m0 up\n").unwrap();
    }

    fn is_port(&self, tenant: usize) -> bool {
        let ports = self.rows("ports", tenant);
        ports.iter().any(|p| p["device"] == "m0" && p["port"] != "")
    }

    fn forwarded(&self, tenant: usize) -> u64 {
        let counters = self.rows("counters", tenant);
        let of = |c: &serde_json::Value| c["userspace"]["forwarded"]["packets"].as_u64();
        counters.iter().filter_map(of).sum()
    }

    /// What nsplane shows of a tenant; nothing where it does not drive it.
    fn rows(&self, what: &str, tenant: usize) -> Vec<serde_json::Value> {
        let all = self.nsplane.ask(what, None).unwrap();
        let mut rows = all.as_array().unwrap().clone();
        rows.retain(|row| row["netns"] == self.router(tenant).name());
        rows
    }

    /// As [`Lab::arrives`], and it was a worker that forwarded it.
    fn reaches(&self, tenant: usize, far: &[Raw; 2]) -> bool {
        let before = self.forwarded(tenant);
        self.arrives(tenant, far) && self.forwarded(tenant) > before
    }

    /// Sends from behind the moving device to host B; true if B of this tenant gets
    /// it, and never one of the other's.
    fn arrives(&self, tenant: usize, far: &[Raw; 2]) -> bool {
        let mark = ["for-tenant-one", "for-tenant-two"][tenant].as_bytes();
        let macs = ([2, 0, 0, 0, 0x0d, 1], self.mover.mac(Host::DEVICE).unwrap());
        let src = "10.0.2.2".parse().unwrap();
        let frame = Udp::new(macs, src, Host::B.v4().into(), mark).bytes();
        self.near.send(&frame).unwrap();
        let marked = |f: &[u8]| f.windows(mark.len()).any(|w| w == mark);
        let got = far[tenant].receive(Duration::from_millis(100), marked).is_some();
        let leaked = far[1 - tenant].receive(Duration::from_millis(1), marked);
        assert!(leaked.is_none(), "a packet for {tenant} came out at the other tenant");
        got
    }

    /// Both tenants' hosts B send to the host behind the device; true if what this
    /// tenant sent arrives from a worker. What the other sent never does.
    fn reached(&self, tenant: usize, far: &[Raw; 2]) -> bool {
        let before = self.forwarded(tenant);
        self.near.clear();
        for (t, raw) in far.iter().enumerate() {
            let macs = (
                self.router(t).mac("b0").unwrap(),
                self.tenants[t].host(Host::B).mac(Host::DEVICE).unwrap(),
            );
            let dst = "10.0.2.2".parse().unwrap();
            let mark = format!("from-tenant-{t}");
            raw.send(&Udp::new(macs, Host::B.v4().into(), dst, mark.as_bytes()).bytes()).unwrap();
        }
        let from = |t: usize| {
            let mark = format!("from-tenant-{t}").into_bytes();
            move |f: &[u8]| f.windows(mark.len()).any(|w| w == mark)
        };
        let (ours, others) = (from(tenant), from(1 - tenant));
        let got = self.near.receive(Duration::from_millis(100), |f| {
            assert!(!others(f), "a packet of the other tenant left through m0");
            ours(f)
        });
        got.is_some() && self.forwarded(tenant) > before
    }

    fn assert_works_in(&self, tenant: usize, far: &[Raw; 2]) {
        wait_until(SOON, "m0 to be a port", || self.is_port(tenant))
            .unwrap_or_else(|e| panic!("{e}: {}", self.nsplane.show("ports", &[]).unwrap()));
        let state = || self.nsplane.show("counters", &[]).unwrap();
        wait_until(SOON, "packets that come in by m0", || self.reaches(tenant, far))
            .unwrap_or_else(|e| panic!("{e}: {}", state()));
        wait_until(SOON, "packets that leave by m0", || self.reached(tenant, far))
            .unwrap_or_else(|e| panic!("{e}: {}", state()));
        assert!(!self.is_port(1 - tenant), "m0 is still a port where it was");
    }

    /// Sockets and eBPF objects. (Files under `/proc` that say how a namespace is set are
    /// opened when they are first asked for, a fixed number for each namespace.)
    fn descriptors(&self) -> usize {
        let all = fs::read_dir(format!("/proc/{}/fd", self.nsplane.pid())).unwrap().flatten();
        let what = all.filter_map(|entry| fs::read_link(entry.path()).ok());
        what.filter(|to| ["socket:", "anon_inode:"].iter().any(|kind| starts(to, kind))).count()
    }
}

fn starts(path: &Path, with: &str) -> bool {
    path.to_str().is_some_and(|path| path.starts_with(with))
}

fn far(tenants: &[Tenant; 2]) -> [Raw; 2] {
    tenants.each_ref().map(|t| Raw::open(t.host(Host::B), Host::DEVICE).unwrap())
}

/// Runs `work` while each tenant's A sends to its B, some thousand packets a second.
fn under_traffic(tenants: &[Tenant; 2], work: impl FnOnce()) {
    std::thread::scope(|scope| {
        for (t, tenant) in tenants.iter().enumerate() {
            scope.spawn(move || {
                let frame = Frame::across(tenant, Host::A, Family::V4, t as u32 + 1).unwrap();
                let host = tenant.host(Host::A);
                let mut generator = Generator::new(host, Host::DEVICE, &frame).unwrap();
                generator.run(&Load::paced(1500, 5000), &GO).unwrap();
            });
        }
        work();
    });
}

#[test]
#[ignore = "needs root"]
fn to_and_fro_under_traffic() {
    let lab = Lab::new();
    let far = far(&lab.tenants);
    let sinks = [0, 1]
        .map(|t| Sink::attach(lab.tenants[t].host(Host::B), Host::DEVICE, t as u32 + 1).unwrap());
    lab.assert_works_in(0, &far);
    let mut descriptors = Vec::new();
    for round in 1..=6 {
        let tenant = round % 2;
        under_traffic(&lab.tenants, || {
            let there = lab.router(tenant).name();
            lab.router(1 - tenant).ip(&format!("link set m0 netns {there}")).unwrap();
            lab.arrive(tenant);
        });
        lab.assert_works_in(tenant, &far);
        descriptors.push(lab.descriptors());
    }
    for sink in &sinks {
        let counts = sink.counts().unwrap();
        assert_eq!(counts.foreign, 0, "leaked: {counts:?}");
        assert!(counts.own > 1000, "{counts:?}");
    }
    // Those of `show` itself come and go: an answer's connection may still be open.
    // Sockets and links are closed a little after they are let go.
    let flat = || lab.descriptors() <= descriptors[1] + 2;
    wait_until(SOON, "descriptors to be as in the beginning", flat)
        .unwrap_or_else(|e| panic!("{e}: after each round {descriptors:?}"));
}

#[test]
#[ignore = "needs root"]
fn away_and_back_before_anybody_looks() {
    let lab = Lab::new();
    let far = far(&lab.tenants);
    lab.assert_works_in(0, &far);
    let [here, there] = [0, 1].map(|t| lab.router(t).name().to_owned());
    for _ in 0..3 {
        let script = format!(
            "ip -n {here} link set m0 netns {there} && ip -n {there} link set m0 netns {here} && \
             ip -n {here} addr add 10.0.2.1/24 dev m0 && ip -n {here} link set m0 up"
        );
        // Stopped, it hears of all of it at once.
        lab.stopped(|| command::run("sh", ["-c", &script]).map(drop).unwrap());
        lab.assert_works_in(0, &far);
    }
}

#[test]
#[ignore = "needs root"]
fn moved_and_set_up_before_anybody_looks() {
    let lab = Lab::new();
    let far = far(&lab.tenants);
    lab.assert_works_in(0, &far);
    for round in 1..=4 {
        let tenant = round % 2;
        lab.stopped(|| {
            let there = lab.router(tenant).name();
            lab.router(1 - tenant).ip(&format!("link set m0 netns {there}")).unwrap();
            lab.arrive(tenant);
        });
        lab.assert_works_in(tenant, &far);
    }
}

#[test]
#[ignore = "needs root"]
fn made_anew_with_its_old_number() {
    let lab = Lab::new();
    let far = far(&lab.tenants);
    lab.assert_works_in(0, &far);
    let (router, mover) = (lab.router(0), lab.mover.name());
    let index = router.ifindex("m0").unwrap();
    let host_index = lab.mover.ifindex("eth0").unwrap();
    let host_mac = lab.mover.mac("eth0").unwrap();
    let host_mac = nsplane_tests::netns::show_mac(host_mac);
    lab.stopped(|| {
        router
            .ip_batch(&format!(
                "link del m0\n\
                 link add m0 index {index} address {MAC} type veth \
                 peer name eth0 index {host_index} address {host_mac} netns {mover}\n\
                 addr add 10.0.2.1/24 dev m0\nlink set m0 up\n"
            ))
            .unwrap();
        lab.mover.ip_batch("addr add 10.0.2.2/24 dev eth0\nlink set eth0 up\n").unwrap();
        lab.mover.ip(&format!("neigh add 10.0.2.1 lladdr {MAC} dev eth0")).unwrap();
    });
    let near = Raw::open(&lab.mover, Host::DEVICE).unwrap();
    let lab = Lab { near, ..lab };
    lab.assert_works_in(0, &far);
}

impl Lab {
    /// Runs `work` while nsplane stands still.
    fn stopped(&self, work: impl FnOnce()) {
        let pid = self.nsplane.pid().to_string();
        command::run("kill", ["-STOP", &pid]).unwrap();
        work();
        command::run("kill", ["-CONT", &pid]).unwrap();
    }
}

#[test]
#[ignore = "needs root"]
fn out_of_reach_and_back() {
    let lab = Lab::driving(&[0]);
    let far = far(&lab.tenants);
    wait_until(SOON, "m0 to be a port", || lab.is_port(0)).unwrap();
    for round in 1..=4 {
        let tenant = round % 2;
        let there = lab.router(tenant).name();
        lab.router(1 - tenant).ip(&format!("link set m0 netns {there}")).unwrap();
        lab.arrive(tenant);
        if tenant == 0 {
            lab.assert_works_in(0, &far);
            continue;
        }
        wait_until(SOON, "packets by the kernel", || lab.arrives(1, &far)).unwrap();
        let shown = || lab.rows("ports", 0).iter().any(|p| p["device"] == "m0");
        wait_until(SOON, "nsplane to let it go", || !shown()).unwrap();
    }
}

#[test]
#[ignore = "needs root"]
fn moves_that_are_none_of_ours() {
    let lab = Lab::driving(&[]);
    let far = far(&lab.tenants);
    for round in 1..=4 {
        let tenant = round % 2;
        let there = lab.router(tenant).name();
        lab.router(1 - tenant).ip(&format!("link set m0 netns {there}")).unwrap();
        lab.arrive(tenant);
        wait_until(SOON, "packets by the kernel", || lab.arrives(tenant, &far)).unwrap();
    }
    assert_eq!(lab.nsplane.ask("ports", None).unwrap().as_array().unwrap().len(), 2);
}
