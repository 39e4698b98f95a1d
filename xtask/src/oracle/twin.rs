//! A plan, built: its namespaces, and a socket at each far end.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nsplane_tests::command;
use nsplane_tests::netns::{Netns, show_mac};
use nsplane_tests::raw::Raw;
use nsplane_tests::wait::wait_until;

use super::normal::finish;
use super::plan::{Phase, Plan, Wire};
use super::topology::neighbor_line;
use super::trunk::Trunk;

/// Longest frame that is sent or seen.
const LONGEST: usize = 65_536;
/// Room for frames that were not read yet, of each far end.
const ROOM: i32 = 8 << 20;
/// What is set in every space, so that the kernel answers each packet by itself: none of
/// its answers hangs on how many there were before, or on when.
const ALIKE: &[(&str, &str)] = &[
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/icmp_ratemask", "0"),
    ("net/ipv4/icmp_ratelimit", "0"),
    ("net/ipv6/icmp/ratelimit", "0"),
    ("net/ipv6/auto_flowlabels", "0"),
];
/// How long a carrier may take.
const CARRIER: Duration = Duration::from_secs(5);
/// Neighbours that do not answer are given up soon. Of each device.
const SOON: &[(&str, &str)] =
    &[("mcast_solicit", "1"), ("ucast_solicit", "1"), ("retrans_time_ms", "60")];

/// The namespaces of a plan; gone on drop.
pub(super) struct Twin {
    spaces: Vec<Netns>,
    // Before the namespace that they lie in.
    ends: Vec<Option<Raw>>,
    trunk: Option<Trunk>,
    _outside: Netns,
}

impl Twin {
    /// Makes namespaces and wires, all devices up, nothing else configured. The names of
    /// the spaces end in `label` and their number.
    ///
    /// # Errors
    /// The kernel or `ip` refuses.
    pub(super) fn build(plan: &Plan, label: &str, vlans: bool) -> Result<Self> {
        let outside = Netns::new("outside")?;
        for which in ["all", "default"] {
            outside.sysctl(&format!("net/ipv6/conf/{which}/disable_ipv6"), "1")?;
        }
        let spaces = (0..plan.spaces).map(|n| Netns::new(&format!("{label}{n}")));
        let spaces = spaces.collect::<Result<Vec<_>>>()?;
        let trunk = if vlans && plan.wires.iter().any(|wire| wire.vlan.is_some()) {
            Some(Trunk::new(plan, &outside)?)
        } else {
            None
        };
        let mut links = String::new();
        let mut ups = String::new();
        for (n, wire) in plan.wires.iter().enumerate() {
            let near = spaces[wire.near].name();
            let beside = trunk.as_ref().filter(|_| wire.vlan.is_some());
            let (device, far) = match (wire.far, beside) {
                (Some(far), _) => (format!("u{n}"), spaces[far].name()),
                (None, Some(trunk)) => (format!("f{n}"), trunk.infra().name()),
                (None, None) => (format!("w{n}"), outside.name()),
            };
            if wire.is_outer() && beside.is_none() {
                ups.push_str(&format!("link set {device} up\n"));
            }
            let (mtu, a, b) = (wire.mtu, show_mac(wire.macs.0), show_mac(wire.macs.1));
            links.push_str(&format!(
                "link add d{n} netns {near} address {a} mtu {mtu} type veth \
                 peer name {device} netns {far} address {b} mtu {mtu}\n"
            ));
        }
        command::run_with_input("ip", ["-batch", "-"], &links)?;
        outside.ip_batch(&ups)?;
        if let Some(trunk) = &trunk {
            trunk.up(plan)?;
        }
        for (n, space) in spaces.iter().enumerate() {
            set_alike(plan, n, space)?;
            let ups: String = devices(plan, n).map(|d| format!("link set {d} up\n")).collect();
            space.ip_batch(&ups)?;
        }
        // The kernel tells of a carrier a little later, and then sets IPv6's MTU anew.
        for space in &spaces {
            wait_until(CARRIER, "all devices to have a carrier", || {
                let links = space.ip_json("link show type veth").unwrap_or_default();
                links.as_array().is_some_and(|all| all.iter().all(|l| l["operstate"] == "UP"))
            })?;
        }
        let ends = plan.wires.iter().enumerate().map(|(n, wire)| {
            let here = wire.is_outer() && (trunk.is_none() || wire.vlan.is_none());
            here.then(|| end(&outside, &format!("w{n}"))).transpose()
        });
        let ends = ends.collect::<Result<Vec<_>>>()?;
        Ok(Self { spaces, ends, trunk, _outside: outside })
    }

