//! Members of the configuration come, change and go with it, while packets flow.

use nsplane_tests::netns::{End, veth};
use nsplane_tests::trunk::{Lab, Q100, Q200, SOON};
use nsplane_tests::wait::wait_until;

/// Packets of a tenant whose config did not change, each of which has to arrive.
fn all_arrive(lab: &Lab, tenant: usize, what: &str) {
    for n in 0..10 {
        assert!(lab.inwards(tenant, &format!("{what}: in {n};")), "{what}: lost on the way in");
        assert!(lab.outwards(tenant, &format!("{what}: out {n};")), "{what}: lost on the way out");
    }
}

#[test]
#[ignore = "needs root"]
fn a_member_that_is_added_changed_or_removed() {
    let mut lab = Lab::new([Q100, Q200]);
    (0..2).for_each(|t| lab.assert_forwards(t, "before"));
    // Removed: its frames are the trunk's like those of any VLAN that is not stated.
    lab.reload(&[(0, Q100.config)]);
    wait_until(SOON, "no member", || lab.port(lab.router(1), "stand")["member"].is_null()).unwrap();
    all_arrive(&lab, 0, "the other was removed");
    assert!(!lab.inwards(1, "to a VLAN that is nobody's"));
    // Added.
    lab.reload(&[(0, Q100.config), (1, Q200.config)]);
    lab.wait_member(1);
    all_arrive(&lab, 0, "the other was added");
    lab.assert_forwards(1, "added");
    // Changed: another VLAN.
    lab.reload(&[(0, Q100.config), (1, "vlan = 201")]);
    let is = || lab.port(lab.router(1), "stand")["member"]["by"] == "VLAN 802.1Q 201";
    wait_until(SOON, "the other VLAN", is).unwrap();
    all_arrive(&lab, 0, "the other was changed");
    assert!(!lab.inwards(1, "to the VLAN that it had"));
    lab.vlans[1].bytes = &[0x81, 0, 0, 201];
    lab.assert_forwards(1, "changed");
    // The two change places: no packet comes out at the one that had the VLAN before.
    lab.vlans = [Q100, Q200];
    lab.reload(&[(0, Q100.config), (1, Q200.config)]);
    lab.wait_member(1);
    (0..2).for_each(|t| lab.assert_forwards(t, "as in the beginning"));
    lab.reload(&[(0, Q200.config), (1, Q100.config)]);
    lab.vlans = [Q200, Q100];
    for tenant in 0..2 {
        let by = lab.vlans[tenant].shown;
        let is = || lab.port(lab.router(tenant), "stand")["member"]["by"] == by;
        wait_until(SOON, "the other's VLAN", is).unwrap();
    }
    (0..2).for_each(|t| lab.assert_forwards(t, "changed places"));
}

#[test]
#[ignore = "needs root"]
fn where_no_number_is_left_a_member_is_nobodys_and_others_are_as_they_were() {
    // The trunk, the tenants' other devices, the members, the far ends.
    let lab = Lab::limited([Q100, Q200], 7);
    (0..2).for_each(|t| lab.wait_member(t));
    (0..2).for_each(|t| lab.assert_forwards(t, "there is room for all"));
    // One more device, which takes the number of a member that goes for a while.
    veth(&End::new(&lab.infra, "more"), &End::new(&lab.wire, "o1")).unwrap();
    lab.router(1).ip("link set stand down").unwrap();
    let more = || lab.port(&lab.infra, "more")["port"].as_str().is_some_and(|p| !p.is_empty());
    wait_until(4 * SOON, "the device to be a port", more).unwrap();
    lab.router(1).ip_batch("link set stand up\naddr replace 10.0.0.1/24 dev stand\n").unwrap();
    let told = || {
        let log = lab.nsplane.log();
        let mut lines = log.lines().filter(|l| l.contains("not a member"));
        lines.next_back().is_some_and(|l| {
            l.contains(lab.router(1).name()) && l.contains("all 7 ports are in use")
        })
    };
    wait_until(SOON, "a word of it in the log", told).unwrap();
    lab.set_neighbor(1);
    assert!(!lab.inwards(1, "to the one there is not"));
    lab.assert_forwards(0, "the other");
    // The last number is its own or its far end's; it takes both.
    assert!(!lab.is_member(1));
    // A number becomes free.
    lab.infra.ip("link del more").unwrap();
    lab.wait_member(1);
    (0..2).for_each(|t| lab.assert_forwards(t, "again"));
}

#[test]
#[ignore = "needs root"]
fn a_trunk_that_is_made_anew_has_its_members_again() {
    let mut lab = Lab::new([Q100, Q200]);
    for round in 0..3 {
        (0..2).for_each(|t| lab.assert_forwards(t, &format!("round {round}")));
        std::thread::scope(|scope| {
            let anew = scope.spawn(|| {
                lab.infra.ip("link del trunk0").unwrap();
                // The wire's end is a new one too.
                veth(&End::new(&lab.infra, "trunk0"), &End::new(&lab.wire, "o0")).unwrap();
                lab.infra.ip("link set trunk0 mtu 1508").unwrap();
                lab.wire.ip("link set o0 mtu 1508").unwrap();
            });
            let mut n = 0;
            while !anew.is_finished() {
                n += 1;
                for tenant in 0..2 {
                    // Fails on what comes out at the other tenant.
                    let _ = lab.inwards(tenant, &format!("{round}: {n} meanwhile"));
                }
            }
        });
        lab.reopen();
        (0..2).for_each(|t| lab.wait_member(t));
    }
}
