//! The XDP program in the kernel: loading it, attaching it, and its maps.
//!
//! One instance of the program is loaded for each port, with constants of its own;
//! all share one set of maps, made once by [`Bpf::load`]. Two things share the work:
//!
//! - [`Bpf`] has the maps. Its owner is the control thread.
//! - [`Loader`], cheap to clone, loads and attaches instances. It works on any
//!   thread, so that it can be used on one that is inside the device's namespace.
//!
//! Invariants: an instance is attached by a link that is a file descriptor of this
//! process and nothing else, so whatever ends the process ends the attachment; maps
//! are shared by pinning them in a bpffs that is mounted nowhere, so nothing is left
//! behind either. A port's entry in `PORTS` is zero ("pass everything") until
//! [`Bpf::set_port`], and its socket slots are empty until [`Bpf::set_socket`].
//!
//! Namespacing: local addresses, kernel routes and members are *tagged* (one map, keys begin
//! with the namespace), since there are many and all are alike; counters and sockets
//! are indexed by port.
//!
//! Not here: which device becomes a port, AF_XDP sockets, and what is to be in the
//! maps.

mod attach;
mod btf;
mod error;
mod inject;
mod layout;
mod maps;
mod object;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::os::fd::AsRawFd;

use nsplane_abi::member::{MemberEntry, MemberKey};
use nsplane_abi::{Counter, PassReason, PortConf};

pub use self::attach::{AttachMode, AttachSpec, Attached, DeviceKind, Loader};
pub use self::error::Error;
pub use self::inject::{Injector, MAX_PACKET};
use self::layout::Known;
use self::maps::Maps;
use crate::id::{Mac, NsId, PortId, QueueId};
pub use crate::sys::bpf::XdpMode;

/// What is fixed when the maps are made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Ports that the maps have room for.
    pub max_ports: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_ports: nsplane_abi::DEFAULT_MAX_PORTS }
    }
}

/// The maps, and the means to attach programs that use them.
pub struct Bpf {
    loader: Loader,
    maps: Maps,
    known: Known,
    injector: Option<Injector>,
}

impl Bpf {
    /// Reads the object, makes the maps, and loads the program that injects packets.
    /// The object is the one built in, or the file that the environment variable
    /// `NSPLANE_EBPF_OBJECT` names.
    ///
    /// # Errors
    /// The object cannot be read or is not ours; the kernel refuses the private
    /// bpffs, a map or the program.
    pub fn load(options: Options) -> Result<Self, Error> {
        let loader = Loader::new(options)?;
        let mut first = loader.instantiate(&[])?;
        let mut maps = Maps::take(&mut first, options.max_ports)?;
        let injector = Some(Injector::new(first)?);
        let known = Known::learn();
        maps.set_layout(&known.layout)?;
        Ok(Self { loader, maps, known, injector })
    }

    /// Why the program could not see that a macvlan has moved; None if it can.
    ///
    /// # Errors
    /// The kernel's types are known since its module was loaded, and the map refuses
    /// them.
    pub fn no_macvlan(&mut self) -> Result<Option<&str>, Error> {
        if self.known.is_outdated() {
            self.known = Known::learn();
            self.maps.set_layout(&self.known.layout)?;
        }
        Ok(self.known.no_macvlan.as_deref())
    }

    /// The same of VLAN devices.
    #[must_use]
    pub fn no_vlan(&self) -> Option<&str> {
        self.known.no_vlan.as_deref()
    }

    /// The bucket of the kernel's table that a macvlan with this address is in.
    #[must_use]
    pub fn bucket(&self, mac: Mac) -> u32 {
        self.known.bucket(mac)
    }

    /// What loads and attaches instances that use these maps.
    #[must_use]
    pub fn loader(&self) -> Loader {
        self.loader.clone()
    }

    /// What puts packets into the stack; there is one, for the thread that does so.
    pub fn take_injector(&mut self) -> Option<Injector> {
        self.injector.take()
    }

