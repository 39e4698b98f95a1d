//! What else in the kernel acts upon packets that it forwards, and would not upon
//! those that we forward.

use std::fmt;

use super::event::Family;
use crate::id::IfIndex;

/// A part of the kernel that can act upon forwarded packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HookSource {
    /// Base chains of nftables; those of `iptables-nft` are such too.
    Nftables,
    /// What of nftables makes the kernel track connections, where its base chains are
    /// none that forwarded packets meet.
    Conntrack,
    /// Tables of iptables before nftables.
    Iptables,
    /// IPsec policies.
    Xfrm,
    /// Virtual services of IPVS.
    Ipvs,
    /// BPF programs on netfilter's hooks.
    Bpf,
}

impl fmt::Display for HookSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nftables => "nftables",
            Self::Conntrack => "conntrack",
            Self::Iptables => "iptables",
            Self::Xfrm => "xfrm",
            Self::Ipvs => "ipvs",
            Self::Bpf => "bpf",
        })
    }
}

/// Something that may change, drop or divert packets that are forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Whose packets; None: both families'.
    pub family: Option<Family>,
    /// What it is, for the user: "nftables chain inet filter/forward".
    pub name: String,
    /// See [`Hook::on_device`].
    pub on_device: bool,
}

impl Hook {
    /// Packets of the family meet it.
    #[must_use]
    pub fn meets(&self, family: Family) -> bool {
        self.family.is_none_or(|f| f == family)
    }

    /// It acts upon frames of a device, before it is known whose they are: also those
    /// of macvlans and VLANs of the device that lie in other namespaces. Or it may, for
    /// what there is could not be read.
    #[must_use]
    pub fn on_device(&self) -> bool {
        self.on_device
    }

    /// Adds it to those found, unless its packets stay with the kernel already: a
    /// namespace may have thousands, and one for each family is enough. One that acts
    /// upon devices says more, and is not hidden by one that does not.
    pub(super) fn join(self, found: &mut Vec<Self>) {
        let covers = |h: &Self| h.family.is_none() || h.family == self.family;
        if !found.iter().any(|h| covers(h) && (h.on_device() || !self.on_device())) {
            found.push(self);
        }
    }
}

/// `TC_H_ROOT`: the parent of what sends a device's packets.
pub(crate) const ROOT: u32 = 0xffff_ffff;
/// `TC_H_INGRESS`, also `TC_H_CLSACT`: the parent of what filters a device's packets.
pub(crate) const INGRESS: u32 = 0xffff_fff1;

/// A queueing discipline of a device (tc).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qdisc {
    /// The device.
    pub ifindex: IfIndex,
    /// Where on the device: the root, the place for filters, or a class.
    pub parent: u32,
    /// As tc calls it, with the option by which it does more than others of its kind:
    /// "fq maxrate".
    pub kind: String,
}

impl Qdisc {
    /// It is a place for filters (`clsact`, `ingress`), not the way out.
    #[must_use]
    pub fn is_for_filters(&self) -> bool {
        self.parent == INGRESS
    }

    /// Its filters may act upon packets that arrive.
    #[must_use]
    pub fn on_ingress(&self) -> bool {
        self.parent == INGRESS
    }

    /// It may act upon packets that leave: filters them, or sends them slower than
    /// the device would. Those that only put them into an order, as every device
    /// has one, do not count; what these drop or mark, they do because packets wait
    /// in them, and ours do not. `cake` may shape, `codel`, `red` and `pie` are not what
    /// a device comes with: they count.
    #[must_use]
    pub fn on_egress(&self) -> bool {
        const ORDER: [&str; 9] =
            ["noqueue", "noop", "mq", "pfifo_fast", "pfifo", "bfifo", "fq", "fq_codel", "sfq"];
        match self.parent {
            INGRESS => self.kind != "ingress",
            _ => !ORDER.contains(&self.kind.as_str()),
        }
    }
}

/// BPF programs on a device's ways in and out (tcx), which packets meet before and
/// after those of its queueing disciplines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tcx {
    /// The device.
    pub ifindex: IfIndex,
    /// One acts upon what arrives.
    pub ingress: bool,
    /// One acts upon what leaves.
    pub egress: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_hook_a_family_is_enough() {
        let mut found = Vec::new();
        let families = [Some(Family::V4), Some(Family::V4), Some(Family::V6), None, None];
        for (i, family) in families.into_iter().enumerate() {
            Hook { family, name: i.to_string(), on_device: false }.join(&mut found);
        }
        let names: Vec<&str> = found.iter().map(|h| h.name.as_str()).collect();
        assert_eq!(names, ["0", "2", "3"]);
        let name = "nftables chain inet t/ingress".to_owned();
        let ingress = Hook { family: None, name, on_device: true };
        ingress.clone().join(&mut found);
        ingress.join(&mut found);
        assert_eq!(found.iter().filter(|h| h.on_device()).count(), 1);
        assert!(found[0].meets(Family::V4) && !found[0].meets(Family::V6));
        assert!(found[2].meets(Family::V4) && found[2].meets(Family::V6));
    }

    #[test]
    fn disciplines_that_filter_or_shape() {
        let q = |parent, kind: &str| Qdisc { ifindex: IfIndex(1), parent, kind: kind.to_owned() };
        let acts = |q: Qdisc| (q.on_ingress(), q.on_egress());
        assert_eq!(acts(q(INGRESS, "clsact")), (true, true));
        assert_eq!(acts(q(INGRESS, "ingress")), (true, false));
        assert_eq!(acts(q(ROOT, "fq_codel")), (false, false));
        assert_eq!(acts(q(ROOT, "fq")), (false, false));
        for kind in ["tbf", "fq maxrate", "cake", "codel", "fq_pie", "pie", "red"] {
            assert_eq!(acts(q(ROOT, kind)), (false, true), "{kind}");
        }
        assert_eq!(acts(q(0x1_0001, "netem")), (false, true));
    }
}
