//! Two tenants alike who share a trunk by what the configuration states: VLANs, or receive
//! queues. Each tenant has a stand-in, one end of a veth whose other end lies beside the
//! trunk. This kernel need not know VLANs: tagged frames are sent and received as bytes.
//!
//! ```text
//!  wire: o0 ─── trunk0 (infra)          f0, f1 (infra): far ends
//!                 ├ VLAN 100 ~ stand (router one, 10.0.0.1) ── b0 ── B of one, 10.0.1.2
//!                 └ VLAN 200 ~ stand (router two, 10.0.0.1) ── b0 ── B of two, 10.0.1.2
//! ```
//! For tests only: what fails panics, and says what nsplane counted.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::frame::Udp;
use crate::netns::{End, Netns, show_mac, veth};
use crate::process::Nsplane;
use crate::raw::Raw;
use crate::tenant::{Host, Tenant, TenantSpec};
use crate::wait::wait_until;

/// How long a change may take to show.
pub const SOON: Duration = Duration::from_secs(5);
/// How long a packet may take.
pub const SHORT: Duration = Duration::from_millis(200);
/// The host out on the wire, one address in both tenants' views.
pub const OUTSIDE: [u8; 4] = [10, 0, 0, 2];
/// Its Ethernet address.
pub const OUTSIDE_MAC: [u8; 6] = [2, 0, 0, 0, 0x0e, 2];
/// One address for both stand-ins: nothing but the frames' tags tells the tenants apart.
pub const STAND_IN_MAC: [u8; 6] = [2, 0, 0, 0, 0x0e, 1];

/// A VLAN's tags as bytes, and as the configuration has them.
#[derive(Clone, Copy, Debug)]
pub struct Vlan {
    /// In a frame, behind the addresses.
    pub bytes: &'static [u8],
    /// In a `[[member]]`.
    pub config: &'static str,
    /// As `nsplane show ports` has it.
    pub shown: &'static str,
}

/// VLAN 100.
pub const Q100: Vlan =
    Vlan { bytes: &[0x81, 0, 0, 100], config: "vlan = 100", shown: "VLAN 802.1Q 100" };
/// VLAN 200.
pub const Q200: Vlan =
    Vlan { bytes: &[0x81, 0, 0, 200], config: "vlan = 200", shown: "VLAN 802.1Q 200" };
/// VLAN 100 of the outer kind.
pub const AD100: Vlan = Vlan {
    bytes: &[0x88, 0xa8, 0, 100],
    config: r#"vlan = [{ proto = "802.1ad", id = 100 }]"#,
    shown: "VLAN 802.1ad 100",
};
/// VLAN 100 in that.
pub const QINQ: Vlan = Vlan {
    bytes: &[0x88, 0xa8, 0, 100, 0x81, 0, 0, 100],
    config: r#"vlan = [{ proto = "802.1ad", id = 100 }, { proto = "802.1Q", id = 100 }]"#,
    shown: "VLAN 802.1ad 100 802.1Q 100",
};

/// No tag: for queues.
pub const NO_TAG: Vlan = Vlan { bytes: &[], config: "", shown: "" };

/// The lab; gone on drop.
pub struct Lab {
    /// The tenants.
    pub tenants: [Tenant; 2],
    /// Where the trunk and the far ends lie.
    pub infra: Netns,
    /// The other end of the trunk.
    pub wire: Netns,
    /// There.
    pub outside: Raw,
    /// At each tenant's host B.
    pub far: [Raw; 2],
    /// The tenants' VLANs.
    pub vlans: [Vlan; 2],
    /// nsplane, by the config file.
    pub nsplane: Nsplane,
    config: Config,
}

/// A config file that goes with its guard.
struct Config(PathBuf);

impl Drop for Config {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn config(infra: &Netns, tenants: &[Tenant; 2], members: &[(usize, &str)]) -> String {
    let mut text = String::new();
    for netns in [infra, tenants[0].router(), tenants[1].router()] {
        writeln!(text, "[[namespace]]\nnetns = {:?}", netns.name()).unwrap();
    }
    for (tenant, matches) in members {
        writeln!(
            text,
            "[[member]]\nnetns = {:?}\nlink = \"stand\"\n\
             port = {{ netns = {:?}, device = \"trunk0\" }}\n{matches}",
            tenants[*tenant].router().name(),
            infra.name()
        )
        .unwrap();
    }
    text
}

impl Lab {
    /// Builds it; both VLANs are members.
    #[must_use]
    pub fn new(vlans: [Vlan; 2]) -> Self {
        Self::with(vlans, vlans.map(|v| v.config), 1)
    }

    /// The same, members told apart in another way.
    #[must_use]
    pub fn with(vlans: [Vlan; 2], matches: [&str; 2], queues: u32) -> Self {
        let lab = Self::start(vlans, matches, queues, &[]);
        (0..2).for_each(|t| lab.wait_member(t));
        lab
    }

    /// With room for so many ports and members. Not all may be members.
    #[must_use]
    pub fn limited(vlans: [Vlan; 2], ports: u16) -> Self {
        let ports = ports.to_string();
        Self::start(vlans, vlans.map(|v| v.config), 1, &["--max-ports", &ports])
    }

