//! Would the kernel do what we do?

use super::Answer;
use crate::api::{Way, table_name};
use crate::netlink::Route;

/// Where the kernel would do something else than send the packet the way that nsplane
/// does, by `route` of its mirror. Which of the ways `any_of` it takes may differ.
pub(super) fn compare(
    way: &Way,
    route: Option<&Route>,
    any_of: Option<&[Way]>,
    answer: &Answer,
) -> Vec<String> {
    let kernel = &answer.kernel;
    match &kernel.way {
        Some(theirs) if kernel.kind == "unicast" => {
            let mut all = ways(way, theirs, any_of);
            all.extend(routes(route, answer.matched.as_ref()));
            all
        }
        _ => vec![format!("nsplane forwards it {way}; the kernel: {kernel}")],
    }
}

fn ways(ours: &Way, theirs: &Way, any_of: Option<&[Way]>) -> Vec<String> {
    let mut out = Vec::new();
    if any_of.is_some_and(|all| all.iter().any(|w| (&w.dev, w.via) == (&theirs.dev, theirs.via))) {
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
    use crate::api::Kernel;
    use crate::netlink::{Prefix, RouteKind};

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
        assert_eq!(compare(&ours, Some(&net), None, &same), Vec::<String>::new());
        let others = [
            (way("c0", Some("10.0.1.2"), "02:00:00:00:00:01"), "device: nsplane b0, the kernel c0"),
            (way("b0", Some("10.0.1.3"), "02:00:00:00:00:01"), "router: nsplane 10.0.1.2"),
            (way("b0", None, "02:00:00:00:00:01"), "router: nsplane 10.0.1.2, the kernel none"),
            (way("b0", Some("10.0.1.2"), "02:00:00:00:00:09"), "neighbour: nsplane 02:"),
        ];
        for (theirs, wanted) in others {
            let all = compare(&ours, Some(&net), None, &answer(Some(theirs), net.clone()));
            assert!(all.len() == 1 && all[0].starts_with(wanted), "{all:?}");
        }
        for theirs in [route("10.1.0.0", 17, 254), route("10.1.0.0", 16, 100)] {
            let all = compare(&ours, Some(&net), None, &answer(Some(ours.clone()), theirs));
            assert!(all.len() == 1 && all[0].starts_with("route: "), "{all:?}");
        }
        let local = Kernel { kind: "local".to_owned(), ..same.kernel };
        let all = compare(&ours, None, None, &Answer { kernel: local, matched: None });
        assert!(all.len() == 1 && all[0].contains("the kernel: local"), "{all:?}");
    }

    #[test]
    fn one_of_several_next_hops_is_as_good_as_another() {
        let net = route("fd00::", 64, 254);
        let [b, c, d] = ["b0", "c0", "d0"].map(|dev| way(dev, None, "02:00:00:00:00:01"));
        let any_of = Some([b.clone(), c.clone()]);
        let say = |theirs: &Way| {
            let answer = answer(Some(theirs.clone()), net.clone());
            compare(&b, Some(&net), any_of.as_ref().map(|a| &a[..]), &answer)
        };
        assert_eq!(say(&c), Vec::<String>::new());
        assert_eq!(say(&d), ["device: nsplane b0, the kernel d0"]);
    }
}
