//! The whole state of a namespace, complete or an error.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::Error;
use super::decode::{self, NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN, Tally};
use super::event::Event;
use super::request::{self, DUMPS, Dump};
use crate::netns::Netns;
use crate::sys;

/// `NLM_F_DUMP_INTR`: the state changed during the dump, which may be torn.
const NLM_F_DUMP_INTR: u16 = 0x10;
/// How often a torn dump is asked for again.
const TRIES: u32 = 20;
/// Larger than any datagram of a dump (the kernel fills at most 32 KiB unless a
/// single message needs more).
const BUFFER: usize = 256 << 10;

/// Everything about the namespace, as if it had just happened: links, next-hop
/// objects, settings, rules, addresses, routes of all tables, neighbours. Blocks
/// for as long as the kernel takes to tell (about 1 s a million routes).
///
/// # Errors
/// Where the namespace cannot be entered, or a part of its state not be had.
pub fn dump(ns: &Netns) -> Result<Vec<Event>, Error> {
    let call = |call, source| Error::Socket { name: ns.name().to_owned(), call, source };
    let socket = ns.run(|| Socket::new(NETLINK_ROUTE))?.map_err(|e| call("socket", e))?;
    socket.connect(&SocketAddr::new(0, 0)).map_err(|e| call("connect", e))?;
    sys::netns::receive_buffer(socket.as_fd(), 4 << 20)
        .map_err(|e| call("setsockopt(SO_RCVBUF)", e.source))?;
    let mut dumper =
        Dumper { socket, buffer: vec![0; BUFFER], sequence: 0, tally: Tally::default() };
    let mut events = Vec::new();
    for what in DUMPS {
        dumper.steady(what, &mut events).map_err(|failure| {
            let name = ns.name().to_owned();
            match failure {
                Failure::Torn => Error::Unsteady { name, what: what.what },
                Failure::Refused(source) => Error::Refused { name, what: what.what, source },
            }
        })?;
    }
    if dumper.tally.malformed > 0 {
        tracing::warn!(
            netns = ns.name(),
            count = dumper.tally.malformed,
            "messages of a netlink dump could not be read"
        );
    }
    Ok(events)
}

enum Failure {
    Torn,
    Refused(io::Error),
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        Self::Refused(e)
    }
}

struct Dumper {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
    tally: Tally,
}

impl Dumper {
    /// Dumps until one dump comes through whole.
    fn steady(&mut self, what: Dump, events: &mut Vec<Event>) -> Result<(), Failure> {
        let before = events.len();
        for _ in 0..TRIES {
            match self.once(what, events) {
                Err(Failure::Torn) => events.truncate(before),
                done => return done,
            }
        }
        Err(Failure::Torn)
    }

    fn once(&mut self, what: Dump, events: &mut Vec<Event>) -> Result<(), Failure> {
        self.sequence += 1;
        self.socket.send(&request::dump(what, self.sequence), 0)?;
        let mut torn = false;
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
                    _ => decode::decode_one(&m, events, &mut self.tally),
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
