//! Worker threads: run to completion over the queues they own.

pub mod io;
