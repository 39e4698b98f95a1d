//! The eBPF object, and its maps' values as aya wants them.

use std::path::PathBuf;

use anyhow::{Context, Result};
use aya::{Ebpf, EbpfLoader};
use nsplane_abi::traffic;

/// Names a file to load instead of the object that was compiled in.
pub(crate) const OBJECT_ENV: &str = "NSPLANE_TRAFFIC_OBJECT";

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../ebpf/traffic.o");

/// The `GENERATOR` map's value.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct GeneratorValue(pub(crate) traffic::Generator);

// SAFETY: a C struct of integers only, without padding (see the assertion).
#[expect(unsafe_code, reason = "aya asks for a promise about the value's bytes")]
unsafe impl aya::Pod for GeneratorValue {}
const _: () = assert!(size_of::<GeneratorValue>() == 8 + traffic::HEAD_V6 + 4 * 4);

/// The `SINK` map's value.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct SinkValue(pub(crate) traffic::Counts);

// SAFETY: a C struct of 64-bit integers only.
#[expect(unsafe_code, reason = "aya asks for a promise about the value's bytes")]
unsafe impl aya::Pod for SinkValue {}
const _: () = assert!(size_of::<SinkValue>() == 8 * (7 + traffic::LATENCIES));

/// Loads a fresh instance of the object with these constants.
pub(crate) fn load(constants: &[(&str, u32)]) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    for (name, value) in constants {
        loader.override_global(name, value, true);
    }
    match std::env::var_os(OBJECT_ENV).map(PathBuf::from) {
        Some(path) => loader
            .load_file(&path)
            .with_context(|| format!("cannot load the traffic programs of {}", path.display())),
        None => loader.load(OBJECT).context("cannot load the traffic programs"),
    }
}
