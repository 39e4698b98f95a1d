//! What of the items a mirror shows.

use std::net::IpAddr;

use super::{Device, Place, Use};
use crate::control::compile::strange_rule;
use crate::control::mirror::{Mirror, Settings, TABLE_DEFAULT, TABLE_LOCAL, TABLE_MAIN};
use crate::netlink::{
    Family, HookSource, Link, LinkKind, Qdisc, RouteKind, Rule, RuleAction, Scope, Selector, Switch,
};

const BOTH: [Family; 2] = [Family::V4, Family::V6];

/// Of items that concern single packets or have no effect: there is nothing to find.
pub(super) fn nothing(_: &Mirror) -> Vec<Use> {
    Vec::new()
}

fn family(family: Family, what: impl Into<String>) -> Use {
    Use { what: what.into(), place: Place::Family(Some(family)) }
}

/// Devices that can be ports, also where something else keeps them from it.
fn devices(mirror: &Mirror) -> impl Iterator<Item = &Link> {
    let fit = |l: &&Link| matches!(l.kind, LinkKind::Veth | LinkKind::Macvlan | LinkKind::Physical);
    mirror.links.values().filter(fit)
}

fn at(link: &Link, family: Option<Family>, arrives: bool, leaves: bool) -> Place {
    let (ifindex, name) = (link.ifindex, link.name.clone());
    Place::Device(Device { ifindex, name, family, arrives, leaves })
}

fn settings(mirror: &Mirror, family: Family, scope: Scope) -> Settings {
    mirror.netconf.get(&(family, scope)).copied().unwrap_or_default()
}

pub(super) fn unreadable(mirror: &Mirror) -> Vec<Use> {
    if mirror.lost {
        let what = "changes of it were lost; it is being read again".to_owned();
        return vec![Use { what, place: Place::Family(None) }];
    }
    [(Family::V4, mirror.unreadable_v4), (Family::V6, mirror.unreadable_v6)]
        .into_iter()
        .filter(|(_, unreadable)| *unreadable)
        .map(|(f, _)| family(f, "a route, rule or next hop of it could not be read"))
        .collect()
}

/// The rules that a namespace comes with: priority and table.
pub(in super::super) fn default_rules(family: Family) -> &'static [(u32, u32)] {
    const RULES: [(u32, u32); 3] = [(0, TABLE_LOCAL), (32766, TABLE_MAIN), (32767, TABLE_DEFAULT)];
    match family {
        Family::V4 => &RULES,
        Family::V6 => RULES.split_at(2).0,
    }
}

pub(super) fn rules(mirror: &Mirror) -> Vec<Use> {
    BOTH.into_iter().filter_map(|f| Some(family(f, strange_rule(mirror, f)?))).collect()
}

/// Rules beyond those that a namespace comes with, which the workers go through.
pub(super) fn policy(mirror: &Mirror) -> Vec<Use> {
    let of = |f: Family| {
        let usual = |r: &&Rule| {
            let RuleAction::Table(table) = r.action else { return false };
            let plain = r.selector == Selector::default() && !r.suppress.any_given();
            plain && default_rules(f).contains(&(r.priority, table))
        };
        let more =
            || mirror.rules.iter().filter(|r| r.family == f && r.unknown.is_none() && !usual(r));
        let first = more().next()?;
        let what = format!("{} rules, the first of priority {}", more().count(), first.priority);
        Some(family(f, what))
    };
    BOTH.into_iter().filter_map(of).collect()
}

pub(super) fn netfilter(mirror: &Mirror) -> Vec<Use> {
    hooks(mirror, &[HookSource::Nftables, HookSource::Iptables, HookSource::Bpf])
}

pub(super) fn conntrack(mirror: &Mirror) -> Vec<Use> {
    hooks(mirror, &[HookSource::Conntrack])
}

pub(super) fn xfrm(mirror: &Mirror) -> Vec<Use> {
    hooks(mirror, &[HookSource::Xfrm])
}

pub(super) fn ipvs(mirror: &Mirror) -> Vec<Use> {
    hooks(mirror, &[HookSource::Ipvs])
}

fn hooks(mirror: &Mirror, sources: &[HookSource]) -> Vec<Use> {
    let hooks = sources.iter().filter_map(|s| mirror.hooks.get(s)).flatten();
    hooks.map(|h| Use { what: h.name.clone(), place: Place::Family(h.family) }).collect()
}

pub(super) fn redirects(mirror: &Mirror) -> Vec<Use> {
    let mut found = Vec::new();
    let forwards = |l: &Link| mirror.forwards_v4(l.ifindex);
    if mirror.switches.contains(&Switch::Redirects) && devices(mirror).any(forwards) {
        found.push(family(Family::V4, "net.ipv4.conf.all.accept_redirects is on"));
    }
    let of = |l: &Link| mirror.netconf.get(&(Family::V6, Scope::Device(l.ifindex)));
    let host = |l: &&Link| of(l).is_some_and(|s| !s.forwarding);
    if mirror.forwards_v6()
        && let Some(link) = devices(mirror).find(host)
    {
        let what = format!("net.ipv6.conf.{}.forwarding is off, so it takes redirects", link.name);
        found.push(family(Family::V6, what));
    }
    found
}

pub(super) fn use_pmtu(mirror: &Mirror) -> Vec<Use> {
    let on = mirror.switches.contains(&Switch::ForwardUsePmtu);
    on.then(|| family(Family::V4, "net.ipv4.ip_forward_use_pmtu is on")).into_iter().collect()
}

pub(super) fn quiet_routes(mirror: &Mirror) -> Vec<Use> {
    let on = mirror.switches.contains(&Switch::QuietRoutes);
    let what = "net.ipv6.route.skip_notify_on_dev_down is on";
    on.then(|| family(Family::V6, what)).into_iter().collect()
}

