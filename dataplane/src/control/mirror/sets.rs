//! What the routes of a prefix say, each saying once.
//!
//! A million prefixes lead to some ten routers: but for where they are their routes are
//! the same. So a prefix has the number of a set of routes; a change of what they say, as
//! where a device goes, is one of the sets'.

use std::sync::Arc;

use hashbrown::HashMap;

use super::alias::Alias;

/// The number of a set, for as long as a prefix has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetId(pub u32);

impl SetId {
    /// As an index.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Clone, Debug)]
struct Set {
    aliases: Arc<[Alias]>,
    /// Prefixes that have it; 0: the number is free.
    users: u32,
    /// No other set has or had it.
    stamp: u64,
}

/// Sets by number.
#[derive(Clone, Debug, Default)]
pub(super) struct Sets {
    sets: Vec<Set>,
    free: Vec<u32>,
    numbers: HashMap<Arc<[Alias]>, u32>,
    last_stamp: u64,
}

impl Sets {
    pub(super) fn get(&self, id: SetId) -> &[Alias] {
        &self.sets[id.index()].aliases
    }

    pub(super) fn stamp(&self, id: SetId) -> u64 {
        self.sets[id.index()].stamp
    }

    pub(super) fn users(&self, id: SetId) -> u32 {
        self.sets[id.index()].users
    }

    /// Those that a prefix has.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SetId, &[Alias])> {
        let used = self.sets.iter().zip(0..).filter(|(set, _)| set.users > 0);
        used.map(|(set, id)| (SetId(id), &*set.aliases))
    }

    /// One more prefix has these routes.
    pub(super) fn take(&mut self, aliases: &[Alias]) -> SetId {
        if let Some(&id) = self.numbers.get(aliases) {
            self.sets[id as usize].users += 1;
            return SetId(id);
        }
        self.last_stamp += 1;
        let aliases: Arc<[Alias]> = aliases.into();
        let set = Set { aliases: aliases.clone(), users: 1, stamp: self.last_stamp };
        let id = match self.free.pop() {
            Some(id) => {
                self.sets[id as usize] = set;
                id
            }
            None => {
                self.sets.push(set);
                // There are no more sets than prefixes, nor prefixes than memory.
                u32::try_from(self.sets.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.numbers.insert(aliases, id);
        SetId(id)
    }

    /// So many more prefixes have a set that one has.
    pub(super) fn take_again(&mut self, id: SetId) {
        self.sets[id.index()].users += 1;
    }

    /// A prefix has it no more.
    pub(super) fn drop(&mut self, id: SetId) {
        let set = &mut self.sets[id.index()];
        set.users -= 1;
        if set.users == 0 {
            let aliases = std::mem::take(&mut set.aliases);
            self.numbers.remove(&aliases);
            self.free.push(id.0);
        }
    }
}
