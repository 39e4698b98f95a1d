//! What is kept with the kernel, and that the ledger says so.

use super::*;
use crate::netlink::Tcx;

#[test]
fn routes_that_are_kept_are_in_the_ledger() {
    let mut m = with([
        Route { nexthop: Some(9), ..route("10.0.0.0/8", &[]) },
        route("10.1.0.0/16", &[hop(3, None)]),
        route("10.2.0.0/16", &[hop(3, None)]),
        Route { kind: RouteKind::Other(6), ..route("10.3.0.0/16", &[]) },
        Route { tos: 8, ..route("10.4.0.0/16", &[hop(1, None)]) },
        Route { expires: true, ..route("fd00::/64", &[hop(1, None)]) },
        Route { unknown: true, ..route("fd01::/64", &[hop(1, None)]) },
        route("fd02::/64", &[Hop { encap: true, ..hop(1, None) }]),
        // What every namespace has does not count.
        route("fe80::/64", &[hop(3, None)]),
        local("10.0.0.1", 1),
    ]);
    let _ = m.apply(Event::NextHop(NextHopObject { id: 9, kind: NextHopKind::Other }));
    let c = run(&m);
    let routes = c.ledger.iter().filter(|e| e.item.scope == ledger::Scope::Routes);
    let routes: Vec<_> = routes.collect();
    let lines: Vec<_> = routes.iter().map(|e| (e.item.name, e.used.place.to_string())).collect();
    let line = |item, place: &str| (item, place.to_owned());
    assert_eq!(
        lines,
        [
            line("multipath", "1 IPv4 route"),
            line("other-devices", "2 IPv4 routes"),
            line("refusing", "1 IPv4 route"),
            line("some-packets", "1 IPv4 route"),
            line("encap", "1 IPv6 route"),
            line("expiring", "1 IPv6 route"),
            line("unknown-route", "1 IPv6 route"),
        ]
    );
    assert_eq!(routes[1].used.what, "such as 10.1.0.0/16");
}

/// The kernel takes nothing from an address of its own, also where its device is down
/// and it has no route.
#[test]
fn an_address_without_a_route_is_local_all_the_same() {
    let mut m = base();
    let address = Address { ifindex: IfIndex(3), prefix: prefix("10.7.0.1/24") };
    let _ = m.apply(Event::Address(address));
    assert!(run(&m).locals.contains(&IpAddr::from([10, 7, 0, 1])));
}

#[test]
fn programs_on_tcx_are_as_filters() {
    let mut m = forwarding();
    let both = |ingress, egress| Event::Tcx(vec![Tcx { ifindex: IfIndex(2), ingress, egress }]);
    assert!(m.apply(both(true, false)).hooks);
    let c = run(&m);
    assert!(!c.ports[1].forward_v4 && !c.ports[1].forward_v6 && c.ports[0].forward_v4);
    assert_eq!(at(&c, "10.1.0.1"), Some(to(20, None)));
    assert!(m.apply(both(false, true)).hooks);
    let out = NextHop::Elsewhere { port: Some(PortId(20)) };
    assert_eq!(at(&run(&m), "10.1.0.1"), Some(out), "the way back to it is known");
    assert!(run(&m).ports[1].forward_v4);
    assert!(m.apply(Event::Tcx(Vec::new())).hooks);
    assert_eq!(run(&m), run(&forwarding()));
}