pub(super) fn proxy_ndp(mirror: &Mirror) -> Vec<Use> {
    let on = settings(mirror, Family::V6, Scope::All).proxy_neigh;
    on.then(|| family(Family::V6, "net.ipv6.conf.all.proxy_ndp is on")).into_iter().collect()
}

pub(super) fn local_prefixes(mirror: &Mirror) -> Vec<Use> {
    let loopback = |addr: IpAddr| matches!(addr, IpAddr::V4(a) if a.is_loopback());
    let mut routes = mirror.routes.of(TABLE_LOCAL, Family::V4);
    let found =
        routes.find(|r| r.kind == RouteKind::Local && r.dst.len < 32 && !loopback(r.dst.addr));
    found.map(|r| family(Family::V4, format!("local prefix {}", r.dst))).into_iter().collect()
}

pub(super) fn forwarding(mirror: &Mirror) -> Vec<Use> {
    BOTH.into_iter().flat_map(|f| forwarding_off(mirror, f)).collect()
}

fn forwarding_off(mirror: &Mirror, f: Family) -> Vec<Use> {
    let on = |l: &&Link| match f {
        Family::V4 => mirror.forwards_v4(l.ifindex),
        Family::V6 => mirror.forwards_v6(),
    };
    let off: Vec<&Link> = devices(mirror).filter(|l| !on(l)).collect();
    if off.is_empty() {
        return Vec::new();
    }
    if off.len() == devices(mirror).count() {
        return vec![family(f, "forwarding is off")];
    }
    let off = off.into_iter();
    off.map(|l| Use { what: "forwarding is off".to_owned(), place: at(l, Some(f), true, false) })
        .collect()
}

pub(super) fn force_forwarding(mirror: &Mirror) -> Vec<Use> {
    let on = |l: &&Link| {
        !mirror.forwards_v6()
            && settings(mirror, Family::V6, Scope::Device(l.ifindex)).force_forwarding
    };
    let what = |l: &Link| format!("net.ipv6.conf.{}.force_forwarding is on", l.name);
    let forced = devices(mirror).filter(on);
    forced.map(|l| Use { what: what(l), place: at(l, Some(Family::V6), true, false) }).collect()
}

pub(super) fn rp_filter(mirror: &Mirror) -> Vec<Use> {
    let used = devices(mirror).filter_map(|l| {
        let what = match mirror.rp_filter(l.ifindex) {
            0 => return None,
            1 => "strict",
            _ => "loose",
        };
        Some(Use { what: what.to_owned(), place: at(l, Some(Family::V4), true, false) })
    });
    used.collect()
}

pub(super) fn masters(mirror: &Mirror) -> Vec<Use> {
    let used = devices(mirror).filter_map(|l| {
        let master = l.master?;
        let name = match mirror.links.get(&master) {
            Some(link) => format!("member of {} ({:?})", link.name, link.kind).to_lowercase(),
            None => format!("member of device {}", master.0),
        };
        Some(Use { what: name, place: at(l, None, true, true) })
    });
    used.collect()
}

pub(super) fn shared_macs(mirror: &Mirror) -> Vec<Use> {
    let shares = |l: &&Link| match &l.kind {
        LinkKind::Other(kind) => kind.starts_with("ipvlan") || kind.starts_with("ipvtap"),
        _ => false,
    };
    let uppers = mirror.links.values().filter(shares).filter(|l| l.peer_nsid.is_none());
    let used = uppers.filter_map(|upper| {
        let lower = mirror.links.get(&upper.peer?)?;
        let what = format!("{} takes packets to its Ethernet address", upper.name);
        Some(Use { what, place: at(lower, None, true, false) })
    });
    used.collect()
}

pub(super) fn filters(mirror: &Mirror) -> Vec<Use> {
    qdiscs(mirror, Qdisc::is_for_filters)
}

pub(super) fn shapers(mirror: &Mirror) -> Vec<Use> {
    qdiscs(mirror, |q| !q.is_for_filters())
}

fn qdiscs(mirror: &Mirror, chosen: fn(&Qdisc) -> bool) -> Vec<Use> {
    let mut used = Vec::new();
    for link in devices(mirror) {
        for q in mirror.qdiscs(link.ifindex).filter(|q| chosen(q)) {
            let place = at(link, None, q.on_ingress(), q.on_egress());
            used.push(Use { what: format!("tc {}", q.kind), place });
        }
    }
    used
}

pub(super) fn tcx(mirror: &Mirror) -> Vec<Use> {
    let used = mirror.tcx.iter().filter_map(|t| {
        let link = mirror.links.get(&t.ifindex)?;
        let place = at(link, None, t.ingress, t.egress);
        Some(Use { what: "tcx programs".to_owned(), place })
    });
    used.collect()
}

pub(super) fn multicast(mirror: &Mirror) -> Vec<Use> {
    let routes = |f: Family| settings(mirror, f, Scope::All).mc_forwarding;
    let place = Place::Packets("multicast packets");
    BOTH.into_iter()
        .filter(|f| routes(*f))
        .map(|f| Use {
            what: format!("{} multicast router", super::family_name(Some(f))),
            place: place.clone(),
        })
        .collect()
}

pub(super) fn proxy_arp(mirror: &Mirror) -> Vec<Use> {
    let on = |scope| settings(mirror, Family::V4, scope).proxy_neigh;
    let used = devices(mirror).find(|l| on(Scope::All) || on(Scope::Device(l.ifindex)));
    let place = Place::Packets("ARP requests");
    used.map(|l| Use { what: format!("on at {}", l.name), place }).into_iter().collect()
}
