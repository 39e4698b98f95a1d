//! Where the kernel keeps a packet's checksum state: offsets of `sk_buff` fields,
//! read from the running kernel's BTF (Documentation/bpf/btf.rst); and the reader of
//! that, which `super::layout` uses too.
//!
//! A reader of just that: it finds a struct by name and a member by name, also
//! through anonymous structs and unions. aya-obj's own `Btf` does not let its users
//! walk members.

use std::fs;
use std::io;

use nsplane_abi::consts;
use thiserror::Error;

use super::object::Const;

pub(super) const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
/// Anonymous structs within one another that are followed; the kernel has 3.
const MAX_DEPTH: usize = 8;

/// Why offsets could not be learnt.
#[derive(Debug, Error)]
pub(super) enum BtfError {
    /// The kernel offers no BTF.
    #[error("reading {0}: {1}")]
    Read(&'static str, #[source] io::Error),
    /// The bytes are not BTF as we know it.
    #[error("malformed BTF")]
    Malformed,
    /// The kernel's structs are other ones than we know.
    #[error("no {0} in the kernel's BTF")]
    Missing(&'static str),
}

/// The constants that tell the program how to find a veth packet's `sk_buff` and the
/// fields it needs.
///
/// # Errors
/// No BTF, or a kernel whose structs are others: then nothing is known of checksums.
pub(super) fn skb_constants() -> Result<Vec<Const>, BtfError> {
    constants_from(&Btf::parse(&read(VMLINUX)?)?)
}

pub(super) fn read(path: &'static str) -> Result<Vec<u8>, BtfError> {
    fs::read(path).map_err(|e| BtfError::Read(path, e))
}

fn constants_from(btf: &Btf<'_>) -> Result<Vec<Const>, BtfError> {
    // Not in vmlinux where veth is a module; but there it is just behind the xdp_buff.
    let behind = match btf.member("veth_xdp_buff", "skb") {
        Some(bits) => bits / 8,
        None => btf.size("xdp_buff").ok_or(BtfError::Missing("xdp_buff"))?,
    };
    let field = |name: &'static str| {
        btf.member("sk_buff", name).ok_or(BtfError::Missing(name)).map(|bits| (bits / 8, bits % 8))
    };
    let (ip_summed, shift) = field("ip_summed")?;
    if shift > 6 {
        // Two bits in two bytes: not something the program can read.
        return Err(BtfError::Missing("ip_summed"));
    }
    Ok(vec![
        (consts::XDP_SKB, behind),
        (consts::SKB_IP_SUMMED, ip_summed),
        (consts::SKB_IP_SUMMED_SHIFT, shift),
        (consts::SKB_CSUM_START, field("csum_start")?.0),
        (consts::SKB_CSUM_OFFSET, field("csum_offset")?.0),
        (consts::SKB_VLAN_ALL, field("vlan_all")?.0),
        (consts::SKB_HEAD, field("head")?.0),
        (consts::SKB_DATA, field("data")?.0),
    ])
}

/// Types, and the offset of each by its id (0 is void and has none).
pub(super) struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    offsets: Vec<usize>,
    /// Of a module: the kernel's own, whose ids and strings come before its own.
    base: Option<&'a Btf<'a>>,
}

/// Where a member is, and what.
#[derive(Clone, Copy)]
struct Member {
    bits: u32,
    of_type: usize,
}

/// A struct or union: its size, and its members' place.
struct Composite {
    size: u32,
    members: usize,
    count: usize,
    has_bitfields: bool,
}

