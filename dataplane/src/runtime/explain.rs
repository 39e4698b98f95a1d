//! `nsplane explain`: the way of one packet, and the kernel's own word for it.
//!
//! The packet is built and goes through what packets go through: the XDP program's reader
//! of headers with what its maps hold ([`Place::program`]), and the worker's decision in
//! the world that the workers have ([`trace`]). Here is only what is said of that, and
//! the comparison. Nothing is sent, and nothing is counted.
//!
//! The kernel is asked in the packet's namespace, on the control thread: two questions
//! that it answers from memory.

mod compare;
mod frame;
mod tell;

use std::io;
use std::net::IpAddr;

use crate::api::{Explanation, Kernel, Question, Tier, Way};
use crate::control::Control;
use crate::control::error::told;
use crate::control::explain::Place;
use crate::netlink::{Asker, Family, Number, Route, RouteQuestion};
use crate::tables::NextHop;
use crate::tables::multipath::Member;
use crate::worker::stages::Verdict;
use crate::worker::stages::trace::{Trace, trace};
use nsplane_abi::PassReason;

const UDP: u8 = 17;

/// Explains what becomes of a packet.
///
/// # Errors
/// A sentence for the user: no such namespace or port, addresses of two families, or the
/// kernel cannot be asked.
pub(super) fn explain(control: &Control, mut packet: Question) -> Result<Explanation, String> {
    let place = control.place(&packet.netns, &packet.iif)?;
    let src = source(&place, &packet)?;
    let family = Family::of(packet.dst);
    let proto = packet.proto.unwrap_or(UDP);
    let frame = frame::frame(own_mac(&place), &packet, src, proto);
    let program = place.program(&frame);
    let trace = trace(place.world, place.port, &frame)
        .ok_or_else(|| format!("{} is about to be another port; ask again", packet.iif))?;
    let question = RouteQuestion {
        iif: place.link().ifindex,
        dst: packet.dst,
        src,
        tos: packet.tos,
        protocol: matches!(proto, 1 | 6 | UDP | 58).then_some(proto),
        ports: (packet.sport, packet.dport),
    };
    let answer = ask(&place, &question).map_err(|e| told(&e))?;
    let (tier, reason) = outcome(program, &trace);
    let egress = egress(&place, &trace).filter(|_| tier == Tier::Userspace);
    let steps = tell::steps(&place, &packet, src, program, &trace);
    let differences = match &egress {
        Some(way) => {
            let route = place.route(packet.dst, table(&place, family, &trace));
            compare::compare(
                way,
                route.as_ref(),
                others(&place, family, &trace).as_deref(),
                &answer,
            )
        }
        None => Vec::new(),
    };
    let kernel = answer.kernel;
    (packet.src, packet.proto) = (Some(src), Some(proto));
    Ok(Explanation { packet, tier, reason, steps, egress, kernel, differences })
}

fn own_mac(place: &Place<'_>) -> crate::id::Mac {
    let port = place.world.ports.get(place.port.index()).and_then(Option::as_ref);
    port.map_or_else(|| place.link().mac.unwrap_or_default(), |p| p.mac)
}

fn source(place: &Place<'_>, packet: &Question) -> Result<IpAddr, String> {
    let family = Family::of(packet.dst);
    match packet.src {
        Some(src) if Family::of(src) == family => Ok(src),
        Some(src) => Err(format!("{src} and {} are not of one family", packet.dst)),
        None => place.somebody(family).ok_or_else(|| {
            format!(
                "{} has no {} network to take a source from; say --src",
                packet.iif,
                name(family)
            )
        }),
    }
}

fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

/// Who has the packet in the end, and why.
fn outcome(program: PassReason, trace: &Trace) -> (Tier, String) {
    if program != PassReason::Redirected {
        return (Tier::Kernel, program.name().to_owned());
    }
    match trace.decision.verdict {
        Verdict::Forward(_) | Verdict::Send(_) => (Tier::Userspace, "forwarded".to_owned()),
        Verdict::Punt(why) => (Tier::Kernel, why.name().to_owned()),
        Verdict::Drop(why) => (Tier::Dropped, why.name().to_owned()),
    }
}

/// How the packet leaves, in the words of its namespace.
fn egress(place: &Place<'_>, trace: &Trace) -> Option<Way> {
    let Verdict::Forward(forward) = trace.decision.verdict else { return None };
    let way = trace.way?;
    let lladdr = Some(forward.dst.to_string());
    Some(Way { dev: place.name(way.port), via: way.gateway, lladdr })
}

/// The kernel's table that rules led to, where there are more than the usual ones.
fn table(place: &Place<'_>, family: Family, trace: &Trace) -> Option<u32> {
    trace.rule.as_ref().and_then(|found| place.rule(family, found).1)
}

/// All ways that the packet may take, where it is the kernel's secret which it takes: of
/// several next hops, unless the user set the seed of the choice; and asked about IPv6
/// the kernel names the first, whatever the flow.
fn others(place: &Place<'_>, family: Family, trace: &Trace) -> Option<Vec<Way>> {
    let Some(NextHop::Group(index)) = trace.next_hop else { return None };
    if family == Family::V4 && place.mirror().number(Number::HashSeed) != 0 {
        return None;
    }
    let ns = place.world.namespaces.get(usize::from(place.ns.index))?.as_deref()?;
    let members = ns.groups.get(index as usize)?.members.iter();
    let way = |m: &Member| Way { dev: place.name(m.port), via: m.gateway, lladdr: None };
    Some(members.map(way).collect())
}

/// What the kernel said.
struct Answer {
    /// For users.
    kernel: Kernel,
    /// The route that the packet takes, where there is one.
    matched: Option<Route>,
}

fn ask(place: &Place<'_>, question: &RouteQuestion) -> Result<Answer, crate::netlink::Error> {
    let mut asker = Asker::open(place.netns())?;
    let taken = asker.route(question, false)?;
    let matched = asker.route(question, true)?.ok();
    let mut kernel = Kernel::default();
    match &taken {
        Ok(route) => {
            kernel.kind = tell::kind(route.kind);
            if let Some((ifindex, hop)) = route.hops.first().and_then(|h| Some((h.oif?, h))) {
                let next = hop.gateway.unwrap_or(question.dst);
                let neighbor = asker.neighbor(ifindex, next)?;
                let lladdr = neighbor.and_then(|n| n.usable()).map(|mac| mac.to_string());
                let dev = place.device(ifindex);
                kernel.way = Some(Way { dev, via: hop.gateway, lladdr });
            }
        }
        Err(e) => {
            kernel.kind = "refused".to_owned();
            kernel.error = Some(meaning(e));
        }
    }
    if let Some(route) = &matched {
        kernel.prefix = Some(format!("{}/{}", route.dst.addr, route.dst.len));
        (kernel.table, kernel.metric) = (Some(route.table), Some(route.priority));
    }
    Ok(Answer { kernel, matched })
}

/// What routing means by an error.
fn meaning(e: &io::Error) -> String {
    let why = match e.raw_os_error() {
        Some(libc::ENETUNREACH) => "no route",
        Some(libc::EHOSTUNREACH) => "unreachable, or the device does not forward",
        Some(libc::EACCES) => "prohibited",
        // Newer kernels say no more than that the packet is dropped.
        Some(libc::EINVAL) => "a blackhole, a source that is not believed, or no address to route",
        Some(libc::EXDEV) => "the source is not believed (rp_filter)",
        _ => return e.to_string(),
    };
    format!("{why} ({e})")
}
