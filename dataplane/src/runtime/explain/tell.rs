//! A decision in words.

use std::net::IpAddr;

use nsplane_abi::PassReason;

use super::name;
use crate::api::{Question, Step, table_name};
use crate::control::explain::Place;
use crate::control::ledger::{Entry, Place as Scope};
use crate::netlink::{Family, Route, RouteKind};
use crate::tables::{NextHop, RpFilter};
use crate::worker::stages::Verdict;
use crate::worker::stages::trace::{SourceCheck, Trace};

/// What was looked at, in its order, as far as the packet came.
pub(super) fn steps(
    place: &Place<'_>,
    packet: &Question,
    src: IpAddr,
    program: PassReason,
    trace: &Trace,
) -> Vec<Step> {
    let family = Family::of(packet.dst);
    let netns = place.netns();
    let mut out = Vec::new();
    let mut step = |step: &str, found: String| out.push(Step { step: step.to_owned(), found });
    let assumed = if packet.src.is_none() { " (assumed; --src says another)" } else { "" };
    step("packet", format!("from {src}{assumed} to {}, in at {}", packet.dst, packet.iif));
    step("member", place.member());
    step("namespace", format!("{}, cookie {}, {}", netns.name(), netns.cookie().0, place.ns));
    step("ledger", ledger(place, family));
    step("program", told_program(program));
    if program == PassReason::Redirected {
        for (what, found) in worker(place, packet.dst, trace) {
            step(what, found);
        }
    } else if let Some(route) = place.route(packet.dst, super::table(place, family, trace)) {
        step("route", format!("{}: the kernel's to follow", shown(place, &route)));
    }
    out
}

/// What keeps the family's packets that arrive here with the kernel, or may let the
/// workers have them after all.
fn ledger(place: &Place<'_>, family: Family) -> String {
    let here = place.link().ifindex;
    let meets = |e: &&Entry| match &e.used.place {
        Scope::Family(f) => f.is_none_or(|f| f == family),
        Scope::Device(d) => d.ifindex == here && d.arrives && d.family.is_none_or(|f| f == family),
        Scope::Routes(..) | Scope::Packets(_) => false,
    };
    let binding = place.compiled().ledger.iter().filter(|e| e.binds()).filter(meets);
    let lines: Vec<String> =
        binding.map(|e| format!("{} ({})", e.used.what, e.item.name)).collect();
    match lines.as_slice() {
        [] => format!("nothing keeps {} that arrives here with the kernel", name(family)),
        all => format!("{} that arrives here is the kernel's: {}", name(family), all.join("; ")),
    }
}

fn told_program(program: PassReason) -> String {
    let why = match program {
        PassReason::Redirected => return "hands it to the worker".to_owned(),
        PassReason::Local => "an address of the namespace's own",
        PassReason::NotRouted => "the port does not route the family",
        PassReason::KernelRoute => "the route is the kernel's",
        PassReason::Multicast => "multicast or broadcast",
        PassReason::Scope => "an address that crosses no router",
        PassReason::HopByHop => "hop-by-hop options",
        PassReason::Stale => "the port's settings are on their way",
        PassReason::TooLong => "longer than a frame of the memory",
        _ => "by its headers",
    };
    format!("leaves it to the kernel: {why} ({})", program.name())
}

/// What the worker looked at.
fn worker(place: &Place<'_>, dst: IpAddr, trace: &Trace) -> Vec<(&'static str, String)> {
    let family = Family::of(dst);
    let mut out = vec![("rule", rule(place, family, trace))];
    let table = super::table(place, family, trace);
    let refused = trace.rule.is_some_and(|found| found.table.is_none());
    match place.route(dst, table).filter(|_| !refused && trace.next_hop.is_some()) {
        Some(route) => {
            out.push(("table", table_name(route.table)));
            out.push(("prefix", shown(place, &route)));
        }
        None => out.push(("prefix", "none".to_owned())),
    }
    out.push(("next hop", next_hop(place, trace)));
    out.extend(trace.source.map(|check| ("source", source(place, check))));
    if let Some(way) = trace.way {
        out.push(("neighbour", neighbor(way.gateway.unwrap_or(dst), trace)));
        out.push(("egress", egress(place, way.port)));
    }
    out.extend(told_verdict(trace).map(|found| ("verdict", found)));
    out
}

fn rule(place: &Place<'_>, family: Family, trace: &Trace) -> String {
    let Some(found) = &trace.rule else {
        return "none asks for anything of a packet: one table".to_owned();
    };
    let (priority, table) = place.rule(family, found);
    let priority = priority.map_or_else(|| "?".to_owned(), |p| p.to_string());
    match table {
        Some(table) => format!("{priority}: lookup {}", table_name(table)),
        None => format!("{priority}: refuses it"),
    }
}

