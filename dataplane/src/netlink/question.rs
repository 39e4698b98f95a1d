//! Single questions to the kernel, for what no event tells.

use std::os::fd::{AsFd, AsRawFd};

use netlink_sys::protocols::NETLINK_ROUTE;

use super::decode::{self, Message, Tally};
use super::dump::{Dumper, Failure};
use super::event::{Event, Link};
use super::{Error, request};
use crate::id::IfIndex;
use crate::netns::Netns;

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
        let read = |m: &Message<'_>| {
            let (mut events, mut tally) = (Vec::new(), Tally::default());
            decode::decode_one(m, &mut events, &mut tally);
            events.into_iter().find_map(|event| match event {
                Event::Link(link) => Some(link),
                _ => None,
            })
        };
        match self.ask("a link", |s| request::link(ifindex, s), read) {
            Ok(links) => Ok(links.into_iter().find(|l| l.ifindex == ifindex)),
            Err(Error::Refused { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {
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
