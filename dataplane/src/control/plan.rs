//! What to do to the XDP program's maps so that they hold what is wanted.
//!
//! Pure: [`diff`] compares, `control` carries out. Local addresses and kernel
//! routes are *tagged* tables: one map each, whose keys carry the namespace.
//!
//! # Order
//!
//! The maps are changed one entry at a time, while packets flow. Whatever the
//! moment, no packet is redirected that is redirected neither by the old state nor
//! by the new one. The order that keeps this:
//!
//! 1. Ports are narrowed: they lose the routing flags that they are to lose and
//!    get the flag to ask for kernel routes that they are to get. A slot that
//!    changes its generation or address is closed.
//! 2. Local addresses and kernel routes are added, which only passes more.
//! 3. Routes that are ours are added, or turned from the kernel's into ours. The
//!    kernel's more specific ones are there already.
//! 4. Old routes are removed: first those that are ours, lest one comes to light
//!    when a kernel's inside of it goes; then the kernel's.
//! 5. Old local addresses are removed: what they had kept from the routes meets
//!    the new ones.
//! 6. Ports are widened to what they are to be.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use nsplane_abi::{
    PORT_KERNEL_ROUTES_V4, PORT_KERNEL_ROUTES_V6, PORT_MEMBERS, PORT_ROUTE_V4, PORT_ROUTE_V6,
    PortConf,
};

use crate::id::{NsId, PortId};
use crate::netlink::Prefix;

/// Whose route a prefix is, for the XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The dataplane's (`ROUTE_OURS`).
    Ours,
    /// The kernel's (`ROUTE_KERNEL`).
    Kernel,
}

/// What the maps hold, or are to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// `PORTS`. A port that is not here has the all-zero entry.
    pub ports: BTreeMap<PortId, PortConf>,
    /// `LOCAL4` and `LOCAL6`.
    pub locals: BTreeSet<(NsId, IpAddr)>,
    /// `KERNEL4` and `KERNEL6`.
    pub routes: BTreeMap<(NsId, Prefix), Owner>,
}

/// One change of one map's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write a port's entry.
    SetPort(PortId, PortConf),
    /// Zero a port's entry.
    ClearPort(PortId),
    /// Add a local address.
    AddLocal(NsId, IpAddr),
    /// Remove a local address.
    RemoveLocal(NsId, IpAddr),
    /// Write a prefix's entry.
    SetRoute(NsId, Prefix, Owner),
    /// Remove a prefix's entry.
    RemoveRoute(NsId, Prefix),
}

const ROUTES: u16 = PORT_ROUTE_V4 | PORT_ROUTE_V6;
const ASKS: u16 = PORT_KERNEL_ROUTES_V4 | PORT_KERNEL_ROUTES_V6 | PORT_MEMBERS;

/// The changes that lead from `actual` to `wanted`, in an order that is safe at
/// every step.
#[must_use]
pub fn diff(wanted: &State, actual: &State) -> Vec<Action> {
    let mut plan = Vec::new();
    narrow_ports(wanted, actual, &mut plan);
    let add = wanted.locals.difference(&actual.locals);
    plan.extend(add.map(|(ns, addr)| Action::AddLocal(*ns, *addr)));
    for owner in [Owner::Kernel, Owner::Ours] {
        let new =
            wanted.routes.iter().filter(|(k, v)| **v == owner && actual.routes.get(k) != Some(v));
        plan.extend(new.map(|((ns, prefix), v)| Action::SetRoute(*ns, *prefix, *v)));
    }
    for owner in [Owner::Ours, Owner::Kernel] {
        let old =
            actual.routes.iter().filter(|(k, v)| **v == owner && !wanted.routes.contains_key(k));
        plan.extend(old.map(|((ns, prefix), _)| Action::RemoveRoute(*ns, *prefix)));
    }
    let remove = actual.locals.difference(&wanted.locals);
    plan.extend(remove.map(|(ns, addr)| Action::RemoveLocal(*ns, *addr)));
    for (port, conf) in &wanted.ports {
        if narrowed(conf, actual.ports.get(port)) != Some(*conf) {
            plan.push(Action::SetPort(*port, *conf));
        }
    }
    plan
}

fn narrow_ports(wanted: &State, actual: &State, plan: &mut Vec<Action>) {
    for (port, old) in &actual.ports {
        match wanted.ports.get(port).map(|new| narrowed(new, Some(old))) {
            None => plan.push(Action::ClearPort(*port)),
            Some(Some(narrow)) if narrow != *old => plan.push(Action::SetPort(*port, narrow)),
            _ => {}
        }
    }
}

/// The entry that redirects no more than the old one and the new one both do. Zero
/// where they have no frame in common: another use of the slot, another address.
fn narrowed(new: &PortConf, old: Option<&PortConf>) -> Option<PortConf> {
    let old = old?;
    if (old.generation, old.mac) != (new.generation, new.mac) {
        return Some(PortConf::default());
    }
    if old == new {
        return Some(*old);
    }
    let flags = (old.flags & new.flags & ROUTES) | ((old.flags | new.flags) & ASKS);
    let max_frame = old.max_frame.min(new.max_frame);
    Some(PortConf { flags, max_frame, ..*old })
}

