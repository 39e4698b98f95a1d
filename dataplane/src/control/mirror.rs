//! One namespace's network state as the kernel has it, kept up by events.
//!
//! Pure: events in, state and what changed out. Each namespace has a mirror of
//! its own (*replicated*).
//!
//! Not here: what the state means for forwarding (`compile`).
//!
//! Invariants:
//! - Applying an event again changes nothing, so that a dump may be followed by
//!   events that are already in it.
//! - Where the kernel deletes without a word, the mirror does too:
//!   - a device that goes down takes its IPv4 routes along, but for `local` ones,
//!     and the next-hop objects that lead out of it, with the routes that use them
//!     (net/ipv4/fib_semantics.c, `fib_sync_down_dev`; net/ipv4/nexthop.c);
//!   - a device's last IPv4 address takes along the IPv4 routes out of it, but for those
//!     by next-hop objects; of several next hops those out of it are dead until it has
//!     an address again;
//!   - a deleted next-hop object takes its routes along;
//!   - the last local route of an address takes along those that prefer it as
//!     source (silent before Linux 6.6);
//!   - a deleted device takes all that is its own along.
//!   - a deleted next-hop object leaves its groups, which go with their last.
//! - Where that cannot be followed exactly, [`Dirty::resync`] asks for a dump. A
//!   device without carrier may or may not have lost its next-hop objects. IPv6's next hops out
//!   of a device on which IPv6 is switched off are dead, without a word; and so are called,
//!   in a dump, those out of one without carrier where such routes are to be ignored.
//!
//! ```
//! use nsplane::control::mirror::Mirror;
//!
//! let mirror = Mirror::from_dump(Vec::new());
//! assert!(mirror.links.is_empty());
//! ```

mod routes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::ops::Range;

use hashbrown::HashMap;

use crate::id::IfIndex;
use crate::netlink::{
    Address, Event, Family, Hook, HookSource, Hop, INGRESS, Link, LinkKind, Neighbor, Netconf,
    NextHopKind, NextHopObject, Number, Prefix, Qdisc, ROOT, Route, RouteKind, Rule, Scope, Switch,
    Tcx,
};

pub use routes::Routes;

/// Table of what is delivered locally (`RT_TABLE_LOCAL`).
pub const TABLE_LOCAL: u32 = 255;
/// Table that routes are put into by default (`RT_TABLE_MAIN`).
pub const TABLE_MAIN: u32 = 254;
/// Table that is looked into last (`RT_TABLE_DEFAULT`).
pub const TABLE_DEFAULT: u32 = 253;

/// What an event changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Dirty {
    /// Devices.
    pub links: bool,
    /// Addresses of devices.
    pub addresses: bool,
    /// IPv4 routes, or next-hop objects.
    pub routes_v4: bool,
    /// IPv6 routes, or next-hop objects.
    pub routes_v6: bool,
    /// Of routes more than the one that the event names.
    pub more_routes: bool,
    /// Rules.
    pub rules: bool,
    /// A neighbour's usable Ethernet address. Not: a change of its state only.
    pub neighbors: bool,
    /// Settings.
    pub netconf: bool,
    /// Hooks, or queueing disciplines that act upon packets.
    pub hooks: bool,
    /// The mirror may be wrong: dump again, replay again.
    pub resync: bool,
}

impl Dirty {
    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            links: self.links | other.links,
            addresses: self.addresses | other.addresses,
            routes_v4: self.routes_v4 | other.routes_v4,
            routes_v6: self.routes_v6 | other.routes_v6,
            more_routes: self.more_routes | other.more_routes,
            rules: self.rules | other.rules,
            neighbors: self.neighbors | other.neighbors,
            netconf: self.netconf | other.netconf,
            hooks: self.hooks | other.hooks,
            resync: self.resync | other.resync,
        }
    }

    /// Something changed.
    #[must_use]
    pub fn any(self) -> bool {
        self != Self::default()
    }

    /// Nothing but one route of the family, the one that the event names.
    #[must_use]
    pub fn is_one_route(self, family: Family) -> bool {
        self == Self::routes(family)
    }

    fn routes(family: Family) -> Self {
        match family {
            Family::V4 => Self { routes_v4: true, ..Self::default() },
            Family::V6 => Self { routes_v6: true, ..Self::default() },
        }
    }

    fn when(self, changed: bool) -> Self {
        if changed { self } else { Self::default() }
    }
}

