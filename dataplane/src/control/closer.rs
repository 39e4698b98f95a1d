//! Closing sockets and program links, which blocks, on threads of its own.
//!
//! The kernel waits some 10 ms for readers to be done (RCU) with each socket and each
//! link. Done one after the other on the control thread, a hundred namespaces that go
//! at once would keep it from everything else for seconds; several threads wait at the
//! same time, and control at none.
//!
//! What comes here is out of use already: the XSKMAP has no entry of it, and no worker
//! holds a frame of it. What is *not* free yet: the frames, the port's slot, and the
//! device, which another namespace may be waiting for. So each closing has a number
//! ([`Ticket`]); who must find a device free waits until all up to a number are done
//! ([`Closer::passed`]).

use std::collections::BTreeSet;
use std::thread::{self, JoinHandle};

use crossbeam::channel::{self, Sender};
use tokio::sync::mpsc;

use crate::bpf::Attached;
use crate::xsk::{Frame, Queue};

/// Threads that close. They sleep in the kernel nearly all of the time.
const THREADS: usize = 16;
/// They call and wait: no more is needed.
const STACK: usize = 128 << 10;

/// The number of a closing; later ones have greater numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What is to be closed.
#[derive(Debug, Default)]
pub struct Job {
    /// Sockets.
    pub queues: Vec<Queue>,
    /// The program's link.
    pub attached: Option<Attached>,
}

/// What was closed.
#[derive(Debug)]
pub struct Closed {
    /// Which closing it was.
    pub ticket: Ticket,
    /// The frames that the sockets had.
    pub frames: Vec<Frame>,
}

/// The threads and what they have to do.
pub struct Closer {
    jobs: Option<Sender<(Ticket, Job)>>,
    closed: mpsc::UnboundedReceiver<Closed>,
    threads: Vec<JoinHandle<()>>,
    last: Ticket,
    open: BTreeSet<Ticket>,
}

impl Closer {
    /// Starts the threads.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start() -> std::io::Result<Self> {
        let (jobs, inbox) = channel::unbounded::<(Ticket, Job)>();
        let (outbox, closed) = mpsc::unbounded_channel();
        let mut threads = Vec::new();
        for _ in 0..THREADS {
            let (inbox, outbox) = (inbox.clone(), outbox.clone());
            let work = move || {
                for (ticket, job) in inbox {
                    // Nobody listens only when the process ends.
                    let _ = outbox.send(Closed { ticket, frames: job.close() });
                }
            };
            let thread = thread::Builder::new().name("nsplane-close".to_owned()).stack_size(STACK);
            threads.push(thread.spawn(work)?);
        }
        let (last, open) = (Ticket::default(), BTreeSet::new());
        Ok(Self { jobs: Some(jobs), closed, threads, last, open })
    }

    /// Begins to close.
    pub fn close(&mut self, job: Job) -> Ticket {
        self.last.0 += 1;
        self.open.insert(self.last);
        match &self.jobs {
            Some(jobs) => drop(jobs.send((self.last, job))),
            // After the end nobody is left to do it.
            None => drop(job.close()),
        }
        self.last
    }

    /// The latest closing.
    #[must_use]
    pub fn last(&self) -> Ticket {
        self.last
    }

    /// That closing and all before it are done.
    #[must_use]
    pub fn passed(&self, ticket: Ticket) -> bool {
        self.open.first().is_none_or(|first| *first > ticket)
    }

    /// Closings that are not done.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Waits for a closing to be done. Safe to cancel.
    pub async fn next(&mut self) -> Closed {
        match self.closed.recv().await {
            Some(closed) => self.note(closed),
            None => std::future::pending().await,
        }
    }

    /// Waits for all closings, and ends the threads.
    pub fn finish(&mut self) -> Vec<Closed> {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // It closes descriptors: a panic there is our bug, and no reason to stop.
            let _ = thread.join();
        }
        let mut done = Vec::new();
        while let Ok(closed) = self.closed.try_recv() {
            done.push(self.note(closed));
        }
        done
    }

    fn note(&mut self, closed: Closed) -> Closed {
        self.open.remove(&closed.ticket);
        closed
    }
}

impl Job {
    /// Sockets first: they hold the namespace, and where it dies with them the device
    /// takes the link along, which then costs nothing.
    fn close(self) -> Vec<Frame> {
        let frames = self.queues.into_iter().flat_map(Queue::close).collect();
        drop(self.attached);
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_has_passed_when_all_up_to_it_are_done() {
        let mut closer = Closer::start().unwrap();
        assert!(closer.passed(closer.last()));
        let first = closer.close(Job::default());
        let second = closer.close(Job::default());
        assert!(!closer.passed(first), "its end was not noted");
        assert!(closer.passed(Ticket::default()), "nothing before it is open");
        let mut done = closer.finish();
        done.sort_by_key(|c| c.ticket);
        assert_eq!(done.iter().map(|c| c.ticket).collect::<Vec<_>>(), [first, second]);
        assert!(closer.passed(second) && closer.open() == 0);
    }
}
