//! One family's routes: which tables there are to look into, and where their prefixes
//! lead.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hashbrown::HashMap;

use super::classes::{Classes, Led};
use super::effective::{self, Around};
use super::kept::Kept;
use super::kernel_map::KernelMap;
use super::policy::{self, Asks, Does, Rules, Step};
use super::{Compiler, replace};
use crate::control::mirror::{Alias, SetId, TABLE_LOCAL};
use crate::netlink::{Family, Hop, NextHopKind, Prefix, RouteKind, Suppress};
use crate::tables::NextHop;
use crate::tables::policy::{Action, Rule};

/// A family's addresses as numbers.
pub(super) trait Number: Copy + PartialEq + Default {
    fn of(addr: IpAddr) -> Self;
    fn mask(len: u8) -> Self;
    fn and(self, mask: Self) -> Self;
}

impl Number for u32 {
    fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(a) => a.to_bits(),
            IpAddr::V6(_) => 0,
        }
    }
    fn mask(len: u8) -> Self {
        u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0)
    }
    fn and(self, mask: Self) -> Self {
        self & mask
    }
}

impl Number for u128 {
    fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => 0,
            IpAddr::V6(a) => a.to_bits(),
        }
    }
    fn mask(len: u8) -> Self {
        u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0)
    }
    fn and(self, mask: Self) -> Self {
        self & mask
    }
}

/// A table's routes: prefix, its length, index of its next hop.
pub type Routes<A> = Vec<(A, u8, u32)>;

/// Policy rules with the tables that they lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy<A> {
    /// In their order.
    pub rules: Vec<Rule<A>>,
    /// The kernel's number of each table, and its routes.
    pub tables: Vec<(u32, Routes<A>)>,
}

/// The routes of a family as the workers look into them: in one table, or by rules in
/// several.
pub(super) struct Made<A> {
    pub(super) routes: Routes<A>,
    pub(super) policy: Option<Policy<A>>,
    /// In order.
    pub(super) kernel_routes: Vec<(Prefix, bool)>,
}