/// Settings of a scope, as far as the kernel told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `forwarding`.
    pub forwarding: bool,
    /// `rp_filter`.
    pub rp_filter: u8,
    /// `mc_forwarding`.
    pub mc_forwarding: bool,
    /// `proxy_ndp` or `proxy_arp`.
    pub proxy_neigh: bool,
    /// `force_forwarding` (IPv6).
    pub force_forwarding: bool,
}

/// The state of one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirror {
    /// Devices.
    pub links: BTreeMap<IfIndex, Link>,
    /// Addresses of devices.
    pub addresses: BTreeSet<Address>,
    /// Routes of all tables.
    pub routes: Routes,
    /// Policy rules of both families, each family's in their order.
    pub rules: Vec<Rule>,
    /// Neighbours.
    pub neighbors: HashMap<(IfIndex, IpAddr), Neighbor>,
    /// Settings.
    pub netconf: HashMap<(Family, Scope), Settings>,
    /// Next-hop objects.
    pub nexthops: BTreeMap<u32, NextHopObject>,
    /// What else acts upon forwarded packets; sources without a hook are left out.
    pub hooks: BTreeMap<HookSource, Vec<Hook>>,
    /// Queueing disciplines that act upon packets, by device and parent.
    pub qdiscs: BTreeMap<(IfIndex, u32), Qdisc>,
    /// Devices with BPF programs on tcx.
    pub tcx: Vec<Tcx>,
    /// Settings that are looked at from time to time, those that are on.
    pub switches: BTreeSet<Switch>,
    /// Numbers that are looked at from time to time, as far as they are not 0.
    pub numbers: BTreeMap<Number, u32>,
    /// Something about IPv4 routing could not be read.
    pub unreadable_v4: bool,
    /// Something about IPv6 routing could not be read.
    pub unreadable_v6: bool,
    /// A change was lost, or could not be followed: only a dump says what is true.
    pub lost: bool,
}

impl Mirror {
    /// The state that a dump tells.
    #[must_use]
    pub fn from_dump(events: Vec<Event>) -> Self {
        let mut mirror = Self::default();
        for event in events {
            // Nothing was here before: what changed is everything.
            let _ = mirror.change(event);
        }
        mirror
    }

    /// The state that a dump tells, and the changes that were queued when it was done.
    /// [`Mirror::lost`], if one of these was.
    #[must_use]
    pub fn from_dump_and(dump: Vec<Event>, queued: Vec<Event>) -> Self {
        let mut mirror = Self::from_dump(dump);
        for event in queued {
            let _ = mirror.apply(event);
        }
        mirror
    }

    /// Makes one change, and whatever the kernel did silently because of it.
    pub fn apply(&mut self, event: Event) -> Dirty {
        let silent = self.kills_or_revives(&event);
        let mut dirty = self.change(event);
        dirty.resync |= silent;
        self.lost |= dirty.resync;
        dirty
    }

    /// With what the event tells, next hops of routes with several died or came to life,
    /// which is not told. (IPv4's that go with a device or its addresses are followed.)
    fn kills_or_revives(&self, event: &Event) -> bool {
        let up = |i: IfIndex| self.links.get(&i).is_some_and(|l| l.up);
        match event {
            // Dead may have meant that it had no carrier.
            Event::Link(new) if new.up && new.carrier => {
                let back = |old: &Link| old.up && !old.carrier;
                self.links.get(&new.ifindex).is_some_and(back) && self.balances(new.ifindex, true)
            }
            Event::Route(route, _) => on_v6(route).is_some_and(|i| self.balances(i, true)),
            // Those of a device that is down count for nothing anyway.
            Event::RouteGone(route) => {
                on_v6(route).is_some_and(|i| up(i) && self.balances(i, false))
            }
            _ => false,
        }
    }

