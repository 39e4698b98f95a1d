//! What there are no notices of and no way to ask for by netlink: files of a
//! namespace that are looked at once in [`FILES_PERIOD`].
//!
//! A file is opened once, inside the namespace, and then read from outside: less
//! than a microsecond, no thread, no lock that others wait for. Those below
//! /proc/net keep the namespace alive, as a socket would; settings do not.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::event::{Event, Family};
use super::hook::{Hook, HookSource};
use crate::netns::Netns;

/// How often the files are looked at, unless there are so many namespaces that a look at
/// all of them would take too much ([`look_around`](super::look_around)).
pub const FILES_PERIOD: Duration = Duration::from_secs(1);
/// Numbers are looked at once in so many periods: they change which of several good next
/// hops a flow takes, not whether it may pass, and reading them is as dear as the rest.
const NUMBERS_EVERY: u32 = 4;
/// Longest text of a file that matters: there are five tables a family, of names of
/// up to 31 bytes; of services it is enough to know that there is one.
const ROOM: usize = 512;

/// A setting of a namespace that can change without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Switch {
    /// Routers may be redirected by ICMP: `accept_redirects` of IPv4's `all`.
    Redirects,
    /// The path's MTU counts for forwarded packets too: `ip_forward_use_pmtu`.
    ForwardUsePmtu,
    /// IPv6 routes go with their device without notices: `skip_notify_on_dev_down`.
    QuietRoutes,
}

/// A number of a namespace that can change without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Number {
    /// What of an IPv4 packet says which of several next hops it takes:
    /// `fib_multipath_hash_policy`.
    HashPolicyV4,
    /// The same of IPv6.
    HashPolicyV6,
    /// What the choice is seeded with, of both: `fib_multipath_hash_seed`. 0: the
    /// kernel's secret.
    HashSeed,
    /// Next hops that do not answer are passed over: `fib_multipath_use_neigh`.
    UseNeigh,
}

/// What a file says.
#[derive(Clone, Copy)]
enum Says {
    /// A line for each table; the command that makes them.
    Tables(Family, &'static str),
    /// Virtual services, after a head of three lines.
    Services,
    /// A number that is zero or not.
    Switch(Switch),
    /// A number.
    Number(Number),
}

const FILES: [(&str, Says); 10] = [
    ("/proc/thread-self/net/ip_tables_names", Says::Tables(Family::V4, "iptables")),
    ("/proc/thread-self/net/ip6_tables_names", Says::Tables(Family::V6, "ip6tables")),
    ("/proc/thread-self/net/ip_vs", Says::Services),
    ("/proc/sys/net/ipv4/conf/all/accept_redirects", Says::Switch(Switch::Redirects)),
    ("/proc/sys/net/ipv4/ip_forward_use_pmtu", Says::Switch(Switch::ForwardUsePmtu)),
    ("/proc/sys/net/ipv6/route/skip_notify_on_dev_down", Says::Switch(Switch::QuietRoutes)),
    ("/proc/sys/net/ipv4/fib_multipath_hash_policy", Says::Number(Number::HashPolicyV4)),
    ("/proc/sys/net/ipv6/fib_multipath_hash_policy", Says::Number(Number::HashPolicyV6)),
    ("/proc/sys/net/ipv4/fib_multipath_hash_seed", Says::Number(Number::HashSeed)),
    ("/proc/sys/net/ipv4/fib_multipath_use_neigh", Says::Number(Number::UseNeigh)),
];
/// Lines in front of the first service.
const SERVICES_HEAD: usize = 3;

/// One file of one namespace.
#[derive(Debug, Default)]
struct Kept {
    file: Option<File>,
    /// What it said last; None: not looked at yet.
    said: Option<Answer>,
    /// How often it was not there although the host has it: a namespace of another user
    /// namespace lacks some settings.
    lacking: u8,
}

/// A file's text, none where the kernel has no such file, or why it cannot be read.
type Answer = Result<Vec<u8>, String>;

/// The files of one namespace.
#[derive(Debug, Default)]
pub(super) struct Look {
    files: [Kept; FILES.len()],
    /// Periods until now.
    periods: u32,
}

impl Look {
    /// What has changed since it was called last; at first, everything.
    pub(super) fn look(&mut self, ns: &Netns) -> Vec<Event> {
        let failed = self.open(ns).err();
        let mut changed = [false; FILES.len()];
        for (kept, changed) in self.files.iter_mut().zip(&mut changed) {
            *changed = kept.look(failed.as_ref());
        }
        if changed == [false; FILES.len()] {
            return Vec::new();
        }
        self.events(&changed)
    }

    /// Tells everything at the next look.
    pub(super) fn forget(&mut self) {
        for kept in &mut self.files {
            kept.said = None;
        }
    }

