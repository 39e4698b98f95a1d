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
    /// The port that the packet came in on, which is of one namespace.
    pub ingress: PortId,
    /// The next hop's index there.
    pub hop: u32,
    /// The destination, where it is on the link; 0 where there is a gateway.
    pub link: u128,
}

/// How packets leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Their Ethernet addresses: the next hop's, the egress port's.
    pub addresses: [u8; 12],
    /// Bytes of the longest IP packet.
    pub longest: u32,
    /// The port that they are sent by.
    pub port: PortId,
    /// The use of its slot.
    pub generation: Generation,
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
    key: Key { ingress: PortId(0), hop: 0, link: 0 },
    world: 0,
    way: Way { addresses: [0; _], longest: 0, port: PortId(0), generation: Generation(0) },
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
        let which = link ^ u64::from(key.hop) << 32 ^ u64::from(key.ingress.0) << 48;
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
