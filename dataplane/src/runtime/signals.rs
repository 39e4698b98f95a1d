//! SIGTERM and SIGINT: heard from the first moment on, also while setting up.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Error, io};

/// The signals that end nsplane in good order.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on these signals no longer kill the process.
    pub(super) fn new() -> Result<Self, Error> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(io("waiting for SIGTERM"))?,
            interrupt: signal(SignalKind::interrupt()).map_err(io("waiting for SIGINT"))?,
        })
    }

    /// Waits for one, and returns its name. Safe to cancel.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// One that came until now, if any; for whoever has long work to do in pieces.
    pub(super) async fn pending(&mut self) -> Option<&'static str> {
        // The runtime hears of signals only when it has a moment to wait.
        tokio::time::timeout(Duration::from_millis(1), self.next()).await.ok()
    }
}
