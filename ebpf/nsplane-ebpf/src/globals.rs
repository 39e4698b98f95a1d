//! Constants of this instance, written by the loader before the program is loaded
//! (`nsplane_abi::consts` names and explains them).
//!
//! The verifier knows their values, so what they switch off costs nothing.

use aya_ebpf::Global;

macro_rules! globals {
    ($($name:ident)*) => {
        $(
            // SAFETY: the name is this object's alone; the loader finds it by that.
            #[unsafe(no_mangle)]
            pub(crate) static $name: Global<u32> = Global::new(0);
        )*
    };
}

globals! {
    PORT NS GENERATION GENERIC CSUM_UNKNOWN CROSS TRUNK
    XDP_SKB SKB_IP_SUMMED SKB_IP_SUMMED_SHIFT SKB_CSUM_START SKB_CSUM_OFFSET
    SKB_VLAN_ALL SKB_HEAD SKB_DATA
}
