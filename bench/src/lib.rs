//! Traffic: a generator and a sink, as eBPF programs.