    /// A look would tell something, or has something to open. To be called once a period.
    pub(super) fn is_other(&mut self, now: Instant) -> bool {
        self.periods = self.periods.wrapping_add(1);
        let numbers = self.periods.is_multiple_of(NUMBERS_EVERY);
        self.is_to_be_opened(now)
            || self.files.iter_mut().zip(FILES).any(|(kept, (_, what))| {
                if !numbers && matches!(what, Says::Number(_)) {
                    return false;
                }
                let mut room = [0; ROOM];
                let says = kept.says(&mut room, None);
                kept.said.as_ref().is_none_or(|said| said.as_deref() != says)
            })
    }

    /// A file that exists is not open. One that this namespace lacks is asked for ever more
    /// seldom: a module that is being loaded comes to it a little later than to the host.
    fn is_to_be_opened(&self, now: Instant) -> bool {
        let due = |i: usize| self.periods.is_multiple_of(1 << self.files[i].lacking.min(6));
        self.missing(now).any(due)
    }

    /// Files that exist and are not open. A module may bring one at any time, and take it
    /// away.
    fn missing(&self, now: Instant) -> impl Iterator<Item = usize> {
        let closed = self.files.iter().enumerate().filter(|(_, kept)| kept.file.is_none());
        closed.map(|(i, _)| i).filter(move |i| exists(*i, now))
    }

    fn open(&mut self, ns: &Netns) -> Result<(), String> {
        let which: Vec<usize> = self.missing(Instant::now()).collect();
        if which.is_empty() {
            return Ok(());
        }
        let open = || which.iter().map(|i| (*i, File::open(FILES[*i].0))).collect::<Vec<_>>();
        let opened = ns.run(open).map_err(|e| e.to_string())?;
        let mut refused = None;
        for (i, file) in opened {
            match file {
                Ok(file) => (self.files[i].file, self.files[i].lacking) = (Some(file), 0),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    self.files[i].lacking = self.files[i].lacking.saturating_add(1);
                }
                Err(e) => refused = Some(format!("{}: {e} (run as root)", FILES[i].0)),
            }
        }
        refused.map_or(Ok(()), Err)
    }

    fn events(&self, changed: &[bool; FILES.len()]) -> Vec<Event> {
        let mut events = Vec::new();
        let (mut tables, mut any) = (Vec::new(), false);
        for ((kept, (_, says)), changed) in self.files.iter().zip(FILES).zip(changed) {
            let Some(said) = &kept.said else { continue };
            match says {
                Says::Tables(family, command) => {
                    any |= changed;
                    if let Some(hook) = table(said, family, command) {
                        hook.join(&mut tables);
                    }
                }
                Says::Services if *changed => {
                    events.push(Event::Hooks(HookSource::Ipvs, services(said)));
                }
                Says::Switch(switch) if *changed => {
                    events.push(Event::Switch(switch, is_on(said)));
                }
                Says::Number(number) if *changed => {
                    events.push(Event::Number(number, value(said)));
                }
                Says::Services | Says::Switch(_) | Says::Number(_) => {}
            }
        }
        if any {
            events.push(Event::Hooks(HookSource::Iptables, tables));
        }
        events
    }
}

impl Kept {
    /// Reads it, and keeps what it says if that is new.
    fn look(&mut self, failed: Option<&String>) -> bool {
        let mut room = [0; ROOM];
        let says = self.says(&mut room, failed);
        if self.said.as_ref().is_some_and(|said| said.as_deref() == says) {
            return false;
        }
        self.said = Some(says.map(<[u8]>::to_vec).map_err(Clone::clone));
        true
    }

    /// One call: such files give all that there is, or as much as there is room for.
    fn says<'a>(
        &mut self,
        room: &'a mut [u8],
        failed: Option<&'a String>,
    ) -> Result<&'a [u8], &'a String> {
        let read = self.file.as_ref().map(|file| file.read_at(room, 0));
        match (read, failed) {
            (Some(Ok(len)), _) => return Ok(&room[..len]),
            // Its module is gone, or the namespace.
            (Some(Err(_)), _) => self.file = None,
            (None, _) => {}
        }
        failed.map_or(Ok(&[]), Err)
    }
}

/// Whether this kernel has a file now: in one namespace it has it in all. Asked of the
/// kernel once a period at most (a look may come a little early), however many
/// namespaces there are, and only where one has not opened it: finding a setting's file
/// goes through those of all namespaces.
fn exists(file: usize, now: Instant) -> bool {
    static SEEN: Mutex<[Option<(Instant, bool)>; FILES.len()]> = Mutex::new([None; FILES.len()]);
    let mut seen = SEEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match seen[file] {
        Some((at, exists)) if now.duration_since(at) < FILES_PERIOD * 9 / 10 => exists,
        _ => {
            let exists = Path::new(FILES[file].0).exists();
            seen[file] = Some((now, exists));
            exists
        }
    }
}

