//! Descriptors that a tokio runtime waits for.
//!
//! tokio asks its caller to promise that a value keeps the descriptor it has.
//! That is a promise about a type, so it is made here, for each type we wait on.

use std::io;

use inotify::Inotify;
use netlink_sys::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Lets the current runtime wait for events of `inotify`.
///
/// # Errors
/// Where epoll refuses the descriptor.
///
/// # Panics
/// Outside of a tokio runtime with I/O.
pub fn inotify(inotify: Inotify) -> io::Result<AsyncFd<Inotify>> {
    // SAFETY: an Inotify owns its descriptor and cannot exchange it; it is closed
    // by its drop only, which the AsyncFd that owns it does last.
    let registered = unsafe { AsyncFd::register_with_interest(inotify, Interest::READABLE) };
    registered.map_err(Into::into)
}

/// Lets the current runtime wait for messages on a netlink socket.
///
/// # Errors
/// Where epoll refuses the descriptor.
///
/// # Panics
/// Outside of a tokio runtime with I/O.
pub fn netlink(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: a Socket owns its descriptor and cannot exchange it; it is closed
    // by its drop only, which the AsyncFd that owns it does last.
    let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    registered.map_err(Into::into)
}
