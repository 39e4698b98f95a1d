//! Longest-prefix match.

/// IPv4 routes.
#[derive(Debug, Default)]
pub struct Fib4;
/// IPv6 routes.
#[derive(Debug, Default)]
pub struct Fib6;
