//! What a process and the kernel use, from /proc.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// A process.
pub(crate) struct Process {
    pid: u32,
    /// Its own pages; not those of the rings and frames, which the kernel has made.
    pub(crate) own_kib: f64,
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
}

impl Process {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context("its status")?;
        let count = |what| fs::read_dir(format!("/proc/{pid}/{what}")).map(Iterator::count);
        Ok(Self {
            pid,
            own_kib: field(&status, "RssAnon:").context("no RssAnon")?,
            descriptors: count("fd")?,
            threads: count("task")?,
        })
    }

    /// Its part of one processor over a time, in percent.
    pub(crate) fn cpu_over(&self, time: Duration) -> Result<f64> {
        let before = self.cpu_seconds()?;
        std::thread::sleep(time);
        Ok((self.cpu_seconds()? - before) / time.as_secs_f64() * 100.0)
    }

    fn cpu_seconds(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).context("its stat")?;
        ticks(&stat).map(|ticks| ticks as f64 / 100.0).context("no times in its stat")
    }
}

/// User and system time; the name before them may have spaces.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// The kernel's memory, in KiB: slab, vmalloc and per-CPU. Not what is available,
/// which changes with everything that runs on the machine.
pub(crate) fn kernel_kib() -> Result<f64> {
    let text = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let of = |name| field(&text, name).with_context(|| format!("no {name} in /proc/meminfo"));
    Ok(of("Slab:")? + of("VmallocUsed:")? + of("Percpu:")?)
}

fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_after_the_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 30 12 0 0 20 0 1 0 5 0 0";
        assert_eq!(ticks(stat), Some(42));
    }

    #[test]
    fn a_field_is_found_by_its_name() {
        assert_eq!(field("MemTotal: 7 kB\nSlab:   12 kB\n", "Slab:"), Some(12.0));
    }
}
