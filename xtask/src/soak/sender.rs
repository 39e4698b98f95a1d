//! A generator on a thread of its own, that sends, halts and goes on when told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use nsplane_bench::{Frame, Generator, Load};
use nsplane_tests::netns::Netns;

/// Tells a sender's thread what to do.
#[derive(Debug, Default)]
pub(super) struct Sender {
    /// Ends the generator's present run.
    stop: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    wanted: Wanted,
    idle: bool,
    sent: u64,
    error: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wanted {
    #[default]
    Halt,
    /// Send packets with this mark.
    Send(u32),
    End,
}

impl Sender {
    /// The thread: sends `frame` out of `device` until told to end. Says through
    /// [`Sender::halt`] if it cannot.
    pub(super) fn work(&self, netns: &Netns, device: &str, frame: &Frame, load: &Load) {
        let worked = self.send(netns, device, frame.clone(), load);
        let mut state = self.lock();
        state.idle = true;
        state.error = worked.err().map(|error| format!("{error:#}"));
        self.changed.notify_all();
    }

    fn send(&self, netns: &Netns, device: &str, mut frame: Frame, load: &Load) -> Result<()> {
        let mut generator = Generator::new(netns, device, &frame)?;
        loop {
            let mark = {
                let mut state = self.lock();
                loop {
                    match state.wanted {
                        Wanted::Send(mark) => break mark,
                        Wanted::End => return Ok(()),
                        Wanted::Halt => {}
                    }
                    state.idle = true;
                    self.changed.notify_all();
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            };
            if mark != frame.mark {
                frame.mark = mark;
                generator.set_frame(&frame)?;
            }
            let sent = generator.run(load, &self.stop)?;
            self.lock().sent += sent.packets;
        }
    }

    /// Waits until the thread is ready to send.
    pub(super) fn ready(&self) -> Result<()> {
        self.halt()
    }

    /// Sends packets with this mark from now on.
    pub(super) fn go(&self, mark: u32) {
        let mut state = self.lock();
        self.stop.store(false, Ordering::Relaxed);
        state.wanted = Wanted::Send(mark);
        state.idle = false;
        self.changed.notify_all();
    }

    /// Returns when nothing is sent any more.
    ///
    /// # Errors
    /// The thread has failed.
    pub(super) fn halt(&self) -> Result<()> {
        let mut state = self.lock();
        state.wanted = Wanted::Halt;
        self.stop.store(true, Ordering::Relaxed);
        self.changed.notify_all();
        while !state.idle {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        match state.error.take() {
            Some(error) => bail!("sending: {error}"),
            None => Ok(()),
        }
    }

    /// Ends the thread.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.wanted = Wanted::End;
        self.stop.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// Packets sent, as of the last halt.
    pub(super) fn sent(&self) -> u64 {
        self.lock().sent
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `body` while the senders' threads work on `device` of their namespaces; they are ended whatever it returns.
pub(super) fn with<T>(
    senders: &[(&Sender, &Netns, Frame)],
    device: &str,
    load: &Load,
    body: impl FnOnce() -> Result<T>,
) -> Result<T> {
    std::thread::scope(|scope| {
        for (sender, netns, frame) in senders {
            scope.spawn(|| sender.work(netns, device, frame, load));
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            senders.iter().try_for_each(|(sender, ..)| sender.ready())?;
            body()
        }));
        senders.iter().for_each(|(sender, ..)| sender.end());
        match done {
            Ok(done) => done.context("under load"),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
