//! What is compiled, as the workers look into it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::compile::{self, Compiled, Routes, Which};
use crate::id::NsId;
use crate::tables::Namespace;
use crate::tables::fib::{Fib4, Fib6};
use crate::tables::neigh::NeighTable;
use crate::tables::policy::{Policy, Table};

/// The namespace's tables; what did not change is shared with those `before`.
pub(super) fn of(
    ns: NsId,
    new: &mut Compiled,
    before: Option<&Namespace>,
    changed: Which,
) -> Namespace {
    let keep = |changed: bool| before.filter(|_| !changed);
    let hops = before.filter(|b| *b.next_hops == *new.next_hops);
    let groups = before.filter(|b| *b.groups == *new.groups);
    Namespace {
        id: Some(ns),
        v4: keep(changed.v4).map_or_else(|| Arc::new(new.v4.snapshot()), |b| b.v4.clone()),
        v6: keep(changed.v6).map_or_else(|| Arc::new(new.v6.snapshot()), |b| b.v6.clone()),
        policy_v4: match keep(changed.v4) {
            Some(before) => before.policy_v4.clone(),
            None => policy(new.policy_v4.as_ref(), new, fib4),
        },
        policy_v6: match keep(changed.v6) {
            Some(before) => before.policy_v6.clone(),
            None => policy(new.policy_v6.as_ref(), new, fib6),
        },
        next_hops: hops.map_or_else(|| new.next_hops.clone().into(), |b| b.next_hops.clone()),
        groups: groups.map_or_else(|| new.groups.clone().into(), |b| b.groups.clone()),
        neighbors: keep(changed.neighbors)
            .map_or_else(|| Arc::new(neighbors(new)), |b| b.neighbors.clone()),
    }
}

fn fib4(routes: &Routes<u32>) -> Fib4 {
    Fib4::build(routes.iter().map(|&(a, len, hop)| (Ipv4Addr::from_bits(a), len, hop)))
}

fn fib6(routes: &Routes<u128>) -> Fib6 {
    Fib6::build(routes.iter().map(|&(a, len, hop)| (Ipv6Addr::from_bits(a), len, hop)))
}

fn policy<T: Table>(
    made: Option<&compile::Policy<T::Addr>>,
    compiled: &Compiled,
    build: impl Fn(&Routes<T::Addr>) -> T,
) -> Option<Arc<Policy<T>>> {
    let made = made?;
    Some(Arc::new(Policy {
        rules: made.rules.clone().into(),
        tables: made.tables.iter().map(|(_, routes)| Arc::new(build(routes))).collect(),
        // Those of next hops that are given out later, for the other family, it never meets.
        suppressed: compiled.suppressed.clone().into(),
    }))
}

fn neighbors(c: &Compiled) -> NeighTable {
    c.neighbors.iter().map(|&((port, addr), neigh)| (port, addr, neigh)).collect()
}