    fn start(vlans: [Vlan; 2], matches: [&str; 2], queues: u32, args: &[&str]) -> Self {
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
        // The name of a namespace of the lab is unique on the machine.
        let config = Config(std::env::temp_dir().join(format!("{}.toml", infra.name())));
        let members = [(0, matches[0]), (1, matches[1])];
        std::fs::write(&config.0, self::config(&infra, &tenants, &members)).unwrap();
        let path = config.0.to_str().unwrap();
        let args = [&["--config", path], args].concat();
        let nsplane = Nsplane::start(&[], &args).unwrap();
        Self { tenants, infra, wire, outside, far, vlans, nsplane, config }
    }

    /// A tenant's router.
    #[must_use]
    pub fn router(&self, tenant: usize) -> &Netns {
        self.tenants[tenant].router()
    }

    /// What nsplane shows of a device.
    #[must_use]
    pub fn port(&self, netns: &Netns, device: &str) -> serde_json::Value {
        let ports = self.nsplane.show("ports", &["--netns", netns.name()]).unwrap();
        let all = ports.as_array().unwrap();
        all.iter().find(|p| p["device"] == device).cloned().unwrap_or_default()
    }

    /// Whether a tenant's stand-in is a member of the trunk.
    #[must_use]
    pub fn is_member(&self, tenant: usize) -> bool {
        let port = self.port(self.router(tenant), "stand");
        let far = self.port(&self.infra, &format!("f{tenant}"));
        port["member"]["device"] == "trunk0"
            && port["forward_v4"] == true
            && far["member"]["by"] == "far end"
    }

    /// Waits until it is.
    pub fn wait_member(&self, tenant: usize) {
        wait_until(SOON, "the stand-in to be a member's", || self.is_member(tenant))
            .unwrap_or_else(|e| panic!("{e}: {}", self.nsplane.show("ports", &[]).unwrap()));
    }

    /// Packets that workers forwarded of a tenant.
    #[must_use]
    pub fn forwarded(&self, tenant: usize) -> u64 {
        let name = self.router(tenant).name();
        let counters = self.nsplane.show("counters", &["--netns", name]).unwrap();
        counters[0]["userspace"]["forwarded"]["packets"].as_u64().unwrap()
    }

    /// Writes another config with these members, each of a tenant, and reloads it.
    ///
    /// # Panics
    /// It is refused.
    pub fn reload(&self, members: &[(usize, &str)]) {
        std::fs::write(&self.config.0, config(&self.infra, &self.tenants, members)).unwrap();
        let out = self.nsplane.tell(&["reload", "--json"]).unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }

    /// The wire's end of the trunk is another device now.
    pub fn reopen(&mut self) {
        self.outside = Raw::open(&self.wire, "o0").unwrap();
    }

    /// The frame with the tenant's tags.
    #[must_use]
    pub fn tagged(&self, tenant: usize, frame: &[u8]) -> Vec<u8> {
        [&frame[..12], self.vlans[tenant].bytes, &frame[12..]].concat()
    }

    /// Sends from outside into a tenant's VLAN.
    pub fn send(&self, tenant: usize, frame: &[u8]) {
        // A trunk that is not there takes none; then none arrives.
        let _ = self.outside.send(&self.tagged(tenant, frame));
    }

    /// What comes out of the trunk in a tenant's VLAN, without its tags, and is `wanted`.
    #[must_use]
    pub fn receive(
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

    /// A packet from outside. True if it came out at B of the tenant; that it comes out
    /// at the other's is a leak.
    #[must_use]
    pub fn inwards(&self, tenant: usize, mark: &str) -> bool {
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

    /// A packet from B, which is to leave tagged.
    #[must_use]
    pub fn outwards(&self, tenant: usize, mark: &str) -> bool {
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

    /// Makes the host outside a neighbour.
    pub fn set_neighbor(&self, tenant: usize) {
        let mac = show_mac(OUTSIDE_MAC);
        let words = format!("neigh replace 10.0.0.2 lladdr {mac} dev stand nud permanent");
        self.router(tenant).ip(&words).unwrap();
    }

    /// Both ways, by a worker.
    pub fn assert_forwards(&self, tenant: usize, what: &str) {
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
    pub fn asks(&self, tenant: usize) {
        let question = arp([0xff; 6], OUTSIDE_MAC, 1, (OUTSIDE_MAC, OUTSIDE), ([0; 6], ROUTER));
        self.send(tenant, &question);
        let answer = self.receive(tenant, SOON, |f| f[12..14] == [8, 6] && f[21] == 2);
        let expected =
            arp(OUTSIDE_MAC, STAND_IN_MAC, 2, (STAND_IN_MAC, ROUTER), (OUTSIDE_MAC, OUTSIDE));
        assert_eq!(answer.expect("an answer in the VLAN")[..42], expected);
    }
}

/// The tenants' routers, on the trunk's side.
pub const ROUTER: [u8; 4] = [10, 0, 0, 1];

/// An ARP message in its frame.
#[must_use]
pub fn arp(
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