/// Carries a plan out on a state.
pub fn apply(plan: &[Action], state: &mut State) {
    for action in plan {
        match *action {
            Action::SetPort(port, conf) => {
                state.ports.insert(port, conf);
            }
            Action::ClearPort(port) => {
                state.ports.remove(&port);
            }
            Action::AddLocal(ns, addr) => {
                state.locals.insert((ns, addr));
            }
            Action::RemoveLocal(ns, addr) => {
                state.locals.remove(&(ns, addr));
            }
            Action::SetRoute(ns, prefix, owner) => {
                state.routes.insert((ns, prefix), owner);
            }
            Action::RemoveRoute(ns, prefix) => {
                state.routes.remove(&(ns, prefix));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMESPACES: [NsId; 2] =
        [NsId { index: 0, generation: 0 }, NsId { index: 1, generation: 3 }];

    /// Port `p` is a device of namespace `p % 2`.
    fn ns_of(port: PortId) -> NsId {
        NAMESPACES[port.index() % 2]
    }

    fn port_conf() -> impl Strategy<Value = PortConf> {
        (0_u8..2, 0_u16..16, 0_u32..2, 0_u32..2).prop_map(|(mac, flags, frame, generation)| {
            PortConf { mac: [mac; 6], flags, max_frame: 1500 + frame, generation }
        })
    }

    fn ns() -> impl Strategy<Value = NsId> {
        prop::sample::select(NAMESPACES.to_vec())
    }

    fn prefix() -> impl Strategy<Value = Prefix> {
        (0_u32..16, 28_u8..=32).prop_map(|(low, len)| {
            let net = (0x0a00_0000 | low) & (u32::MAX << (32 - len));
            Prefix { addr: IpAddr::from(net.to_be_bytes()), len }
        })
    }

    fn state() -> impl Strategy<Value = State> {
        let owner = prop::sample::select(vec![Owner::Ours, Owner::Kernel]);
        let addr = (0_u8..16).prop_map(|b| IpAddr::from([10, 0, 0, b]));
        (
            prop::collection::btree_map((0_u16..4).prop_map(PortId), port_conf(), 0..4),
            prop::collection::btree_set((ns(), addr), 0..6),
            prop::collection::btree_map((ns(), prefix()), owner, 0..12),
        )
            .prop_map(|(ports, locals, routes)| State { ports, locals, routes })
    }

    /// The XDP program's decision on an IPv4 packet, as far as the maps go.
    fn redirects(s: &State, port: PortId, mac: u8, len: u32, generation: u32, addr: u8) -> bool {
        let Some(conf) = s.ports.get(&port) else { return false };
        let ns = ns_of(port);
        let dst = 0x0a00_0000 | u32::from(addr);
        let longest = s.routes.iter().filter(|((n, p), _)| {
            let IpAddr::V4(net) = p.addr else { return false };
            *n == ns && (net.to_bits() ^ dst) >> (32 - p.len) == 0
        });
        let owner = longest.max_by_key(|((_, p), _)| p.len).map(|(_, o)| *o);
        let asks = conf.flags & PORT_KERNEL_ROUTES_V4 != 0;
        conf.generation == generation
            && conf.mac == [mac; 6]
            && len <= conf.max_frame
            && conf.flags & PORT_ROUTE_V4 != 0
            && !s.locals.contains(&(ns, IpAddr::from([10, 0, 0, addr])))
            && !(asks && owner == Some(Owner::Kernel))
    }

    /// Flags and routes agree, as `control` makes them: a port that does not ask
    /// is in a namespace without kernel routes.
    fn consistent(mut s: State) -> State {
        for (port, conf) in &mut s.ports {
            if conf.flags & PORT_KERNEL_ROUTES_V4 == 0 {
                let ns = ns_of(*port);
                s.routes.retain(|(n, _), _| *n != ns);
            }
        }
        s
    }

    proptest! {
        #[test]
        fn the_plan_leads_where_it_should(a in state(), b in state()) {
            let mut s = b.clone();
            apply(&diff(&a, &b), &mut s);
            prop_assert_eq!(&s, &a);
            prop_assert_eq!(diff(&a, &s), []);
        }

        #[test]
        fn no_step_redirects_what_neither_end_does(a in state(), b in state()) {
            let (old, new) = (consistent(a), consistent(b));
            let mut now = old.clone();
            for action in diff(&new, &old) {
                apply(&[action], &mut now);
                for port in (0..4).map(PortId) {
                    for (mac, len, generation, addr) in (0..2).flat_map(|m| (0..2).flat_map(move |l| {
                        (0..2).flat_map(move |g| (0..16).map(move |a| (m, 1500 + l, g, a)))
                    })) {
                        let by = |s: &State| redirects(s, port, mac, len, generation, addr);
                        prop_assert!(!by(&now) || by(&old) || by(&new), "{:?} at {:?}", port, action);
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_to_do_is_nothing_done() {
        assert_eq!(diff(&State::default(), &State::default()), []);
    }
}