    /// A route has several next hops, of which one out of the device, dead or not; of
    /// those that live only IPv6's are asked for.
    fn balances(&self, ifindex: IfIndex, dead: bool) -> bool {
        let here = |h: &Hop| h.oif == Some(ifindex) && h.dead == dead;
        let fits = |r: &Route| r.hops.len() > 1 && (dead || r.dst.addr.is_ipv6());
        self.routes.iter().any(|r| fits(r) && r.hops.iter().any(here))
    }

    fn change(&mut self, event: Event) -> Dirty {
        match event {
            Event::Link(link) => self.link(link),
            Event::LinkGone(ifindex) => self.link_gone(ifindex),
            Event::Address(a) => self.address(a),
            Event::AddressGone(a) => self.address_gone(a),
            Event::Route(route, insert) => {
                let dirty = Dirty::routes(Family::of(route.dst.addr));
                dirty.when(self.routes.insert(route, insert))
            }
            Event::RouteGone(route) => self.route_gone(&route),
            Event::Rule(rule) => self.rule(rule),
            Event::RuleGone(rule) => {
                let among = self.rules_beside(&rule);
                let at = self.rules[among.clone()].iter().position(|r| *r == rule);
                let gone = at.map(|at| self.rules.remove(among.start + at));
                Dirty { rules: true, ..Dirty::default() }.when(gone.is_some())
            }
            Event::Neighbor(n) => {
                let old = self.neighbors.insert((n.ifindex, n.addr), n);
                Self::neighbors_dirty(old, Some(n))
            }
            Event::NeighborGone(ifindex, addr) => {
                Self::neighbors_dirty(self.neighbors.remove(&(ifindex, addr)), None)
            }
            Event::Netconf(n) => self.settings(n),
            Event::NetconfGone(family, scope) => {
                let gone = self.netconf.remove(&(family, scope)).is_some();
                Dirty { netconf: true, ..Dirty::default() }.when(gone)
            }
            Event::NextHop(object) => {
                let changed = self.nexthops.get(&object.id) != Some(&object);
                self.nexthops.insert(object.id, object);
                Self::both().when(changed)
            }
            Event::NextHopGone(id) => self.nexthop_gone(id),
            Event::Hooks(source, hooks) => self.source(source, hooks),
            Event::Qdisc(qdisc) => self.qdisc(qdisc, false),
            Event::QdiscGone(qdisc) => self.qdisc(qdisc, true),
            Event::Tcx(tcx) => {
                let changed = self.tcx != tcx;
                self.tcx = tcx;
                Dirty { hooks: true, ..Dirty::default() }.when(changed)
            }
            Event::Switch(switch, on) => {
                let changed = match on {
                    true => self.switches.insert(switch),
                    false => self.switches.remove(&switch),
                };
                Dirty { netconf: true, ..Dirty::default() }.when(changed)
            }
            Event::Number(number, value) => {
                let changed = self.number(number) != value;
                match value {
                    0 => self.numbers.remove(&number),
                    _ => self.numbers.insert(number, value),
                };
                Self::both().when(changed)
            }
            Event::Unreadable(family) => {
                match family {
                    Family::V4 => self.unreadable_v4 = true,
                    Family::V6 => self.unreadable_v6 = true,
                }
                Dirty { resync: true, ..Dirty::routes(family) }
            }
            Event::Overrun => Dirty { resync: true, ..Dirty::default() },
        }
    }

    /// The device's own switch: IPv4 that arrives there may be routed.
    #[must_use]
    pub fn forwards_v4(&self, ifindex: IfIndex) -> bool {
        self.netconf.get(&(Family::V4, Scope::Device(ifindex))).is_some_and(|s| s.forwarding)
    }

