//! What a process and the kernel hold for it, and whether it grows.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nsplane_bench::objects;
use nsplane_tests::process::Nsplane;
use nsplane_tests::wait::wait_until;
use serde::Serialize;

/// How long packets may be on their way when no more are sent.
const QUIET: Duration = Duration::from_secs(10);

/// A look at everything that could grow, while no packet is on its way.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Sample {
    /// Moves or namespaces until then.
    pub(super) done: u64,
    /// Since the start.
    pub(super) seconds: f64,
    /// Resident memory of nsplane, in KiB.
    pub(super) rss_kib: u64,
    /// Its descriptors.
    pub(super) fds: u64,
    /// Its threads.
    pub(super) threads: u64,
    /// eBPF programs of the machine.
    pub(super) programs: u64,
    /// eBPF maps of the machine.
    pub(super) maps: u64,
    /// eBPF links of the machine.
    pub(super) links: u64,
    /// Network namespaces that the kernel holds.
    pub(super) namespaces: u64,
    /// Slab memory of the kernel that cannot be reclaimed, in KiB.
    pub(super) slab_kib: u64,
    /// Frames in rings of sockets.
    pub(super) frames_in_rings: u64,
    /// Ports that are being closed.
    pub(super) closing: u64,
    /// Frames that are nowhere: in no ring and in no thread's hands.
    pub(super) frames_missing: i64,
}

impl Sample {
    /// Looks. Frames may be missing only for as long as packets are on their way.
    ///
    /// # Errors
    /// nsplane does not answer, or `/proc` cannot be read.
    pub(super) fn take(nsplane: &Nsplane, done: u64, seconds: f64) -> Result<Self> {
        let memory = nsplane.ask("memory", None)?;
        let resources = nsplane.ask("resources", None)?;
        let of_kernel = objects::count()?;
        let proc = format!("/proc/{}", nsplane.pid());
        let status = read(&format!("{proc}/status"))?;
        let open = fs::read_dir(format!("{proc}/fd")).context("listing nsplane's descriptors")?;
        Ok(Self {
            done,
            seconds,
            rss_kib: field(&status, "VmRSS:").context("no VmRSS in /proc/PID/status")?,
            fds: open.count() as u64,
            threads: field(&status, "Threads:").context("no Threads in /proc/PID/status")?,
            programs: of_kernel.programs as u64,
            maps: of_kernel.maps as u64,
            links: of_kernel.links as u64,
            // Not every kernel shows its slabs.
            namespaces: read("/proc/slabinfo")
                .ok()
                .and_then(|text| field(&text, "net_namespace"))
                .unwrap_or(0),
            slab_kib: field(&read("/proc/meminfo")?, "SUnreclaim:").unwrap_or(0),
            frames_in_rings: memory[0]["rings"].as_u64().context("show memory has no rings")?,
            closing: resources[0]["closing"].as_u64().context("show resources has no closing")?,
            frames_missing: memory[0]["moving"].as_i64().context("show memory has no moving")?,
        })
    }

    /// Looks until nothing is on its way any more; what is then still missing is lost.
    ///
    /// # Errors
    /// As [`Sample::take`], or frames are lost.
    pub(super) fn quiet(nsplane: &Nsplane, done: u64, seconds: f64) -> Result<Self> {
        let mut last = Self::default();
        let quiet = wait_until(QUIET, "all frames to be found", || {
            let Ok(sample) = Self::take(nsplane, done, seconds) else { return false };
            last = sample;
            (last.frames_missing, last.closing) == (0, 0)
        });
        quiet.with_context(|| format!("without traffic: {last:?}"))?;
        Ok(last)
    }

    /// What must not grow, with how much of it comes and goes by itself: pages of
    /// allocators, connections of whoever asks.
    fn bounded(&self) -> [(&'static str, u64, u64); 6] {
        // A short run is still warming up: its memory tells of gross leaks only.
        let memory = if self.done < 1000 { 4096 } else { 512 };
        [
            ("resident memory (KiB)", self.rss_kib, memory),
            ("descriptors", self.fds, 4),
            ("threads", self.threads, 2),
            ("eBPF programs", self.programs, 2),
            ("eBPF maps", self.maps, 2),
            ("eBPF links", self.links, 2),
        ]
    }
}

/// What has grown from the sample at `warm` (or the first after it) to the end: to the
/// least of the last few, for the kernel frees some things a while later.
pub(super) fn grown(samples: &[Sample], warm: u64) -> Vec<String> {
    let Some(first) = samples.iter().position(|sample| sample.done >= warm) else {
        return Vec::new();
    };
    let (first, rest) = (&samples[first], &samples[first..]);
    let last = &rest[rest.len().saturating_sub(4).max(rest.len() / 2)..];
    let least = |i: usize| last.iter().map(|sample| sample.bounded()[i].1).min().unwrap_or(0);
    let pairs = first.bounded().into_iter().enumerate().map(|(i, was)| (was, least(i)));
    pairs
        .filter(|((_, before, slack), after)| *after > before + slack)
        .map(|((what, before, _), after)| {
            format!("{what}: {before} after {}, later {after}", first.done)
        })
        .collect()
}

/// The samples as a table.
pub(super) fn table(samples: &[Sample]) -> String {
    let mut text = format!(
        "{:>8} {:>8} {:>9} {:>5} {:>7} {:>5} {:>5} {:>5} {:>5} {:>9} {:>7} {:>7}\n",
        "done",
        "s",
        "RSS KiB",
        "fds",
        "threads",
        "progs",
        "maps",
        "links",
        "netns",
        "slab KiB",
        "rings",
        "missing"
    );
    for s in samples {
        text.push_str(&format!(
            "{:>8} {:>8.1} {:>9} {:>5} {:>7} {:>5} {:>5} {:>5} {:>5} {:>9} {:>7} {:>7}\n",
            s.done,
            s.seconds,
            s.rss_kib,
            s.fds,
            s.threads,
            s.programs,
            s.maps,
            s.links,
            s.namespaces,
            s.slab_kib,
            s.frames_in_rings,
            s.frames_missing
        ));
    }
    text
}

fn read(path: &str) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    ensure!(!text.is_empty(), "{path} is empty");
    Ok(text)
}

/// The number behind a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(done: u64, fds: u64, rss_kib: u64) -> Sample {
        Sample { done, fds, rss_kib, ..Sample::default() }
    }

    #[test]
    fn what_grows_after_the_warming_up_is_found() {
        let steady = [sample(0, 10, 1000), sample(100, 40, 29000), sample(200, 42, 30000)];
        assert!(grown(&steady, 100).is_empty());
        assert_eq!(grown(&steady, 0).len(), 2);
        let leaking = [sample(100, 40, 9000), sample(200, 140, 9000)];
        assert_eq!(grown(&leaking, 100), ["descriptors: 40 after 100, later 140"]);
        assert!(grown(&[], 0).is_empty());
    }

    #[test]
    fn fields_are_found_by_their_names() {
        assert_eq!(field("Name:\tx\nVmRSS:\t  123 kB\nThreads:\t4\n", "VmRSS:"), Some(123));
        assert_eq!(field("net_namespace  6 14 4096", "net_namespace"), Some(6));
        assert_eq!(field("", "x"), None);
    }
}
