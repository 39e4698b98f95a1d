//! Namespaces that live as long as their guard.
//!
//! A name is `nslab-<pid>-<number>-<label>`: unique on the machine, and it says
//! whose it is, so that [`sweep`] can remove what a killed process left behind.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, anyhow};

use crate::{command, sys};

const PREFIX: &str = "nslab";
const RUN_DIR: &str = "/run/netns";

/// True where the caller may make namespaces and devices.
#[must_use]
pub fn is_root() -> bool {
    sys::is_root()
}

/// A network namespace under `/run/netns`, removed on drop.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace whose name ends in `label`, with `lo` up, duplicate
    /// address detection and router solicitation off, and reverse path filters
    /// off whatever the machine's own are.
    ///
    /// # Errors
    /// `ip netns add` failed: not root, or no iproute2.
    pub fn new(label: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}-{}-{number}-{label}", std::process::id());
        command::run("ip", ["netns", "add", &name])?;
        let netns = Self { name };
        for base in ["net/ipv6/conf/all", "net/ipv6/conf/default"] {
            netns.sysctl(&format!("{base}/accept_dad"), "0")?;
            netns.sysctl(&format!("{base}/accept_ra"), "0")?;
            netns.sysctl(&format!("{base}/router_solicitations"), "0")?;
        }
        for base in ["net/ipv4/conf/all", "net/ipv4/conf/default"] {
            netns.sysctl(&format!("{base}/rp_filter"), "0")?;
        }
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// The name under `/run/netns`, as `ip netns` and `nsplane --netns` take it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that is the namespace.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(RUN_DIR).join(&self.name)
    }

    /// Runs `ip` in the namespace: one command, words separated by spaces.
    ///
    /// # Errors
    /// `ip` failed; the error has its words.
    pub fn ip(&self, words: &str) -> Result<String> {
        command::run("ip", ["-n", &self.name].into_iter().chain(words.split_whitespace()))
    }

    /// Runs several `ip` commands in the namespace, one a line, in one process.
    ///
    /// # Errors
    /// The first that failed, by its line.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        command::run_with_input("ip", ["-n", &self.name, "-batch", "-"], lines).map(drop)
    }

    /// Runs `ip -json` in the namespace.
    ///
    /// # Errors
    /// `ip` failed, or printed no JSON.
    pub fn ip_json(&self, words: &str) -> Result<serde_json::Value> {
        let text = self.ip(&format!("-json {words}"))?;
        let text = if text.trim().is_empty() { "[]" } else { &text };
        serde_json::from_str(text).with_context(|| format!("`ip -json {words}` printed no JSON"))
    }

    /// Runs any program inside the namespace and returns its output.
    ///
    /// # Errors
    /// The program failed; the error has its words.
    pub fn exec<S: AsRef<OsStr>>(
        &self,
        program: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Result<String> {
        let mut words: Vec<_> =
            ["netns", "exec", &self.name, program].into_iter().map(Into::into).collect();
        words.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        command::run("ip", words)
    }

    /// Writes a setting under `/proc/sys`, given as a path: `net/ipv4/ip_forward`.
    ///
    /// # Errors
    /// There is no such setting, or the kernel refuses the value.
    pub fn sysctl(&self, setting: &str, value: &str) -> Result<()> {
        let path = PathBuf::from("/proc/sys").join(setting);
        self.inside(|| fs::write(&path, value))?
            .with_context(|| format!("cannot set {setting} to {value} in {}", self.name))
    }

    /// Reads a setting under `/proc/sys`.
    ///
    /// # Errors
    /// There is no such setting.
    pub fn read_sysctl(&self, setting: &str) -> Result<String> {
        let path = PathBuf::from("/proc/sys").join(setting);
        let text = self
            .inside(|| fs::read_to_string(&path))?
            .with_context(|| format!("cannot read {setting} in {}", self.name))?;
        Ok(text.trim().to_owned())
    }

    /// The number of a device of this namespace.
    ///
    /// # Errors
    /// There is no such device.
    pub fn ifindex(&self, device: &str) -> Result<u32> {
        self.inside(|| sys::ifindex(device))?
            .with_context(|| format!("no device {device} in {}", self.name))
    }

    /// The Ethernet address of a device of this namespace.
    ///
    /// # Errors
    /// There is no such device, or it has none.
    pub fn mac(&self, device: &str) -> Result<[u8; 6]> {
        let shown = self.ip_json(&format!("link show dev {device}"))?;
        let text = shown[0]["address"].as_str().unwrap_or_default();
        parse_mac(text).with_context(|| {
            format!("{device} of {} has no Ethernet address but {text:?}", self.name)
        })
    }

    /// Runs `work` inside the namespace, on a thread of its own: the caller's
    /// thread never leaves its namespace. Sockets that `work` makes stay where
    /// they were made and may be returned.
    ///
    /// # Errors
    /// The namespace is gone or may not be entered.
    ///
    /// # Panics
    /// If `work` panics.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let file = File::open(self.path())
            .with_context(|| format!("cannot open namespace {}", self.name))?;
        let thread = std::thread::Builder::new().name("inside".to_owned());
        std::thread::scope(|scope| {
            let handle = thread
                .spawn_scoped(scope, || sys::enter(&file).map(|()| work()))
                .context("cannot start a thread")?;
            match handle.join() {
                Ok(result) => {
                    result.with_context(|| format!("cannot enter namespace {}", self.name))
                }
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Removes the namespace now, and says if that failed.
    ///
    /// # Errors
    /// `ip netns del` failed.
    pub fn remove(self) -> Result<()> {
        let name = self.name.clone();
        std::mem::forget(self);
        command::run("ip", ["netns", "del", &name]).map(drop)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // A test may have removed it itself; nothing else can be done here.
        let _ = command::run("ip", ["netns", "del", &self.name]);
    }
}

/// One end of a veth pair, as [`veth`] makes it.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// The namespace it lies in.
    pub netns: &'a Netns,
    /// Its name there.
    pub device: &'a str,
    /// Its Ethernet address; None lets the kernel choose.
    pub mac: Option<[u8; 6]>,
    /// Receive and transmit queues.
    pub queues: u32,
}

impl<'a> End<'a> {
    /// An end with one queue and an address of the kernel's choice.
    #[must_use]
    pub fn new(netns: &'a Netns, device: &'a str) -> Self {
        Self { netns, device, mac: None, queues: 1 }
    }

    fn words(&self) -> String {
        let mac = self.mac.map(|mac| format!(" address {}", show_mac(mac))).unwrap_or_default();
        let queues = self.queues;
        format!("name {}{mac} numrxqueues {queues} numtxqueues {queues}", self.device)
    }
}

/// Makes a veth pair, one end in each namespace, both up.
///
/// # Errors
/// `ip` failed.
pub fn veth(a: &End<'_>, b: &End<'_>) -> Result<()> {
    let near = a.words();
    let far = b.words();
    let far_netns = b.netns.name();
    a.netns.ip(&format!("link add {near} type veth peer {far} netns {far_netns}"))?;
    a.netns.ip(&format!("link set {} up", a.device))?;
    b.netns.ip(&format!("link set {} up", b.device))?;
    Ok(())
}

/// An Ethernet address as iproute2 writes it.
#[must_use]
pub fn show_mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> =
        text.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect();
    bytes?.try_into().ok()
}

/// Removes the lab's namespaces whose process no longer lives, and returns their
/// names.
///
/// # Errors
/// A namespace could not be removed.
pub fn sweep() -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for name in leftovers(|pid| PathBuf::from(format!("/proc/{pid}")).exists()) {
        command::run("ip", ["netns", "del", &name])
            .map_err(|error| anyhow!("cannot remove leftover namespace {name}: {error}"))?;
        removed.push(name);
    }
    Ok(removed)
}

fn leftovers(alive: impl Fn(u32) -> bool) -> Vec<String> {
    // No directory: nobody ever made a namespace.
    let entries = fs::read_dir(RUN_DIR).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| owner(name).is_some_and(|pid| !alive(pid)))
        .collect()
}

/// The process that made a namespace of the lab; None for others' namespaces.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.strip_prefix('-')?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_labs_names_have_an_owner() {
        assert_eq!(owner("nslab-12-0-blue"), Some(12));
        assert_eq!(owner("blue"), None);
        assert_eq!(owner("nslab-x-0-blue"), None);
        assert_eq!(owner("nslabel-12-0"), None);
    }

    #[test]
    fn macs_are_written_as_iproute2_does() {
        assert_eq!(show_mac([2, 0, 0xab, 0, 0, 1]), "02:00:ab:00:00:01");
        assert_eq!(parse_mac("02:00:ab:00:00:01"), Some([2, 0, 0xab, 0, 0, 1]));
        assert_eq!(parse_mac("02:00:ab"), None);
    }
}
