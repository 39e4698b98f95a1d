//! Threads: what is started in which order, and stopped in which.
