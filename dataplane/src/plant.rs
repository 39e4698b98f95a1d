//! Bugs on purpose, for the test that the oracle finds them: `docs/oracle.md`.
//!
//! Only with the cargo feature `plant`, which nothing turns on but that test, is any of
//! it compiled; without it [`is`] is a constant.

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A packet keeps its TTL.
    Ttl,
    /// One bit of an IPv4 destination is not looked at: a wrong next hop by one bit of
    /// the prefix.
    Prefix,
    /// A neighbour's Ethernet address stays what it was first.
    Neighbor,
    /// Packets may be four bytes too long.
    Mtu,
    /// A member's packets leave in another VLAN.
    Vlan,
}

impl Bug {
    /// The word in [`VARIABLE`] that plants it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ttl => "ttl",
            Self::Prefix => "prefix",
            Self::Neighbor => "neighbor",
            Self::Mtu => "mtu",
            Self::Vlan => "vlan",
        }
    }
}

/// The environment variable that says which bug is planted.
pub const VARIABLE: &str = "NSPLANE_PLANT";

/// A bug may be planted.
pub const POSSIBLE: bool = cfg!(feature = "plant");

/// The bug is planted.
#[must_use]
#[inline(always)]
pub fn is(bug: Bug) -> bool {
    POSSIBLE && planted(bug)
}

fn planted(bug: Bug) -> bool {
    static WORD: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    WORD.get_or_init(|| std::env::var(VARIABLE).unwrap_or_default()) == bug.word()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_planted_without_the_feature() {
        if !cfg!(feature = "plant") {
            assert!(!is(Bug::Ttl));
        }
    }
}
