//! Where the kernel keeps a packet's checksum state: offsets of `sk_buff` fields,
//! read from the running kernel's BTF (Documentation/bpf/btf.rst).
//!
//! A reader of just that: it finds a struct by name and a member by name, also
//! through anonymous structs and unions. aya-obj's own `Btf` does not let its users
//! walk members.

use std::fs;
use std::io;

use nsplane_abi::consts;
use thiserror::Error;

use super::object::Const;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
/// Anonymous structs within one another that are followed; the kernel has 3.
const MAX_DEPTH: usize = 8;

/// Why offsets could not be learnt.
#[derive(Debug, Error)]
pub(super) enum BtfError {
    /// The kernel offers no BTF.
    #[error("reading {VMLINUX}: {0}")]
    Read(#[source] io::Error),
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
    let bytes = fs::read(VMLINUX).map_err(BtfError::Read)?;
    constants_from(&Btf::parse(&bytes)?)
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
struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    offsets: Vec<usize>,
}

/// A struct or union: its size, and its members' place.
struct Composite {
    size: u32,
    members: usize,
    count: usize,
    has_bitfields: bool,
}

impl<'a> Btf<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        Self::read(bytes).ok_or(BtfError::Malformed)
    }

    fn read(bytes: &'a [u8]) -> Option<Self> {
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
        let mut offsets = vec![usize::MAX];
        let mut at = 0;
        while at < types.len() {
            offsets.push(at);
            at = at.checked_add(12)?.checked_add(extra_bytes(word(types, at + 4)?)?)?;
        }
        Some(Self { types, strings, offsets })
    }

    /// Bytes of a struct.
    fn size(&self, name: &str) -> Option<u32> {
        self.find(name).map(|s| s.size)
    }

    /// Offset of a struct's member, in bits.
    fn member(&self, name: &str, member: &str) -> Option<u32> {
        self.member_of(&self.find(name)?, member, 0)
    }

    fn find(&self, name: &str) -> Option<Composite> {
        let is_it = |at: usize| {
            let kind = kind(word(self.types, at + 4)?);
            (kind == STRUCT && self.string(word(self.types, at)?)? == name.as_bytes()).then_some(())
        };
        let at = self.offsets.iter().copied().skip(1).find(|at| is_it(*at).is_some())?;
        self.composite(at)
    }

    fn composite(&self, at: usize) -> Option<Composite> {
        let info = word(self.types, at + 4)?;
        matches!(kind(info), STRUCT | UNION).then_some(())?;
        Some(Composite {
            size: word(self.types, at + 8)?,
            members: at + 12,
            count: count(info),
            has_bitfields: info >> 31 == 1,
        })
    }

    fn member_of(&self, of: &Composite, name: &str, depth: usize) -> Option<u32> {
        for i in 0..of.count {
            let at = of.members + i * 12;
            let member = self.string(word(self.types, at)?)?;
            let offset = word(self.types, at + 8)?;
            let offset = if of.has_bitfields { offset & 0x00ff_ffff } else { offset };
            if member == name.as_bytes() {
                return Some(offset);
            }
            if member.is_empty() && depth < MAX_DEPTH {
                let id = to_usize(word(self.types, at + 4)?);
                let inner = self.offsets.get(id).and_then(|at| self.composite(*at));
                let within = inner.and_then(|inner| self.member_of(&inner, name, depth + 1));
                if let Some(within) = within {
                    return offset.checked_add(within);
                }
            }
        }
        None
    }

    fn string(&self, at: u32) -> Option<&'a [u8]> {
        self.strings.get(to_usize(at)..)?.split(|byte| *byte == 0).next()
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
mod tests {
    use super::*;

    /// Builds BTF from types given as words, names given by their text.
    #[derive(Default)]
    struct Builder {
        types: Vec<u32>,
        strings: Vec<u8>,
    }

    impl Builder {
        fn name(&mut self, name: &str) -> u32 {
            let at = u32::try_from(self.strings.len()).expect("short");
            self.strings.extend(name.as_bytes());
            self.strings.push(0);
            if name.is_empty() { 0 } else { at }
        }

