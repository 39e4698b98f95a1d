//! What there is of state for each namespace, in one list.
//!
//! As the kernel's `pernet_operations`: every part is set up for a new namespace in
//! the order of the list, and given back in reverse when the namespace goes. Where
//! setting one up fails, those before it are given back, also in reverse, so that
//! nothing is left of it. A new kind of per-namespace state is an entry in [`PARTS`],
//! or belongs to something that is.
//!
//! What a port has (frames, sockets, XSKMAP entries, its program's link, punt target,
//! queues at the workers, counters) is the part `ports`; a worker's token bucket of a
//! namespace is known by its id and taken over by the next user of the index.

use super::Control;
use super::error::Error;
use super::namespaces::Seed;
use crate::id::NsId;

/// Sets a part up.
pub(super) type Init<C, S, E> = fn(&mut C, NsId, &mut S) -> Result<(), E>;

/// One kind of state.
pub(super) struct Part<C, S, E> {
    /// For logs and tests.
    pub(super) name: &'static str,
    /// Sets it up. None: nothing is there at first, it comes with devices and events.
    pub(super) init: Option<Init<C, S, E>>,
    /// Gives it back, whatever of it is there.
    pub(super) exit: fn(&mut C, NsId),
}

/// All of it.
pub(super) const PARTS: [Part<Control, Seed, Error>; 5] = [
    // The handle that keeps the namespace open, the mirror of its state, refused
    // devices, counters of ports that are gone.
    Part { name: "slot", init: Some(Control::take_slot), exit: Control::free_slot },
    // What the workers forward by.
    Part { name: "tables", init: Some(Control::init_tables), exit: Control::withdraw_tables },
    // Local addresses and kernel routes in the program's maps.
    Part { name: "map entries", init: None, exit: Control::clear_maps },
    // The task that reads the netlink sockets, and these.
    Part { name: "follower", init: None, exit: Control::stop_following },
    Part { name: "ports", init: None, exit: Control::remove_all_ports },
];

/// Sets all parts up, or none.
///
/// # Errors
/// The first part's that failed.
pub(super) fn set_up<C, S, E>(
    parts: &[Part<C, S, E>],
    cx: &mut C,
    ns: NsId,
    seed: &mut S,
) -> Result<(), E> {
    for (at, part) in parts.iter().enumerate() {
        let Some(init) = part.init else { continue };
        if let Err(e) = init(cx, ns, seed) {
            tracing::debug!(%ns, part = part.name, "setting up failed; giving back the parts before");
            tear_down(&parts[..at], cx, ns);
            return Err(e);
        }
    }
    Ok(())
}

/// Gives all parts back.
pub(super) fn tear_down<C, S, E>(parts: &[Part<C, S, E>], cx: &mut C, ns: NsId) {
    for part in parts.iter().rev() {
        (part.exit)(cx, ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NS: NsId = NsId { index: 0, generation: 1 };

    type Log = Vec<&'static str>;

    /// Three parts, the second without an init; the third fails if told to.
    const THREE: [Part<Log, bool, &str>; 3] = [
        Part {
            name: "a",
            init: Some(|log, _, _| {
                log.push("+a");
                Ok(())
            }),
            exit: |log, _| log.push("-a"),
        },
        Part { name: "b", init: None, exit: |log, _| log.push("-b") },
        Part {
            name: "c",
            init: Some(|log, _, fails| {
                log.push("+c");
                if *fails { Err("c") } else { Ok(()) }
            }),
            exit: |log, _| log.push("-c"),
        },
    ];

    #[test]
    fn exits_run_in_reverse() {
        let mut log = Log::new();
        assert_eq!(set_up(&THREE, &mut log, NS, &mut false), Ok(()));
        tear_down(&THREE, &mut log, NS);
        assert_eq!(log, ["+a", "+c", "-c", "-b", "-a"]);
    }

    #[test]
    fn a_failure_half_way_gives_back_what_was_done() {
        let mut log = Log::new();
        assert_eq!(set_up(&THREE, &mut log, NS, &mut true), Err("c"));
        assert_eq!(log, ["+a", "+c", "-b", "-a"], "the part that failed cleans up after itself");
    }

    #[test]
    fn ports_go_first_and_the_handle_last() {
        let names = PARTS.map(|p| p.name);
        assert_eq!(names, ["slot", "tables", "map entries", "follower", "ports"]);
    }
}
