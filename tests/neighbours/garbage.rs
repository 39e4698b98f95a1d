//! Neighbours that the kernel forgets, and those that it must not while there are packets
//! to them that only nsplane sees.

use super::traffic::under_traffic;
use super::*;

/// Host B's two addresses.
fn both() -> [IpAddr; 2] {
    Family::BOTH.map(|family| Host::B.address(family))
}

/// Packets to both of host B's addresses until it is resolved and the workers know.
fn meet(ends: &Ends, nsplane: &Nsplane) {
    let seen = under_traffic(ends, &both(), || {
        wait_until(SOON, "both to be known", || known(nsplane) >= 2).unwrap();
    });
    assert_eq!(seen.lost(), 0);
}

fn neighbours(ends: &Ends, family: Family) -> Vec<serde_json::Value> {
    let flag = if family == Family::V4 { "-4" } else { "-6" };
    let shown = ends.tenant.router().ip_json(&format!("{flag} neigh show dev b0")).unwrap();
    shown.as_array().unwrap().clone()
}

/// The kernel collects those that nobody used for a while, where there are many. It does not
/// see what is sent to this one.
#[test]
#[ignore = "needs root"]
fn one_in_use_outlives_the_collection() {
    let ends = Ends::new();
    let router = ends.tenant.router();
    for family in Family::BOTH {
        be_quick(&ends.tenant, family);
        let name = family_name(family);
        router.sysctl(&format!("net/{name}/neigh/b0/gc_stale_time"), "3").unwrap();
    }
    let nsplane = Nsplane::start(&[router], &[]).unwrap();
    meet(&ends, &nsplane);
    // More than `gc_thresh1`, of each family.
    let idle = (10..=210).flat_map(|n| [format!("10.0.1.{n}"), format!("fd00:0:0:1::{n}")]);
    let lines: String = idle
        .map(|addr| format!("neigh add {addr} lladdr 02:00:00:00:66:66 dev b0 nud stale\n"))
        .collect();
    router.ip_batch(&lines).unwrap();
    wait_until(SOON, "the many to be known", || known(&nsplane) >= 402).unwrap();
    let before = punted(&nsplane);
    let seen = under_traffic(&ends, &both(), || {
        for family in Family::BOTH {
            // The kernel goes through them every fifteen seconds.
            let few = || neighbours(&ends, family).len() < 10;
            wait_until(Duration::from_secs(60), "the idle to be collected", few).unwrap();
        }
        wait_until(SOON, "few to be known", || known(&nsplane) < 20).unwrap();
    });
    println!("sent {}, lost {}", seen.sent, seen.lost());
    assert_eq!(seen.lost(), 0);
    assert_eq!(punted(&nsplane), before, "one in use was collected, and asked for again");
}

#[test]
#[ignore = "needs root"]
fn one_that_is_forgotten_under_traffic_is_asked_for_and_loses_nothing() {
    let ends = Ends::new();
    let router = ends.tenant.router();
    let nsplane = Nsplane::start(&[router], &[]).unwrap();
    meet(&ends, &nsplane);
    let seen = under_traffic(&ends, &both(), || {
        for _ in 0..8 {
            for host in both() {
                let before = punted(&nsplane);
                router.ip(&format!("neigh del {host} dev b0")).unwrap();
                wait_until(SOON, "one that is asked for", || punted(&nsplane) > before).unwrap();
                wait_until(SOON, "one that is known again", || known(&nsplane) >= 2).unwrap();
            }
        }
    });
    println!("sent {}, lost {}", seen.sent, seen.lost());
    assert_eq!(seen.lost(), 0);
}

