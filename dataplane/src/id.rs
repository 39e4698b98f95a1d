//! Names of things, one type each, so that none is taken for another.
//!
//! Kernel names (an ifindex, a net cookie) and our own dense ones (a namespace,
//! a port) never mix: an ifindex means nothing without its namespace.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A namespace as the dataplane numbers it: a dense index, and a generation that
/// tells a later user of the same index apart.
///
/// Generations run from 1 to 65,535 and begin anew. An index rests while others are free
/// (`control::slots`), so that the same number comes again after a million namespaces at
/// the earliest, unless nearly as many are driven at a time as there are indexes. It would
/// matter only to what outlives its namespace by so many others, and all that outlives one at
/// all are packets between two threads: map entries go with it, and a port's number is
/// given away again when its sockets are closed and its frames are back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NsId {
    /// Index into tables of namespaces.
    pub index: u16,
    /// How often the index was given away before.
    pub generation: u16,
}

impl NsId {
    /// The number that keys of tagged maps carry; never 0.
    #[must_use]
    pub fn packed(self) -> u32 {
        (u32::from(self.generation) << 16) | u32::from(self.index)
    }
}

impl fmt::Display for NsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

/// The kernel's own identity of a namespace (`SO_NETNS_COOKIE`), never reused
/// while the machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NetnsCookie(pub u64);

/// A device's number, within one namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IfIndex(pub u32);

/// A port: a device that the dataplane drives. Index into tables of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortId(pub u16);

impl PortId {
    /// The port as an index.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A receive and transmit queue of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QueueId(pub u16);

/// A worker thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkerId(pub u16);

impl WorkerId {
    /// The worker as an index.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// How often a port's slot was given to a device. Program instances, tags and
/// tables carry it; where they disagree, the packet is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Generation(pub u32);

impl Generation {
    /// The half that fits the tag. It comes again after 65,536 uses of the port's number, each of
    /// which ends with the closing of its sockets: no packet in a ring is that old. Tables and
    /// the program's maps compare the whole.
    #[must_use]
    pub fn low(self) -> u16 {
        (self.0 & 0xffff) as u16
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A text that is no Ethernet address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no Ethernet address, such as 02:00:00:00:00:01")]
pub struct MacError(String);

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let byte = |part: &str| {
            let plain = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u8::from_str_radix(part, 16).ok()).flatten()
        };
        let bytes: Option<Vec<u8>> = s.split(':').map(byte).collect();
        let bytes = bytes.and_then(|b| <[u8; 6]>::try_from(b).ok());
        bytes.map(Self).ok_or_else(|| MacError(s.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_index_packs_to_another_number() {
        let old = NsId { index: 3, generation: 0 };
        let new = NsId { index: 3, generation: 1 };
        assert_ne!(old.packed(), new.packed());
    }

    #[test]
    fn mac_is_shown_as_iproute2_does() {
        assert_eq!(Mac([2, 0, 0, 0xab, 0, 1]).to_string(), "02:00:00:ab:00:01");
        assert_eq!("02:00:00:AB:00:01".parse(), Ok(Mac([2, 0, 0, 0xab, 0, 1])));
        for wrong in
            ["", "02:00:00:ab:00", "02:00:00:ab:00:01:02", "2:0:0:ab:0:1", "02:00:00:ab:00:+1"]
        {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
    }
}
