//! FRR and BIRD route, nsplane forwards by what they tell the kernel, and neither notices
//! the other: sessions come up and stay up under nsplane, and traffic goes where they say.

#[path = "routing_daemons/site.rs"]
mod site;

use std::time::Duration;

use nsplane_tests::daemons::{Programs, Router};
use nsplane_tests::process::Nsplane;
use nsplane_tests::wait::wait_until;
use site::{FIRST, PATIENCE, PREFIXES, SECOND, Site, Traffic, host};

/// Far above what is seen (milliseconds), far below what daemons take to notice anything.
const FOLLOWS: Duration = Duration::from_secs(5);

/// Three tenants with the same addresses and networks, each by another protocol. nsplane
/// is there before their daemons: what those say to each other has to get through it.
#[test]
#[ignore = "needs root"]
fn three_tenants_by_bgp_and_ospf() {
    let programs = Programs::find().unwrap();
    println!("{}", programs.versions().unwrap());
    let sites = ["frr", "bird", "ospf"].map(Site::new);
    let nsplane =
        Nsplane::start(&[&sites[0].router, &sites[1].router, &sites[2].router], &[]).unwrap();
    let daemons = [
        site::bgp_by_frr(&programs, &sites[0]),
        site::bgp_by_bird(&programs, &sites[1]),
        site::ospf_and_bfd(&programs, &sites[2]),
    ];
    for site in &sites {
        site.wait_routes(&nsplane, FIRST);
    }
    wait_until(PATIENCE, "both BFD sessions", || bfd_up(&daemons[2][0]) == 2).unwrap();
    let traffic: Vec<Traffic<'_>> = sites.iter().map(Traffic::new).collect();
    for n in (0..PREFIXES).step_by(50) {
        for t in &traffic {
            t.wait_forwarded(&nsplane, &host(n), FIRST);
        }
    }
    // Nothing gets to another tenant's neighbour.
    traffic.iter().for_each(Traffic::clear);
    (0..PREFIXES).step_by(10).for_each(|n| traffic[0].send(&host(n)));
    assert!(traffic[0].arrived(FIRST, PATIENCE));
    for t in &traffic[1..] {
        assert!(!t.saw_anything_of("frr"), "a packet of another tenant's");
    }
    // Each loses its first neighbour in a way of its own; the others' do not move.
    let [mut frr, mut bird, mut ospf] = daemons;
    type Lose<'a, 'b> = &'a mut dyn FnMut(&mut Router<'b>);
    let ways: [(&mut [Router<'_>; 3], &str, Lose<'_, '_>); 3] = [
        (&mut frr, "bgpd of the neighbour killed", &mut |r| r.kill("bgpd").unwrap()),
        (&mut bird, "bird of the neighbour killed", &mut |r| r.kill("bird").unwrap()),
        (&mut ospf, "bfdd of the neighbour killed", &mut |r| r.kill("bfdd").unwrap()),
    ];
    for (i, (daemons, what, lose)) in ways.into_iter().enumerate() {
        lose(&mut daemons[1]);
        let after = traffic[i].wait_moved(&nsplane, &host(500));
        println!("{what}: traffic {:.1} ms after the kernel's change", after.as_secs_f64() * 1e3);
        assert!(after < FOLLOWS, "{what}: {after:?} after the kernel");
        sites[i].wait_routes(&nsplane, SECOND);
        for n in (0..PREFIXES).step_by(100) {
            traffic[i].wait_forwarded(&nsplane, &host(n), SECOND);
        }
        for other in &sites[i + 1..] {
            assert_eq!(other.routes(&nsplane, FIRST), PREFIXES, "{}", other.name);
        }
    }
}

fn bfd_up(router: &Router<'_>) -> usize {
    let peers = router.vtysh("show bfd peers json").unwrap();
    peers.matches("\"status\":\"up\"").count()
}

/// Sessions that were made, and lost, to both neighbours.
fn sessions(router: &Router<'_>) -> (u64, u64) {
    let text = router.vtysh("show bgp neighbors json").unwrap();
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    let sum = |what: &str| {
        let of = all.as_object().unwrap().values();
        of.filter_map(|peer| peer[what].as_u64()).sum()
    };
    (sum("connectionsEstablished"), sum("connectionsDropped"))
}

/// nsplane is stopped and started: the kernel forwards meanwhile, and the sessions, which
/// are the kernel's, do not notice.
#[test]
#[ignore = "needs root"]
fn nsplane_restarts_under_them() {
    let programs = Programs::find().unwrap();
    let site = Site::new("frr");
    let mut nsplane = Nsplane::start(&[&site.router], &[]).unwrap();
    let daemons = site::bgp_by_frr(&programs, &site);
    site.wait_routes(&nsplane, FIRST);
    wait_until(PATIENCE, "both sessions", || sessions(&daemons[0]).0 == 2).unwrap();
    let before = sessions(&daemons[0]);
    let traffic = Traffic::new(&site);
    traffic.wait_forwarded(&nsplane, &host(7), FIRST);
    nsplane.stop().unwrap();
    wait_until(PATIENCE, "the kernel to forward", || {
        traffic.send(&host(7));
        traffic.arrived(FIRST, Duration::from_millis(100))
    })
    .unwrap();
    // From here on none is lost until nsplane is there again.
    traffic.clear();
    let lost = |n: usize| {
        let missing = (0..n).filter(|_| {
            traffic.send(&host(7));
            !traffic.arrived(FIRST, Duration::from_secs(2))
        });
        missing.count()
    };
    assert_eq!(lost(100), 0, "lost by the kernel");
    let nsplane = Nsplane::start(&[&site.router], &[]).unwrap();
    site.wait_routes(&nsplane, FIRST);
    traffic.wait_forwarded(&nsplane, &host(7), FIRST);
    traffic.clear();
    assert_eq!(lost(100), 0, "lost by nsplane");
    assert_eq!(sessions(&daemons[0]), before, "a session was lost");
}

/// bgpd dies: zebra takes its routes away, and nsplane follows; it comes back, likewise.
#[test]
#[ignore = "needs root"]
fn a_daemon_is_killed_and_comes_back() {
    let programs = Programs::find().unwrap();
    let site = Site::new("frr");
    let nsplane = Nsplane::start(&[&site.router], &[]).unwrap();
    let mut daemons = site::bgp_by_frr(&programs, &site);
    site.wait_routes(&nsplane, FIRST);
    let traffic = Traffic::new(&site);
    traffic.wait_forwarded(&nsplane, &host(7), FIRST);
    daemons[0].kill("bgpd").unwrap();
    wait_until(PATIENCE, "zebra to take the routes away", || site.kernel_routes(FIRST) == 0)
        .unwrap();
    wait_until(PATIENCE, "nsplane to follow", || site.routes(&nsplane, FIRST) == 0).unwrap();
    let answer = site.explain(&nsplane, &host(7));
    assert_eq!(
        (&answer["reason"], &answer["kernel"]["kind"]),
        (&"no_route".into(), &"refused".into())
    );
    daemons[0].frr("bgpd", site::ROUTER_FRR).unwrap();
    site.wait_routes(&nsplane, FIRST);
    traffic.wait_forwarded(&nsplane, &host(7), FIRST);
}