    /// The namespace's switch: IPv6 is asked for all devices at once
    /// (net/ipv6/ip6_output.c, `ip6_forward`).
    #[must_use]
    pub fn forwards_v6(&self) -> bool {
        self.netconf.get(&(Family::V6, Scope::All)).is_some_and(|s| s.forwarding)
    }

    /// The reverse-path filter in force: the stricter of the device's and `all`'s
    /// number (`IN_DEV_RPFILTER`).
    #[must_use]
    pub fn rp_filter(&self, ifindex: IfIndex) -> u8 {
        let of = |scope| self.netconf.get(&(Family::V4, scope)).map_or(0, |s| s.rp_filter);
        of(Scope::All).max(of(Scope::Device(ifindex)))
    }

    /// A number that is looked at from time to time.
    #[must_use]
    pub fn number(&self, number: Number) -> u32 {
        self.numbers.get(&number).copied().unwrap_or_default()
    }

    /// A rule goes behind those of its priority (net/core/fib_rules.c, `fib_newrule`).
    /// One that is there already is told again: the kernel keeps no two of the same for
    /// those who ask it not to, and that is all who are known.
    fn rule(&mut self, rule: Rule) -> Dirty {
        let among = self.rules_beside(&rule);
        let new = !self.rules[among.clone()].contains(&rule);
        if new {
            self.rules.insert(among.end, rule);
        }
        Dirty { rules: true, ..Dirty::default() }.when(new)
    }

    /// Where the rules of its family and priority are. There may be a hundred thousand, of
    /// as many priorities: not each is compared with all.
    fn rules_beside(&self, rule: &Rule) -> Range<usize> {
        let place = |r: &Rule| (r.family, r.priority);
        let before = self.rules.partition_point(|r| place(r) < place(rule));
        before..self.rules.partition_point(|r| place(r) <= place(rule))
    }

    /// The device's queueing disciplines that act upon packets.
    pub fn qdiscs(&self, ifindex: IfIndex) -> impl Iterator<Item = &Qdisc> {
        self.qdiscs.range((ifindex, 0)..=(ifindex, u32::MAX)).map(|(_, q)| q)
    }

    fn source(&mut self, source: HookSource, hooks: Vec<Hook>) -> Dirty {
        let changed = self.hooks.get(&source).map_or(&[][..], Vec::as_slice) != hooks;
        if hooks.is_empty() {
            self.hooks.remove(&source);
        } else {
            self.hooks.insert(source, hooks);
        }
        Dirty { hooks: true, ..Dirty::default() }.when(changed)
    }

    fn qdisc(&mut self, qdisc: Qdisc, gone: bool) -> Dirty {
        let key = (qdisc.ifindex, qdisc.parent);
        let mut changed = false;
        if qdisc.parent == ROOT {
            // What was below another root went with it, silently.
            let before = self.qdiscs.len();
            let below =
                |&(i, parent): &(IfIndex, u32)| i == key.0 && ![ROOT, INGRESS].contains(&parent);
            self.qdiscs.retain(|k, _| !below(k));
            changed = before != self.qdiscs.len();
        }
        changed |= if !gone && (qdisc.on_ingress() || qdisc.on_egress()) {
            self.qdiscs.insert(key, qdisc.clone()) != Some(qdisc)
        } else {
            self.qdiscs.remove(&key).is_some()
        };
        Dirty { hooks: true, ..Dirty::default() }.when(changed)
    }

    fn both() -> Dirty {
        Dirty { routes_v4: true, routes_v6: true, ..Dirty::default() }
    }

    fn neighbors_dirty(old: Option<Neighbor>, new: Option<Neighbor>) -> Dirty {
        let usable = |n: Option<Neighbor>| n.and_then(|n| Some((n.usable()?, n.stale())));
        Dirty { neighbors: true, ..Dirty::default() }.when(usable(old) != usable(new))
    }

