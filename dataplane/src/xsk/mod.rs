//! AF_XDP: memory shared with the kernel, sockets, frames.
//!
//! The ladder: `region` registers one memory with the kernel and hands out
//! frames; `socket` binds one queue of one device to it; `queue` moves frames
//! through the four rings; `link` keeps those of a long packet together; `kick` makes the
//! kernel send. Nothing here knows what
//! a packet means.
//!
//! Rules that the room keeps:
//! - A [`Frame`] is a token. The kernel owns what went into a fill or TX ring;
//!   the region's owner table says which queue has it, so that the frames of a
//!   closed socket, which the kernel never reports, are found again.
//! - A socket belongs to the namespace that its thread was in when it was made.
//!   Callers enter the namespace first.
//! - Copy mode: the first socket of the memory sits on `lo` of a namespace of our
//!   own, so that no device's removal can take the memory away.

mod bind;
mod error;
mod kick;
mod link;
mod probe;
mod queue;
mod region;
mod socket;

pub use error::Error;
pub use kick::Kick;
pub use queue::{BATCH, Frames, Queue};
pub use region::{Frame, Memory, Mode, Options, Region};
pub use socket::{At, Bound, SocketStats, has_device, open, stats};
