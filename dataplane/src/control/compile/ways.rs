//! Which next hop a prefix of one table has. A pure function of the mirror, the ports
//! and the prefix's own routes, wherever it is.

use super::Compiler;
use crate::control::mirror::Alias;
use crate::id::PortId;
use crate::netlink::{Family, Hop, Link, NextHopKind, Number, RouteKind};
use crate::tables::NextHop;
use crate::tables::multipath::{Fields, Group, How, Member, bounds};

/// Where a prefix's packets go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To one next hop, or none of ours.
    One(NextHop),
    /// To one of several.
    Several(Group),
    /// The kernel follows: why, and what is known of where to.
    Kernel(&'static str, NextHop),
}

/// One way of a route, as far as it is ours.
type Out = Result<Member, (&'static str, NextHop)>;

impl Compiler<'_> {
    /// Where packets go that match a prefix with these routes, in the local table or in
    /// another.
    pub(super) fn way(&self, family: Family, local: bool, routes: &[Alias]) -> Way {
        let kernel = |why| Way::Kernel(why, NextHop::Kernel);
        // Routes that are for some packets only, or carry what we do not know,
        // make the choice between all of the prefix the kernel's.
        if routes.iter().any(|r| r.tos != 0 || r.source.is_some()) {
            return kernel("some-packets");
        }
        if routes.iter().any(|r| r.unknown) {
            return kernel("unknown-route");
        }
        let least = routes.iter().map(|r| r.priority).min();
        let mut best = routes.iter().filter(|r| Some(r.priority) == least);
        let Some(route) = best.next() else { return kernel("unknown-route") };
        // Of several IPv4 takes the first that lives, IPv6 the one that leads back, or
        // takes turns.
        if family == Family::V6 && best.next().is_some() {
            return kernel("multipath");
        }
        match route.kind {
            RouteKind::Unicast if !local => {}
            RouteKind::Throw => return Way::One(NextHop::Throw),
            kind if refuses(kind) => return Way::Kernel("refusing", NextHop::Refused),
            _ => return kernel("refusing"),
        }
        if route.expires {
            return kernel("expiring");
        }
        self.follow(family, route)
    }

    fn follow(&self, family: Family, route: &Alias) -> Way {
        let object = |id: &u32| self.mirror.nexthops.get(id).map(|o| &o.kind);
        match (route.nexthop, route.hops.as_slice()) {
            (Some(id), _) => match object(&id) {
                Some(NextHopKind::Hop(hop)) => self.one(family, route, *hop),
                Some(NextHopKind::Group(members)) => self.group(family, route, members),
                Some(NextHopKind::Blackhole) => Way::Kernel("refusing", NextHop::Refused),
                Some(NextHopKind::Other) | None => Way::Kernel("multipath", NextHop::Kernel),
            },
            (None, [only]) => self.one(family, route, *only),
            (None, hops) => self.several(family, route, hops),
        }
    }

    fn one(&self, family: Family, route: &Alias, hop: Hop) -> Way {
        match self.out(family, route, hop) {
            Ok(Member { port, gateway, mtu, .. }) => {
                Way::One(NextHop::Forward { port, gateway, mtu })
            }
            Err((why, next_hop)) => Way::Kernel(why, next_hop),
        }
    }

    /// A group of objects. Its members are alive: the kernel takes the others out.
    fn group(&self, family: Family, route: &Alias, members: &[(u32, u16)]) -> Way {
        let hop = |&(id, weight): &(u32, u16)| {
            let hop = self.mirror.nexthops.get(&id)?.hop()?;
            Some(Hop { weight, ..hop })
        };
        let hops: Option<Vec<Hop>> = members.iter().map(hop).collect();
        match hops.as_deref() {
            // A group may hold a blackhole, or groups.
            None | Some([]) => Way::Kernel("multipath", NextHop::Kernel),
            Some([only]) => self.one(family, route, *only),
            Some(hops) => self.balance(family, route, hops),
        }
    }

    /// Several next hops of the route's own. Those of devices that are down are dead, and
    /// live again with their device.
    fn several(&self, family: Family, route: &Alias, hops: &[Hop]) -> Way {
        let dead = |h: &Hop| h.oif.and_then(|i| self.mirror.links.get(&i)).is_some_and(|l| !l.up);
        let alive: Vec<Hop> = hops.iter().copied().filter(|h| !dead(h)).collect();
        // Of a device that has no IPv4 address: the kernel knows how it shares among the others.
        if alive.iter().any(|h| h.dead) {
            return Way::Kernel("multipath", NextHop::Kernel);
        }
        if family == Family::V4 && self.mirror.number(Number::UseNeigh) != 0 {
            return Way::Kernel("multipath", NextHop::Kernel);
        }
        match alive.as_slice() {
            [] => Way::Kernel("multipath", NextHop::Kernel),
            hops => self.balance(family, route, hops),
        }
    }

    fn balance(&self, family: Family, route: &Alias, hops: &[Hop]) -> Way {
        let out: Result<Vec<Member>, _> =
            hops.iter().map(|h| self.out(family, route, *h)).collect();
        let mut members = match out {
            Ok(members) => members,
            // One that is not ours makes the choice the kernel's.
            Err((why, _)) => return Way::Kernel(why, NextHop::Kernel),
        };
        let Some(how) = self.how(family) else {
            return Way::Kernel("multipath", NextHop::Kernel);
        };
        let weights: Vec<u16> = hops.iter().map(|h| h.weight).collect();
        for (member, bound) in members.iter_mut().zip(bounds(&weights)) {
            member.bound = bound;
        }
        Way::Several(Group { how, members: members.into() })
    }

    /// How the family's packets are spread, if we can.
    fn how(&self, family: Family) -> Option<How> {
        let policy = match family {
            Family::V4 => Number::HashPolicyV4,
            Family::V6 => Number::HashPolicyV6,
        };
        let dissects = super::policy::dissects(self.mirror, family);
        let fields = match self.mirror.number(policy) {
            0 if family == Family::V6 && dissects => Fields::AddressesDissected,
            0 => Fields::Addresses,
            1 => Fields::Ports,
            _ => return None,
        };
        Some(How::new(fields, self.mirror.number(Number::HashSeed)))
    }

    /// The port that a next hop leads to, where we may send; else why the kernel does, and
    /// where to.
    fn out(&self, family: Family, route: &Alias, hop: Hop) -> Out {
        let kernel = |why| Err((why, NextHop::Kernel));
        let Some(ifindex) = hop.oif else { return kernel("unknown-route") };
        let Some(link) = self.mirror.links.get(&ifindex) else { return kernel("other-devices") };
        // Whether a route of a dead device counts is a setting's to say.
        if !link.up || !link.carrier {
            return kernel("other-devices");
        }
        let port = self.ports.get(&ifindex).copied();
        let elsewhere = |why, port: Option<PortId>| Err((why, NextHop::Elsewhere { port }));
        if hop.encap {
            return elsewhere("encap", port);
        }
        match port {
            Some(port) if link.master.is_none() && !self.out.ledger.keeps_leaving(ifindex) => {
                let mtu = mtu(link, route, family);
                Ok(Member { bound: 0, port, gateway: hop.gateway, mtu })
            }
            port => elsewhere("other-devices", port),
        }
    }
}

fn refuses(kind: RouteKind) -> bool {
    // `RTN_BLACKHOLE`, `RTN_UNREACHABLE`, `RTN_PROHIBIT`.
    matches!(kind, RouteKind::Other(6..=8))
}

/// The longest packet that is forwarded along a route.
fn mtu(link: &Link, route: &Alias, family: Family) -> u32 {
    let device = match family {
        Family::V4 => link.mtu,
        Family::V6 => link.mtu6.map_or(link.mtu, |m| m.min(link.mtu)),
    };
    device.min(route.mtu.unwrap_or(u32::MAX))
}
