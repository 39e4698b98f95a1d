//! Hooks of a namespace: read whole, and again whenever something of them changes.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_XFRM};
use netlink_sys::{Socket, SocketAddr};
use tokio::io::unix::AsyncFd;

use super::around::Looked;
use super::decode::{self, hook};
use super::dump::{Dumper, Failure};
use super::event::Event;
use super::hook::{Hook, HookSource};
use super::look::Look;
use super::programs::Programs;
use super::{Error, nftables, request, scratch};
use crate::netns::Netns;
use crate::sys;

/// `NFNLGRP_NFTABLES` of include/uapi/linux/netfilter/nfnetlink.h.
const NFTABLES: &[u32] = &[7];
/// `XFRMNLGRP_EXPIRE` and `_POLICY` of include/uapi/linux/xfrm.h. A policy that
/// expires is deleted without another notice.
const XFRM: &[u32] = &[2, 4];
/// Notices that may wait in the kernel, in bytes. Those that are lost cost nothing:
/// a loss means to read again, as a notice does.
const RECEIVE_BUFFER: u32 = 256 << 10;
/// Notices that are read before the state is.
const BATCH: usize = 4096;

/// Everything that netlink does not dump with the rest, as it is now.
///
/// # Errors
/// Where the namespace cannot be entered.
pub(super) fn everything(ns: &Netns) -> Result<Vec<Event>, Error> {
    let mut events = Look::default().look(ns);
    events.extend(Programs::default().look(ns));
    events.extend(nftables::read(ns)?.events());
    events.push(xfrm(ns)?);
    Ok(events)
}

/// What has notices.
#[derive(Clone, Copy)]
enum Part {
    Nftables,
    Xfrm,
}

/// Hooks of a source that the kernel has, but will not tell: they may be any.
pub(super) fn unknown(source: HookSource, failure: Failure) -> Hook {
    let why = match failure {
        Failure::Torn => "it changes faster than it can be read".to_owned(),
        Failure::Refused(e) => e.to_string(),
    };
    Hook { family: None, name: format!("{source}, which cannot be read: {why}"), on_device: true }
}

/// IPsec policies, all of them, as they are now.
fn xfrm(ns: &Netns) -> Result<Event, Error> {
    let mut hooks = Vec::new();
    let read = |m: &decode::Message<'_>, out: &mut Vec<Hook>| {
        if let Some(hook) = hook::policy(m) {
            hook.join(out);
        }
    };
    let asked = ask(ns, NETLINK_XFRM, |dumper| {
        dumper.steady(request::policies, &mut hooks, read)?;
        dumper.steady(request::default_policies, &mut hooks, read)
    })?;
    match asked {
        // What the kernel does not have, it has none of.
        Err(Failure::Refused(e)) if absent(&e) => {}
        Err(failure) => hooks = vec![unknown(HookSource::Xfrm, failure)],
        Ok(()) => {}
    }
    Ok(Event::Hooks(HookSource::Xfrm, hooks))
}

/// Asks by a socket of the protocol in the namespace.
pub(super) fn ask<T>(
    ns: &Netns,
    protocol: isize,
    f: impl FnOnce(&mut Dumper) -> Result<T, Failure>,
) -> Result<Result<T, Failure>, Error> {
    Ok(match Dumper::open(ns, protocol)? {
        Ok(mut dumper) => f(&mut dumper),
        Err((_, source)) => Err(source.into()),
    })
}

/// The kernel was built without it, or its module is not loaded.
pub(super) fn absent(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(libc::EPROTONOSUPPORT | libc::ECONNREFUSED | libc::ENOENT | libc::EOPNOTSUPP)
    )
}

/// Hears that something of a namespace's hooks changed, and reads it.
#[derive(Debug)]
pub(super) struct Watch {
    ns: Arc<Netns>,
    nftables: Notices,
    xfrm: Notices,
    looked: Rc<Looked>,
}

impl Watch {
    /// Subscribes. A part that the kernel does not have is silent.
    pub(super) fn open(ns: &Arc<Netns>) -> Result<Self, Error> {
        Ok(Self {
            nftables: Notices::open(ns, NETLINK_NETFILTER, NFTABLES)?,
            xfrm: Notices::open(ns, NETLINK_XFRM, XFRM)?,
            ns: ns.clone(),
            looked: Looked::new(ns),
        })
    }

    /// Waits for a change. Safe to cancel: what was heard is read before the next wait.
    pub(super) async fn next(&mut self) -> Result<Vec<Event>, Error> {
        loop {
            let heard = tokio::select! {
                heard = self.nftables.next() => heard.map(|()| Part::Nftables),
                heard = self.xfrm.next() => heard.map(|()| Part::Xfrm),
                () = self.looked.changed() => match self.looked.look() {
                    events if events.is_empty() => continue,
                    events => return Ok(events),
                },
            };
            let part = heard.map_err(|source| self.failed(source))?;
            return self.read(part);
        }
    }

