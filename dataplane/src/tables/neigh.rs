//! Resolved neighbours.

/// Neighbours of one namespace.
#[derive(Debug, Default)]
pub struct NeighTable;
