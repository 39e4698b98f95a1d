//! IPv6 (RFC 8200). Extension headers are payload here.

use std::net::Ipv6Addr;

use super::checksum::{self, Sum};
use super::{Malformed, read, read_u16};

/// Bytes of the header.
pub const LEN: usize = 40;
/// Next header: hop-by-hop options, which every router must look at.
pub const HOP_BY_HOP: u8 = 0;

/// A packet from its IPv6 header on; what follows the packet (padding) may be there too.
#[derive(Debug)]
pub struct Ipv6<T>(T);

impl<T: AsRef<[u8]>> Ipv6<T> {
    /// The view, if the version is right and all of the packet is there.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(packet: T) -> Result<Self, Malformed> {
        Self::parse_part(packet, 0)
    }

    /// The same of a packet that `behind` more bytes belong to, which lie elsewhere.
    ///
    /// # Errors
    /// What is wrong with it; also where the header is not all here.
    #[inline]
    pub fn parse_part(packet: T, behind: usize) -> Result<Self, Malformed> {
        let bytes = packet.as_ref();
        if bytes.len() < LEN {
            return Err(Malformed::Short);
        }
        if bytes[0] >> 4 != 6 {
            return Err(Malformed::Version);
        }
        let view = Self(packet);
        if view.total_len() > view.0.as_ref().len() + behind {
            return Err(Malformed::TotalLength);
        }
        Ok(view)
    }

    /// Bytes of the packet, header included.
    pub fn total_len(&self) -> usize {
        LEN + usize::from(read_u16(self.0.as_ref(), 4))
    }

    /// What follows the header.
    pub fn next_header(&self) -> u8 {
        self.0.as_ref()[6]
    }

    /// Hops left.
    pub fn hop_limit(&self) -> u8 {
        self.0.as_ref()[7]
    }

    /// Where it comes from.
    pub fn src(&self) -> Ipv6Addr {
        read(self.0.as_ref(), 8).into()
    }

    /// Where it goes.
    pub fn dst(&self) -> Ipv6Addr {
        read(self.0.as_ref(), 24).into()
    }

    /// Sum of the pseudo header (RFC 8200, 8.1) for a payload without extension headers.
    pub fn pseudo_sum(&self) -> Sum {
        let len = read_u16(self.0.as_ref(), 4);
        checksum::sum(&self.0.as_ref()[8..40]) + Sum(u16::from(self.next_header())) + Sum(len)
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Ipv6<T> {
    /// Takes one hop off. A limit of 0 wraps: the caller has looked.
    pub fn decrement_hop_limit(&mut self) {
        let bytes = self.0.as_mut();
        bytes[7] = bytes[7].wrapping_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_rfc_8200_has_them() {
        let mut h = [0; 44];
        h[0] = 0x60;
        h[5] = 4;
        h[6] = 58;
        h[7] = 9;
        h[8..24].copy_from_slice(&[1; 16]);
        h[24..40].copy_from_slice(&[2; 16]);
        let mut ip = Ipv6::parse(&mut h[..]).unwrap();
        assert_eq!((ip.total_len(), ip.next_header(), ip.hop_limit()), (44, 58, 9));
        assert_eq!((ip.src(), ip.dst()), ([1; 16].into(), [2; 16].into()));
        ip.decrement_hop_limit();
        assert_eq!(ip.hop_limit(), 8);
        assert_eq!(Ipv6::parse(&h[..43]).unwrap_err(), Malformed::TotalLength);
        assert_eq!(Ipv6::parse(&h[..39]).unwrap_err(), Malformed::Short);
        h[0] = 0x40;
        assert_eq!(Ipv6::parse(&h[..]).unwrap_err(), Malformed::Version);
    }
}
