//! The maps, as the kernel's side of `nsplane_abi` lays them out.
//!
//! Keys and values are built as bytes: their layout is the abi's, written down in
//! one place each below.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues, XskMap};
use nsplane_abi::layout::{self, Layout};
use nsplane_abi::member::{MemberEntry, MemberKey};
use nsplane_abi::{
    Counter, PassReason, PortConf, QUEUES_PER_PORT, ROUTE_KERNEL, ROUTE_OURS, counter_slot,
    xsk_slot,
};

use super::Error;
use super::inject::LONG;
use crate::id::{NsId, PortId, QueueId};

/// Names of the maps that instances share, as the object has them.
pub(super) const SHARED: [&str; 11] = [
    "PORTS",
    "XSKS",
    "LOCAL4",
    "LOCAL6",
    "KERNEL4",
    "KERNEL6",
    "MEMBERS",
    "LAYOUT",
    "COUNTERS",
    "INJECTING",
    LONG,
];

/// An address with its namespace in front, in host byte order as the program has it.
type Local<const N: usize> = HashMap<MapData, [u8; N], u8>;
/// A prefix with its namespace in front, in network byte order.
type Routes<const N: usize> = LpmTrie<MapData, [u8; N], u8>;

/// Open maps.
pub(super) struct Maps {
    max_ports: u32,
    ports: Array<MapData, [u8; size_of::<PortConf>()]>,
    sockets: XskMap<MapData>,
    local4: Local<8>,
    local6: Local<20>,
    kernel4: Routes<8>,
    kernel6: Routes<20>,
    members: HashMap<MapData, [u8; size_of::<MemberKey>()], [u8; size_of::<MemberEntry>()]>,
    layout: Array<MapData, [u32; layout::WORDS]>,
    counters: PerCpuArray<MapData, [u64; 2]>,
}

impl Maps {
    /// Takes the maps out of an instance.
    pub(super) fn take(ebpf: &mut Ebpf, max_ports: u32) -> Result<Self, Error> {
        Ok(Self {
            max_ports,
            ports: take(ebpf, "PORTS")?,
            sockets: take(ebpf, "XSKS")?,
            local4: take(ebpf, "LOCAL4")?,
            local6: take(ebpf, "LOCAL6")?,
            kernel4: take(ebpf, "KERNEL4")?,
            kernel6: take(ebpf, "KERNEL6")?,
            members: take(ebpf, "MEMBERS")?,
            layout: take(ebpf, "LAYOUT")?,
            counters: take(ebpf, "COUNTERS")?,
        })
    }

    pub(super) fn set_port(&mut self, port: PortId, conf: &PortConf) -> Result<(), Error> {
        let index = self.port(port)?;
        let done = self.ports.set(index, conf_bytes(conf), 0);
        done.map_err(failed("PORTS", "setting a port"))
    }

    pub(super) fn set_socket(
        &mut self,
        port: PortId,
        queue: QueueId,
        socket: &impl AsRawFd,
    ) -> Result<(), Error> {
        let slot = self.slot(port, queue)?;
        self.sockets.set(slot, socket.as_raw_fd(), 0).map_err(failed("XSKS", "setting a socket"))
    }

    pub(super) fn clear_socket(&mut self, port: PortId, queue: QueueId) -> Result<(), Error> {
        let slot = self.slot(port, queue)?;
        absent_is_fine(self.sockets.unset(slot)).map_err(failed("XSKS", "clearing a socket"))
    }

    pub(super) fn add_local(&mut self, ns: NsId, addr: IpAddr) -> Result<(), Error> {
        let what = "adding a local address";
        match addr {
            IpAddr::V4(a) => {
                let key = key::<4, 8>(ns.packed().to_ne_bytes(), a.octets());
                self.local4.insert(key, 1, 0).map_err(failed("LOCAL4", what))
            }
            IpAddr::V6(a) => {
                let key = key::<16, 20>(ns.packed().to_ne_bytes(), a.octets());
                self.local6.insert(key, 1, 0).map_err(failed("LOCAL6", what))
            }
        }
    }

    pub(super) fn remove_local(&mut self, ns: NsId, addr: IpAddr) -> Result<(), Error> {
        let what = "removing a local address";
        match addr {
            IpAddr::V4(a) => {
                let key = key::<4, 8>(ns.packed().to_ne_bytes(), a.octets());
                absent_is_fine(self.local4.remove(&key)).map_err(failed("LOCAL4", what))
            }
            IpAddr::V6(a) => {
                let key = key::<16, 20>(ns.packed().to_ne_bytes(), a.octets());
                absent_is_fine(self.local6.remove(&key)).map_err(failed("LOCAL6", what))
            }
        }
    }