    /// What changed up to now, without waiting.
    pub(super) fn queued(&mut self) -> Result<Vec<Event>, Error> {
        let mut events = self.looked.look();
        let heard = [(self.nftables.queued(), Part::Nftables), (self.xfrm.queued(), Part::Xfrm)];
        for (heard, part) in heard {
            if heard.map_err(|source| self.failed(source))? {
                events.extend(self.read(part)?);
            }
        }
        Ok(events)
    }

    /// All hooks of a part, as they are now.
    fn read(&mut self, part: Part) -> Result<Vec<Event>, Error> {
        match part {
            Part::Nftables => {
                let state = nftables::read(&self.ns)?;
                self.nftables.counts = state.changes;
                Ok(state.events().into())
            }
            Part::Xfrm => Ok(vec![xfrm(&self.ns)?]),
        }
    }

    /// Everything that is looked at is told again by the next look.
    pub(super) fn forget(&self) {
        self.looked.forget();
    }

    /// The namespace has another device: it may have brought programs along.
    pub(super) fn has_another_device(&self) {
        self.looked.has_another_device();
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Socket { name: self.ns.name().to_owned(), call: "recv", source }
    }
}

type Counts = fn(&decode::Message<'_>) -> bool;

/// Notices of one netlink protocol.
#[derive(Debug)]
struct Notices {
    /// None: this kernel has no such protocol.
    socket: Option<AsyncFd<Socket>>,
    /// By a message: after it the state may be another than was read last.
    counts: Counts,
}

impl Notices {
    /// All that is heard counts.
    fn open(ns: &Netns, protocol: isize, groups: &[u32]) -> Result<Self, Error> {
        let socket = match ns.run(|| Socket::new(protocol))? {
            Err(e) if absent(&e) => None,
            Err(e) => return Err(Self::failed(ns, "socket", e)),
            Ok(socket) => Some(Self::subscribe(ns, socket, groups)?),
        };
        Ok(Self { socket, counts: |_| true })
    }

    fn subscribe(ns: &Netns, mut socket: Socket, groups: &[u32]) -> Result<AsyncFd<Socket>, Error> {
        let call = |call| move |source| Self::failed(ns, call, source);
        sys::netns::receive_buffer(socket.as_fd(), RECEIVE_BUFFER)
            .map_err(|e| call("setsockopt(SO_RCVBUF)")(e.source))?;
        socket.set_non_blocking(true).map_err(call("ioctl(FIONBIO)"))?;
        socket.bind(&SocketAddr::new(0, 0)).map_err(call("bind"))?;
        for group in groups {
            socket.add_membership(*group).map_err(call("setsockopt(NETLINK_ADD_MEMBERSHIP)"))?;
        }
        sys::readable::netlink(socket).map_err(call("epoll_ctl"))
    }

    /// Waits until something came that counts.
    async fn next(&mut self) -> io::Result<()> {
        let Some(socket) = &self.socket else { return std::future::pending().await };
        loop {
            let mut ready = socket.readable().await?;
            let (counts, empty) = drain(ready.get_inner(), self.counts)?;
            if empty {
                ready.clear_ready();
            }
            if counts {
                return Ok(());
            }
        }
    }

    fn queued(&mut self) -> io::Result<bool> {
        let Some(socket) = &self.socket else { return Ok(false) };
        let mut any = false;
        loop {
            let (counts, empty) = drain(socket.get_ref(), self.counts)?;
            any |= counts;
            if empty {
                return Ok(any);
            }
        }
    }

    fn failed(ns: &Netns, call: &'static str, source: io::Error) -> Error {
        Error::Socket { name: ns.name().to_owned(), call, source }
    }
}

/// Reads what is queued. Did something count, and is the queue empty?
fn drain(socket: &Socket, counts: Counts) -> io::Result<(bool, bool)> {
    scratch::with(|buffer| {
        let (mut any, mut left) = (false, BATCH);
        while left > 0 {
            left -= 1;
            let mut room = &mut buffer[..];
            match socket.recv(&mut room, libc::MSG_TRUNC) {
                Ok(n) => match buffer.get(..n) {
                    Some(datagram) => {
                        let (messages, rest) = decode::messages(datagram);
                        any |= rest || messages.iter().any(counts);
                    }
                    None => any = true,
                },
                // The kernel says so once, and queues nothing until all is read.
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                    (any, left) = (true, usize::MAX);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok((any, true)),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok((any, false))
    })
}
