//! TODO thread
