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
use super::{Error, request, scratch};
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
    events.push(read(ns, Part::Nftables)?);
    events.push(read(ns, Part::Xfrm)?);
    Ok(events)
}

/// What has notices.
#[derive(Clone, Copy)]
enum Part {
    Nftables,
    Xfrm,
}

/// All hooks of a part, as they are now. What the kernel has, but will not tell,
/// may be any: such a part is one hook itself.
fn read(ns: &Netns, part: Part) -> Result<Event, Error> {
    let (source, answer) = match part {
        Part::Nftables => (HookSource::Nftables, nftables(ns)?),
        Part::Xfrm => (HookSource::Xfrm, xfrm(ns)?),
    };
    let hooks = answer.unwrap_or_else(|failure| {
        let why = match failure {
            Failure::Torn => "it changes faster than it can be read".to_owned(),
            Failure::Refused(e) => e.to_string(),
        };
        let name = format!("{source}, which cannot be read: {why}");
        vec![Hook { family: None, name, on_device: true }]
    });
    Ok(Event::Hooks(source, hooks))
}

type Answer = Result<Vec<Hook>, Failure>;

fn nftables(ns: &Netns) -> Result<Answer, Error> {
    let mut hooks = Vec::new();
    let asked = ask(ns, NETLINK_NETFILTER, |dumper| {
        dumper.steady(request::chains, &mut hooks, |m, out| {
            if let Some(hook) = hook::chain(m) {
                hook.join(out);
            }
        })?;
        dumper.steady(request::flowtables, &mut hooks, |m, out| {
            if let Some(hook) = hook::flowtable(m) {
                hook.join(out);
            }
        })
    })?;
    // nfnetlink's word for a part that is not there is "invalid".
    let absent = |e: &io::Error| absent(e) || e.raw_os_error() == Some(libc::EINVAL);
    Ok(none_if(absent, asked).map(|()| hooks))
}

fn xfrm(ns: &Netns) -> Result<Answer, Error> {
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
    Ok(none_if(absent, asked).map(|()| hooks))
}

fn ask(
    ns: &Netns,
    protocol: isize,
    f: impl FnOnce(&mut Dumper) -> Result<(), Failure>,
) -> Result<Result<(), Failure>, Error> {
    Ok(match Dumper::open(ns, protocol)? {
        Ok(mut dumper) => f(&mut dumper),
        Err((_, source)) => Err(source.into()),
    })
}

/// What the kernel does not have, it has none of.
fn none_if(absent: impl Fn(&io::Error) -> bool, asked: Result<(), Failure>) -> Result<(), Failure> {
    match asked {
        Err(Failure::Refused(e)) if absent(&e) => Ok(()),
        other => other,
    }
}

/// The kernel was built without it, or its module is not loaded.
fn absent(e: &io::Error) -> bool {
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
            nftables: Notices::open(ns, NETLINK_NETFILTER, NFTABLES, hook::changes_chains)?,
            xfrm: Notices::open(ns, NETLINK_XFRM, XFRM, |_| true)?,
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
            return Ok(vec![read(&self.ns, part)?]);
        }
    }

    /// What changed up to now, without waiting.
    pub(super) fn queued(&mut self) -> Result<Vec<Event>, Error> {
        let mut events = self.looked.look();
        let heard = [(self.nftables.queued(), Part::Nftables), (self.xfrm.queued(), Part::Xfrm)];
        for (heard, part) in heard {
            if heard.map_err(|source| self.failed(source))? {
                events.push(read(&self.ns, part)?);
            }
        }
        Ok(events)
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

/// Notices of one netlink protocol.
#[derive(Debug)]
struct Notices {
    /// None: this kernel has no such protocol.
    socket: Option<AsyncFd<Socket>>,
    /// By a message's type: it counts.
    counts: fn(u16) -> bool,
}

impl Notices {
    fn open(
        ns: &Netns,
        protocol: isize,
        groups: &[u32],
        counts: fn(u16) -> bool,
    ) -> Result<Self, Error> {
        let socket = match ns.run(|| Socket::new(protocol))? {
            Err(e) if absent(&e) => None,
            Err(e) => return Err(Self::failed(ns, "socket", e)),
            Ok(socket) => Some(Self::subscribe(ns, socket, groups)?),
        };
        Ok(Self { socket, counts })
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
fn drain(socket: &Socket, counts: fn(u16) -> bool) -> io::Result<(bool, bool)> {
    scratch::with(|buffer| {
        let (mut any, mut left) = (false, BATCH);
        while left > 0 {
            left -= 1;
            let mut room = &mut buffer[..];
            match socket.recv(&mut room, libc::MSG_TRUNC) {
                Ok(n) => match buffer.get(..n) {
                    Some(datagram) => {
                        let (messages, rest) = decode::messages(datagram);
                        any |= rest || messages.iter().any(|m| counts(m.kind));
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
