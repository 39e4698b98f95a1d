//! A thread of a process that is stopped while the others go on.

use std::io;
use std::marker::PhantomData;

use crate::sys;

/// A stopped thread; goes on when this is dropped. Belongs to the thread that made it.
#[derive(Debug)]
pub struct Stopped {
    tid: i32,
    _not_send: PhantomData<*const ()>,
}

impl Stopped {
    /// Stops a process's first thread.
    ///
    /// # Errors
    /// There is none, or the system refuses.
    pub fn first_of(pid: u32) -> io::Result<Self> {
        let tid = i32::try_from(pid).map_err(io::Error::other)?;
        sys::stop_thread(tid)?;
        Ok(Self { tid, _not_send: PhantomData })
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It fails only where the thread has ended.
        let _ = sys::release(self.tid);
    }
}