    /// Sets what the program must know of a port.
    ///
    /// # Errors
    /// The port is not below `max_ports`, or the kernel refuses.
    pub fn set_port(&mut self, port: PortId, conf: &PortConf) -> Result<(), Error> {
        self.maps.set_port(port, conf)
    }

    /// Makes the program pass everything that arrives on the port.
    ///
    /// # Errors
    /// As [`Bpf::set_port`].
    pub fn clear_port(&mut self, port: PortId) -> Result<(), Error> {
        self.maps.set_port(port, &PortConf::default())
    }

    /// Sends what arrives on the port's queue to a socket, which must be bound to
    /// that device and queue.
    ///
    /// # Errors
    /// No such port or queue, no AF_XDP socket, or the kernel refuses.
    pub fn set_socket(
        &mut self,
        port: PortId,
        queue: QueueId,
        socket: &impl AsRawFd,
    ) -> Result<(), Error> {
        self.maps.set_socket(port, queue, socket)
    }

    /// Empties a queue's slot: what arrives there passes. An empty slot is fine.
    ///
    /// # Errors
    /// No such port or queue, or the kernel refuses.
    pub fn clear_socket(&mut self, port: PortId, queue: QueueId) -> Result<(), Error> {
        self.maps.clear_socket(port, queue)
    }

    /// Packets to and from this address pass, in all of the namespace's ports.
    ///
    /// # Errors
    /// The map is full, or the kernel refuses.
    pub fn add_local(&mut self, ns: NsId, addr: IpAddr) -> Result<(), Error> {
        self.maps.add_local(ns, addr)
    }

    /// Takes back [`Bpf::add_local`]. An address that is not there is fine.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_local(&mut self, ns: NsId, addr: IpAddr) -> Result<(), Error> {
        self.maps.remove_local(ns, addr)
    }

    /// Says who follows a route: packets whose longest match is one of the kernel's
    /// pass. Asked only on ports with `PORT_KERNEL_ROUTES_*`.
    ///
    /// # Errors
    /// The prefix is longer than the address, the map is full, or the kernel refuses.
    pub fn set_route(&mut self, ns: NsId, prefix: (IpAddr, u8), kernel: bool) -> Result<(), Error> {
        self.maps.set_route(ns, prefix, kernel)
    }

    /// Takes back [`Bpf::set_route`]. A route that is not there is fine.
    ///
    /// # Errors
    /// The prefix is longer than the address, or the kernel refuses.
    pub fn remove_route(&mut self, ns: NsId, prefix: (IpAddr, u8)) -> Result<(), Error> {
        self.maps.remove_route(ns, prefix)
    }

    /// Says whose frames of a port are that are told apart by `key`.
    ///
    /// # Errors
    /// The map is full, or the kernel refuses.
    pub fn set_member(&mut self, key: &MemberKey, entry: &MemberEntry) -> Result<(), Error> {
        self.maps.set_member(key, entry)
    }

    /// Takes back [`Bpf::set_member`]. A key that is not there is fine.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_member(&mut self, key: &MemberKey) -> Result<(), Error> {
        self.maps.remove_member(key)
    }

    /// Entries that the maps hold, counted: ports that are not empty, local addresses,
    /// routes. Walks all of them.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn entries(&self) -> Result<(usize, usize, usize), Error> {
        self.maps.entries()
    }

    /// What the program did with the port's packets, by `PassReason`, all CPUs together.
    ///
    /// # Errors
    /// The port is not below `max_ports`, or the kernel refuses.
    pub fn counters(&self, port: PortId) -> Result<[Counter; PassReason::ALL.len()], Error> {
        self.maps.counters(port)
    }

    /// Sets the port's counters to zero. Packets counted meanwhile may be lost.
    ///
    /// # Errors
    /// As [`Bpf::counters`].
    pub fn clear_counters(&mut self, port: PortId) -> Result<(), Error> {
        self.maps.clear_counters(port)
    }
}
