//! SIGTERM, SIGINT and SIGHUP: heard from the first moment on, also while setting up.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Error, io};

/// The signals that nsplane obeys.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// To end; the signal's name.
    End(&'static str),
    /// To read the config again.
    Reload,
}

impl Signals {
    /// From now on these signals no longer kill the process.
    pub(super) fn new() -> Result<Self, Error> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(io("waiting for SIGTERM"))?,
            interrupt: signal(SignalKind::interrupt()).map_err(io("waiting for SIGINT"))?,
            hangup: signal(SignalKind::hangup()).map_err(io("waiting for SIGHUP"))?,
        })
    }

    /// Waits for one. Safe to cancel.
    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Asked::End("SIGTERM"),
            _ = self.interrupt.recv() => Asked::End("SIGINT"),
            _ = self.hangup.recv() => Asked::Reload,
        }
    }

    /// One that came until now and asks for the end, if any; for whoever has long work
    /// to do in pieces.
    pub(super) async fn pending(&mut self) -> Option<&'static str> {
        let end = async {
            tokio::select! {
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => "SIGINT",
            }
        };
        // The runtime hears of signals only when it has a moment to wait.
        tokio::time::timeout(Duration::from_millis(1), end).await.ok()
    }
}
