//! Members that the configuration states: VLANs of a trunk, and receive queues, that
//! belong to tenants. This kernel need not know VLANs: the tests send and receive tagged
//! frames themselves. Each tenant has a stand-in, one end of a veth whose other end lies
//! beside the trunk.
//!
//! ```text
//!  wire: o0 ─── trunk0 (infra)          f0, f1 (infra): far ends
//!                 ├ VLAN 100 ~ v100 (router one, 10.0.0.1) ── b0 ── B of one, 10.0.1.2
//!                 └ VLAN 200 ~ v200 (router two, 10.0.0.1) ── b0 ── B of two, 10.0.1.2
//! ```

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use nsplane_tests::frame::Udp;
use nsplane_tests::netns::{End, Netns, show_mac, veth};
use nsplane_tests::process::Nsplane;
use nsplane_tests::raw::Raw;
use nsplane_tests::tenant::{Host, Tenant, TenantSpec};
use nsplane_tests::wait::wait_until;

const SOON: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(200);
const OUTSIDE: [u8; 4] = [10, 0, 0, 2];
const OUTSIDE_MAC: [u8; 6] = [2, 0, 0, 0, 0x0e, 2];
/// One address for both stand-ins: nothing but the frames' tags tells the tenants apart.
const STAND_IN_MAC: [u8; 6] = [2, 0, 0, 0, 0x0e, 1];

/// A VLAN's tags as bytes, and as the configuration has them.
#[derive(Clone, Copy)]
struct Vlan {
    bytes: &'static [u8],
    config: &'static str,
    shown: &'static str,
}

const Q100: Vlan =
    Vlan { bytes: &[0x81, 0, 0, 100], config: "vlan = 100", shown: "VLAN 802.1Q 100" };
const Q200: Vlan =
    Vlan { bytes: &[0x81, 0, 0, 200], config: "vlan = 200", shown: "VLAN 802.1Q 200" };
const AD100: Vlan = Vlan {
    bytes: &[0x88, 0xa8, 0, 100],
    config: r#"vlan = [{ proto = "802.1ad", id = 100 }]"#,
    shown: "VLAN 802.1ad 100",
};
const QINQ: Vlan = Vlan {
    bytes: &[0x88, 0xa8, 0, 100, 0x81, 0, 0, 100],
    config: r#"vlan = [{ proto = "802.1ad", id = 100 }, { proto = "802.1Q", id = 100 }]"#,
    shown: "VLAN 802.1ad 100 802.1Q 100",
};

struct Lab {
    tenants: [Tenant; 2],
    infra: Netns,
    wire: Netns,
    outside: Raw,
    far: [Raw; 2],
    vlans: [Vlan; 2],
    nsplane: Nsplane,
    _config: Config,
}

/// A config file that goes with its guard.
struct Config(PathBuf);

impl Drop for Config {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn write_config(infra: &Netns, tenants: &[Tenant; 2], matches: [&str; 2]) -> Config {
    // The name of a namespace of the lab is unique on the machine.
    let file = Config(std::env::temp_dir().join(format!("{}.toml", infra.name())));
    let mut text = String::new();
    for netns in [infra, tenants[0].router(), tenants[1].router()] {
        writeln!(text, "[[namespace]]\nnetns = {:?}", netns.name()).unwrap();
    }
    for (tenant, matches) in tenants.iter().zip(matches) {
        writeln!(
            text,
            "[[member]]\nnetns = {:?}\nlink = \"stand\"\n\
             port = {{ netns = {:?}, device = \"trunk0\" }}\n{matches}",
            tenant.router().name(),
            infra.name()
        )
        .unwrap();
    }
    std::fs::write(&file.0, text).unwrap();
    file
}

impl Lab {
    fn new(vlans: [Vlan; 2]) -> Self {
        Self::with(vlans, vlans.map(|v| v.config), 1)
    }

