//! Capabilities of this process.

use std::io;

/// A capability that nsplane needs, with the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Its number in `linux/capability.h`.
    number: u8,
    /// Its name, as in capabilities(7).
    pub name: &'static str,
    /// What nsplane needs it for.
    pub needed_for: &'static str,
}

/// All that `nsplane run` needs.
pub const NEEDED: [Capability; 5] = [
    Capability { number: 12, name: "CAP_NET_ADMIN", needed_for: "attaching to devices" },
    Capability { number: 13, name: "CAP_NET_RAW", needed_for: "AF_XDP sockets" },
    Capability { number: 21, name: "CAP_SYS_ADMIN", needed_for: "entering namespaces" },
    Capability { number: 38, name: "CAP_PERFMON", needed_for: "reading checksum state" },
    Capability { number: 39, name: "CAP_BPF", needed_for: "loading the XDP program" },
];

/// The needed capabilities that this thread lacks.
///
/// # Errors
/// `/proc/thread-self/status` cannot be read or has no `CapEff`.
pub fn missing() -> io::Result<Vec<Capability>> {
    let status = std::fs::read_to_string("/proc/thread-self/status")?;
    let effective = parse_effective(&status)
        .ok_or_else(|| io::Error::other("no CapEff in /proc/thread-self/status"))?;
    Ok(NEEDED.into_iter().filter(|c| effective & (1 << c.number) == 0).collect())
}

fn parse_effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effective_set_is_read_from_status() {
        assert_eq!(parse_effective("Name:\tx\nCapEff:\t000001ffffffffff\n"), Some(0x1ff_ffff_ffff));
        assert_eq!(parse_effective("Name:\tx\n"), None);
    }
}