    pub(super) fn set_route(
        &mut self,
        ns: NsId,
        (addr, len): (IpAddr, u8),
        kernel: bool,
    ) -> Result<(), Error> {
        let what = "setting a route";
        let owner = if kernel { ROUTE_KERNEL } else { ROUTE_OURS };
        match addr {
            IpAddr::V4(a) => {
                let key = route_key::<4, 8>(ns, a.octets(), len)?;
                self.kernel4.insert(&key, owner, 0).map_err(failed("KERNEL4", what))
            }
            IpAddr::V6(a) => {
                let key = route_key::<16, 20>(ns, a.octets(), len)?;
                self.kernel6.insert(&key, owner, 0).map_err(failed("KERNEL6", what))
            }
        }
    }

    pub(super) fn remove_route(&mut self, ns: NsId, prefix: (IpAddr, u8)) -> Result<(), Error> {
        let what = "removing a route";
        match prefix {
            (IpAddr::V4(a), len) => {
                let key = route_key::<4, 8>(ns, a.octets(), len)?;
                absent_is_fine(self.kernel4.remove(&key)).map_err(failed("KERNEL4", what))
            }
            (IpAddr::V6(a), len) => {
                let key = route_key::<16, 20>(ns, a.octets(), len)?;
                absent_is_fine(self.kernel6.remove(&key)).map_err(failed("KERNEL6", what))
            }
        }
    }

    pub(super) fn set_member(&mut self, key: &MemberKey, to: &MemberEntry) -> Result<(), Error> {
        let done = self.members.insert(member_key(key), member_bytes(to), 0);
        done.map_err(failed("MEMBERS", "setting a member"))
    }

    pub(super) fn remove_member(&mut self, key: &MemberKey) -> Result<(), Error> {
        let done = self.members.remove(&member_key(key));
        absent_is_fine(done).map_err(failed("MEMBERS", "removing a member"))
    }

    pub(super) fn set_layout(&mut self, layout: &Layout) -> Result<(), Error> {
        let done = self.layout.set(0, layout_words(layout), 0);
        done.map_err(failed("LAYOUT", "saying where the kernel keeps its devices"))
    }

    pub(super) fn entries(&self) -> Result<(usize, usize, usize), Error> {
        let mut ports = 0;
        for port in 0..self.max_ports {
            let conf = self.ports.get(&port, 0).map_err(failed("PORTS", "reading a port"))?;
            ports += usize::from(conf.iter().any(|b| *b != 0));
        }
        let addresses = self.local4.keys().count() + self.local6.keys().count();
        let routes = self.kernel4.keys().count() + self.kernel6.keys().count();
        Ok((ports, addresses, routes))
    }

    pub(super) fn counters(&self, port: PortId) -> Result<[Counter; PassReason::ALL.len()], Error> {
        let port = self.port(port)?;
        let mut sums = [Counter::default(); PassReason::ALL.len()];
        for (reason, sum) in PassReason::ALL.into_iter().zip(&mut sums) {
            let values = self.counters.get(&counter_slot(port, reason), 0);
            let values = values.map_err(failed("COUNTERS", "reading a counter"))?;
            for [packets, bytes] in values.iter() {
                sum.packets = sum.packets.wrapping_add(*packets);
                sum.bytes = sum.bytes.wrapping_add(*bytes);
            }
        }
        Ok(sums)
    }

    pub(super) fn clear_counters(&mut self, port: PortId) -> Result<(), Error> {
        let port = self.port(port)?;
        let failed = || failed("COUNTERS", "clearing a counter");
        for reason in PassReason::ALL {
            let slot = counter_slot(port, reason);
            let cpus = self.counters.get(&slot, 0).map_err(failed())?.len();
            let zero = PerCpuValues::try_from(vec![[0; 2]; cpus])
                .map_err(|e| failed()(MapError::IoError(e)))?;
            self.counters.set(slot, zero, 0).map_err(failed())?;
        }
        Ok(())
    }

    fn port(&self, port: PortId) -> Result<u32, Error> {
        let index = u32::from(port.0);
        if index >= self.max_ports {
            return Err(Error::NoSuchPort { port, max: self.max_ports });
        }
        Ok(index)
    }

    fn slot(&self, port: PortId, queue: QueueId) -> Result<u32, Error> {
        if u32::from(queue.0) >= QUEUES_PER_PORT {
            return Err(Error::NoSuchQueue { queue });
        }
        Ok(xsk_slot(self.port(port)?, u32::from(queue.0)))
    }
}

pub(super) fn take<M: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<M, Error> {
    let Some(map) = ebpf.take_map(name) else {
        return Err(Error::BadObject { what: format!("it has no map {name}") });
    };
    M::try_from(map).map_err(failed(name, "opening it"))
}

/// `nsplane_abi::PortConf` as memory has it.
fn conf_bytes(conf: &PortConf) -> [u8; size_of::<PortConf>()] {
    let mut out = [0; size_of::<PortConf>()];
    out[0..6].copy_from_slice(&conf.mac);
    out[6..8].copy_from_slice(&conf.flags.to_ne_bytes());
    out[8..12].copy_from_slice(&conf.max_frame.to_ne_bytes());
    out[12..16].copy_from_slice(&conf.generation.to_ne_bytes());
    out
}

