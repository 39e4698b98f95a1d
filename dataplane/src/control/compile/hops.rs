//! The next hops that a namespace's routes lead to, each once.

use hashbrown::HashMap;

use super::Compiled;
use crate::tables::NextHop;
use crate::tables::multipath::Group;

/// Next hops with their numbers, while they are given out.
#[derive(Default)]
pub(super) struct Hops {
    next_hops: Vec<NextHop>,
    suppressed: Vec<u8>,
    groups: Vec<Group>,
    indices: HashMap<(NextHop, u8), u32>,
    group_indices: HashMap<Group, u32>,
}

impl Hops {
    /// Those that there are. The first is always [`NextHop::Kernel`].
    pub(super) fn take(out: &mut Compiled) -> Self {
        let mut hops = Self {
            next_hops: std::mem::take(&mut out.next_hops),
            suppressed: std::mem::take(&mut out.suppressed),
            groups: std::mem::take(&mut out.groups),
            ..Self::default()
        };
        let known = hops.next_hops.iter().copied().zip(hops.suppressed.iter().copied());
        hops.indices = known.zip(0..).collect();
        hops.group_indices = hops.groups.iter().cloned().zip(0..).collect();
        hops.index(NextHop::Kernel, 0);
        hops
    }

    pub(super) fn give_back(self, out: &mut Compiled) {
        out.next_hops = self.next_hops;
        out.suppressed = self.suppressed;
        out.groups = self.groups;
    }

    /// The number of a next hop whose route meets these conditions.
    pub(super) fn index(&mut self, next_hop: NextHop, met: u8) -> u32 {
        let next = number(self.next_hops.len());
        *self.indices.entry((next_hop, met)).or_insert_with(|| {
            self.next_hops.push(next_hop);
            self.suppressed.push(met);
            next
        })
    }

    /// Gives a number that no condition goes with another meaning. True: it had another.
    pub(super) fn mean(&mut self, index: u32, next_hop: NextHop) -> bool {
        let Some(meant) = self.next_hops.get_mut(index as usize) else { return false };
        let before = std::mem::replace(meant, next_hop);
        if before == next_hop {
            return false;
        }
        if self.indices.get(&(before, 0)) == Some(&index) {
            self.indices.remove(&(before, 0));
        }
        self.indices.entry((next_hop, 0)).or_insert(index);
        true
    }

    /// The next hop with a number.
    pub(super) fn get(&self, index: u32) -> NextHop {
        self.next_hops.get(index as usize).copied().unwrap_or(NextHop::Kernel)
    }

    /// The next hop that several are.
    pub(super) fn group(&mut self, group: Group) -> NextHop {
        let next = number(self.groups.len());
        let index = *self.group_indices.entry(group).or_insert_with_key(|group| {
            self.groups.push(group.clone());
            next
        });
        NextHop::Group(index)
    }
}

/// There are no more next hops than routes, nor routes than memory.
fn number(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
