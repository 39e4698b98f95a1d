//! How many eBPF objects the kernel holds, of all processes.

use anyhow::{Context, Result};
use aya::maps::loaded_maps;
use aya::programs::{loaded_links, loaded_programs};

/// Counts of objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    /// Programs.
    pub programs: usize,
    /// Maps.
    pub maps: usize,
    /// Links: programs attached to something by a descriptor.
    pub links: usize,
}

/// Counts them.
///
/// # Errors
/// The kernel does not tell (`bpf(BPF_*_GET_NEXT_ID)`).
pub fn count() -> Result<Objects> {
    // What goes away between its number and its details is no error.
    let programs = loaded_programs().filter(Result::is_ok).count();
    let maps = loaded_maps().filter(Result::is_ok).count();
    let links = loaded_links().filter(Result::is_ok).count();
    (maps > 0).then_some(Objects { programs, maps, links }).context("the kernel names no eBPF map")
}