impl<'a> Btf<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        Self::read(bytes, None).ok_or(BtfError::Malformed)
    }

    /// A module's BTF, which continues the kernel's.
    pub(super) fn parse_module(bytes: &'a [u8], kernel: &'a Btf<'a>) -> Result<Self, BtfError> {
        Self::read(bytes, Some(kernel)).ok_or(BtfError::Malformed)
    }

    fn read(bytes: &'a [u8], base: Option<&'a Btf<'a>>) -> Option<Self> {
        let magic = u16::from_ne_bytes(bytes.get(0..2)?.try_into().ok()?);
        if magic != MAGIC {
            return None;
        }
        let header = to_usize(word(bytes, 4)?);
        let part = |at: usize| {
            let from = header.checked_add(to_usize(word(bytes, at)?))?;
            bytes.get(from..from.checked_add(to_usize(word(bytes, at + 4)?))?)
        };
        let (types, strings) = (part(8)?, part(16)?);
        // Void is the kernel's.
        let mut offsets = if base.is_none() { vec![usize::MAX] } else { Vec::new() };
        let mut at = 0;
        while at < types.len() {
            offsets.push(at);
            at = at.checked_add(12)?.checked_add(extra_bytes(word(types, at + 4)?)?)?;
        }
        Some(Self { types, strings, offsets, base })
    }

    /// Bytes of a struct.
    fn size(&self, name: &str) -> Option<u32> {
        self.find(name).map(|s| s.size)
    }

    /// Offset of a struct's member, in bits.
    fn member(&self, name: &str, member: &str) -> Option<u32> {
        Some(self.member_of(&self.find(name)?, member, 0)?.bits)
    }

    /// Offset of a struct's member, in bytes.
    pub(super) fn offset(&self, name: &'static str, field: &'static str) -> Result<u32, BtfError> {
        let bits = self.member(name, field).filter(|bits| bits % 8 == 0);
        bits.map(|bits| bits / 8).ok_or(BtfError::Missing(field))
    }

    /// Elements of a struct's member that is an array, of all its dimensions.
    pub(super) fn elements(&self, name: &'static str, field: &'static str) -> Option<u32> {
        let mut id = self.member_of(&self.find(name)?, field, 0)?.of_type;
        let mut all = None;
        for _ in 0..MAX_DEPTH {
            let (btf, at) = self.by_id(id)?;
            if kind(word(btf.types, at.checked_add(4)?)?) != ARRAY {
                break;
            }
            all = all.unwrap_or(1_u32).checked_mul(word(btf.types, at + 20)?);
            id = to_usize(word(btf.types, at + 12)?);
            all?;
        }
        all
    }

    /// The kernel's own, of a module's.
    pub(super) fn kernel(&self) -> &Btf<'a> {
        self.base.unwrap_or(self)
    }

    fn by_id(&self, id: usize) -> Option<(&Btf<'a>, usize)> {
        let Some(base) = self.base else { return Some((self, *self.offsets.get(id)?)) };
        match id.checked_sub(base.offsets.len()) {
            Some(own) => Some((self, *self.offsets.get(own)?)),
            None => base.by_id(id),
        }
    }

    fn find(&self, name: &str) -> Option<Composite> {
        let is_it = |at: usize| {
            let kind = kind(word(self.types, at.checked_add(4)?)?);
            (kind == STRUCT && self.string(word(self.types, at)?)? == name.as_bytes()).then_some(())
        };
        let at = self.offsets.iter().copied().find(|at| is_it(*at).is_some())?;
        self.composite(at)
    }

    fn composite(&self, at: usize) -> Option<Composite> {
        let info = word(self.types, at.checked_add(4)?)?;
        matches!(kind(info), STRUCT | UNION).then_some(())?;
        Some(Composite {
            size: word(self.types, at + 8)?,
            members: at + 12,
            count: count(info),
            has_bitfields: info >> 31 == 1,
        })
    }

    fn member_of(&self, of: &Composite, name: &str, depth: usize) -> Option<Member> {
        for i in 0..of.count {
            let at = of.members + i * 12;
            let member = self.string(word(self.types, at)?)?;
            let offset = word(self.types, at + 8)?;
            let bits = if of.has_bitfields { offset & 0x00ff_ffff } else { offset };
            let id = to_usize(word(self.types, at + 4)?);
            if member == name.as_bytes() {
                return Some(Member { bits, of_type: id });
            }
            if member.is_empty() && depth < MAX_DEPTH {
                let inner = self.by_id(id).and_then(|(btf, at)| Some((btf, btf.composite(at)?)));
                let within = inner.and_then(|(btf, inner)| btf.member_of(&inner, name, depth + 1));
                if let Some(Member { bits: more, of_type }) = within {
                    return Some(Member { bits: bits.checked_add(more)?, of_type });
                }
            }
        }
        None
    }

    fn string(&self, at: u32) -> Option<&'a [u8]> {
        let at = to_usize(at);
        let own = match self.base {
            None => at,
            Some(base) => match at.checked_sub(base.strings.len()) {
                Some(own) => own,
                None => return base.strings.get(at..)?.split(|byte| *byte == 0).next(),
            },
        };
        self.strings.get(own..)?.split(|byte| *byte == 0).next()
    }
}

/// Bytes behind the 12 that every type has.
fn extra_bytes(info: u32) -> Option<usize> {
    Some(match kind(info) {
        // int, var, declaration tag
        1 | 14 | 17 => 4,
        // array
        3 => 12,
        // struct, union, data section, 64-bit enum
        4 | 5 | 15 | 19 => count(info) * 12,
        // enum, function prototype
        6 | 13 => count(info) * 8,
        // pointer, forward, typedef, volatile, const, restrict, function, float, type tag
        2 | 7..=12 | 16 | 18 => 0,
        _ => return None,
    })
}

fn kind(info: u32) -> u32 {
    (info >> 24) & 0x1f
}

fn count(info: u32) -> usize {
    to_usize(info & 0xffff)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn to_usize(word: u32) -> usize {
    // Linux has no target with smaller addresses.
    word as usize
}

#[cfg(test)]
mod tests;
