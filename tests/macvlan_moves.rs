//! A macvlan that has moved is not a device of the namespace that it left, also while
//! nsplane has not heard of it: the thread that would hear of it is stopped meanwhile.

use nsplane_tests::macvlans::{Lab, mac_of, set_up};

/// Packets each way while nsplane knows nothing; one would be enough.
const PACKETS: usize = 5;

#[test]
#[ignore = "needs root"]
fn what_arrives_for_it_is_its_new_namespaces_before_nsplane_knows() {
    let lab = Lab::new("bridge");
    lab.router(1).ip("link del a0").unwrap();
    let mac = mac_of(0);
    for round in 0..4 {
        let (from, to) = (round % 2, 1 - round % 2);
        lab.wait_member(from);
        lab.assert_forwards(from, mac, &format!("round {round}"));
        let stopped = lab.nsplane.stop_control().unwrap();
        let words = format!("link set a0 netns {}", lab.router(to).name());
        lab.router(from).ip(&words).unwrap();
        for n in 0..PACKETS {
            // It is down. `inwards` fails on what comes out at the tenant that it left.
            assert!(!lab.inwards(mac, to, &format!("{round}: {n} before it is up;")));
        }
        set_up(lab.router(to));
        let there = (0..PACKETS).filter(|n| lab.inwards(mac, to, &format!("{round}: {n} there;")));
        assert_eq!(there.count(), PACKETS, "round {round}: forwarded by the kernel of where it is");
        drop(stopped);
    }
}

#[test]
#[ignore = "needs root"]
fn nothing_leaves_by_it_from_the_namespace_that_it_left() {
    let lab = Lab::new("bridge");
    lab.router(1).ip("link del a0").unwrap();
    let mac = mac_of(0);
    for round in 0..4 {
        let (from, to) = (round % 2, 1 - round % 2);
        lab.wait_member(from);
        lab.assert_forwards(from, mac, &format!("round {round}"));
        let stopped = lab.nsplane.stop_control().unwrap();
        let words = format!("link set a0 netns {}", lab.router(to).name());
        lab.router(from).ip(&words).unwrap();
        for n in 0..PACKETS {
            let mark = format!("{round}: {n} before it is up;");
            assert!(!lab.outwards(from, mac, &mark), "{mark} left by a device that is gone");
        }
        set_up(lab.router(to));
        for n in 0..PACKETS {
            let mark = format!("{round}: {n} from where it was;");
            assert!(!lab.outwards(from, mac, &mark), "{mark} left by another tenant's device");
        }
        drop(stopped);
    }
}