    fn with(vlans: [Vlan; 2], matches: [&str; 2], queues: u32) -> Self {
        let spec = TenantSpec { mac_seed: Some(6), ..TenantSpec::default() };
        let tenants = ["one", "two"].map(|label| Tenant::new(label, &spec).unwrap());
        let infra = Netns::new("infra").unwrap();
        let wire = Netns::new("wire").unwrap();
        // Room for two tags behind a packet as long as the tenants' MTU.
        let trunk = End { queues, ..End::new(&infra, "trunk0") };
        veth(&trunk, &End { queues, ..End::new(&wire, "o0") }).unwrap();
        infra.ip("link set trunk0 mtu 1508").unwrap();
        wire.ip("link set o0 mtu 1508").unwrap();
        for (t, tenant) in tenants.iter().enumerate() {
            let router = tenant.router();
            router.ip("link del a0").unwrap();
            let stand_in = End { mac: Some(STAND_IN_MAC), ..End::new(router, "stand") };
            let far = format!("f{t}");
            veth(&stand_in, &End::new(&infra, &far)).unwrap();
            let b = tenant.host(Host::B);
            let mac = show_mac(b.mac(Host::DEVICE).unwrap());
            router
                .ip_batch(&format!(
                    "addr add 10.0.0.1/24 dev stand\n\
                     neigh replace 10.0.1.2 lladdr {mac} dev b0 nud permanent\n"
                ))
                .unwrap();
        }
        let outside = Raw::open(&wire, "o0").unwrap();
        let far = tenants.each_ref().map(|t| Raw::open(t.host(Host::B), Host::DEVICE).unwrap());
        let config = write_config(&infra, &tenants, matches);
        let path = config.0.to_str().unwrap();
        let nsplane = Nsplane::start(&[], &["--config", path]).unwrap();
        let lab = Self { tenants, infra, wire, outside, far, vlans, nsplane, _config: config };
        (0..2).for_each(|t| lab.wait_member(t));
        lab
    }

    fn router(&self, tenant: usize) -> &Netns {
        self.tenants[tenant].router()
    }

    fn port(&self, netns: &Netns, device: &str) -> serde_json::Value {
        let ports = self.nsplane.show("ports", &["--netns", netns.name()]).unwrap();
        let all = ports.as_array().unwrap();
        all.iter().find(|p| p["device"] == device).cloned().unwrap_or_default()
    }

    fn wait_member(&self, tenant: usize) {
        let is_member = || {
            let port = self.port(self.router(tenant), "stand");
            let far = self.port(&self.infra, &format!("f{tenant}"));
            port["member"]["device"] == "trunk0"
                && port["forward_v4"] == true
                && far["member"]["by"] == "far end"
        };
        wait_until(SOON, "the stand-in to be a member's", is_member)
            .unwrap_or_else(|e| panic!("{e}: {}", self.nsplane.show("ports", &[]).unwrap()));
    }

    fn forwarded(&self, tenant: usize) -> u64 {
        let name = self.router(tenant).name();
        let counters = self.nsplane.show("counters", &["--netns", name]).unwrap();
        counters[0]["userspace"]["forwarded"]["packets"].as_u64().unwrap()
    }

    /// The frame with the tenant's tags.
    fn tagged(&self, tenant: usize, frame: &[u8]) -> Vec<u8> {
        [&frame[..12], self.vlans[tenant].bytes, &frame[12..]].concat()
    }

    /// Sends from outside into a tenant's VLAN.
    fn send(&self, tenant: usize, frame: &[u8]) {
        self.outside.send(&self.tagged(tenant, frame)).unwrap();
    }

