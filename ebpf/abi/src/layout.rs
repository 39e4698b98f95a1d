//! Where the kernel keeps what tells which device a frame goes to above the one that it
//! arrived on: offsets of fields, in bytes, as the running kernel has them.
//!
//! ```text
//!  xdp_buff ─► rxq ─► dev ─► rx_handler_data: macvlan_port ─► vlan_hash[bucket] ─► macvlan_dev ─► dev ─┐
//!                      └───► vlan_info ─► vlan_devices_arrays[proto][vlan] ─► dev ─────────────────────┤
//!                                               the device above: dev_addr, flags, ifindex, nd_net ◄───┘
//! ```
//! One entry, for it is the same for all ports; not among the constants of an instance,
//! since the structs of a module are known only once that is loaded.

/// Value in `LAYOUT`, which has one entry. Zeros: not known.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Which parts count: set of `LAYOUT_*`.
    pub known: u32,
    /// `xdp_buff.rxq` (pointer).
    pub xdp_rxq: u32,
    /// `xdp_rxq_info.dev` (pointer).
    pub rxq_dev: u32,
    /// `net_device.rx_handler_data` (pointer).
    pub dev_rx_data: u32,
    /// `net_device.dev_addr` (pointer to the address).
    pub dev_addr: u32,
    /// `net_device.flags` (u32).
    pub dev_flags: u32,
    /// `net_device.ifindex` (u32).
    pub dev_ifindex: u32,
    /// `net_device.nd_net` (pointer).
    pub dev_net: u32,
    /// `net.net_cookie` (u64).
    pub net_cookie: u32,
    /// `macvlan_port.dev` (pointer).
    pub macvlan_port_dev: u32,
    /// `macvlan_port.vlan_hash` (array of pointers).
    pub macvlan_port_hash: u32,
    /// `macvlan_dev.dev` (pointer).
    pub macvlan_dev: u32,
    /// `macvlan_dev.port` (pointer).
    pub macvlan_port: u32,
    /// `macvlan_dev.hlist`, whose first field points to the next one.
    pub macvlan_hlist: u32,
    /// `net_device.vlan_info` (pointer).
    pub dev_vlans: u32,
    /// `vlan_info.grp.vlan_devices_arrays` (array of pointers to arrays of pointers).
    pub vlan_arrays: u32,
}

/// Macvlans can be found.
pub const LAYOUT_MACVLAN: u32 = 1 << 0;
/// VLAN devices can be found.
pub const LAYOUT_VLAN: u32 = 1 << 1;

/// VLANs in one array of `vlan_devices_arrays` (`VLAN_GROUP_ARRAY_PART_LEN`).
pub const VLAN_PART_LEN: u32 = 512;
/// Such arrays of one kind of tag (`VLAN_GROUP_ARRAY_SPLIT_PARTS`).
pub const VLAN_PARTS: u32 = 8;
/// Words of a `Layout`.
pub const WORDS: usize = 16;

const _: () = assert!(core::mem::size_of::<Layout>() == WORDS * 4);
