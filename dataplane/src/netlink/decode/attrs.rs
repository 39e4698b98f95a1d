//! Attributes of a message: type, length, value.

use std::net::IpAddr;

use super::super::event::Family;
use super::Skip;

/// Value of an attribute, or of a message's fixed part.
#[derive(Clone, Copy)]
pub(super) struct Value<'a>(pub(super) &'a [u8]);

impl<'a> Value<'a> {
    fn array<const N: usize>(self) -> Result<[u8; N], Skip> {
        self.0.get(..N).and_then(|b| b.try_into().ok()).ok_or(Skip::Malformed)
    }

    pub(super) fn u8(self) -> Result<u8, Skip> {
        self.array::<1>().map(|[b]| b)
    }

    pub(super) fn u16(self) -> Result<u16, Skip> {
        self.array().map(u16::from_ne_bytes)
    }

    pub(super) fn u32(self) -> Result<u32, Skip> {
        self.array().map(u32::from_ne_bytes)
    }

    pub(super) fn i32(self) -> Result<i32, Skip> {
        self.array().map(i32::from_ne_bytes)
    }

    /// Text up to its zero byte.
    pub(super) fn text(self) -> String {
        let end = self.0.iter().position(|b| *b == 0).unwrap_or(self.0.len());
        String::from_utf8_lossy(&self.0[..end]).into_owned()
    }

    /// An address of the family, no more and no less.
    pub(super) fn addr(self, family: Family) -> Result<IpAddr, Skip> {
        match family {
            Family::V4 if self.0.len() == 4 => self.array::<4>().map(IpAddr::from),
            Family::V6 if self.0.len() == 16 => self.array::<16>().map(IpAddr::from),
            _ => Err(Skip::Malformed),
        }
    }

    /// The attributes inside, with their types.
    pub(super) fn attrs(self) -> Attrs<'a> {
        Attrs(self.0)
    }
}

/// Attributes one behind the other: `struct nlattr`, each aligned to four bytes. What is no
/// attribute ends them.
pub(super) struct Attrs<'a>(&'a [u8]);

/// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER` are no part of the type.
const TYPE: u16 = 0x3fff;

impl<'a> Iterator for Attrs<'a> {
    type Item = Result<(u16, Value<'a>), Skip>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        const HEAD: usize = 4;
        if self.0.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.0);
        let Some(&[a, b, c, d]) = bytes.first_chunk::<HEAD>() else {
            return Some(Err(Skip::Malformed));
        };
        let len = usize::from(u16::from_ne_bytes([a, b]));
        let Some(value) = bytes.get(HEAD..len) else { return Some(Err(Skip::Malformed)) };
        self.0 = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok((u16::from_ne_bytes([c, d]) & TYPE, Value(value))))
    }
}

/// The fixed part of a message, `N` bytes, and the attributes behind it.
pub(super) fn split<const N: usize>(payload: &[u8]) -> Result<([u8; N], Value<'_>), Skip> {
    let (head, rest) = payload.split_first_chunk::<N>().ok_or(Skip::Malformed)?;
    Ok((*head, Value(rest)))
}

/// A u32 in a fixed part.
pub(super) fn word<const N: usize>(head: &[u8; N], at: usize) -> Result<u32, Skip> {
    Value(head.get(at..).unwrap_or_default()).u32()
}

/// A family that we route; others are none of our business.
pub(super) fn family(af: u8) -> Result<Family, Skip> {
    match i32::from(af) {
        libc::AF_INET => Ok(Family::V4),
        libc::AF_INET6 => Ok(Family::V6),
        _ => Err(Skip::Ignored),
    }
}