    /// Configures what a phase says. `ip` commands that the kernel refuses are passed by:
    /// it refuses them in the other twin, too.
    ///
    /// # Errors
    /// A namespace cannot be entered.
    pub(super) fn apply(&self, plan: &Plan, phase: &Phase, mark: u8) -> Result<()> {
        for (n, space) in self.spaces.iter().enumerate() {
            let settings = phase.sysctls.iter().filter(|(of, ..)| *of == n);
            let settings: Vec<_> = settings.map(|(_, path, value)| (path, value)).collect();
            space.inside(|| {
                for (path, value) in settings {
                    // One of a device that is gone, or of a newer kernel.
                    let _ = fs::write(format!("/proc/sys/{path}"), value);
                }
            })?;
            // `-6` is no word of a batch, but one of the command.
            for family in ["-4", "-6"] {
                let of_space = phase.lines.iter().filter(|(of, _)| *of == n);
                let lines: String = of_space
                    .filter_map(|(_, line)| match line.strip_prefix("-6 ") {
                        Some(line) => (family == "-6").then(|| format!("{line}\n")),
                        None => (family == "-4").then(|| format!("{line}\n")),
                    })
                    .collect();
                let family = if family == "-4" { None } else { Some(family) };
                let words = family.into_iter().chain(["-n", space.name(), "-force", "-batch", "-"]);
                if !lines.is_empty() {
                    // It has said what it was refused; the other twin's was, too.
                    let _ = command::run_with_input("ip", words, &lines);
                }
            }
            if let Some(device) = devices(plan, n).next() {
                space.ip_batch(&mark_line(&device, mark))?;
            }
        }
        Ok(())
    }

    /// Names of the spaces.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.spaces.iter().map(Netns::name)
    }

    /// Lets nsplane find the spaces: by links in a directory of its selector's.
    ///
    /// # Errors
    /// The links cannot be made.
    pub(super) fn show(&self, dir: &Path) -> Result<()> {
        let infra = self.trunk.iter().map(Trunk::infra);
        for space in self.spaces.iter().chain(infra) {
            let link = dir.join(space.name());
            symlink(space.path(), &link)
                .with_context(|| format!("cannot make {}", link.display()))?;
        }
        Ok(())
    }

    /// Takes the links away.
    pub(super) fn hide(&self, dir: &Path) {
        let infra = self.trunk.iter().map(Trunk::infra);
        for space in self.spaces.iter().chain(infra) {
            // It was not shown, or the directory is gone.
            let _ = fs::remove_file(dir.join(space.name()));
        }
    }

    /// The trunk, where there is one.
    pub(super) fn trunk(&self) -> Option<&Trunk> {
        self.trunk.as_ref()
    }

    /// The spaces.
    pub(super) fn spaces(&self) -> &[Netns] {
        &self.spaces
    }

    /// Puts a frame in at a far end. The same frame is refused at both twins' ends, or at
    /// none.
    pub(super) fn send(&self, wire: usize, frame: &[u8]) -> io::Result<()> {
        match (&self.ends[wire], &self.trunk) {
            (Some(end), _) => end.send(frame),
            (None, Some(trunk)) => trunk.send(wire, frame),
            (None, None) => Ok(()),
        }
    }

    /// Takes all frames that came out until now. Returns how many.
    pub(super) fn drain(&self, mut take: impl FnMut(usize, &[u8])) -> usize {
        let mut buffer = vec![0; LONGEST];
        let mut all = self.trunk.as_ref().map_or(0, |trunk| trunk.drain(&mut buffer, &mut take));
        for (wire, end) in self.ends.iter().enumerate() {
            let Some(end) = end else { continue };
            while let Some((len, unfinished)) = end.next(&mut buffer) {
                if unfinished {
                    finish(&mut buffer[..len]);
                }
                take(wire, &buffer[..len]);
                all += 1;
            }
        }
        all
    }
}

/// The devices of a space.
pub(super) fn devices(plan: &Plan, space: usize) -> impl Iterator<Item = String> {
    plan.wires.iter().enumerate().filter_map(move |(n, wire)| match wire {
        Wire { near, .. } if *near == space => Some(format!("d{n}")),
        Wire { far: Some(far), .. } if *far == space => Some(format!("u{n}")),
        _ => None,
    })
}

/// A neighbour that nothing is sent to. That nsplane knows it says that it knows all that
/// was configured before.
pub(super) fn mark_address(mark: u8) -> IpAddr {
    [192, 0, 2, 100 + mark].into()
}

fn mark_line(device: &str, mark: u8) -> String {
    neighbor_line(mark_address(mark), [2, 0x5e, 0, 0, 0, mark], device) + "\n"
}

fn set_alike(plan: &Plan, n: usize, space: &Netns) -> Result<()> {
    let of_devices = devices(plan, n).flat_map(|device| {
        ["ipv4", "ipv6"].into_iter().flat_map(move |family| {
            let device = device.clone();
            SOON.iter()
                .map(move |(name, value)| (format!("net/{family}/neigh/{device}/{name}"), *value))
        })
    });
    let all = ALIKE.iter().map(|(path, value)| ((*path).to_owned(), *value));
    let all: Vec<_> = all.chain(of_devices).collect();
    space.inside(|| {
        all.iter().try_for_each(|(path, value)| {
            match fs::write(format!("/proc/sys/{path}"), value) {
                // With less than 1280 bytes of MTU a device has no IPv6.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                done => done.with_context(|| format!("setting {path} to {value}")),
            }
        })
    })?
}

/// A far end's socket.
pub(super) fn end(outside: &Netns, device: &str) -> Result<Raw> {
    let end = Raw::open(outside, device)?;
    end.make_room(ROOM).context("room for frames")?;
    Ok(end)
}