    fn settings(&mut self, n: Netconf) -> Dirty {
        let settings = self.netconf.entry((n.family, n.scope)).or_default();
        let old = *settings;
        settings.forwarding = n.forwarding.unwrap_or(old.forwarding);
        settings.rp_filter = n.rp_filter.unwrap_or(old.rp_filter);
        settings.mc_forwarding = n.mc_forwarding.unwrap_or(old.mc_forwarding);
        settings.proxy_neigh = n.proxy_neigh.unwrap_or(old.proxy_neigh);
        settings.force_forwarding = n.force_forwarding.unwrap_or(old.force_forwarding);
        Dirty { netconf: true, ..Dirty::default() }.when(old != *settings)
    }

    /// An IPv4 address brings its device's dead next hops back, silently
    /// (net/ipv4/fib_frontend.c, `fib_inetaddr_event`).
    fn address(&mut self, a: Address) -> Dirty {
        let new = self.addresses.insert(a);
        let mut dirty = Dirty { addresses: true, ..Dirty::default() }.when(new);
        let up = self.links.get(&a.ifindex).is_some_and(|l| l.up);
        if up && a.prefix.addr.is_ipv4() {
            let lives = self.routes.mark_dead_v4(a.ifindex, false);
            dirty.routes_v4 |= lives;
            dirty.more_routes |= lives;
        }
        dirty
    }

    /// With a device's last IPv4 address go the IPv4 routes out of it, silently, but not
    /// those by next-hop objects (`fib_disable_ip`).
    fn address_gone(&mut self, a: Address) -> Dirty {
        let known = self.addresses.remove(&a);
        let mut dirty = Dirty { addresses: true, ..Dirty::default() }.when(known);
        let on_device = |b: &Address| b.ifindex == a.ifindex && b.prefix.addr.is_ipv4();
        // Also where it is not known: a replayed route may have come back.
        if a.prefix.addr.is_ipv4() && !self.addresses.iter().any(on_device) {
            let dead = self.routes.mark_dead_v4(a.ifindex, true);
            let dropped = self.routes.drop_without_address_v4(a.ifindex);
            dirty.routes_v4 |= dead | dropped;
            dirty.more_routes |= dead | dropped;
            // Somebody's own, which goes too.
            dirty.resync |= self.routes.has_other_local_v4(a.ifindex, a.prefix.addr);
        }
        dirty
    }

    fn link(&mut self, mut link: Link) -> Dirty {
        let (ifindex, up, carrier) = (link.ifindex, link.up, link.carrier);
        let paired = self.pair(&link);
        // A new MTU becomes IPv6's too, but only after the message was sent.
        let new_mtu = self.links.get(&ifindex).is_some_and(|old| old.mtu != link.mtu);
        link.mtu6 = link.mtu6.map(|m| if new_mtu { link.mtu } else { m.min(link.mtu) });
        let old = self.links.insert(ifindex, link);
        let changed = old.as_ref() != self.links.get(&ifindex);
        let mut dirty = Dirty { links: true, ..Dirty::default() }.when(changed || paired);
        if up && old.is_some_and(|o| !o.up) {
            dirty.routes_v4 |= self.routes.mark_dead_v4(ifindex, false);
        }
        if !up {
            // Also where it was down before: a replayed route may have come back.
            dirty = dirty.and(self.device_down(ifindex));
        } else if !carrier && changed && self.leads_out_of(ifindex).next().is_some() {
            dirty.resync = true;
        }
        dirty
    }

    /// A veth's first end is told of before it has a second, and not again: the
    /// second's message says it for both. True: that was news.
    fn pair(&mut self, link: &Link) -> bool {
        let (LinkKind::Veth, Some(peer), None) = (&link.kind, link.peer, link.peer_nsid) else {
            return false;
        };
        match self.links.get_mut(&peer) {
            Some(other) if other.kind == LinkKind::Veth => {
                other.peer.replace(link.ifindex) != Some(link.ifindex)
            }
            _ => false,
        }
    }

