//! A decision in words.

use std::net::IpAddr;

use nsplane_abi::PassReason;

use super::name;
use crate::api::{Question, Step, table_name};
use crate::control::explain::Place;
use crate::control::ledger::{Entry, Place as Scope};
use crate::netlink::{Family, Route, RouteKind};
use crate::stats::PuntReason;
use crate::tables::{NextHop, RpFilter};
use crate::worker::stages::Verdict;
use crate::worker::stages::trace::Trace;

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
    } else if let Some(found) = place.route(packet.dst).map(|(_, route)| shown(place, route)) {
        step("route", format!("{found}: the kernel's to follow"));
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
    let mut out = Vec::new();
    if let Some((filter, back)) = trace.way_back {
        out.push(("source", source(place, filter, back, trace)));
    }
    if trace.decision.verdict == Verdict::Punt(PuntReason::SourceCheck) {
        return out;
    }
    match place.route(dst) {
        None => out.push(("rule", "no rule leads to a route".to_owned())),
        Some((rule, route)) => {
            let table = table_name(rule.table);
            out.push(("rule", format!("{}: all packets, lookup {table}", rule.priority)));
            out.push(("table", table_name(route.table)));
            out.push(("prefix", shown(place, route)));
        }
    }
    out.push(("next hop", next_hop(place, trace)));
    if let Some((port, gateway)) = trace.leads_to() {
        let who = gateway.unwrap_or(dst);
        out.push(("neighbour", neighbor(who, trace)));
        out.push(("egress", egress(place, port)));
    }
    out.extend(told_verdict(trace).map(|found| ("verdict", found)));
    out
}

fn source(place: &Place<'_>, filter: RpFilter, back: Option<NextHop>, trace: &Trace) -> String {
    let mode = match filter {
        RpFilter::Off => "off",
        RpFilter::Strict => "1, strict",
        RpFilter::Loose => "2, loose",
    };
    let back = match back {
        Some(NextHop::Forward { port, .. }) => format!("by {}", place.name(port)),
        Some(NextHop::Kernel) => "by a route of the kernel's".to_owned(),
        None => "nowhere".to_owned(),
    };
    let refused = trace.decision.verdict == Verdict::Punt(PuntReason::SourceCheck);
    let believed = if refused { "not believed, the kernel's to judge" } else { "believed" };
    format!("rp_filter {mode}: the way back leads {back}: {believed}")
}

fn next_hop(place: &Place<'_>, trace: &Trace) -> String {
    match trace.next_hop {
        None => "none: no route".to_owned(),
        Some(NextHop::Kernel) => "the kernel's to follow".to_owned(),
        Some(NextHop::Forward { port, gateway, mtu }) => {
            let via = gateway.map_or_else(|| "on the link".to_owned(), |g| format!("via {g}"));
            format!("{via}, out of {}, up to {mtu} bytes", place.name(port))
        }
    }
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
