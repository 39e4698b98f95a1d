//! Which parts of what is compiled a change concerns.

use crate::control::mirror::Dirty;

/// Parts of [`super::Compiled`]: those to be made anew, or those that changed.
///
/// What is apart here changes apart in practice: neighbours every second, routes of
/// one family in bulk, addresses and settings of ports now and then. Single prefixes are
/// [`super::Touched`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Which {
    /// All of IPv4: rules, routes, local addresses, kernel routes.
    pub v4: bool,
    /// The same of IPv6.
    pub v6: bool,
    /// Where routes lead, of both families, and local addresses; the routes themselves are
    /// as they were.
    pub ways: bool,
    /// Neighbours.
    pub neighbors: bool,
    /// The ports' settings.
    pub ports: bool,
    /// What the XDP program's maps hold of addresses and routes. It is never made anew by
    /// itself.
    pub maps: bool,
}

impl Which {
    /// Everything.
    pub const ALL: Self =
        Self { v4: true, v6: true, ways: true, neighbors: true, ports: true, maps: true };

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            v4: self.v4 | other.v4,
            v6: self.v6 | other.v6,
            ways: self.ways | other.ways,
            neighbors: self.neighbors | other.neighbors,
            ports: self.ports | other.ports,
            maps: self.maps | other.maps,
        }
    }

    /// At least one.
    #[must_use]
    pub fn any(self) -> bool {
        self != Self::default()
    }
}

impl From<Dirty> for Which {
    /// What may come out differently after such changes.
    fn from(d: Dirty) -> Self {
        // By these routes lead elsewhere, or are left to the kernel.
        let leading = d.links | d.hooks | d.addresses | d.ways;
        let routing = d.rules | d.resync;
        Self {
            v4: routing | d.routes_v4,
            v6: routing | d.routes_v6,
            ways: leading,
            neighbors: d.neighbors,
            ports: routing | d.links | d.hooks | d.addresses | d.netconf,
            maps: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_leaves_the_routes_alone_and_a_route_the_other_family() {
        let of = |d: Dirty| Which::from(d);
        let none = Which::default();
        assert_eq!(
            of(Dirty { neighbors: true, ..Dirty::default() }),
            Which { neighbors: true, ..none }
        );
        assert_eq!(of(Dirty { routes_v4: true, ..Dirty::default() }), Which { v4: true, ..none });
        assert_eq!(of(Dirty { netconf: true, ..Dirty::default() }), Which { ports: true, ..none });
        let lost = Which { v4: true, v6: true, ports: true, ..none };
        assert_eq!(of(Dirty { resync: true, ..Dirty::default() }), lost);
        let ways = Which { ways: true, ..none };
        assert_eq!(of(Dirty { ways: true, ..Dirty::default() }), ways);
    }
}