/// A table comes into being when the command first touches it, with rules or
/// without, and stays while the namespace lives or until its module is removed. One
/// is enough to know: all of the family's packets may meet it.
fn table(said: &Answer, family: Family, command: &str) -> Option<Hook> {
    let name = match said {
        Ok(text) => {
            let text = String::from_utf8_lossy(text);
            let table = text.lines().map(str::trim).find(|l| !l.is_empty())?;
            format!("{command} (legacy) table {table}")
        }
        // What may not be looked at may hold rules.
        Err(e) => format!("{command} tables that cannot be seen: {e}"),
    };
    Some(Hook { family: Some(family), name, on_device: false })
}

fn services(said: &Answer) -> Vec<Hook> {
    let name = match said {
        Ok(text) => {
            let text = String::from_utf8_lossy(text);
            let Some(first) = text.lines().nth(SERVICES_HEAD) else { return Vec::new() };
            let words: Vec<&str> = first.split_whitespace().take(2).collect();
            format!("IPVS service {}", words.join(" "))
        }
        Err(e) => format!("IPVS services that cannot be seen: {e}"),
    };
    vec![Hook { family: None, name, on_device: false }]
}

/// A setting that cannot be read may be on.
fn is_on(said: &Answer) -> bool {
    said.as_ref().map_or(true, |text| !matches!(text.trim_ascii(), b"" | b"0"))
}

/// A number that cannot be read is none that we know; a file that is not there is 0.
fn value(said: &Answer) -> u32 {
    let text = said.as_ref().map_or("?", |text| str::from_utf8(text).unwrap_or("?")).trim();
    if text.is_empty() { 0 } else { text.parse().unwrap_or(u32::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(text: &str) -> Answer {
        Ok(text.as_bytes().to_vec())
    }

    #[test]
    fn a_line_is_a_table() {
        let name = |text| table(&ok(text), Family::V4, "iptables").map(|h| h.name);
        assert_eq!((name(""), name("\n")), (None, None));
        assert_eq!(name("nat\nfilter\n").unwrap(), "iptables (legacy) table nat");
        let refused = table(&Err("open: no".to_owned()), Family::V6, "ip6tables").unwrap();
        assert!(refused.name.contains("cannot be seen") && !refused.meets(Family::V4));
    }

    #[test]
    fn a_service_follows_the_head() {
        let head = "IP Virtual Server version 1.2.1 (size=4096)\n\
                    Prot LocalAddress:Port Scheduler Flags\n\
                    \x20 -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n";
        assert_eq!((services(&ok("")), services(&ok(head))), (vec![], vec![]));
        let one = services(&ok(&format!("{head}TCP  0A000001:0050 wlc\n  -> 0A000102:0050")));
        assert_eq!(one[0].name, "IPVS service TCP 0A000001:0050");
        assert!(one[0].meets(Family::V4) && one[0].meets(Family::V6));
    }

    #[test]
    fn what_cannot_be_read_is_on() {
        assert_eq!(["", "0\n", "1\n", "2\n"].map(|t| is_on(&ok(t))), [false, false, true, true]);
        assert!(is_on(&Err(String::new())));
    }

    #[test]
    fn only_what_changed_is_told() {
        let Ok(ns) = Netns::private("hm-look", false) else { return println!("needs root") };
        let mut look = Look::default();
        let all = look.look(&ns);
        assert!(all.len() >= 2);
        assert_eq!(look.look(&ns), []);
        look.forget();
        assert_eq!(look.look(&ns), all);
    }

    /// A namespace of another user namespace lacks settings that the host's has: it is not
    /// woken for them each second, and not for good either.
    #[test]
    fn what_a_namespace_lacks_is_asked_for_ever_more_seldom() {
        let quiet = "/proc/sys/net/ipv6/route/skip_notify_on_dev_down";
        if Netns::private("hm-lacks", false).is_err() || !Path::new(quiet).exists() {
            return println!("needs root, and a kernel with {quiet}");
        }
        let mut child = std::process::Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "sh", "-c", "echo; exec sleep 60"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut there = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut there).unwrap();
        let ns =
            crate::netns::open_path(Path::new(&format!("/proc/{}/ns/net", child.id()))).unwrap();
        let mut look = Look::default();
        assert!(look.look(&ns).len() >= 2);
        let woken = (0..256).filter(|_| {
            let other = look.is_other(Instant::now());
            if other {
                assert_eq!(look.look(&ns), []);
            }
            other
        });
        let woken = woken.count();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!((4..16).contains(&woken), "woken {woken} times");
    }
}
