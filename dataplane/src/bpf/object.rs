//! The object file: where it comes from, and its constants.
//!
//! The library sets constants too, but parses all of the kernel's BTF (20-30 ms) for
//! each loader it makes. So one loader is kept, and it gets objects whose constants
//! are written already.

use std::collections::HashMap;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;

use nsplane_abi::consts;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use super::Error;

/// The object that was built with the dataplane's sources.
static BUILT_IN: &[u8] = include_bytes!("../../../ebpf/nsplane.o");

/// Names a file to load instead of the object that is built in.
const OVERRIDE: &str = "NSPLANE_EBPF_OBJECT";

/// All constants of an instance.
const NAMES: [&str; 15] = [
    consts::PORT,
    consts::NS,
    consts::GENERATION,
    consts::GENERIC,
    consts::CSUM_UNKNOWN,
    consts::CROSS,
    consts::TRUNK,
    consts::XDP_SKB,
    consts::SKB_IP_SUMMED,
    consts::SKB_IP_SUMMED_SHIFT,
    consts::SKB_CSUM_START,
    consts::SKB_CSUM_OFFSET,
    consts::SKB_VLAN_ALL,
    consts::SKB_HEAD,
    consts::SKB_DATA,
];

/// A constant and its value.
pub(super) type Const = (&'static str, u32);

/// An object file, and where its constants are in it.
#[derive(Debug)]
pub(super) struct Object {
    bytes: Vec<u8>,
    offsets: HashMap<&'static str, usize>,
}

impl Object {
    /// The object to use in this process.
    pub(super) fn find() -> Result<Self, Error> {
        match env::var_os(OVERRIDE) {
            Some(path) => Self::read(&path),
            None => Self::parse(BUILT_IN.to_vec()),
        }
    }

    fn read(path: &OsStr) -> Result<Self, Error> {
        let path = PathBuf::from(path);
        match fs::read(&path) {
            Ok(bytes) => Self::parse(bytes),
            Err(source) => Err(Error::ReadObject { path, source }),
        }
    }

    fn parse(bytes: Vec<u8>) -> Result<Self, Error> {
        let bad = |what: String| Error::BadObject { what };
        let file = object::File::parse(&*bytes).map_err(|e| bad(e.to_string()))?;
        let mut offsets = HashMap::new();
        for name in NAMES {
            let Some(offset) = offset_in_file(&file, name) else {
                return Err(bad(format!("it has no constant {name}")));
            };
            if bytes.len() < offset + size_of::<u32>() {
                return Err(bad(format!("it ends before constant {name}")));
            }
            offsets.insert(name, offset);
        }
        Ok(Self { bytes, offsets })
    }

    /// The object with these constants; those not named are zero.
    pub(super) fn with(&self, constants: &[Const]) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for (name, value) in constants {
            let at = self.offsets[name];
            bytes[at..at + size_of::<u32>()].copy_from_slice(&value.to_ne_bytes());
        }
        bytes
    }
}

fn offset_in_file(file: &object::File<'_>, name: &str) -> Option<usize> {
    let symbol = file.symbol_by_name(name)?;
    let section = file.section_by_index(symbol.section_index()?).ok()?;
    if section.name().ok()? != ".rodata" {
        return None;
    }
    let (start, len) = section.file_range()?;
    let within = symbol.address().checked_sub(section.address())?;
    if within >= len {
        return None;
    }
    usize::try_from(start.checked_add(within)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_written_where_the_object_has_them() {
        let object = Object::parse(BUILT_IN.to_vec()).expect("the built-in object is usable");
        let one = object.with(&[(consts::PORT, 0x1234_5678), (consts::NS, 7)]);
        let differ = one.iter().zip(&object.bytes).filter(|(a, b)| a != b).count();
        assert_eq!(differ, 5);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let refused = Object::parse(b"not an ELF file".to_vec());
        assert!(matches!(refused, Err(Error::BadObject { .. })));
        let missing = Object::read(OsStr::new("/nonexistent/nsplane.o"));
        assert!(matches!(missing, Err(Error::ReadObject { .. })));
    }
}
