//! Answers to `nsplane show`.

use std::net::IpAddr;

use super::Control;
use super::compile::Policy;
use super::compile::PortSettings;
use super::devices::{passed_over, unfit};
use super::ledger::{Device, Entry};
use super::namespaces::NamespaceState;
use super::view::{self, Subject, View};
use crate::id::{NsId, PortId};
use crate::netlink::{Link, LinkKind};
use crate::port::owner;
use crate::tables::NextHop;
use crate::xsk;
use nsplane_abi::headers::ETH_LEN;

impl Control {
    /// Answers, or says why not: the namespace asked for is not one of ours.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn query(&self, subject: Subject, netns: Option<&str>) -> Result<View, String> {
        let chosen = self.chosen(netns)?;
        Ok(match subject {
            Subject::Namespaces => {
                View::Namespaces(chosen.iter().map(|(id, n)| namespace(*id, n)).collect())
            }
            // The runtime knows them, and answers itself.
            Subject::Selectors => View::Selectors(Vec::new()),
            Subject::Ports => View::Ports(
                chosen.iter().flat_map(|(_, n)| self.ports_of(n).chain(not_ports(n))).collect(),
            ),
            Subject::Routes => {
                View::Routes(chosen.iter().flat_map(|(_, n)| self.routes_of(n)).collect())
            }
            Subject::Neighbors => {
                View::Neighbors(chosen.iter().flat_map(|(_, n)| self.neighbors_of(n)).collect())
            }
            Subject::Ledger => View::Ledger(
                chosen.iter().flat_map(|(_, n)| n.compiled.ledger.rows(n.netns.name())).collect(),
            ),
            Subject::Workers => View::Workers(self.workers_view()),
            Subject::Memory => View::Memory(vec![self.memory_view()]),
            Subject::Counters => View::Counters(
                chosen.iter().map(|(_, n)| self.counters_of(n)).collect::<Result<_, _>>()?,
            ),
            Subject::Resources => View::Resources(vec![self.resources()?]),
        })
    }

    pub(super) fn chosen(
        &self,
        netns: Option<&str>,
    ) -> Result<Vec<(NsId, &NamespaceState)>, String> {
        let all = self.namespaces.iter().map(|(i, n)| (self.ns_id(i), n));
        let chosen: Vec<_> =
            all.filter(|(_, n)| netns.is_none_or(|name| n.netns.name() == name)).collect();
        match netns {
            Some(name) if chosen.is_empty() => {
                let names: Vec<&str> =
                    self.namespaces.iter().map(|(_, n)| n.netns.name()).collect();
                let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                Err(format!("no namespace {name:?} here; there are: {names}"))
            }
            _ => Ok(chosen),
        }
    }

    fn ports_of<'a>(&'a self, n: &'a NamespaceState) -> impl Iterator<Item = view::Port> + 'a {
        n.ports.iter().filter_map(|(ifindex, id)| {
            let port = self.ports.get(id.index())?;
            let link = n.mirror.links.get(ifindex)?;
            let seen = self.world.ports.get(id.index()).and_then(Option::as_ref);
            let mut socket = view::SocketCounts::default();
            for q in &port.queues {
                // A socket that died under us has no counters any more.
                let s = xsk::stats(q.fd).unwrap_or_default();
                socket.rx_dropped += s.rx_dropped;
                socket.rx_ring_full += s.rx_ring_full;
                socket.fill_ring_empty += s.fill_ring_empty;
                socket.tx_invalid += s.tx_invalid;
            }
            let workers = port.queues.iter().map(|q| owner(*id, q.queue, self.workers.count()).0);
            Some(view::Port {
                netns: n.netns.name().to_owned(),
                device: link.name.clone(),
                ifindex: ifindex.0,
                port: format!("{}.{}", id.0, port.generation.0),
                mac: link.mac.unwrap_or_default().to_string(),
                mtu: link.mtu,
                up: link.up && link.carrier,
                xdp: port.attached.as_ref().map_or("", |a| a.mode().name()).to_owned(),
                bind: port.queues.first().map_or("", |q| q.mode.name()).to_owned(),
                queues: port.queues.len() as u16,
                workers: workers.collect(),
                forward_v4: seen.is_some_and(|p| p.forward_v4),
                forward_v6: seen.is_some_and(|p| p.forward_v6),
                socket,
                reason: kept(n, link, self.longest(port)),
                member: self.member_of(port).map(|(netns, device, by)| view::Member {
                    netns,
                    device,
                    by,
                }),
            })
        })
    }

    pub(super) fn device_name(&self, n: &NamespaceState, port: PortId) -> Option<String> {
        let state = self.ports.get(port.index())?;
        Some(n.mirror.links.get(&state.ifindex)?.name.clone())
    }

    fn routes_of<'a>(&'a self, n: &'a NamespaceState) -> impl Iterator<Item = view::Route> + 'a {
        let c = &n.compiled;
        let one = |(a, len, hop): (_, u8, u32)| (None, IpAddr::V4(a), len, hop);
        let v4 = c.v4.sorted().map(one);
        let one = |(a, len, hop): (_, u8, u32)| (None, IpAddr::V6(a), len, hop);
        let v6 = c.v6.sorted().map(one);
        let apart4 = c.policy_v4.iter().flat_map(|p| &p.tables).flat_map(|(table, routes)| {
            let addr = |a: u32| IpAddr::V4(a.into());
            routes.iter().map(move |(a, len, hop)| (Some(*table), addr(*a), *len, *hop))
        });
        let apart6 = c.policy_v6.iter().flat_map(|p| &p.tables).flat_map(|(table, routes)| {
            let addr = |a: u128| IpAddr::V6(a.into());
            routes.iter().map(move |(a, len, hop)| (Some(*table), addr(*a), *len, *hop))
        });
        let all = v4.chain(apart4).chain(v6).chain(apart6);
        all.flat_map(move |(table, addr, len, hop)| {
            let route = |way: Option<(PortId, Option<IpAddr>, u32)>| view::Route {
                netns: n.netns.name().to_owned(),
                table,
                dst: format!("{addr}/{len}"),
                via: way.and_then(|(_, via, _)| via).map(|via| via.to_string()),
                dev: way.and_then(|(port, ..)| self.device_name(n, port)),
                mtu: way.map(|(.., mtu)| mtu),
                tier: if way.is_some() { "userspace" } else { "kernel" }.to_owned(),
            };
            match c.next_hops.get(hop as usize) {
                Some(NextHop::Forward { port, gateway, mtu }) => {
                    vec![route(Some((*port, *gateway, *mtu)))]
                }
                // A line for each of several next hops.
                Some(NextHop::Group(i)) => {
                    let members = c.groups.get(*i as usize).map_or(&[][..], |g| &g.members);
                    members.iter().map(|m| route(Some((m.port, m.gateway, m.mtu)))).collect()
                }
                _ => vec![route(None)],
            }
        })
    }

    fn neighbors_of<'a>(
        &'a self,
        n: &'a NamespaceState,
    ) -> impl Iterator<Item = view::Neighbor> + 'a {
        n.compiled.neighbors.iter().map(|((port, addr), neigh)| view::Neighbor {
            netns: n.netns.name().to_owned(),
            dst: addr.to_string(),
            dev: self.device_name(n, *port).unwrap_or_default(),
            lladdr: neigh.mac.to_string(),
            stale: neigh.stale,
        })
    }

    fn workers_view(&self) -> Vec<view::Worker> {
        let count = self.workers.count();
        let drives = |w: usize| {
            let all = self.ports.iter().flat_map(|(i, p)| p.queues.iter().map(move |q| (i, q)));
            all.filter(|(i, q)| owner(PortId(*i as u16), q.queue, count).index() == w).count()
        };
        let rows = self.workers.all().iter().enumerate();
        rows.map(|(i, w)| view::Worker {
            worker: i as u16,
            cpu: w.cpu,
            queues: drives(i),
            packets: w.stats.packets.get(),
            rounds: w.stats.rounds.get(),
            busy_rounds: w.stats.busy_rounds.get(),
            sleeps: w.stats.sleeps.get(),
            kicks: w.stats.kicks.get(),
        })
        .collect()
    }

    /// Read place by place while frames move: only without traffic is it exact.
    fn memory_view(&self) -> view::Memory {
        let memory = self.region.memory();
        let frames = u64::from(memory.options().frames);
        let rings = memory.lent() as u64;
        let workers = self.workers.all().iter().map(|w| w.stats.free_frames.get()).sum();
        let punt = self.targets.free_frames.get();
        let free = self.workers.free_frames() as u64;
        let moving = frames as i64 - (rings + workers + punt + free) as i64;
        view::Memory { frames, rings, workers, punt, free, moving }
    }

    fn resources(&self) -> Result<view::Resources, String> {
        let (map_ports, map_addresses, map_routes) =
            self.bpf.entries().map_err(|e| e.to_string())?;
        let memory = self.region.memory();
        Ok(view::Resources {
            namespaces: self.namespaces.count(),
            ports: self.ports.count(),
            closing: self.closing.len(),
            sockets: self.ports.iter().map(|(_, p)| p.queues.len()).sum(),
            frames: memory.options().frames,
            frames_in_rings: memory.lent(),
            map_ports,
            map_addresses,
            map_routes,
            worlds_retired: self.publisher.retired(),
        })
    }

    fn counters_of(&self, n: &NamespaceState) -> Result<view::Counters, String> {
        let mut sum = n.retired.clone();
        for id in n.ports.values() {
            let now = self.totals_of(*id).map_err(|e| e.to_string())?;
            if let Some(port) = self.ports.get(id.index()) {
                sum = sum.plus(&now.since(&port.base));
            }
        }
        Ok(sum.view(n.netns.name()))
    }
}

