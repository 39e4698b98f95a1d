//! Ctrl-C and SIGTERM as a flag, so that whoever runs can clean up and leave.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys;

static STOP: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT and SIGTERM set the flag that is returned, and end nothing.
///
/// # Errors
/// The system refuses the handler.
pub fn catch() -> io::Result<&'static AtomicBool> {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        sys::on_signal(signal, set)?;
    }
    Ok(&STOP)
}

/// Async-signal-safe: one atomic store.
extern "C" fn set(_signal: libc::c_int) {
    STOP.store(true, Ordering::Relaxed);
}