/// `nsplane_abi::member::MemberKey` as memory has it.
fn member_key(key: &MemberKey) -> [u8; size_of::<MemberKey>()] {
    let mut out = [0; size_of::<MemberKey>()];
    out[0..4].copy_from_slice(&key.port.to_ne_bytes());
    out[4..8].copy_from_slice(&key.by.to_ne_bytes());
    out[8..16].copy_from_slice(&key.selector);
    out
}

/// `nsplane_abi::member::MemberEntry` as memory has it.
fn member_bytes(entry: &MemberEntry) -> [u8; size_of::<MemberEntry>()] {
    let mut out = [0; size_of::<MemberEntry>()];
    out[0..4].copy_from_slice(&entry.ns.to_ne_bytes());
    out[4..6].copy_from_slice(&entry.member.to_ne_bytes());
    out[6..8].copy_from_slice(&entry.flags.to_ne_bytes());
    out[8..12].copy_from_slice(&entry.generation.to_ne_bytes());
    out[12..16].copy_from_slice(&entry.parent.to_ne_bytes());
    out[16..24].copy_from_slice(&entry.cookie.to_ne_bytes());
    out[24..28].copy_from_slice(&entry.ifindex.to_ne_bytes());
    out[28..32].copy_from_slice(&entry.bucket.to_ne_bytes());
    out
}

/// `nsplane_abi::layout::Layout` as memory has it.
fn layout_words(l: &Layout) -> [u32; layout::WORDS] {
    [
        l.known,
        l.xdp_rxq,
        l.rxq_dev,
        l.dev_rx_data,
        l.dev_addr,
        l.dev_flags,
        l.dev_ifindex,
        l.dev_net,
        l.net_cookie,
        l.macvlan_port_dev,
        l.macvlan_port_hash,
        l.macvlan_dev,
        l.macvlan_port,
        l.macvlan_hlist,
        l.dev_vlans,
        l.vlan_arrays,
    ]
}

/// `Local4`, `Local6`, `Prefix4` and `Prefix6` of the abi: namespace, then address.
fn key<const A: usize, const K: usize>(ns: [u8; 4], addr: [u8; A]) -> [u8; K] {
    let mut out = [0; K];
    out[..4].copy_from_slice(&ns);
    out[4..].copy_from_slice(&addr);
    out
}

fn route_key<const A: usize, const K: usize>(
    ns: NsId,
    addr: [u8; A],
    len: u8,
) -> Result<Key<[u8; K]>, Error> {
    if usize::from(len) > A * 8 {
        return Err(Error::PrefixTooLong { len });
    }
    Ok(Key::new(32 + u32::from(len), key(ns.packed().to_be_bytes(), addr)))
}

fn failed(map: &'static str, what: &'static str) -> impl FnOnce(MapError) -> Error {
    move |source| Error::Map { map, what, source: Box::new(source) }
}

fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    let is_absent = |e: &io::Error| e.raw_os_error() == Some(libc::ENOENT);
    match result {
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        Err(MapError::SyscallError(e)) if is_absent(&e.io_error) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_laid_out_as_the_abi_says() {
        let conf = PortConf {
            mac: [1, 2, 3, 4, 5, 6],
            flags: 0x0102,
            max_frame: 0x0304_0506,
            generation: 0x0708_090a,
        };
        let bytes = conf_bytes(&conf);
        let at =
            |i: usize| u32::from_ne_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        assert_eq!(bytes[std::mem::offset_of!(PortConf, mac)..6], conf.mac);
        assert_eq!(at(std::mem::offset_of!(PortConf, max_frame)), conf.max_frame);
        assert_eq!(at(std::mem::offset_of!(PortConf, generation)), conf.generation);
        assert_eq!(size_of::<nsplane_abi::Local4>(), 8);
        assert_eq!(size_of::<nsplane_abi::Local6>(), 20);
        assert_eq!(size_of::<nsplane_abi::Prefix4>(), 8);
        assert_eq!(size_of::<nsplane_abi::Prefix6>(), 20);
        assert_eq!(size_of::<Counter>(), 16);
    }

    #[test]
    fn a_prefix_is_no_longer_than_its_address() {
        let ns = NsId { index: 1, generation: 2 };
        assert!(route_key::<4, 8>(ns, [10, 0, 0, 0], 32).is_ok());
        assert!(route_key::<4, 8>(ns, [10, 0, 0, 0], 33).is_err());
        let key = route_key::<4, 8>(ns, [10, 0, 0, 0], 8).expect("8 is short enough");
        assert_eq!(key.prefix_len(), 40);
        assert_eq!(key.data(), [0, 2, 0, 1, 10, 0, 0, 0]);
    }
}
