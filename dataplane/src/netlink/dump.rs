//! The whole state of a namespace, complete or an error.

use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::os::fd::AsFd;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::decode::{self, Message, NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN, Tally};
use super::event::Event;
use super::request::{self, DUMPS};
use super::{Error, watch};
use crate::netns::Netns;
use crate::sys;

/// `NLM_F_DUMP_INTR`: the state changed during the dump, which may be torn.
const NLM_F_DUMP_INTR: u16 = 0x10;
/// How often a torn dump is asked for again.
const TRIES: u32 = 20;
/// Larger than any datagram of a dump (the kernel fills at most 32 KiB unless a
/// single message needs more).
const BUFFER: usize = 256 << 10;

/// Everything about the namespace, as if it had just happened: links, queueing
/// disciplines, next-hop objects, settings, rules, addresses, routes of all tables,
/// neighbours, hooks. Blocks for as long as the kernel takes to tell (about 1 s a
/// million routes).
///
/// # Errors
/// Where the namespace cannot be entered, or a part of its state not be had.
pub fn dump(ns: &Netns) -> Result<Vec<Event>, Error> {
    let call = |(call, source)| Error::Socket { name: ns.name().to_owned(), call, source };
    let mut dumper = Dumper::open(ns, NETLINK_ROUTE)?.map_err(call)?;
    let mut tally = Tally::default();
    let mut events = Vec::new();
    for what in DUMPS {
        let request = |sequence| request::dump(what, sequence);
        dumper
            .steady(request, &mut events, |m, out| decode::decode_one(m, out, &mut tally))
            .map_err(|failure| {
                let name = ns.name().to_owned();
                match failure {
                    Failure::Torn => Error::Unsteady { name, what: what.what },
                    Failure::Refused(source) => Error::Refused { name, what: what.what, source },
                }
            })?;
    }
    if tally.malformed > 0 {
        tracing::warn!(
            netns = ns.name(),
            count = tally.malformed,
            "messages of a netlink dump could not be read"
        );
    }
    events.extend(watch::everything(ns)?);
    Ok(events)
}

/// Why an answer was not had.
pub(super) enum Failure {
    /// The state changed in each of several tries.
    Torn,
    /// The kernel's answer.
    Refused(io::Error),
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        Self::Refused(e)
    }
}

/// A socket for questions with long answers.
pub(super) struct Dumper {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Dumper {
    /// Opens a socket of the protocol in the namespace. The inner error: the call
    /// that failed, and why.
    pub(super) fn open(
        ns: &Netns,
        protocol: isize,
    ) -> Result<Result<Self, (&'static str, io::Error)>, Error> {
        let opened = ns.run(|| Socket::new(protocol))?;
        Ok(opened.map_err(|e| ("socket", e)).and_then(|socket| {
            socket.connect(&SocketAddr::new(0, 0)).map_err(|e| ("connect", e))?;
            sys::netns::receive_buffer(socket.as_fd(), 4 << 20)
                .map_err(|e| ("setsockopt(SO_RCVBUF)", e.source))?;
            Ok(Self { socket, buffer: vec![0; BUFFER], sequence: 0 })
        }))
    }

    /// Asks until one answer comes through whole, and gives each message to `each`,
    /// with the list to append to.
    pub(super) fn steady<T>(
        &mut self,
        request: impl Fn(u32) -> Vec<u8>,
        out: &mut Vec<T>,
        mut each: impl FnMut(&Message<'_>, &mut Vec<T>),
    ) -> Result<(), Failure> {
        self.until(request, out, |_, m, out| {
            each(m, out);
            ControlFlow::Continue(())
        })
    }

    /// The same, until `each` has heard enough; it is also told how many messages of the
    /// answer came before. The socket is of no more use then: the rest of the answer is
    /// in its way.
    pub(super) fn until<T>(
        &mut self,
        request: impl Fn(u32) -> Vec<u8>,
        out: &mut Vec<T>,
        mut each: impl FnMut(usize, &Message<'_>, &mut Vec<T>) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let before = out.len();
        for _ in 0..TRIES {
            match self.once(&request, &mut |i, m| each(i, m, out)) {
                Err(Failure::Torn) => out.truncate(before),
                done => return done,
            }
        }
        Err(Failure::Torn)
    }

    fn once(
        &mut self,
        request: &impl Fn(u32) -> Vec<u8>,
        each: &mut impl FnMut(usize, &Message<'_>) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        self.sequence += 1;
        self.socket.send(&request(self.sequence), 0)?;
        let (mut torn, mut heard) = (false, 0);
        loop {
            let n = self.receive()?;
            let (messages, _) = decode::messages(&self.buffer[..n]);
            for m in messages {
                // Left over of a dump that failed.
                if m.sequence != self.sequence {
                    continue;
                }
                torn |= m.flags & NLM_F_DUMP_INTR != 0;
                match m.kind {
                    NLMSG_DONE | NLMSG_ERROR => {
                        let code = decode::error_code(m.payload).unwrap_or(0);
                        return finished(code, torn);
                    }
                    NLMSG_OVERRUN => return Err(Failure::Torn),
                    _ if each(heard, &m).is_break() => return Ok(()),
                    _ => heard += 1,
                }
            }
        }
    }

    /// The next datagram. One that does not fit tore the dump.
    fn receive(&mut self) -> Result<usize, Failure> {
        loop {
            let mut room = &mut self.buffer[..];
            match self.socket.recv(&mut room, libc::MSG_TRUNC) {
                Ok(n) if n > BUFFER => return Err(Failure::Torn),
                Ok(n) => return Ok(n),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => return Err(Failure::Torn),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// How a dump ended. A family or a kind of object that this kernel does not have
/// is one of which there are none.
fn finished(code: i32, torn: bool) -> Result<(), Failure> {
    match -code {
        0 if torn => Err(Failure::Torn),
        0 | libc::EOPNOTSUPP | libc::EAFNOSUPPORT => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno).into()),
    }
}
