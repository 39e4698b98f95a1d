//! Single questions to the kernel, for what no event tells.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use netlink_sys::protocols::NETLINK_ROUTE;

use super::decode::{self, Message, Tally};
use super::dump::{Dumper, Failure};
use super::event::{Event, Link, Neighbor, Route};
use super::{Error, request};
use crate::id::IfIndex;
use crate::netns::Netns;

/// `RTM_F_CLONED`: what is told is what a route leads to, and no route.
const CLONED: u32 = 0x200;

/// A packet of which the kernel is to say where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteQuestion {
    /// The device that it arrives at.
    pub iif: IfIndex,
    /// Where it is for.
    pub dst: IpAddr,
    /// Where it is from; of the same family.
    pub src: IpAddr,
    /// TOS or traffic class.
    pub tos: u8,
    /// The protocol, if the question is to name one: the kernel takes TCP, UDP and ICMP,
    /// and takes none for UDP.
    pub protocol: Option<u8>,
    /// Source and destination port; 0 is not named.
    pub ports: (u16, u16),
}

/// A socket in one namespace to ask by.
pub struct Asker {
    name: String,
    dumper: Dumper,
}

impl Asker {
    /// Opens one.
    ///
    /// # Errors
    /// The namespace cannot be entered, or no socket be had.
    pub fn open(ns: &Netns) -> Result<Self, Error> {
        let call = |(call, source)| Error::Socket { name: ns.name().to_owned(), call, source };
        let dumper = Dumper::open(ns, NETLINK_ROUTE)?.map_err(call)?;
        Ok(Self { name: ns.name().to_owned(), dumper })
    }

    /// The number by which the namespace knows another; None: it knows it by none.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn nsid(&mut self, of: &Netns) -> Result<Option<i32>, Error> {
        let fd = of.as_fd().as_raw_fd();
        let answers = self.ask("a namespace's number", |s| request::nsid(fd, s), decode::nsid)?;
        Ok(answers.into_iter().next().filter(|id| *id >= 0))
    }

    /// A device as it is now; None: there is none.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn link(&mut self, ifindex: IfIndex) -> Result<Option<Link>, Error> {
        let read = |m: &Message<'_>| match event(m)? {
            Event::Link(link) => Some(link),
            _ => None,
        };
        match self.ask("a link", |s| request::link(ifindex, s), read) {
            Ok(links) => Ok(links.into_iter().find(|l| l.ifindex == ifindex)),
            Err(Error::Refused { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// What the kernel does with a packet: the way it takes, or with `matched` the route
    /// itself. The inner error is what the kernel does instead: it is the errno that
    /// routing ends with (no route, a blackhole, a source that is not believed).
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn route(
        &mut self,
        question: &RouteQuestion,
        matched: bool,
    ) -> Result<Result<Route, io::Error>, Error> {
        let read = |m: &Message<'_>| match route_event(m)? {
            Event::Route(route, _) => Some(route),
            _ => None,
        };
        match self.ask("a route", |s| request::route(question, matched, s), read) {
            Ok(routes) => Ok(routes.into_iter().next().ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "an answer that cannot be read")
            })),
            Err(Error::Refused { source, .. }) => Ok(Err(source)),
            Err(e) => Err(e),
        }
    }

    /// A neighbour as it is now; None: the kernel knows none.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn neighbor(&mut self, ifindex: IfIndex, addr: IpAddr) -> Result<Option<Neighbor>, Error> {
        let read = |m: &Message<'_>| match event(m)? {
            Event::Neighbor(neighbor) => Some(neighbor),
            _ => None,
        };
        match self.ask("a neighbour", |s| request::neighbor(ifindex, addr, s), read) {
            Ok(found) => Ok(found.into_iter().next()),
            Err(Error::Refused { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    fn ask<T>(
        &mut self,
        what: &'static str,
        request: impl Fn(u32) -> Vec<u8>,
        read: impl Fn(&Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let mut out = Vec::new();
        let asked = self.dumper.steady(request, &mut out, |m, out| out.extend(read(m)));
        let name = || self.name.clone();
        asked.map(|()| out).map_err(|failure| match failure {
            Failure::Torn => Error::Unsteady { name: name(), what },
            Failure::Refused(source) => Error::Refused { name: name(), what, source },
        })
    }
}

/// The event that a message is.
fn event(m: &Message<'_>) -> Option<Event> {
    let (mut events, mut tally) = (Vec::new(), Tally::default());
    decode::decode_one(m, &mut events, &mut tally);
    events.into_iter().next()
}

/// A route message as an event, also one about a way, which says that it is no route.
fn route_event(m: &Message<'_>) -> Option<Event> {
    let mut payload = m.payload.to_vec();
    if let Some(flags) = payload.get_mut(8..12).and_then(|b| <&mut [u8; 4]>::try_from(b).ok()) {
        *flags = (u32::from_ne_bytes(*flags) & !CLONED).to_ne_bytes();
    }
    event(&Message { payload: &payload, ..*m })
}
