//! Packets as bytes: header views, in-place rewrite, checksums.
//!
//! A view borrows the bytes from its header on; `parse` checks once that all that
//! the accessors read is there, so that they cannot fail. What is checked is what
//! a router needs: version, lengths. Whether a packet *may* be routed is not asked
//! here.
//!
//! No I/O, no allocation, no clock.
//!
//! ```
//! use nsplane::wire::ipv4::Ipv4;
//! let mut header = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0x65, 0xd6, 10, 0, 0, 2, 10, 0, 1, 2];
//! let mut ip = Ipv4::parse(&mut header[..]).unwrap();
//! assert!(ip.checksum_ok());
//! ip.decrement_ttl();
//! assert!(ip.ttl() == 63 && ip.checksum_ok());
//! ```

pub mod checksum;
pub mod ethernet;
pub mod flow;
pub mod ipv4;
pub mod ipv6;
pub mod l4;
pub mod vlan;

/// Why bytes are not the header that they were taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The packet ends before the header does.
    Short,
    /// Another version than the EtherType says.
    Version,
    /// A header length below the least one.
    HeaderLength,
    /// The header's length of the packet is less than the header, or more than
    /// the bytes that came.
    TotalLength,
}

/// The `N` bytes from `at` on. The caller has checked that they are there.
fn read<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("the caller has checked")
}

/// The 16-bit number at `at`, network byte order. The caller has checked that it is there.
fn read_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(read(bytes, at))
}