#[test]
#[ignore = "needs root"]
fn one_that_says_that_it_moved_is_followed_and_loses_nothing() {
    let ends = Ends::new();
    let nsplane = Nsplane::start(&[ends.tenant.router()], &[]).unwrap();
    let contacts = Family::BOTH.map(|family| contact(family, 0));
    let [old, new] = [[2, 0, 0, 0, 0x66, 1], [2, 0, 0, 0, 0x66, 2]];
    let at = |mac| {
        let shown = nsplane.show("neighbors", &[]).unwrap();
        let is = |addr: &IpAddr| {
            let mut all = shown.as_array().unwrap().iter();
            all.any(|n| n["dst"] == addr.to_string() && n["lladdr"] == show_mac(mac))
        };
        contacts.iter().all(is)
    };
    let until = |mac| {
        // What was just learnt, ARP holds on to for a second (`locktime`).
        wait_until(SOON, "where they are", || {
            contacts.iter().for_each(|&of| ends.say(of, mac));
            at(mac)
        })
        .unwrap();
    };
    let seen = under_traffic(&ends, &contacts, || {
        until(old);
        until(new);
        std::thread::sleep(Duration::from_millis(500));
    });
    println!("sent {}, lost {}", seen.sent, seen.lost());
    assert_eq!(seen.lost(), 0);
    let went = |mac| seen.arrived.iter().filter(|(_, to)| *to == mac).count();
    assert_eq!(went(old) + went(new), seen.arrived.len());
    assert!(went(old) > 0);
    // The last ones, whichever of the two they are for.
    let last = &seen.arrived[seen.arrived.len() - 100..];
    assert!(last.iter().all(|(_, to)| *to == new), "{last:?}");
}

/// More neighbours than the kernel has room for (`gc_thresh3`), where nobody is: IPv6 only,
/// since the table is the whole machine's, and it may need its IPv4 neighbours.
#[test]
#[ignore = "needs root"]
fn a_full_table_leaves_those_in_use_alone_and_does_not_grow_on_us() {
    let ends = Ends::new();
    be_quick(&ends.tenant, Family::V6);
    let (router, far) = (ends.tenant.router(), ends.tenant.host(Host::B));
    // Asked for again and again, nobody makes room for others but by age.
    router.sysctl("net/ipv6/neigh/b0/mcast_solicit", "100").unwrap();
    // The far end answers only where its own neighbours find room in that table.
    let mac = show_mac(router.mac("b0").unwrap());
    let shown = router.ip_json("-6 addr show dev b0").unwrap();
    for address in shown[0]["addr_info"].as_array().unwrap() {
        let address = address["local"].as_str().unwrap();
        far.ip(&format!("neigh replace {address} lladdr {mac} dev eth0 nud permanent")).unwrap();
    }
    let nsplane = Nsplane::start(&[router], &[]).unwrap();
    let host = Host::B.address(Family::V6);
    let (macs, src) = (ends.macs(), Host::A.address(Family::V6));
    let nobody = |n: u16| IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 1, n));
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", nsplane.pid())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    let mut sizes = Vec::new();
    let mut most = 0;
    let seen = under_traffic(&ends, &[host], || {
        wait_until(SOON, "the one in use", || known(&nsplane) >= 1).unwrap();
        for _ in 0..8 {
            for n in 0..1500 {
                ends.a.send(&Udp::new(macs, src, nobody(n), b"who is it").bytes()).unwrap();
                std::thread::sleep(PACE / 4);
            }
            most = most.max(neighbours(&ends, Family::V6).len());
            sizes.push(resident());
        }
        assert!(known(&nsplane) < 10, "nobody of them is known");
    });
    println!("sent {}, lost {}; {most} in the table; KiB: {sizes:?}", seen.sent, seen.lost());
    assert!(most > 900, "it was not full: {most}");
    assert_eq!(seen.lost(), 0);
    let grown = sizes[sizes.len() - 1].saturating_sub(sizes[0]);
    assert!(grown < 4096, "{sizes:?}");
    // And a new one is found as soon as the kernel has room.
    let new = contact(Family::V6, 0);
    let mine = far.mac(Host::DEVICE).unwrap();
    wait_until(6 * SOON, "a new one", || {
        ends.a.send(&Udp::new(macs, src, new, b"ns a new one").bytes()).unwrap();
        ends.say(new, mine);
        ends.b.receive(Duration::from_millis(100), |f| is_ours(Family::V6, f)).is_some()
    })
    .unwrap();
}
