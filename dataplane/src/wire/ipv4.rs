//! IPv4 (RFC 791).

use std::net::Ipv4Addr;

use super::checksum::{self, Sum};
use super::{Malformed, read, read_u16};

/// Bytes of a header without options.
pub const MIN_LEN: usize = 20;

/// A packet from its IPv4 header on; what follows the packet (padding) may be there too.
#[derive(Debug)]
pub struct Ipv4<T>(T);

impl<T: AsRef<[u8]>> Ipv4<T> {
    /// The view, if version and lengths are sound and all of the packet is there.
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
        if bytes.len() < MIN_LEN {
            return Err(Malformed::Short);
        }
        if bytes[0] >> 4 != 4 {
            return Err(Malformed::Version);
        }
        let view = Self(packet);
        let (header, total, here) = (view.header_len(), view.total_len(), view.0.as_ref().len());
        if header < MIN_LEN {
            return Err(Malformed::HeaderLength);
        }
        if header > here {
            return Err(Malformed::TotalLength);
        }
        if total < header || total > here + behind {
            return Err(Malformed::TotalLength);
        }
        Ok(view)
    }

    /// Bytes of the header, options included.
    pub fn header_len(&self) -> usize {
        usize::from(self.0.as_ref()[0] & 0xf) * 4
    }

    /// Bytes of the packet, header included.
    pub fn total_len(&self) -> usize {
        usize::from(read_u16(self.0.as_ref(), 2))
    }

    /// Hops left.
    pub fn ttl(&self) -> u8 {
        self.0.as_ref()[8]
    }

    /// Protocol of the payload.
    pub fn protocol(&self) -> u8 {
        self.0.as_ref()[9]
    }

    /// The checksum field.
    pub fn checksum(&self) -> u16 {
        read_u16(self.0.as_ref(), 10)
    }

    /// Where it comes from.
    pub fn src(&self) -> Ipv4Addr {
        read(self.0.as_ref(), 12).into()
    }

    /// Where it goes.
    pub fn dst(&self) -> Ipv4Addr {
        read(self.0.as_ref(), 16).into()
    }

    /// The header's checksum verifies.
    pub fn checksum_ok(&self) -> bool {
        checksum::sum(&self.0.as_ref()[..self.header_len()]).0 == 0xffff
    }

    /// Sum of the pseudo header that TCP and UDP have in their checksums
    /// (RFC 9293, 3.1), for a payload that is all of the packet after the header.
    pub fn pseudo_sum(&self) -> Sum {
        // Lengths were checked: the difference fits.
        let len = (self.total_len() - self.header_len()) as u16;
        checksum::sum(&self.0.as_ref()[12..20]) + Sum(u16::from(self.protocol())) + Sum(len)
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Ipv4<T> {
    /// Takes one hop off and updates the checksum (RFC 1624), to the same value as
    /// the kernel's `ip_decrease_ttl` (include/net/ip.h) gives: 0 where the sum
    /// would be 0xffff. A TTL of 0 wraps: the caller has looked.
    pub fn decrement_ttl(&mut self) {
        if let Some(header) = self.0.as_mut().first_chunk_mut() {
            decrement_ttl(header);
        }
    }
}

/// [`Ipv4::decrement_ttl`] of a header.
#[inline(always)]
pub fn decrement_ttl(header: &mut [u8; MIN_LEN]) {
    // The TTL is the high byte of its word: one hop less is 0x100 less, which
    // is 0x100 more in the complement.
    let sum = u32::from(u16::from_be_bytes([header[10], header[11]])) + 0x0100;
    let sum = (sum + u32::from(sum >= 0xffff)) as u16;
    header[8] = header[8].wrapping_sub(1);
    [header[10], header[11]] = sum.to_be_bytes();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(ttl: u8, id: u16) -> [u8; 20] {
        let mut h = [0x45, 0, 0, 20, 0, 0, 0x40, 0, ttl, 17, 0, 0, 10, 0, 0, 2, 192, 168, 1, 9];
        h[4..6].copy_from_slice(&id.to_be_bytes());
        let sum = checksum::sum(&h).complement();
        h[10..12].copy_from_slice(&sum.to_be_bytes());
        h
    }

    #[test]
    fn what_is_cut_or_lies_about_lengths_is_refused() {
        let good = header(64, 1);
        assert!(Ipv4::parse(&good[..]).is_ok());
        assert_eq!(Ipv4::parse(&good[..19]).unwrap_err(), Malformed::Short);
        let with = |at: usize, byte: u8| {
            let mut h = good;
            h[at] = byte;
            Ipv4::parse(h).map(|_| ()).unwrap_err()
        };
        assert_eq!(with(0, 0x65), Malformed::Version);
        assert_eq!(with(0, 0x44), Malformed::HeaderLength);
        assert_eq!(with(0, 0x46), Malformed::TotalLength);
        assert_eq!(with(3, 19), Malformed::TotalLength);
        assert_eq!(with(3, 21), Malformed::TotalLength);
    }

    #[test]
    fn fields_are_where_rfc_791_has_them() {
        let h = header(7, 1);
        let ip = Ipv4::parse(&h[..]).unwrap();
        assert_eq!((ip.ttl(), ip.protocol(), ip.total_len()), (7, 17, 20));
        assert_eq!(ip.src(), Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(ip.dst(), Ipv4Addr::new(192, 168, 1, 9));
    }

    #[test]
    fn decrement_is_the_kernels_for_every_checksum() {
        // The kernel's function on a little-endian machine, for every field value.
        for check in 0..=u16::MAX {
            let mut h = header(64, 0);
            h[10..12].copy_from_slice(&check.to_be_bytes());
            let mut ip = Ipv4::parse(&mut h[..]).unwrap();
            ip.decrement_ttl();
            let raw = u32::from(check.swap_bytes()) + u32::from(0x0100_u16.swap_bytes());
            let kernel = ((raw + u32::from(raw >= 0xffff)) as u16).swap_bytes();
            assert_eq!(ip.checksum(), kernel, "from {check:#x}");
        }
    }

    proptest! {
        #[test]
        fn decrement_equals_a_plain_recomputation(ttl in 1..=255u8, id: u16) {
            let mut h = header(ttl, id);
            let mut ip = Ipv4::parse(&mut h[..]).unwrap();
            prop_assert!(ip.checksum_ok());
            ip.decrement_ttl();
            prop_assert!(ip.checksum_ok());
            prop_assert_eq!(h, header(ttl - 1, id));
        }
    }
}