    /// What comes out of the trunk in a tenant's VLAN, without its tags, and is `wanted`.
    fn receive(
        &self,
        tenant: usize,
        patience: Duration,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Option<Vec<u8>> {
        let tags = self.vlans[tenant].bytes;
        let bare = |f: &[u8]| [&f[..12], &f[12 + tags.len()..]].concat();
        let is = |f: &[u8]| f.len() > 12 + tags.len() + 2 && f[12..].starts_with(tags);
        let frame = self.outside.receive(patience, |f| is(f) && wanted(&bare(f)))?;
        Some(bare(&frame))
    }

    fn inwards(&self, tenant: usize, mark: &str) -> bool {
        let macs = (STAND_IN_MAC, OUTSIDE_MAC);
        let sent = Udp::new(macs, OUTSIDE.into(), Host::B.v4().into(), mark.as_bytes());
        self.send(tenant, &sent.bytes());
        let marked = |f: &[u8]| f.windows(mark.len()).any(|w| w == mark.as_bytes());
        let got = self.far[tenant].receive(SHORT, marked);
        let other = self.far[1 - tenant].receive(Duration::from_millis(1), marked);
        assert!(other.is_none(), "{mark} leaked");
        let Some(got) = got else { return false };
        // Not a byte of the tags is left.
        assert_eq!(got[14..].len(), sent.bytes()[14..].len(), "{mark}");
        true
    }

    fn outwards(&self, tenant: usize, mark: &str) -> bool {
        let (router, b) = (self.router(tenant), self.tenants[tenant].host(Host::B));
        let macs = (router.mac("b0").unwrap(), b.mac(Host::DEVICE).unwrap());
        let sent = Udp::new(macs, Host::B.v4().into(), OUTSIDE.into(), mark.as_bytes());
        self.far[tenant].send(&sent.bytes()).unwrap();
        let marked = |f: &[u8]| f.windows(mark.len()).any(|w| w == mark.as_bytes());
        let Some(got) = self.outside.receive(SHORT, marked) else { return false };
        let bare = Udp { macs: (OUTSIDE_MAC, STAND_IN_MAC), ttl: 63, ..sent }.bytes();
        assert_eq!(got, self.tagged(tenant, &bare), "{mark}");
        true
    }

    fn set_neighbor(&self, tenant: usize) {
        let mac = show_mac(OUTSIDE_MAC);
        let words = format!("neigh replace 10.0.0.2 lladdr {mac} dev stand nud permanent");
        self.router(tenant).ip(&words).unwrap();
    }

    fn assert_forwards(&self, tenant: usize, what: &str) {
        self.set_neighbor(tenant);
        let before = self.forwarded(tenant);
        let mut n = 0;
        wait_until(SOON, "packets both ways", || {
            n += 1;
            self.inwards(tenant, &format!("{what}: in {n};"))
                && self.outwards(tenant, &format!("{what}: out {n};"))
                && self.forwarded(tenant) >= before + 2
        })
        .unwrap_or_else(|e| panic!("{what}: {e}: {}", self.nsplane.show("counters", &[]).unwrap()));
    }

    /// Who has 10.0.0.1, in a tenant's VLAN.
    fn asks(&self, tenant: usize) {
        let question = arp([0xff; 6], OUTSIDE_MAC, 1, (OUTSIDE_MAC, OUTSIDE), ([0; 6], ROUTER));
        self.send(tenant, &question);
        let answer = self.receive(tenant, SOON, |f| f[12..14] == [8, 6] && f[21] == 2);
        let expected =
            arp(OUTSIDE_MAC, STAND_IN_MAC, 2, (STAND_IN_MAC, ROUTER), (OUTSIDE_MAC, OUTSIDE));
        assert_eq!(answer.expect("an answer in the VLAN")[..42], expected);
    }
}

const ROUTER: [u8; 4] = [10, 0, 0, 1];

fn arp(
    dst: [u8; 6],
    src: [u8; 6],
    op: u8,
    sender: ([u8; 6], [u8; 4]),
    target: ([u8; 6], [u8; 4]),
) -> Vec<u8> {
    let mut out = [dst, src].concat();
    out.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, op]);
    for (mac, ip) in [sender, target] {
        out.extend(mac);
        out.extend(ip);
    }
    out
}

/// An ICMP echo request to the router.
fn echo(mark: &[u8]) -> Vec<u8> {
    let macs = (STAND_IN_MAC, OUTSIDE_MAC);
    let router: IpAddr = ROUTER.into();
    let mut frame = Udp::new(macs, OUTSIDE.into(), router, mark).bytes();
    // UDP's 8 bytes of header become ICMP's.
    frame[23] = 1;
    frame[34..42].copy_from_slice(&[8, 0, 0, 0, 0, 7, 0, 1]);
    let sum = nsplane_tests::frame::sum(&frame[34..], 0);
    frame[36..38].copy_from_slice(&(!sum).to_be_bytes());
    frame[24..26].fill(0);
    let sum = nsplane_tests::frame::sum(&frame[14..34], 0);
    frame[24..26].copy_from_slice(&(!sum).to_be_bytes());
    frame
}