fn source(place: &Place<'_>, check: SourceCheck) -> String {
    let mode = match check.filter {
        RpFilter::Off => "off",
        RpFilter::Strict => "1, strict",
        RpFilter::Loose => "2, loose",
    };
    let back = match check.way_back {
        Some(NextHop::Forward { port, .. } | NextHop::Elsewhere { port: Some(port) }) => {
            format!("by {}", place.name(port))
        }
        Some(NextHop::Group(_)) => "by one of several".to_owned(),
        Some(NextHop::Elsewhere { port: None }) => "by a device that is no port".to_owned(),
        Some(_) => "where only the kernel knows".to_owned(),
        None => "nowhere".to_owned(),
    };
    let said = if check.passed { "believed" } else { "not believed, the kernel's to judge" };
    format!("rp_filter {mode}: the way back leads {back}: {said}")
}

fn next_hop(place: &Place<'_>, trace: &Trace) -> String {
    let several = match trace.next_hop {
        None => return "none: no route".to_owned(),
        Some(NextHop::Kernel) => return "the kernel's to follow".to_owned(),
        Some(NextHop::Elsewhere { .. }) => {
            return "somewhere that only the kernel can follow".to_owned();
        }
        Some(NextHop::Refused) => return "none: refused, by the kernel".to_owned(),
        Some(NextHop::Throw) => return "none: on with the next rule".to_owned(),
        Some(NextHop::Forward { .. }) => "",
        Some(NextHop::Group(_)) => "of several, by the packet's hash: ",
    };
    let Some(way) = trace.way else { return "the kernel's to choose".to_owned() };
    let via = way.gateway.map_or_else(|| "on the link".to_owned(), |g| format!("via {g}"));
    format!("{several}{via}, out of {}, up to {} bytes", place.name(way.port), way.mtu)
}

fn neighbor(who: IpAddr, trace: &Trace) -> String {
    match trace.neighbor {
        None => format!("{who} is not resolved: the kernel asks for it"),
        Some(n) if n.stale => format!("{who} is {}, stale", n.mac),
        Some(n) => format!("{who} is {}", n.mac),
    }
}

fn egress(place: &Place<'_>, port: crate::id::PortId) -> String {
    let name = place.name(port);
    match place.world.ports.get(port.index()).and_then(Option::as_ref) {
        None => format!("{name} is no port any more"),
        Some(p) if !p.up => format!("{name} is down"),
        Some(p) => format!("{name}, port {}.{}, from {}", port.0, p.generation.0, p.mac),
    }
}

/// What the worker decides, where that is not simply to forward.
fn told_verdict(trace: &Trace) -> Option<String> {
    match trace.decision.verdict {
        Verdict::Forward(f) => f.sample.map(|why| {
            format!(
                "now and then one such packet goes to the kernel, so that it sees them ({})",
                why.name()
            )
        }),
        Verdict::Send(_) => None,
        Verdict::Punt(why) => Some(format!("leaves it to the kernel ({})", why.name())),
        Verdict::Drop(why) => Some(format!("drops it ({})", why.name())),
    }
}

/// A route of the kernel's in words.
fn shown(place: &Place<'_>, route: &Route) -> String {
    let prefix = format!("{}/{}", route.dst.addr, route.dst.len);
    let metric = match route.priority {
        0 => String::new(),
        n => format!(", metric {n}"),
    };
    let table = match route.table {
        254 => String::new(),
        n => format!(", table {}", table_name(n)),
    };
    let ways: Vec<String> = match route.nexthop {
        Some(id) => vec![format!("next-hop object {id}")],
        None => route
            .hops
            .iter()
            .map(|h| {
                let dev = h.oif.map_or_else(|| "?".to_owned(), |oif| place.device(oif));
                h.gateway.map_or_else(|| format!("dev {dev}"), |g| format!("via {g} dev {dev}"))
            })
            .collect(),
    };
    let ways = ways.join(" or ");
    format!("{} {prefix}{table}{metric} {ways}", kind(route.kind)).trim_end().to_owned()
}

/// A kind of route as the kernel's tools call it.
pub(super) fn kind(kind: RouteKind) -> String {
    match kind {
        RouteKind::Unicast => "unicast",
        RouteKind::Local => "local",
        RouteKind::Broadcast => "broadcast",
        RouteKind::Anycast => "anycast",
        RouteKind::Multicast => "multicast",
        RouteKind::Throw => "throw",
        RouteKind::Other(6) => "blackhole",
        RouteKind::Other(7) => "unreachable",
        RouteKind::Other(8) => "prohibit",
        RouteKind::Other(n) => return format!("type {n}"),
    }
    .to_owned()
}
