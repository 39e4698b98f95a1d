//! What floods does not starve what does not: shares of turns, of places, of frames.
//!
//! A round here has one turn for who came back with work and one for the others together;
//! so what a quiet tenant waits is counted in rounds, and in packets sent before its own.

use super::*;

/// Tenants 0 to `flooders` - 1 flood from their first port; each has two ports.
struct Contest {
    scene: Scene,
    flooders: u16,
}

impl Contest {
    fn new(flooders: u16, quiet: u16, setup: &Setup) -> Self {
        Self::weighted(flooders, quiet, setup, &[])
    }

    fn weighted(flooders: u16, quiet: u16, setup: &Setup, weights: &[u16]) -> Self {
        let mut world = world(flooders + quiet, setup.queues);
        world.weights = weights.to_vec();
        let mut scene = Scene::new(world, setup, quiet_bell);
        rounds(&mut scene, 1, 0);
        Self { scene, flooders }
    }

    /// All rings of the flooders' first ports are full again.
    fn flood(&self) {
        for tenant in 0..self.flooders {
            let port = PortId(tenant * 2);
            for wire in &self.scene.wires[port.index()] {
                while wire.deliver(tag(port), &across(port, false, b"flood")) {}
            }
        }
    }

    fn sent(&self, tenant: u16) -> u64 {
        self.scene.wires[usize::from(tenant) * 2 + 1].iter().map(SimWire::sent_packets).sum()
    }

    fn sent_by_all(&self) -> u64 {
        (0..self.flooders).map(|tenant| self.sent(tenant)).sum()
    }

    fn dropped(&self, tenant: u16) -> u64 {
        DropReason::ALL.iter().map(|r| drops(&self.scene, PortId(tenant * 2), *r)).sum()
    }

    /// A packet of a quiet tenant arrives at its first port.
    fn whisper(&self, tenant: u16) -> bool {
        let port = PortId(tenant * 2);
        self.scene.wires[port.index()][0].deliver(tag(port), &across(port, false, b"psst"))
    }
}

fn quiet_bell(id: WorkerId) -> Doorbell {
    super::quiet(id)
}

#[test]
fn a_quiet_tenant_waits_for_no_more_than_a_turn() {
    for flooders in [1, 8, 60] {
        let setup = Setup { frames: 40_000, sizes: Sizes::all(64), ..Setup::default() };
        let mut contest = Contest::new(flooders, 1, &setup);
        for step in 0..2000_u64 {
            contest.flood();
            // At odd times, several apart: it is never the one who floods.
            if step % 7 == 3 {
                let (mine, others) = (contest.sent(flooders), contest.sent_by_all());
                assert!(contest.whisper(flooders), "a frame for each");
                let mut waited = 0;
                while contest.sent(flooders) == mine && waited < 1000 {
                    rounds(&mut contest.scene, 1, step);
                    waited += 1;
                }
                // A look at so many queues takes two rounds: one turn in each.
                let looks = u64::from(flooders * 2 + 2).div_ceil(64);
                let before = contest.sent_by_all() - others;
                assert!(waited <= looks, "{waited} rounds beside {flooders}");
                assert!(before <= looks * 64, "{before} packets beside {flooders}");
            } else {
                rounds(&mut contest.scene, 1, step);
            }
        }
        assert_eq!(contest.dropped(flooders), 0);
        assert_eq!(contest.scene.held(), setup.frames);
    }
}

#[test]
fn who_floods_gets_a_share_by_weight_and_not_by_queues_or_packets() {
    let setup = Setup { frames: 40_000, queues: 4, ..Setup::default() };
    let mut contest = Contest::weighted(4, 0, &setup, &[1, 1, 2, 4]);
    for step in 0..8000 {
        contest.flood();
        // The first floods by four queues, the others by one.
        for port in [2_usize, 4, 6] {
            for wire in &contest.scene.wires[port][1..] {
                wire.set_budget(0);
            }
        }
        rounds(&mut contest.scene, 1, step);
    }
    let all = contest.sent_by_all() as f64;
    for (tenant, weight) in [(0, 1.0), (1, 1.0), (2, 2.0), (3, 4.0)] {
        let share = contest.sent(tenant) as f64 / all;
        assert!((share * 8.0 / weight - 1.0).abs() < 0.1, "tenant {tenant}: {share}");
    }
}

#[test]
fn who_cannot_send_holds_a_share_of_the_frames_and_no_more() {
    let setup = Setup { frames: 4096, ..Setup::default() };
    let mut contest = Contest::new(6, 1, &setup);
    for tenant in 0..6 {
        contest.scene.wires[tenant * 2 + 1][0].set_budget(0);
    }
    for step in 0..3000_u64 {
        contest.flood();
        assert!(contest.whisper(6), "it has frames to receive into");
        rounds(&mut contest.scene, 3, step);
        assert_eq!(contest.sent(6), step + 1);
    }
    let held: u64 = (0..6).map(|t| drops(&contest.scene, PortId(t * 2), DropReason::TxShare)).sum();
    assert!(held > 0, "somebody was over its share");
    assert_eq!(contest.dropped(6), 0);
    assert_eq!(contest.scene.held(), setup.frames);
}

#[test]
fn what_is_handed_over_waits_for_a_turn_too_and_finds_room_at_a_worker_that_stands_still() {
    let setup = Setup { workers: 2, frames: 40_000, mesh_depth: 2048, ..Setup::default() };
    let mut contest = Contest::new(5, 1, &setup);
    let mut whispered = 0;
    for step in 0..400_u64 {
        // The second worker stands still for 20 rounds of the first, time and again.
        for _ in 0..20 {
            contest.flood();
            assert!(contest.whisper(5));
            whispered += 1;
            let _ = contest.scene.workers[0].round(step);
        }
        let others = contest.sent_by_all();
        for _ in 0..100 {
            if contest.sent(5) < whispered {
                let _ = contest.scene.workers[1].round(step);
            }
        }
        assert_eq!(contest.sent(5), whispered, "none was lost");
        let before = contest.sent_by_all() - others;
        assert!(before <= 6 * 64, "{before} packets before the last of a few");
    }
    let over: u64 =
        (0..5).map(|t| drops(&contest.scene, PortId(t * 2), DropReason::HandoverShare)).sum();
    assert!(over > 0, "the flood was more than its share");
    assert_eq!(contest.dropped(5), 0);
    assert_eq!(contest.scene.held(), setup.frames);
}

#[test]
fn who_punts_much_leaves_room_for_who_punts_little() {
    let setup = Setup { frames: 40_000, punt_depth: 2048, ..Setup::default() };
    let mut contest = Contest::new(0, 9, &setup);
    let unknown = |port| udp(port, host4(0).into(), [10, 9, 9, 9].into(), b"");
    for tenant in 0..8 {
        let port = PortId(tenant * 2);
        for _ in 0..8 {
            for _ in 0..250 {
                let wire = &contest.scene.wires[port.index()][0];
                assert!(wire.deliver(tag(port), &unknown(port)));
            }
            work_off(&mut contest.scene, 0);
        }
    }
    let port = PortId(16);
    (0..10).for_each(|_| {
        assert!(contest.scene.wires[16][0].deliver(tag(port), &unknown(port)));
    });
    work_off(&mut contest.scene, 0);
    assert_eq!(punts(&contest.scene, port, PuntReason::NoRoute), 10);
    assert!(drops(&contest.scene, PortId(0), DropReason::PuntShare) > 0);
    assert!(drops(&contest.scene, PortId(14), DropReason::PuntFull) == 0);
}
