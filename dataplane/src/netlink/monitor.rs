//! One namespace's events, as they happen.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use tokio::io::unix::AsyncFd;

use super::decode::{Tally, decode};
use super::event::Event;
use super::watch::Watch;
use super::{Error, request, scratch};
use crate::id::IfIndex;
use crate::netns::Netns;
use crate::sys;

/// `RTNLGRP_*` of include/uapi/linux/rtnetlink.h: links, neighbours, and of both
/// families addresses, routes, rules and settings, queueing disciplines, and next-hop
/// objects.
const GROUPS: [u32; 12] = [1, 3, 4, 5, 7, 8, 9, 11, 19, 24, 25, 32];
/// Bytes of messages that may wait in the kernel: some 50,000 route changes.
const RECEIVE_BUFFER: u32 = 32 << 20;
/// Sets another size, so that tests can make it overrun.
const RECEIVE_BUFFER_VAR: &str = "NSPLANE_NETLINK_BUFFER";
/// Datagrams that one batch takes: a flood must not keep the caller from its
/// other work.
const BATCH: usize = 4096;

/// Sockets in a namespace that hear of every change to its network state.
///
/// They hold the namespace alive: drop the monitor when it is to go.
#[derive(Debug)]
pub struct Monitor {
    socket: AsyncFd<Socket>,
    name: String,
    tally: Tally,
    /// Devices that were heard of.
    devices: BTreeSet<IfIndex>,
    hooks: Watch,
}

impl Monitor {
    /// Subscribes to the namespace's changes. Dump after this, not before.
    ///
    /// # Errors
    /// Where the namespace cannot be entered, or a group not be joined.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O.
    pub fn open(ns: &Arc<Netns>) -> Result<Self, Error> {
        let name = ns.name().to_owned();
        let call = |call, source| Error::Socket { name: name.clone(), call, source };
        let mut socket = ns.run(|| Socket::new(NETLINK_ROUTE))?.map_err(|e| call("socket", e))?;
        let size = std::env::var(RECEIVE_BUFFER_VAR).ok().and_then(|v| v.parse().ok());
        sys::netns::receive_buffer(socket.as_fd(), size.unwrap_or(RECEIVE_BUFFER))
            .map_err(|e| call("setsockopt(SO_RCVBUF)", e.source))?;
        socket.set_non_blocking(true).map_err(|e| call("ioctl(FIONBIO)", e))?;
        socket.bind_auto().map_err(|e| call("bind", e))?;
        for group in GROUPS {
            socket
                .add_membership(group)
                .map_err(|e| call("setsockopt(NETLINK_ADD_MEMBERSHIP)", e))?;
        }
        let socket = sys::readable::netlink(socket).map_err(|e| call("epoll_ctl", e))?;
        Ok(Self {
            socket,
            name,
            tally: Tally::default(),
            devices: BTreeSet::new(),
            hooks: Watch::open(ns)?,
        })
    }

    /// Waits for events and returns all that are queued, at least one, at most
    /// a few thousand messages' worth. Safe to cancel: nothing is lost.
    ///
    /// # Errors
    /// Where the socket fails; lost messages are [`Event::Overrun`], not an error.
    pub async fn next(&mut self) -> Result<Vec<Event>, Error> {
        loop {
            let ready = tokio::select! {
                ready = self.socket.readable() => ready,
                events = self.hooks.next() => return events,
            };
            let mut ready = match ready {
                Ok(ready) => ready,
                Err(source) => return Err(self.failed("epoll_wait", source)),
            };
            let socket = ready.get_inner();
            let mut events = Vec::new();
            let tally = &mut self.tally;
            let drained = scratch::with(|buffer| drain(socket, buffer, &mut events, tally));
            if matches!(drained, Ok(true)) {
                ready.clear_ready();
            }
            drained.map_err(|source| self.failed("recv", source))?;
            self.notice_devices(&events);
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }

    /// To be called before a dump. What has no notices is told when it is not as it was
    /// told before; who takes over a dump instead may have been told another thing.
    /// So all of it is told again.
    pub fn forget(&mut self) {
        self.hooks.forget();
    }

    /// What is queued now, without waiting; the replay after a dump.
    ///
    /// # Errors
    /// As [`Monitor::next`].
    pub fn queued(&mut self) -> Result<Vec<Event>, Error> {
        let mut events = self.hooks.queued()?;
        let mut done = false;
        while !done {
            let socket = self.socket.get_ref();
            let tally = &mut self.tally;
            done = scratch::with(|buffer| drain(socket, buffer, &mut events, tally))
                .map_err(|source| self.failed("recv", source))?;
        }
        self.notice_devices(&events);
        Ok(events)
    }

    /// Asks the kernel to resolve a neighbour, or to confirm a stale one. Does not
    /// wait; the answer is a [`Event::Neighbor`], a refusal is counted.
    ///
    /// # Errors
    /// Where the request cannot be sent.
    pub fn resolve(&self, ifindex: IfIndex, addr: IpAddr) -> Result<(), Error> {
        let request = request::resolve(ifindex, addr);
        let kernel = SocketAddr::new(0, 0);
        let sent = self.socket.get_ref().send_to(&request, &kernel, 0);
        sent.map(|_| ()).map_err(|source| self.failed("sendto", source))
    }

    /// Messages that gave no event so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// A device that was not there before is looked at for programs.
    fn notice_devices(&mut self, events: &[Event]) {
        for event in events {
            match event {
                Event::Link(link) if self.devices.insert(link.ifindex) => {
                    self.hooks.has_another_device();
                }
                Event::LinkGone(ifindex) => drop(self.devices.remove(ifindex)),
                _ => {}
            }
        }
    }

    /// The socket, for tests that spoil it.
    #[cfg(test)]
    pub(crate) fn as_socket(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }

    fn failed(&self, call: &'static str, source: io::Error) -> Error {
        Error::Socket { name: self.name.clone(), call, source }
    }
}

/// Reads up to a batch of datagrams. True: the queue is empty.
fn drain(
    socket: &Socket,
    buffer: &mut [u8],
    events: &mut Vec<Event>,
    tally: &mut Tally,
) -> io::Result<bool> {
    for _ in 0..BATCH {
        let mut room = &mut buffer[..];
        // MSG_TRUNC: the length is the message's, also where it did not fit.
        match socket.recv(&mut room, libc::MSG_TRUNC) {
            Ok(n) => match buffer.get(..n) {
                Some(datagram) => decode(datagram, events, tally),
                None => events.push(Event::Overrun),
            },
            Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                empty(socket, buffer)?;
                events.push(Event::Overrun);
                return Ok(true);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(false)
}

/// Throws away what is queued, to the last message.
///
/// After a loss the kernel queues nothing more until the socket was read empty, and
/// does not say again that it lost something (net/netlink/af_netlink.c,
/// `NETLINK_S_CONGESTED`): a dump before that moment would miss what is lost after it.
/// And what is queued is older than the loss: applied over a dump, it would bring back
/// what was deleted since.
fn empty(socket: &Socket, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        match socket.recv(&mut &mut buffer[..], 0) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(e) => return Err(e),
        }
    }
}
