//! Where datagrams are read to: one buffer a thread, so that a namespace, of which
//! there may be thousands, needs none of its own.

use std::cell::RefCell;

/// Larger than any message of a notice (a link with many virtual functions).
const DATAGRAM: usize = 64 << 10;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; DATAGRAM]);
}

/// Lends the thread's buffer to `f`, which must not ask for it again.
pub(super) fn with<T>(f: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| f(buffer))
}
