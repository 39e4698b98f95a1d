//! Which neighbours workers get to see.

use super::*;

#[test]
fn neighbours_of_ports_that_can_be_sent_to() {
    let mut m = base();
    for (oif, state, mac) in
        [(1, 0x02, Some(1)), (2, 0x20, None), (3, 0x02, Some(3)), (2, 0x04, Some(2))]
    {
        let addr = IpAddr::from([10, 0, 0, u8::try_from(oif).unwrap()]);
        let mac = mac.map(|b| Mac([2, 0, 0, 0, 0, b]));
        let _ = m.apply(Event::Neighbor(Neighbor { ifindex: IfIndex(oif), addr, mac, state }));
    }
    let known: Vec<_> =
        run(&m).neighbors.into_iter().map(|((port, _), n)| (port.0, n.mac.0[5])).collect();
    assert_eq!(known, [(10, 1), (20, 2)]);
}

/// A scan of a network leaves the kernel's table full of addresses where nobody is.
#[test]
fn a_table_full_of_failed_ones_is_nothing_to_the_workers() {
    let mut m = base();
    let some = Neighbor {
        ifindex: IfIndex(1),
        addr: [10, 0, 0, 9].into(),
        mac: Some(Mac([2; 6])),
        state: 0x02,
    };
    let _ = m.apply(Event::Neighbor(some));
    let before = run(&m).neighbors;
    let addresses =
        || (0..5000_u16).map(|n| IpAddr::from([10, 1, n.to_be_bytes()[0], n.to_be_bytes()[1]]));
    // Incomplete, failed, and incomplete again.
    for state in [0x01, 0x20, 0x01, 0x20] {
        for addr in addresses() {
            let event = Event::Neighbor(Neighbor { addr, mac: None, state, ..some });
            assert!(!m.apply(event).any(), "{addr} {state:#x}: nothing is compiled for it");
        }
    }
    assert_eq!(run(&m).neighbors, before);
    for addr in addresses() {
        assert!(!m.apply(Event::NeighborGone(some.ifindex, addr)).any());
    }
    assert_eq!(m.neighbors.len(), 1, "all are forgotten with the kernel");
}