fn all_that_a_vlan_needs(vlans: [Vlan; 2]) {
    let lab = Lab::new(vlans);
    for (tenant, vlan) in vlans.iter().enumerate() {
        let shown = lab.port(lab.router(tenant), "stand");
        assert_eq!(shown["member"]["by"], vlan.shown);
        // What the kernel of the tenant says: it resolves, is resolved, answers.
        lab.asks(tenant);
        let mark = format!("ping of {tenant}");
        lab.send(tenant, &echo(mark.as_bytes()));
        let is_reply = |f: &[u8]| f[23] == 1 && f[34] == 0 && f.ends_with(mark.as_bytes());
        let reply = lab.receive(tenant, SOON, is_reply).expect("an echo reply in the VLAN");
        assert_eq!((&reply[..6], &reply[6..12]), (&OUTSIDE_MAC[..], &STAND_IN_MAC[..]));
        lab.assert_forwards(tenant, vlan.shown);
        let macs = (STAND_IN_MAC, OUTSIDE_MAC);
        let short = Udp::new(macs, OUTSIDE.into(), Host::B.v4().into(), b"short");
        lab.send(tenant, &Udp { ttl: 1, ..short }.bytes());
        let exceeded = |f: &[u8]| f[12..14] == [8, 0] && f[23] == 1 && f[34] == 11;
        assert!(lab.receive(tenant, SOON, exceeded).is_some(), "TTL exceeded in the VLAN");
        // The longest packet there is.
        let payload = [b'x'; 1500 - 28];
        let long = Udp::new(macs, OUTSIDE.into(), Host::B.v4().into(), &payload);
        lab.send(tenant, &long.bytes());
        let whole = |f: &[u8]| f.len() == 1514 && f.ends_with(&payload);
        assert!(lab.far[tenant].receive(SOON, whole).is_some(), "a packet as long as the MTU");
    }
}

#[test]
#[ignore = "needs root"]
fn two_vlans_with_equal_addresses() {
    all_that_a_vlan_needs([Q100, Q200]);
}

#[test]
#[ignore = "needs root"]
fn tags_of_two_kinds_with_one_number() {
    all_that_a_vlan_needs([Q100, AD100]);
}

#[test]
#[ignore = "needs root"]
fn a_vlan_in_a_vlan_beside_the_outer_one() {
    all_that_a_vlan_needs([AD100, QINQ]);
}

#[test]
#[ignore = "needs root"]
fn other_vlans_and_untagged_frames_are_nobodys() {
    let lab = Lab::new([Q100, Q200]);
    (0..2).for_each(|t| lab.assert_forwards(t, "before"));
    let macs = (STAND_IN_MAC, OUTSIDE_MAC);
    let sent = Udp::new(macs, OUTSIDE.into(), Host::B.v4().into(), b"for nobody").bytes();
    for tags in [&[][..], &[0x81, 0, 0, 101], AD100.bytes, QINQ.bytes] {
        lab.outside.send(&[&sent[..12], tags, &sent[12..]].concat()).unwrap();
    }
    for far in &lab.far {
        let marked = |f: &[u8]| f.ends_with(b"for nobody");
        assert!(far.receive(SHORT, marked).is_none());
    }
}

#[test]
#[ignore = "needs root"]
fn a_tenant_that_goes_leaves_its_vlan_to_nobody() {
    let lab = Lab::new([Q100, Q200]);
    (0..2).for_each(|t| lab.assert_forwards(t, "before"));
    lab.router(0).ip("link set stand down").unwrap();
    wait_until(SOON, "no member", || lab.port(lab.router(0), "stand")["member"].is_null()).unwrap();
    assert!(!lab.inwards(0, "to a stand-in that is down"));
    lab.assert_forwards(1, "the other");
    lab.router(0).ip_batch("link set stand up\naddr replace 10.0.0.1/24 dev stand\n").unwrap();
    lab.wait_member(0);
    lab.assert_forwards(0, "up again");
}

const NO_TAG: Vlan = Vlan { bytes: &[], config: "", shown: "" };

