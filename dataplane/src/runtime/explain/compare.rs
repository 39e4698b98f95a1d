//! Would the kernel do what we do?

use super::Answer;
use crate::api::{Kernel, Way, table_name};
use crate::netlink::{Family, Route};

/// What the kernel says, and where that is something else than the way that nsplane
/// sends the packet, by `route` of its mirror.
pub(super) fn compare(way: &Way, route: Option<&Route>, answer: &Answer) -> (Kernel, Vec<String>) {
    let kernel = answer.kernel.clone();
    let differences = match &kernel.way {
        Some(theirs) if kernel.kind == "unicast" => {
            let mut all = ways(way, theirs, answer.matched.as_ref());
            all.extend(routes(route, answer.matched.as_ref()));
            all
        }
        _ => vec![format!("nsplane forwards it {way}; the kernel: {kernel}")],
    };
    (kernel, differences)
}

fn ways(ours: &Way, theirs: &Way, matched: Option<&Route>) -> Vec<String> {
    let mut out = Vec::new();
    // Asked about IPv6 the kernel names the first of several next hops, whatever the flow.
    let any_of = matched.is_some_and(|r| {
        Family::of(r.dst.addr) == Family::V6 && (r.hops.len() > 1 || r.nexthop.is_some())
    });
    if any_of {
        return out;
    }
    let mut other = |what: &str, ours: String, theirs: String| {
        if ours != theirs {
            out.push(format!("{what}: nsplane {ours}, the kernel {theirs}"));
        }
    };
    let via = |way: &Way| way.via.map_or_else(|| "none".to_owned(), |via| via.to_string());
    other("device", ours.dev.clone(), theirs.dev.clone());
    other("router", via(ours), via(theirs));
    let lladdr = |way: &Way| way.lladdr.clone().unwrap_or_else(|| "none".to_owned());
    if ours.dev == theirs.dev && ours.via == theirs.via {
        other("neighbour", lladdr(ours), lladdr(theirs));
    }
    out
}

fn routes(ours: Option<&Route>, theirs: Option<&Route>) -> Option<String> {
    let show = |r: &Route| {
        let table = table_name(r.table);
        format!("{}/{} of table {table}, metric {}", r.dst.addr, r.dst.len, r.priority)
    };
    let (ours, theirs) = (ours?, theirs?);
    let (ours, theirs) = (show(ours), show(theirs));
    (ours != theirs).then(|| format!("route: nsplane {ours}; the kernel {theirs}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::IfIndex;
    use crate::netlink::{Hop, Prefix, RouteKind};

    fn way(dev: &str, via: Option<&str>, lladdr: &str) -> Way {
        let via = via.map(|a| a.parse().unwrap());
        Way { dev: dev.to_owned(), via, lladdr: Some(lladdr.to_owned()) }
    }

    fn route(dst: &str, len: u8, table: u32) -> Route {
        Route {
            table,
            dst: Prefix { addr: dst.parse().unwrap(), len },
            source: None,
            tos: 0,
            priority: 0,
            kind: RouteKind::Unicast,
            prefsrc: None,
            mtu: None,
            nexthop: None,
            hops: Vec::new(),
            expires: false,
            unknown: false,
        }
    }

    fn answer(way: Option<Way>, matched: Route) -> Answer {
        let kernel = Kernel { kind: "unicast".to_owned(), way, ..Kernel::default() };
        Answer { kernel, matched: Some(matched) }
    }

    #[test]
    fn each_thing_that_differs_is_named() {
        let ours = way("b0", Some("10.0.1.2"), "02:00:00:00:00:01");
        let net = route("10.1.0.0", 16, 254);
        let same = answer(Some(ours.clone()), net.clone());
        assert_eq!(compare(&ours, Some(&net), &same).1, Vec::<String>::new());
        let others = [
            (way("c0", Some("10.0.1.2"), "02:00:00:00:00:01"), "device: nsplane b0, the kernel c0"),
            (way("b0", Some("10.0.1.3"), "02:00:00:00:00:01"), "router: nsplane 10.0.1.2"),
            (way("b0", None, "02:00:00:00:00:01"), "router: nsplane 10.0.1.2, the kernel none"),
            (way("b0", Some("10.0.1.2"), "02:00:00:00:00:09"), "neighbour: nsplane 02:"),
        ];
        for (theirs, wanted) in others {
            let all = compare(&ours, Some(&net), &answer(Some(theirs), net.clone())).1;
            assert!(all.len() == 1 && all[0].starts_with(wanted), "{all:?}");
        }
        for theirs in [route("10.1.0.0", 17, 254), route("10.1.0.0", 16, 100)] {
            let all = compare(&ours, Some(&net), &answer(Some(ours.clone()), theirs)).1;
            assert!(all.len() == 1 && all[0].starts_with("route: "), "{all:?}");
        }
        let local = Kernel { kind: "local".to_owned(), ..same.kernel };
        let all = compare(&ours, None, &Answer { kernel: local, matched: None }).1;
        assert!(all.len() == 1 && all[0].contains("the kernel: local"), "{all:?}");
    }

    #[test]
    fn one_of_several_next_hops_is_as_good_as_another_in_ipv6() {
        let hop = |n| Hop { oif: Some(IfIndex(n)), gateway: None, encap: false };
        let several = Route { hops: vec![hop(1), hop(2)], ..route("fd00::", 64, 254) };
        let theirs = answer(Some(way("c0", None, "02:00:00:00:00:02")), several.clone());
        let ours = way("b0", None, "02:00:00:00:00:01");
        assert_eq!(compare(&ours, Some(&several), &theirs).1, Vec::<String>::new());
    }
}
