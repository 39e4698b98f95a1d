//! The whole state of a namespace, complete or an error.

use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::sync::mpsc::{channel, sync_channel};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::decode::{self, Message, NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN, Tally};
use super::event::{Event, Family};
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
/// Datagrams of an answer that are not worth a thread: some thousand routes.
const SHORT: usize = 8;
/// Datagrams that may wait to be read.
const AHEAD: usize = 32;

/// Who is told what a dump says.
pub trait Told {
    /// One thing that is.
    fn tell(&mut self, event: Event);
    /// What was told of a family's routes is void; they are told again.
    fn forget_routes(&mut self, family: Family);
}

/// Everything about the namespace, as if it had just happened: links, queueing
/// disciplines, next-hop objects, settings, rules, addresses, routes of all tables,
/// neighbours, hooks. Blocks for as long as the kernel takes to tell (about 1 s a
/// million routes); what it told already is read meanwhile, by this thread.
///
/// # Errors
/// Where the namespace cannot be entered, or a part of its state not be had.
pub fn dump(ns: &Netns, to: &mut impl Told) -> Result<(), Error> {
    let call = |(call, source)| Error::Socket { name: ns.name().to_owned(), call, source };
    let mut dumper = Dumper::open(ns, NETLINK_ROUTE)?.map_err(call)?;
    let mut tally = Tally::default();
    for what in DUMPS {
        let request = |sequence| request::dump(what, sequence);
        let done = match what.routes() {
            Some(family) => dumper.routes(family, request, to, &mut tally),
            None => {
                let mut events = Vec::new();
                let read = |m: &Message<'_>, out: &mut _| decode::decode_one(m, out, &mut tally);
                let done = dumper.steady(request, &mut events, read);
                events.into_iter().for_each(|event| to.tell(event));
                done
            }
        };
        done.map_err(|failure| {
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
    watch::everything(ns)?.into_iter().for_each(|event| to.tell(event));
    Ok(())
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

    /// Tells routes as they come: there may be more than one wants to have twice.
    fn routes(
        &mut self,
        family: Family,
        request: impl Fn(u32) -> Vec<u8>,
        to: &mut impl Told,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let mut events = Vec::new();
        for _ in 0..TRIES {
            let done = self.once(&request, &mut |_, m| {
                decode::decode_one(m, &mut events, tally);
                events.drain(..).for_each(|event| to.tell(event));
                ControlFlow::Continue(())
            });
            match done {
                Err(Failure::Torn) => to.forget_routes(family),
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
        let mut answer = Answer { sequence: self.sequence, torn: false, heard: 0 };
        for _ in 0..SHORT {
            let n = receive(&self.socket, &mut self.buffer)?;
            if let Some(done) = answer.read(&self.buffer[..n], each) {
                return done;
            }
        }
        self.ahead(answer, each)
    }

    /// The rest of a long answer. The kernel makes it while it is asked for more: that is
    /// another thread's to do, while this one reads what came.
    fn ahead(
        &self,
        mut answer: Answer,
        each: &mut impl FnMut(usize, &Message<'_>) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let (filled, to_read) = sync_channel::<Result<(Vec<u8>, usize), Failure>>(AHEAD);
        let (done_with, emptied) = channel::<Vec<u8>>();
        let (socket, sequence) = (&self.socket, answer.sequence);
        std::thread::scope(|scope| {
            let reader = std::thread::Builder::new().name("netlink dump".to_owned());
            let receiving = reader.spawn_scoped(scope, move || {
                loop {
                    let mut buffer = emptied.try_recv().unwrap_or_else(|_| vec![0; BUFFER]);
                    let received = receive(socket, &mut buffer).map(|n| (buffer, n));
                    let ends = |(b, n): &(Vec<u8>, usize)| ends(&b[..*n], sequence);
                    let last = received.as_ref().map_or(true, ends);
                    if filled.send(received).is_err() || last {
                        return;
                    }
                }
            });
            receiving?;
            for datagram in to_read {
                let (buffer, n) = datagram?;
                if let Some(done) = answer.read(&buffer[..n], each) {
                    return done;
                }
                // Nobody there to take it back: it was the last one.
                let _ = done_with.send(buffer);
            }
            Err(Failure::Torn)
        })
    }
}

/// The next datagram. One that does not fit tore the dump.
fn receive(socket: &Socket, buffer: &mut [u8]) -> Result<usize, Failure> {
    loop {
        let mut room = &mut *buffer;
        match socket.recv(&mut room, libc::MSG_TRUNC) {
            Ok(n) if n > BUFFER => return Err(Failure::Torn),
            Ok(n) => return Ok(n),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => return Err(Failure::Torn),
            Err(e) => return Err(e.into()),
        }
    }
}

/// An answer while it is read.
struct Answer {
    sequence: u32,
    torn: bool,
    /// Messages of it that came.
    heard: usize,
}

impl Answer {
    /// Gives each message of a datagram to `each`, until that has heard enough. Something, if
    /// the answer has ended.
    fn read(
        &mut self,
        datagram: &[u8],
        each: &mut impl FnMut(usize, &Message<'_>) -> ControlFlow<()>,
    ) -> Option<Result<(), Failure>> {
        let (messages, _) = decode::messages(datagram);
        // Others are left over of a dump that failed.
        for m in messages.iter().filter(|m| m.sequence == self.sequence) {
            self.torn |= m.flags & NLM_F_DUMP_INTR != 0;
            match m.kind {
                NLMSG_DONE | NLMSG_ERROR => {
                    let code = decode::error_code(m.payload).unwrap_or(0);
                    return Some(finished(code, self.torn));
                }
                NLMSG_OVERRUN => return Some(Err(Failure::Torn)),
                _ if each(self.heard, m).is_break() => return Some(Ok(())),
                _ => self.heard += 1,
            }
        }
        None
    }
}

/// With this datagram an answer ends.
fn ends(datagram: &[u8], sequence: u32) -> bool {
    let (messages, _) = decode::messages(datagram);
    let ends = |kind| matches!(kind, NLMSG_DONE | NLMSG_ERROR | NLMSG_OVERRUN);
    messages.iter().any(|m| m.sequence == sequence && ends(m.kind))
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
