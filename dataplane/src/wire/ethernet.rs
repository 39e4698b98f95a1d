//! Ethernet II, untagged.
//!
//! ```text
//!  0      6      12     14
//!  │ dst  │ src  │ type │ payload ...
//! ```

use super::{Malformed, read, read_u16};
use crate::id::Mac;

/// Bytes of the header.
pub const LEN: usize = 14;
/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;

/// A frame from its Ethernet header on.
#[derive(Debug)]
pub struct Ethernet<T>(T);

impl<T: AsRef<[u8]>> Ethernet<T> {
    /// The view.
    ///
    /// # Errors
    /// [`Malformed::Short`].
    pub fn parse(frame: T) -> Result<Self, Malformed> {
        if frame.as_ref().len() < LEN { Err(Malformed::Short) } else { Ok(Self(frame)) }
    }

    /// Whom the frame is for.
    pub fn dst(&self) -> Mac {
        Mac(read(self.0.as_ref(), 0))
    }

    /// Who sent it.
    pub fn src(&self) -> Mac {
        Mac(read(self.0.as_ref(), 6))
    }

    /// What the payload is.
    pub fn ethertype(&self) -> u16 {
        read_u16(self.0.as_ref(), 12)
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Ethernet<T> {
    /// Addresses the frame anew.
    pub fn set_addresses(&mut self, dst: Mac, src: Mac) {
        let bytes = self.0.as_mut();
        bytes[0..6].copy_from_slice(&dst.0);
        bytes[6..12].copy_from_slice(&src.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_addresses() {
        let mut frame = [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 0x86, 0xdd, 7];
        let mut eth = Ethernet::parse(&mut frame[..]).unwrap();
        assert_eq!((eth.dst(), eth.src(), eth.ethertype()), (Mac([1; 6]), Mac([2; 6]), IPV6));
        eth.set_addresses(Mac([3; 6]), Mac([4; 6]));
        assert_eq!(frame, [3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 0x86, 0xdd, 7]);
        assert_eq!(Ethernet::parse(&frame[..13]).unwrap_err(), Malformed::Short);
    }
}
