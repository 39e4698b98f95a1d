//! Ways that were found in the world as it is now.
//!
//! What a next hop amounts to (port, generation, addresses, longest packet) depends on nothing
//! but the world. So it may be kept until there is another, and then all of it is worth nothing
//! ([`Ways::forget`]: one number). A place has one way; who finds another there looks
//! for its own and takes the place. So whatever is sent, the worst is one vain look.

use crate::id::{Generation, PortId};

/// Places; a power of two.
const PLACES: usize = 1024;

/// What a way depends on, in one world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The port that the packet came in on, which is of one namespace, and the next hop's
    /// index there.
    from: u64,
    /// The destination, where it is on the link; 0 where there is a gateway.
    link: u128,
}

impl Key {
    /// The way of packets that came in on a port, to a next hop, or by it to an address on
    /// its link.
    #[must_use]
    #[inline(always)]
    pub fn new(ingress: PortId, hop: u32, link: u128) -> Self {
        Self { from: u64::from(ingress.0) << 32 | u64::from(hop), link }
    }
}

/// Where packets leave, in one word: what they came in on, the port that they are sent by,
/// and the use of its slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leave(u64);

impl Leave {
    /// Packets that came in on `ingress` leave by `port`.
    #[must_use]
    #[inline]
    pub fn new(ingress: PortId, port: PortId, generation: Generation) -> Self {
        Self(u64::from(ingress.0) << 48 | u64::from(port.0) << 32 | u64::from(generation.0))
    }

    /// The port or member that they came in on.
    #[must_use]
    #[inline]
    pub fn ingress(self) -> PortId {
        PortId((self.0 >> 48) as u16)
    }

    /// The port that they are sent by.
    #[must_use]
    #[inline]
    pub fn port(self) -> PortId {
        PortId((self.0 >> 32) as u16)
    }

    /// The use of its slot.
    #[must_use]
    #[inline]
    pub fn generation(self) -> Generation {
        Generation(self.0 as u32)
    }
}

/// How packets leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Where.
    pub leave: Leave,
    /// Their Ethernet addresses: the next hop's, the egress port's.
    pub addresses: [u8; 12],
    /// Bytes of the longest IP packet.
    pub longest: u32,
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Place {
    key: Key,
    /// Of which world.
    world: u64,
    way: Way,
}

const _: () = assert!(size_of::<Place>() == 64);

const UNUSED: Place = Place {
    key: Key { from: 0, link: 0 },
    world: 0,
    way: Way { leave: Leave(0), addresses: [0; _], longest: 0 },
};

/// The ways of one worker.
pub struct Ways {
    places: Box<[Place; PLACES]>,
    /// The world that counts; that of a place that was never used is 0.
    world: u64,
}

impl Default for Ways {
    fn default() -> Self {
        Self { places: Box::new([UNUSED; PLACES]), world: 1 }
    }
}

impl Ways {
    /// There is another world.
    pub fn forget(&mut self) {
        self.world += 1;
    }

    /// Where the way of a key is, if it is known.
    #[must_use]
    #[inline(always)]
    pub fn place(&self, key: &Key) -> usize {
        let link = key.link as u64 ^ (key.link >> 64) as u64;
        let which = link ^ key.from.rotate_left(32);
        (which.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - PLACES.ilog2())) as usize
    }

    /// The way of the key is at this place.
    #[must_use]
    #[inline(always)]
    pub fn knows(&self, at: usize, key: &Key) -> bool {
        let place = &self.places[at % PLACES];
        place.world == self.world && place.key == *key
    }

    /// Notes a way.
    pub fn put(&mut self, at: usize, key: Key, way: Way) {
        self.places[at % PLACES] = Place { key, world: self.world, way };
    }

    /// The way at a place.
    #[must_use]
    #[inline(always)]
    pub fn at(&self, at: usize) -> &Way {
        &self.places[at % PLACES].way
    }
}