#[test]
#[ignore = "needs root"]
fn two_queues_of_a_trunk_with_equal_addresses() {
    let lab = Lab::with([NO_TAG, NO_TAG], ["queue = 0", "queue = 1"], 2);
    let marked = |mark: &str| {
        let mark = mark.as_bytes().to_vec();
        move |f: &[u8]| f.windows(mark.len()).any(|w| w == mark)
    };
    for tenant in 0..2 {
        let shown = lab.port(lab.router(tenant), "stand");
        assert_eq!(shown["member"]["by"], format!("queue {tenant}"));
        lab.set_neighbor(tenant);
        // Broadcast too is the queue's owner's.
        let question = arp([0xff; 6], OUTSIDE_MAC, 1, (OUTSIDE_MAC, OUTSIDE), ([0; 6], ROUTER));
        lab.outside.send_by(tenant, &question).unwrap();
        let answer = lab.outside.receive(SOON, |f| f[12..14] == [8, 6] && f[21] == 2);
        let expected =
            arp(OUTSIDE_MAC, STAND_IN_MAC, 2, (STAND_IN_MAC, ROUTER), (OUTSIDE_MAC, OUTSIDE));
        assert_eq!(answer.expect("an answer")[..42], expected);
        let before = lab.forwarded(tenant);
        let mut n = 0;
        wait_until(SOON, "packets both ways", || {
            n += 1;
            let mark = format!("to {tenant}, {n};");
            let macs = (STAND_IN_MAC, OUTSIDE_MAC);
            let sent = Udp::new(macs, OUTSIDE.into(), Host::B.v4().into(), mark.as_bytes());
            lab.outside.send_by(tenant, &sent.bytes()).unwrap();
            let got = lab.far[tenant].receive(SHORT, marked(&mark)).is_some();
            let other = lab.far[1 - tenant].receive(Duration::from_millis(1), marked(&mark));
            assert!(other.is_none(), "{mark} leaked");
            got && lab.outwards(tenant, &format!("from {tenant}, {n};"))
                && lab.forwarded(tenant) >= before + 2
        })
        .unwrap_or_else(|e| panic!("{e}: {}", lab.nsplane.show("counters", &[]).unwrap()));
    }
    // Whose owner is not there takes nothing, nor does anybody else.
    lab.router(1).ip("link set stand down").unwrap();
    wait_until(SOON, "no member", || lab.port(lab.router(1), "stand")["member"].is_null()).unwrap();
    let in_infra = Raw::open(&lab.infra, "trunk0").unwrap();
    let macs = (STAND_IN_MAC, OUTSIDE_MAC);
    let sent = Udp::new(macs, OUTSIDE.into(), Host::B.v4().into(), b"for nobody").bytes();
    lab.outside.send_by(1, &sent).unwrap();
    assert!(in_infra.receive(SHORT, marked("for nobody")).is_none(), "it is not the trunk's");
    for far in &lab.far {
        assert!(far.receive(Duration::from_millis(1), marked("for nobody")).is_none());
    }
}

/// Packets of several frames: their tags come off and go on as those of short ones do, also
/// where the first frame is full.
#[test]
#[ignore = "needs root"]
fn two_tags_on_long_frames() {
    let lab = Lab::new([QINQ, Q100]);
    let set = |netns: &Netns, device: &str, mtu: u32| {
        netns.ip(&format!("link set {device} mtu {mtu}")).unwrap();
    };
    set(&lab.infra, "trunk0", 9008);
    set(&lab.wire, "o0", 9008);
    for (t, tenant) in lab.tenants.iter().enumerate() {
        set(&lab.infra, &format!("f{t}"), 9000);
        set(tenant.router(), "stand", 9000);
        set(tenant.router(), "b0", 9000);
        set(tenant.host(Host::B), Host::DEVICE, 9000);
    }
    // Of a frame's 1,792 bytes the addresses and headers take 42.
    let lens = (1730..1760).chain([3000, 3541, 3542, 5000, 8957, 8958]);
    for tenant in 0..2 {
        lab.assert_forwards(tenant, "before the long ones");
        let before = lab.forwarded(tenant);
        let mut sent = 0;
        for len in lens.clone() {
            let payload = |way: &str| {
                let noise = (0..len).map(|i| char::from(b'a' + (i * 7 + i / 256) as u8 % 26));
                let mark = format!("{way} {len} of {tenant};");
                let rest: String = noise.skip(mark.len()).collect();
                mark + &rest
            };
            wait_until(SOON, &format!("{len} bytes inwards"), || {
                lab.inwards(tenant, &payload("in"))
            })
            .unwrap_or_else(|e| panic!("{e}: {}", lab.nsplane.show("counters", &[]).unwrap()));
            wait_until(SOON, &format!("{len} bytes outwards"), || {
                lab.outwards(tenant, &payload("out"))
            })
            .unwrap_or_else(|e| panic!("{e}: {}", lab.nsplane.show("counters", &[]).unwrap()));
            sent += 2;
        }
        assert!(lab.forwarded(tenant) >= before + sent, "not by the worker");
        // By the kernel of the tenant, in and out.
        let request = echo(&vec![b'p'; 8000]);
        lab.send(tenant, &request);
        let is_reply = |f: &[u8]| f[23] == 1 && f[34] == 0 && f[42..] == request[42..];
        assert!(lab.receive(tenant, SOON, is_reply).is_some(), "a long echo reply in the VLAN");
    }
}