impl Compiler<'_> {
    /// One family's routes, local addresses, and what the XDP program must know.
    pub(super) fn routes<A: Number>(&mut self, family: Family, stays: bool) -> Made<A> {
        let mut kept = Kept::default();
        let rules = policy::rules(self.mirror, family, |name| self.port_named(name));
        self.out.state_mut(family).classes = Classes::default();
        let (mut made, looked) = match rules {
            Rules::Tables(tables) => (self.merged(family, &tables, &mut kept), tables),
            Rules::Steps(steps) => (self.apart(family, &steps, &mut kept), Vec::new()),
        };
        self.out.state_mut(family).looked = looked;
        self.out.ledger.set_routes(family, kept.entries(family));
        self.out.state_mut(family).kept = kept;
        if stays {
            made = Made { routes: Vec::new(), policy: None, kernel_routes: Vec::new() };
        }
        let locals = self.locals(family);
        self.maps |= replace(&mut self.out.locals, locals);
        let of_family = |p: &Prefix| Family::of(p.addr) == family;
        let told = &mut self.out.kernel_routes;
        let before = told.iter().filter(|(p, _)| of_family(p)).map(|(p, kernel)| (*p, *kernel));
        if !before.eq(made.kernel_routes.iter().copied()) {
            self.maps = true;
            told.retain(|p, _| !of_family(p));
            told.extend(made.kernel_routes.drain(..));
        }
        made
    }

    /// The single addresses of the local table, whatever rule leads there, and those of the
    /// other family as they were.
    pub(super) fn locals(&self, family: Family) -> BTreeSet<IpAddr> {
        let exact = self.mirror.routes.prefixes(TABLE_LOCAL, family).map(|(dst, _)| dst);
        let exact = exact.filter(|dst| dst.len == family.bits()).map(|dst| dst.addr);
        let mut locals: BTreeSet<IpAddr> = exact.collect();
        let of_family = |addr: &IpAddr| Family::of(*addr) == family;
        if family == Family::V4 {
            // One of a device that is down has no route, and yet the kernel takes
            // nothing from it.
            let addresses = self.mirror.addresses.iter().map(|a| a.prefix.addr);
            locals.extend(addresses.filter(of_family));
        }
        locals.extend(self.out.locals.iter().filter(|a| !of_family(a)));
        locals
    }

    pub(super) fn port_named(&self, name: &str) -> Option<crate::id::PortId> {
        let link = self.mirror.links.values().find(|l| l.name == name)?;
        self.ports.get(&link.ifindex).copied()
    }

    fn merged<A: Number>(&mut self, family: Family, tables: &[u32], kept: &mut Kept) -> Made<A> {
        let mirror = self.mirror;
        let mut routes = Vec::with_capacity(mirror.routes.count(family));
        let mut kernel_routes = Vec::new();
        let mut around = Around::default();
        for entry in effective::prefixes(mirror, family, tables) {
            let class = self.class(family, entry.table, entry.set);
            kept.count(class.item, entry.table, entry.prefix);
            if around.hides(&entry) {
                continue;
            }
            let Prefix { addr, len } = entry.prefix;
            routes.push((A::of(addr), len, class.index));
            let kernel = !self.hops.get(class.index).is_ours();
            if around.is_told(&entry, kernel) {
                kernel_routes.push((entry.prefix, kernel));
            }
        }
        Made { routes, policy: None, kernel_routes }
    }

    fn apart<A: Number>(&mut self, family: Family, steps: &[Step], kept: &mut Kept) -> Made<A> {
        let (mut ids, mut conditions): (Vec<u32>, Vec<Suppress>) = (Vec::new(), Vec::new());
        for step in steps {
            if let Does::Table(table, suppress) = step.does {
                once(&mut ids, table);
                if suppress.any_given() {
                    once(&mut conditions, suppress);
                }
            }
        }
        let mut map = KernelMap::new(family, steps, &ids, &conditions);
        let mirror = self.mirror;
        let mut tables = Vec::new();
        for (at, id) in ids.iter().enumerate() {
            let mut routes = Vec::new();
            let mut led: HashMap<SetId, Led> = HashMap::new();
            for (dst, set) in mirror.routes.prefixes(*id, family) {
                let here = mirror.routes.set(family, set);
                let (next_hop, item) =
                    *led.entry(set).or_insert_with(|| self.led(family, *id == TABLE_LOCAL, here));
                kept.count(item, *id, dst);
                let (next_hop, met) = self.meets(family, (dst, here), next_hop, &conditions);
                map.add(at, dst, next_hop, met);
                routes.push((A::of(dst.addr), dst.len, self.hops.index(next_hop, met)));
            }
            tables.push((*id, routes));
        }
        let refuse = self.hops.index(NextHop::Refused, 0);
        let rules = steps.iter().map(|step| rule(step, &ids, &conditions, refuse)).collect();
        let policy = Some(Policy { rules, tables });
        Made { routes: Vec::new(), policy, kernel_routes: map.kernel_routes() }
    }

    /// Which of the conditions the prefix meets, by which a rule does not take it; and
    /// where it leads, if that can be said.
    ///
    /// A route that refuses is never suppressed (`fib_rules_lookup`). Of one that may
    /// refuse, or not be there, nobody can say, so that it ends at the kernel; but for the
    /// default route, behind which there is no other.
    fn meets(
        &self,
        family: Family,
        (dst, routes): (Prefix, &[Alias]),
        next_hop: NextHop,
        conditions: &[Suppress],
    ) -> (NextHop, u8) {
        let len = u32::from(dst.len);
        let short = |c: &Suppress| c.prefixlen.is_some_and(|longest| len <= longest);
        let unicast = || routes.iter().all(|r| r.kind == RouteKind::Unicast && !r.unknown);
        match next_hop {
            NextHop::Refused | NextHop::Throw => return (next_hop, 0),
            NextHop::Kernel if len != 0 || !unicast() => return (next_hop, 0),
            NextHop::Kernel => return (next_hop, bits(conditions, short)),
            NextHop::Forward { .. } | NextHop::Group(_) | NextHop::Elsewhere { .. } => {}
        }
        let groups = self.device_groups(routes);
        if family == Family::V6
            && conditions.iter().any(|c| c.ifgroup.is_some())
            && groups.iter().any(|g| *g != groups[0])
        {
            // IPv6 asks for the device of the next hop that was chosen.
            return (NextHop::Kernel, 0);
        }
        let met = |c: &Suppress| {
            short(c) || (c.ifgroup.is_some() && c.ifgroup == groups.first().copied())
        };
        (next_hop, bits(conditions, met))
    }

    /// The groups that the devices of a prefix's best route are in, in the order of its
    /// next hops.
    fn device_groups(&self, routes: &[Alias]) -> Vec<u32> {
        let Some(route) = routes.iter().min_by_key(|r| r.priority) else { return Vec::new() };
        let hops = self.hops_of(route);
        let group = |h: Hop| Some(self.mirror.links.get(&h.oif?)?.group);
        hops.into_iter().filter_map(group).collect()
    }

    fn hops_of(&self, route: &Alias) -> Vec<Hop> {
        let object = |id: u32| self.mirror.nexthops.get(&id);
        match route.nexthop.and_then(object).map(|o| &o.kind) {
            Some(NextHopKind::Hop(hop)) => vec![*hop],
            Some(NextHopKind::Group(members)) => {
                members.iter().filter_map(|(id, _)| object(*id)?.hop()).collect()
            }
            Some(_) => Vec::new(),
            None => route.hops.clone(),
        }
    }
}

/// Puts a value in a list that has each once.
fn once<T: PartialEq>(list: &mut Vec<T>, value: T) {
    if !list.contains(&value) {
        list.push(value);
    }
}

fn bits(conditions: &[Suppress], met: impl Fn(&Suppress) -> bool) -> u8 {
    let all = conditions.iter().zip(0..u8::BITS);
    all.filter(|(c, _)| met(c)).fold(0, |sum, (_, bit)| sum | 1 << bit)
}

fn rule<A: Number>(step: &Step, ids: &[u32], conditions: &[Suppress], refuse: u32) -> Rule<A> {
    // Of all these lists `strange_rule` says how long they may be.
    let action = match step.does {
        Does::Table(id, suppress) => Action::Table {
            table: ids.iter().position(|i| *i == id).unwrap_or_default() as u16,
            suppress: bits(conditions, |c| *c == suppress),
        },
        Does::Goto(to) => Action::Goto(to as u16),
        Does::Refuse => Action::Refuse(refuse),
    };
    let net = |p: Option<Prefix>| {
        p.map_or_else(Default::default, |p| {
            let mask = A::mask(p.len);
            (A::of(p.addr).and(mask), mask)
        })
    };
    let any = Asks::default();
    let asks = step.asks.as_ref().unwrap_or(&any);
    Rule {
        invert: asks.invert,
        iif: asks.iif,
        src: net(asks.src),
        dst: net(asks.dst),
        tos: asks.tos,
        proto: asks.proto,
        sport: asks.sport,
        dport: asks.dport,
        action,
    }
}
