//! The trunk of nsplane's twin: wires that are VLANs of it, stated as members. The
//! kernel's twin has each as a wire of its own.
//!
//! ```text
//!  outside: o0 ═══ trunk0 (infra)     f2 (infra) ─── d2 (space)
//!            VLAN 104 of it is wire 2's: nsplane goes between the trunk and d2
//! ```

use std::fmt::Write as _;
use std::io;

use anyhow::Result;
use nsplane_tests::netns::{End, Netns, veth};
use nsplane_tests::raw::Raw;

use super::normal::finish;
use super::plan::Plan;
use super::twin::end;

/// The trunk's device.
pub(super) const DEVICE: &str = "trunk0";
/// Its far end.
const FAR: &str = "o0";
/// Room for tags behind a packet as long as any wire's MTU.
const MTU: u32 = 1508;
/// The wire of frames that are in no VLAN of a wire.
pub(super) const NO_WIRE: usize = usize::MAX;

/// A trunk.
pub(super) struct Trunk {
    far: Raw,
    infra: Netns,
    /// By wire.
    vlans: Vec<Option<u16>>,
}

impl Trunk {
    /// Makes the trunk's pair, up.
    ///
    /// # Errors
    /// The kernel or `ip` refuses.
    pub(super) fn new(plan: &Plan, outside: &Netns) -> Result<Self> {
        let infra = Netns::new("infra")?;
        for which in ["all", "default"] {
            infra.sysctl(&format!("net/ipv6/conf/{which}/disable_ipv6"), "1")?;
        }
        veth(&End::new(&infra, DEVICE), &End::new(outside, FAR))?;
        infra.ip(&format!("link set {DEVICE} mtu {MTU}"))?;
        outside.ip(&format!("link set {FAR} mtu {MTU}"))?;
        let vlans = plan.wires.iter().map(|wire| wire.vlan).collect();
        Ok(Self { far: end(outside, FAR)?, infra, vlans })
    }

    /// Sets the stand-ins' far ends up.
    ///
    /// # Errors
    /// `ip` refuses.
    pub(super) fn up(&self, plan: &Plan) -> Result<()> {
        let wires = plan.wires.iter().enumerate().filter(|(_, wire)| wire.vlan.is_some());
        let lines: String = wires.map(|(n, _)| format!("link set f{n} up\n")).collect();
        self.infra.ip_batch(&lines)
    }

    /// The namespace that it lies in.
    pub(super) fn infra(&self) -> &Netns {
        &self.infra
    }

    /// What nsplane's configuration says of it.
    pub(super) fn config(&self, plan: &Plan, spaces: &[Netns]) -> String {
        let mut text = String::new();
        for (n, wire) in plan.wires.iter().enumerate() {
            let Some(vlan) = wire.vlan else { continue };
            let (owner, infra) = (spaces[wire.near].name(), self.infra.name());
            let _ = writeln!(
                text,
                "[[member]]\nnetns = {owner:?}\nlink = \"d{n}\"\n\
                 port = {{ netns = {infra:?}, device = {DEVICE:?} }}\nvlan = {vlan}"
            );
        }
        text
    }

    /// Sends a frame in a wire's VLAN.
    pub(super) fn send(&self, wire: usize, frame: &[u8]) -> io::Result<()> {
        match self.vlans.get(wire) {
            Some(Some(vlan)) => self.far.send(&tagged(frame, *vlan)),
            _ => Ok(()),
        }
    }

    /// Takes what came out, without the tag of its wire. Returns how many.
    pub(super) fn drain(&self, buffer: &mut [u8], take: &mut impl FnMut(usize, &[u8])) -> usize {
        let mut all = 0;
        while let Some((len, unfinished)) = self.far.next(buffer) {
            let frame = &buffer[..len];
            match self.wire(frame) {
                Some(wire) => {
                    let mut bare = [&frame[..12], &frame[16..]].concat();
                    if unfinished {
                        finish(&mut bare);
                    }
                    take(wire, &bare);
                }
                None => take(NO_WIRE, frame),
            }
            all += 1;
        }
        all
    }

    fn wire(&self, frame: &[u8]) -> Option<usize> {
        let [0x81, 0x00, a, b] = *frame.get(12..16)? else { return None };
        let vlan = u16::from_be_bytes([a, b]);
        self.vlans.iter().position(|of| *of == Some(vlan))
    }
}

fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(frame.len().min(12));
    [addresses, &[0x81, 0], &vlan.to_be_bytes(), rest].concat()
}