fn namespace(id: NsId, n: &NamespaceState) -> view::Namespace {
    let ports = &n.compiled.ports;
    let tier = |reason: &Option<String>, forwards: fn(&PortSettings) -> bool| match reason {
        Some(why) => format!("kernel: {why}"),
        None if ports.is_empty() => "kernel: no device is a port".to_owned(),
        None if !ports.iter().any(forwards) => "kernel: no port forwards".to_owned(),
        None => "userspace".to_owned(),
    };
    view::Namespace {
        name: n.netns.name().to_owned(),
        cookie: n.netns.cookie().0,
        id: id.to_string(),
        ports: n.ports.len(),
        routes_v4: n.compiled.v4.len() + apart(n.compiled.policy_v4.as_ref()),
        routes_v6: n.compiled.v6.len() + apart(n.compiled.policy_v6.as_ref()),
        neighbors: n.compiled.neighbors.len(),
        resyncs: n.resyncs,
        tier_v4: tier(&n.compiled.stays_with_kernel_v4, |p| p.forward_v4),
        tier_v6: tier(&n.compiled.stays_with_kernel_v6, |p| p.forward_v6),
    }
}

/// Routes of tables that rules tell apart.
fn apart<A>(policy: Option<&Policy<A>>) -> usize {
    policy.map_or(0, |p| p.tables.iter().map(|(_, routes)| routes.len()).sum())
}

