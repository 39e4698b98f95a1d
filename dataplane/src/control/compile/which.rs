//! Which parts of what is compiled a change concerns.

use crate::control::mirror::Dirty;

/// Parts of [`super::Compiled`]: those to be made anew, or those that changed.
///
/// What is apart here changes apart in practice: neighbours every second, routes of
/// one family in bulk, addresses and settings of ports now and then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Which {
    /// IPv4 routes with their local addresses and kernel routes.
    pub v4: bool,
    /// The same of IPv6.
    pub v6: bool,
    /// Neighbours.
    pub neighbors: bool,
    /// The ports' settings.
    pub ports: bool,
}

impl Which {
    /// Everything.
    pub const ALL: Self = Self { v4: true, v6: true, neighbors: true, ports: true };

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            v4: self.v4 | other.v4,
            v6: self.v6 | other.v6,
            neighbors: self.neighbors | other.neighbors,
            ports: self.ports | other.ports,
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
        // Of these, who forwards a family depends, and where routes lead.
        let routing = d.links | d.rules | d.hooks | d.resync;
        Self {
            // Addresses are local, with a route or without.
            v4: routing | d.routes_v4 | d.addresses,
            v6: routing | d.routes_v6,
            neighbors: d.neighbors,
            ports: routing | d.addresses | d.netconf,
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
        let all_but_neighbors = Which { neighbors: false, ..Which::ALL };
        assert_eq!(of(Dirty { resync: true, ..Dirty::default() }), all_but_neighbors);
    }
}
