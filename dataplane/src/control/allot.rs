//! How many frames a port's queues may hold to receive into.

use crate::xsk;

/// Fewest frames with which a queue is of use.
const FEWEST: u32 = 8;
/// The most that every port is sure of: enough for two turns of a worker.
const PLENTY: u32 = 64;

/// Frames to receive into: a quarter of all stays for packets on their way.
fn to_receive(memory: &xsk::Options) -> u32 {
    memory.frames - memory.frames / 4
}

/// What every port is sure of, however many there are: as many ports as may be share one
/// half of the frames, and the other half is for those that are there.
pub(super) fn floor(memory: &xsk::Options, max_ports: u16) -> u32 {
    (to_receive(memory) / 2 / u32::from(max_ports.max(1))).clamp(FEWEST, PLENTY)
}

/// The shares of new queues, where others may hold `held` frames: each a part of what
/// is left over, so that the first have plenty and later ones some. The `floor` stays for
/// each of `later` queues, while that can be. None where too little is left.
pub(super) fn shares(
    memory: &xsk::Options,
    held: u32,
    queues: u16,
    (later, floor): (u32, u32),
) -> Option<Vec<u32>> {
    let mut left = to_receive(memory).checked_sub(held)?;
    (0..queues)
        .map(|_| {
            let over = left.saturating_sub(later.saturating_mul(floor));
            let share = (over / 32).max(floor).min(memory.ring_size);
            left = left.checked_sub(share)?;
            Some(share)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: xsk::Options =
        xsk::Options { frames: 4096, frame_size: 2048, ring_size: 1024, mode: xsk::Mode::Copy };

    #[test]
    fn shares_never_add_up_to_more_than_there_is() {
        let (mut held, mut queues) = (0, 0);
        while let Some(new) = shares(&MEMORY, held, 2, (0, FEWEST)) {
            assert!(new.iter().all(|&n| (FEWEST..=1024).contains(&n)), "{new:?}");
            held += new.iter().sum::<u32>();
            queues += new.len();
        }
        assert!(held <= 4096 - 1024 && held > 4096 - 1024 - 2 * FEWEST, "{held}");
        assert!(queues > 80, "{queues}");
        assert_eq!(shares(&MEMORY, 0, 0, (0, FEWEST)), Some(Vec::new()));
    }

    #[test]
    fn as_many_ports_as_may_be_find_their_share() {
        let ports = (4096 - 1024) / FEWEST;
        let mut held = 0;
        for port in 0..ports {
            let share = shares(&MEMORY, held, 1, (ports - port - 1, FEWEST)).expect("a share")[0];
            assert!(share >= FEWEST);
            held += share;
        }
        assert!(shares(&MEMORY, held, 1, (0, FEWEST)).is_none());
        assert!(
            shares(&MEMORY, 0, 1, (255, FEWEST)).unwrap()[0] > 3 * FEWEST,
            "the first have more"
        );
    }

    #[test]
    fn every_port_is_sure_of_its_floor() {
        for (frames, max_ports) in [(32_768, 1024), (32_768, 64), (4096, 100)] {
            let memory = xsk::Options { frames, ..MEMORY };
            let floor = floor(&memory, max_ports);
            let mut held = 0;
            for port in 0..u32::from(max_ports) {
                let later = u32::from(max_ports) - port - 1;
                let share = shares(&memory, held, 1, (later, floor)).expect("a share")[0];
                assert!(share >= floor, "{share} for port {port} of {max_ports}");
                held += share;
            }
        }
        assert_eq!(floor(&xsk::Options { frames: 32_768, ..MEMORY }, 1024), 12);
    }
}