        fn composite(&mut self, kind: u32, name: &str, size: u32, members: &[(&str, u32, u32)]) {
            let name = self.name(name);
            let count = u32::try_from(members.len()).expect("few");
            let bitfields = u32::from(members.iter().any(|m| m.2 >> 24 != 0));
            self.types.extend([name, bitfields << 31 | kind << 24 | count, size]);
            for (name, id, offset) in members {
                let name = self.name(name);
                self.types.extend([name, *id, *offset]);
            }
        }

        fn finish(self) -> Vec<u8> {
            let types: Vec<u8> = self.types.iter().flat_map(|w| w.to_ne_bytes()).collect();
            let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("short");
            let mut out = Vec::new();
            out.extend(MAGIC.to_ne_bytes());
            out.extend([1, 0]);
            for word in [24, 0, len(&types), len(&types), len(&self.strings)] {
                out.extend(word.to_ne_bytes());
            }
            out.extend(types);
            out.extend(self.strings);
            out
        }
    }

    /// A kernel's BTF in miniature: `ip_summed` is two anonymous levels down.
    fn kernel(with_veth: bool) -> Vec<u8> {
        let mut b = Builder::default();
        b.name("");
        // 1: int, 2: the inner struct, 3: the union around it, 4: sk_buff, 5: xdp_buff
        let name = b.name("int");
        b.types.extend([name, 1 << 24, 4, 32]);
        let inner = [
            ("pkt_type", 1, 3 << 24),
            ("ip_summed", 1, 2 << 24 | 5),
            ("csum_start", 1, 64),
            ("csum_offset", 1, 80),
            ("vlan_all", 1, 96),
        ];
        b.composite(STRUCT, "", 16, &inner);
        b.composite(UNION, "", 16, &[("", 2, 0), ("headers", 2, 0)]);
        b.composite(STRUCT, "sk_buff", 48, &[("", 3, 128), ("head", 1, 256), ("data", 1, 320)]);
        b.composite(STRUCT, "xdp_buff", 56, &[("data", 1, 0)]);
        if with_veth {
            b.composite(STRUCT, "veth_xdp_buff", 72, &[("xdp", 5, 0), ("skb", 1, 512)]);
        }
        b.finish()
    }

    fn constants(bytes: &[u8]) -> Vec<Const> {
        constants_from(&Btf::parse(bytes).expect("well formed")).expect("complete")
    }

    #[test]
    fn fields_are_found_through_anonymous_members() {
        let expected = [
            (consts::XDP_SKB, 64),
            (consts::SKB_IP_SUMMED, 16),
            (consts::SKB_IP_SUMMED_SHIFT, 5),
            (consts::SKB_CSUM_START, 24),
            (consts::SKB_CSUM_OFFSET, 26),
            (consts::SKB_VLAN_ALL, 28),
            (consts::SKB_HEAD, 32),
            (consts::SKB_DATA, 40),
        ];
        assert_eq!(constants(&kernel(true)), expected);
    }

    #[test]
    fn without_veth_the_skb_is_behind_the_xdp_buff() {
        assert_eq!(constants(&kernel(false))[0], (consts::XDP_SKB, 56));
    }

    #[test]
    fn cut_or_garbled_btf_is_an_error_and_no_panic() {
        let good = kernel(true);
        for len in 0..good.len() {
            let cut = Btf::parse(&good[..len]);
            assert!(cut.is_err(), "{len}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0xff;
            if let Ok(btf) = Btf::parse(&bad) {
                let _ = constants_from(&btf);
            }
        }
    }

    #[test]
    fn the_running_kernel_is_understood() {
        if !std::path::Path::new(VMLINUX).exists() {
            eprintln!("left out: this kernel offers no BTF");
            return;
        }
        let found = skb_constants().expect("the kernel's BTF has sk_buff");
        assert!(found.iter().all(|(_, offset)| *offset < 1024), "{found:?}");
    }
}
