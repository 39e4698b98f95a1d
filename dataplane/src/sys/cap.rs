//! TODO cap
