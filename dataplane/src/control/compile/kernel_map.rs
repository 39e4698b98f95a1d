//! What the XDP program must know where rules lead to several tables.
//!
//! It sees a packet's destination only, not what rules ask for. A destination is the
//! kernel's if any rule may lead its packets to a route that only the kernel can follow:
//! passed to the kernel they are forwarded right, whoever's they are, and at no limited
//! rate. What routes refuse makes a destination the kernel's only where nothing else is
//! there: to refuse them, a limited rate is enough.

use super::effective::{Bits, passed_anyway};
use super::policy::{Does, Step};
use crate::control::mirror::TABLE_LOCAL;
use crate::netlink::{Family, Prefix, Suppress};
use crate::tables::NextHop;

/// What a table says of a prefix: where to, and the conditions that it meets.
type Found = Option<(NextHop, u8)>;

/// Tables' prefixes while they are gathered.
pub(super) struct KernelMap<'a> {
    family: Family,
    steps: &'a [Step],
    /// For each step that looks into a table: which of `ids`, and the bit of the condition
    /// that its routes must not meet.
    looks: Vec<Option<(usize, u8)>>,
    ids: &'a [u32],
    /// Prefix, which table's (None: a rule's), what it says.
    entries: Vec<(Bits, Option<usize>, Found)>,
}

impl<'a> KernelMap<'a> {
    pub(super) fn new(
        family: Family,
        steps: &'a [Step],
        ids: &'a [u32],
        conditions: &'a [Suppress],
    ) -> Self {
        let asked = steps.iter().filter_map(|s| s.asks.as_ref()?.dst);
        let entries = asked.map(|p| (Bits::of(p), None, None)).collect();
        let look = |step: &Step| {
            let Does::Table(id, suppress) = step.does else { return None };
            let bit = conditions.iter().position(|c| *c == suppress);
            let bit = bit.map_or(0, |bit| 1_u8.checked_shl(bit as u32).unwrap_or_default());
            Some((ids.iter().position(|i| *i == id)?, bit))
        };
        let looks = steps.iter().map(look).collect();
        Self { family, steps, looks, ids, entries }
    }

    pub(super) fn add(&mut self, table: usize, prefix: Prefix, next_hop: NextHop, met: u8) {
        self.entries.push((Bits::of(prefix), Some(table), Some((next_hop, met))));
    }

    /// The least list by whose longest match the kernel's prefixes are told from ours.
    pub(super) fn kernel_routes(mut self) -> Vec<(Prefix, bool)> {
        self.entries.sort_by_key(|e| e.0);
        let mut out = Vec::new();
        let mut around: Vec<(Bits, Vec<Found>, bool)> = Vec::new();
        for here in self.entries.chunk_by(|a, b| a.0 == b.0) {
            let bits = here[0].0;
            while around.last().is_some_and(|(outer, ..)| !outer.contains(bits)) {
                around.pop();
            }
            let (mut found, outer) = match around.last() {
                Some((_, found, kernel)) => (found.clone(), *kernel),
                None => (vec![None; self.ids.len()], false),
            };
            let mut local = false;
            for (_, table, says) in here {
                if let Some(table) = *table {
                    found[table] = *says;
                    local |= self.ids[table] == TABLE_LOCAL && bits.len == self.family.bits();
                }
            }
            let prefix = bits.prefix(self.family);
            let kernel = self.is_kernels(bits, &found);
            // Local addresses have a map of their own.
            if local || passed_anyway(prefix) {
                around.push((bits, found, outer));
                continue;
            }
            if kernel != outer {
                out.push((prefix, kernel));
            }
            around.push((bits, found, kernel));
        }
        out
    }

    /// A packet to an address in `bits`, and in no prefix inside of it, may be the kernel's.
    fn is_kernels(&self, bits: Bits, found: &[Found]) -> bool {
        let (mut ours, mut refused) = (false, false);
        // Every packet comes by, as long as no rule before may have led it past.
        let mut all = true;
        for (step, look) in self.steps.iter().zip(&self.looks) {
            let mut certain = all;
            if let Some(asks) = &step.asks {
                certain = false;
                let outside = asks.dst.is_some_and(|p| !Bits::of(p).contains(bits));
                if outside && !asks.invert {
                    continue;
                }
            }
            match step.does {
                Does::Goto(_) => all = false,
                Does::Refuse => refused = true,
                Does::Table(..) => {
                    let said = look.and_then(|(table, bit)| Some((found[table]?, bit)));
                    let Some(((next_hop, met), bit)) = said else { continue };
                    if met & bit != 0 {
                        continue;
                    }
                    match next_hop {
                        NextHop::Throw => continue,
                        NextHop::Kernel | NextHop::Elsewhere { .. } => return true,
                        NextHop::Refused => refused = true,
                        NextHop::Forward { .. } | NextHop::Group(_) => ours = true,
                    }
                }
            }
            if certain && !matches!(step.does, Does::Goto(_)) {
                break;
            }
        }
        refused && !ours
    }
}