/// What of a port's traffic is the kernel's, and why, be it for the ledger or for what a
/// frame of our memory holds (`room` bytes); empty where nothing is.
fn kept(n: &NamespaceState, link: &Link, room: u32) -> String {
    let part = |(e, d): (&Entry, &Device)| {
        let which = match (d.arrives, d.leaves) {
            (true, true) => "arrives here or leaves",
            (true, false) => "arrives here",
            _ => "leaves here",
        };
        format!("{}: what {which} is the kernel's", e.used.what)
    };
    let lines = n.compiled.ledger.at(link.ifindex).filter(|(e, _)| e.binds());
    let long = link.mtu.saturating_add(ETH_LEN as u32) > room;
    let long =
        long.then(|| format!("MTU {}: frames above {room} bytes are the kernel's", link.mtu));
    lines.map(part).chain(long).collect::<Vec<_>>().join("; ")
}

/// Devices that are no ports, with the reason; never `lo`.
pub(super) fn not_ports(n: &NamespaceState) -> impl Iterator<Item = view::Port> + '_ {
    let others = n.mirror.links.values();
    let others =
        others.filter(|l| l.kind != LinkKind::Loopback && !n.ports.contains_key(&l.ifindex));
    others.map(|l| {
        let reason = match n.refused.get(&l.ifindex) {
            Some(refused) => refused.reason.clone(),
            None => match unfit(l) {
                Some(why) => why,
                None if !l.up => "down: becomes a port when it is up".to_owned(),
                None => passed_over(&n.rule, l).unwrap_or_default().to_owned(),
            },
        };
        view::Port {
            netns: n.netns.name().to_owned(),
            device: l.name.clone(),
            ifindex: l.ifindex.0,
            port: String::new(),
            mac: l.mac.unwrap_or_default().to_string(),
            mtu: l.mtu,
            up: l.up && l.carrier,
            xdp: String::new(),
            bind: String::new(),
            queues: 0,
            workers: Vec::new(),
            forward_v4: false,
            forward_v6: false,
            socket: view::SocketCounts::default(),
            reason,
            member: None,
        }
    })
}