    fn link_gone(&mut self, ifindex: IfIndex) -> Dirty {
        // Also where it is not known: what is its own may have come by replay.
        let known = self.links.remove(&ifindex).is_some();
        let mut dirty = Dirty { links: known, ..Dirty::default() };
        dirty = dirty.and(self.device_down(ifindex));
        if self.routes.drop_device(ifindex) {
            dirty = dirty.and(Self::both());
        }
        self.qdiscs.retain(|(i, _), _| *i != ifindex);
        self.tcx.retain(|t| t.ifindex != ifindex);
        let before = (self.addresses.len(), self.neighbors.len(), self.netconf.len());
        self.addresses.retain(|a| a.ifindex != ifindex);
        self.neighbors.retain(|(i, _), _| *i != ifindex);
        self.netconf.retain(|(_, scope), _| *scope != Scope::Device(ifindex));
        dirty.addresses |= before.0 != self.addresses.len();
        dirty.neighbors |= before.1 != self.neighbors.len();
        dirty.netconf |= before.2 != self.netconf.len();
        dirty
    }

    fn leads_out_of(&self, ifindex: IfIndex) -> impl Iterator<Item = u32> + '_ {
        let leads = move |o: &&NextHopObject| o.hop().is_some_and(|h| h.oif == Some(ifindex));
        self.nexthops.values().filter(leads).map(|o| o.id)
    }

    /// What goes with a device that is no longer up.
    fn device_down(&mut self, ifindex: IfIndex) -> Dirty {
        let mut dirty = Dirty::default();
        let objects: Vec<u32> = self.leads_out_of(ifindex).collect();
        for id in objects {
            dirty = dirty.and(self.nexthop_gone(id));
            // Of a group that is not known nobody can say whether it lost a member.
            dirty.resync |= self.nexthops.values().any(|o| o.kind == NextHopKind::Other);
        }
        let links = &self.links;
        let dead = |i: IfIndex| links.get(&i).is_none_or(|l| !l.up);
        let dropped = self.routes.drop_dead_v4(ifindex, dead);
        dirty.routes_v4 |= self.routes.mark_dead_v4(ifindex, true);
        dirty.routes_v4 |= dropped.any;
        dirty.resync |= dropped.several_hops;
        dirty
    }

    fn nexthop_gone(&mut self, id: u32) -> Dirty {
        let gone = self.nexthops.remove(&id).is_some();
        let used = self.routes.drop_nexthop(id);
        let mut dirty = Self::both().when(gone | used);
        // Groups lose the member, and end with their last, without a word too.
        let mut empty = Vec::new();
        for object in self.nexthops.values_mut() {
            if object.leave(id) {
                dirty = Self::both();
                if object.kind == NextHopKind::Group(Box::default()) {
                    empty.push(object.id);
                }
            }
        }
        for id in empty {
            dirty = dirty.and(self.nexthop_gone(id));
        }
        dirty
    }

    fn route_gone(&mut self, route: &Route) -> Dirty {
        let gone = self.routes.remove(route);
        let local = route.kind == RouteKind::Local && route.dst.len == 32;
        let mut more_routes = false;
        if gone && local && !self.routes.is_local_v4(route.dst.addr) {
            more_routes = self.routes.drop_prefsrc_v4(route.dst.addr);
        }
        Dirty { more_routes, ..Dirty::routes(Family::of(route.dst.addr)) }.when(gone)
    }
}

/// The device that IPv6 is at work on as long as this route is there: each has one to all
/// groups (net/ipv6/addrconf.c, `addrconf_add_mroute`).
fn on_v6(route: &Route) -> Option<IfIndex> {
    const GROUPS: Prefix =
        Prefix { addr: IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), len: 8 };
    match (route.table, route.dst, route.hops.as_slice()) {
        (TABLE_LOCAL, GROUPS, [hop]) => hop.oif,
        _ => None,
    }
}

#[cfg(test)]
mod live;
#[cfg(test)]
pub(super) mod tests;
