//! What the program needs to find a macvlan or VLAN device in the kernel's own tables
//! (`nsplane_abi::layout`): offsets from the running kernel's BTF, and the hash function
//! of drivers/net/macvlan.c.
//!
//! Where the kernel does not say, such devices cannot be members of another: their frames
//! would be forwarded by the namespace that they have left.

use std::path::Path;

use nsplane_abi::layout::{LAYOUT_MACVLAN, LAYOUT_VLAN, Layout, VLAN_PARTS};

use super::btf::{Btf, BtfError, VMLINUX, read};
use crate::id::Mac;

/// Macvlan's own types, where it is a module.
const MACVLAN: &str = "/sys/kernel/btf/macvlan";

/// `GOLDEN_RATIO_64` (include/linux/hash.h).
const GOLDEN_RATIO_64: u64 = 0x61c8_8646_80b5_83eb;

/// What is known of this kernel.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) layout: Layout,
    /// Bits of a bucket's number.
    hash_bits: u32,
    /// Why macvlans cannot be found, and VLANs.
    pub(super) no_macvlan: Option<String>,
    pub(super) no_vlan: Option<String>,
    /// Macvlan's types were looked for while it was no loaded module.
    without_module: bool,
}

impl Known {
    pub(super) fn learn() -> Self {
        let without_module = !Path::new(MACVLAN).exists();
        match read(VMLINUX) {
            Ok(bytes) if cfg!(target_pointer_width = "64") => {
                let module =
                    if without_module { Vec::new() } else { read(MACVLAN).unwrap_or_default() };
                Self { without_module, ..Self::from(&bytes, &module) }
            }
            Ok(_) => Self::nothing("pointers have other than 8 bytes"),
            Err(e) => Self::nothing(&e.to_string()),
        }
    }

    /// Macvlan was missing, and its module has been loaded since.
    pub(super) fn is_outdated(&self) -> bool {
        self.no_macvlan.is_some() && self.without_module && Path::new(MACVLAN).exists()
    }

    fn nothing(why: &str) -> Self {
        let why = || Some(why.to_owned());
        Self { no_macvlan: why(), no_vlan: why(), ..Self::default() }
    }

    /// From the kernel's BTF and, unless it is empty, that of macvlan's module.
    fn from(kernel: &[u8], module: &[u8]) -> Self {
        let kernel = match Btf::parse(kernel) {
            Ok(kernel) => kernel,
            Err(e) => return Self::nothing(&e.to_string()),
        };
        let mut known = Self::default();
        if let Err(e) = devices(&kernel, &mut known.layout) {
            return Self::nothing(&e.to_string());
        }
        let found = if module.is_empty() {
            macvlan(&kernel, &mut known.layout)
        } else {
            Btf::parse_module(module, &kernel).and_then(|m| macvlan(&m, &mut known.layout))
        };
        match found {
            Ok(bits) => known.hash_bits = bits,
            Err(e) => known.no_macvlan = Some(e.to_string()),
        }
        known.no_vlan = vlan(&kernel, &mut known.layout).err().map(|e| e.to_string());
        known
    }

    /// The bucket that a macvlan with this address is in.
    pub(super) fn bucket(&self, mac: Mac) -> u32 {
        let [a, b, c, d, e, f] = mac.0;
        // The last six bytes in memory, in either byte order.
        let value = u64::from_ne_bytes([0, 0, a, b, c, d, e, f]);
        match self.hash_bits {
            0 => 0,
            // At most 31 bits are left.
            bits => (value.wrapping_mul(GOLDEN_RATIO_64) >> (64 - bits)) as u32,
        }
    }
}

fn devices(kernel: &Btf<'_>, to: &mut Layout) -> Result<(), BtfError> {
    to.xdp_rxq = kernel.offset("xdp_buff", "rxq")?;
    to.rxq_dev = kernel.offset("xdp_rxq_info", "dev")?;
    to.dev_addr = kernel.offset("net_device", "dev_addr")?;
    to.dev_flags = kernel.offset("net_device", "flags")?;
    to.dev_ifindex = kernel.offset("net_device", "ifindex")?;
    // `possible_net_t` has one member, the pointer.
    to.dev_net = kernel.offset("net_device", "nd_net")?;
    to.net_cookie = kernel.offset("net", "net_cookie")?;
    Ok(())
}

/// Returns the bits of a bucket's number.
fn macvlan(btf: &Btf<'_>, to: &mut Layout) -> Result<u32, BtfError> {
    to.dev_rx_data = btf.kernel().offset("net_device", "rx_handler_data")?;
    to.macvlan_port_dev = btf.offset("macvlan_port", "dev")?;
    to.macvlan_port_hash = btf.offset("macvlan_port", "vlan_hash")?;
    to.macvlan_dev = btf.offset("macvlan_dev", "dev")?;
    to.macvlan_port = btf.offset("macvlan_dev", "port")?;
    to.macvlan_hlist = btf.offset("macvlan_dev", "hlist")?;
    let buckets = btf.elements("macvlan_port", "vlan_hash").unwrap_or(0);
    if !buckets.is_power_of_two() || !(2..=1 << 16).contains(&buckets) {
        return Err(BtfError::Missing("vlan_hash of a size that is known"));
    }
    to.known |= LAYOUT_MACVLAN;
    Ok(buckets.trailing_zeros())
}

fn vlan(kernel: &Btf<'_>, to: &mut Layout) -> Result<(), BtfError> {
    to.dev_vlans = kernel.offset("net_device", "vlan_info")?;
    let group = kernel.offset("vlan_info", "grp")?;
    to.vlan_arrays = group + kernel.offset("vlan_group", "vlan_devices_arrays")?;
    // Two kinds of tags; each with this many arrays.
    if kernel.elements("vlan_group", "vlan_devices_arrays") != Some(2 * VLAN_PARTS) {
        return Err(BtfError::Missing("vlan_devices_arrays of a size that is known"));
    }
    to.known |= LAYOUT_VLAN;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_those_of_the_kernel() {
        let known = Known { hash_bits: 8, ..Known::default() };
        // hash_64(value, 8) of the address shifted as macvlan_eth_hash does, by hand.
        assert_eq!(known.bucket(Mac([0; 6])), 0);
        if cfg!(target_endian = "little") {
            let value = 0x0605_0403_0201_0000_u64;
            let expected = value.wrapping_mul(GOLDEN_RATIO_64) >> 56;
            assert_eq!(u64::from(known.bucket(Mac([1, 2, 3, 4, 5, 6]))), expected);
        }
        assert_eq!(Known::default().bucket(Mac([1, 2, 3, 4, 5, 6])), 0);
    }

    #[test]
    fn the_running_kernel_is_understood_or_says_why() {
        let known = Known::learn();
        assert_eq!(known.layout.known & LAYOUT_MACVLAN == 0, known.no_macvlan.is_some());
        assert_eq!(known.layout.known & LAYOUT_VLAN == 0, known.no_vlan.is_some());
    }
}
