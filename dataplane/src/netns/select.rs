//! Which namespaces are meant, as the user writes it.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Origin, Pattern, PatternError};

/// Which namespaces are meant.
///
/// | written | means |
/// |---|---|
/// | `blue`, `tenant-*`, `*` | the names in `/run/netns` and in Docker's directory |
/// | `docker:*`, `cni:*`, `podman:*` | those that a container runtime named, by the rest of their name |
/// | `/some/where/ns`, `./ns-*` | files |
/// | `pid:7` | the namespace that process 7 is in now |
/// | `proc:*`, `proc:bird` | those that have no name but a process, by the process' command |
/// | `!infra`, `!docker:*` | not these, whatever else means them |
///
/// A bare number is a name, as it is for `ip netns`. The host's initial namespace is
/// meant only by what means nothing else: its path, its process, its very name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector {
    exclude: bool,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum What {
    Name(Pattern),
    Runtime(Runtime, Pattern),
    Path(PathBuf),
    Pid(u32),
    Process(Pattern),
}

/// Who names the namespaces of its containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Runtime {
    Docker,
    Cni,
    Podman,
}

impl Runtime {
    const ALL: [(Self, &str); 3] =
        [(Self::Docker, "docker:"), (Self::Cni, "cni:"), (Self::Podman, "podman:")];

    /// The part of a namespace's name that is the container's; None if it is not of
    /// this runtime.
    fn part(self, origin: &Origin) -> Option<&str> {
        match (self, origin) {
            (Self::Docker, Origin::Docker(name)) => Some(name),
            (Self::Cni, Origin::Named(name)) => name.strip_prefix("cni-"),
            (Self::Podman, Origin::Named(name)) => name.strip_prefix("netns-"),
            _ => None,
        }
    }
}

/// A text that selects no namespace.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SelectorError {
    /// Nothing at all, or a name that no file can have.
    #[error("{0:?} is no name of a network namespace")]
    Name(String),
    /// `pid:` and no number.
    #[error("{0:?}: pid: wants a process number, as in pid:1234 (proc:* is for every process)")]
    Pid(String),
}

impl From<PatternError> for SelectorError {
    fn from(e: PatternError) -> Self {
        Self::Name(e.0)
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let (exclude, rest) = s.strip_prefix('!').map_or((false, s), |rest| (true, rest));
        Ok(Self { exclude, what: what(rest)? })
    }
}

fn what(s: &str) -> Result<What, SelectorError> {
    if s.contains('/') {
        return Ok(What::Path(PathBuf::from(s)));
    }
    if let Some(pid) = s.strip_prefix("pid:") {
        return match pid.parse() {
            Ok(pid) if pid > 0 => Ok(What::Pid(pid)),
            _ => Err(SelectorError::Pid(s.to_owned())),
        };
    }
    if let Some(command) = s.strip_prefix("proc:") {
        return Ok(What::Process(command.parse()?));
    }
    for (runtime, prefix) in Runtime::ALL {
        if let Some(part) = s.strip_prefix(prefix) {
            return Ok(What::Runtime(runtime, part.parse()?));
        }
    }
    Ok(What::Name(s.parse()?))
}

impl TryFrom<String> for Selector {
    type Error = SelectorError;

    fn try_from(s: String) -> Result<Self, Self::Error> {
        s.parse()
    }
}

impl From<Selector> for String {
    fn from(s: Selector) -> Self {
        s.to_string()
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.exclude {
            f.write_str("!")?;
        }
        match &self.what {
            What::Name(name) => write!(f, "{name}"),
            What::Runtime(runtime, part) => {
                let prefix = Runtime::ALL.iter().find(|(r, _)| r == runtime).map_or("", |r| r.1);
                write!(f, "{prefix}{part}")
            }
            What::Path(path) => write!(f, "{}", path.display()),
            What::Pid(pid) => write!(f, "pid:{pid}"),
            What::Process(command) => write!(f, "proc:{command}"),
        }
    }
}

impl Selector {
    /// Every namespace that has a name.
    #[must_use]
    pub fn all() -> Self {
        Self { exclude: false, what: What::Name(Pattern::any()) }
    }

    /// It says which namespaces are *not* meant.
    #[must_use]
    pub fn is_exclude(&self) -> bool {
        self.exclude
    }

    /// It means one thing only, so that what it means may be the host's own namespace.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        match &self.what {
            What::Name(name) | What::Runtime(_, name) => name.is_exact(),
            What::Path(path) => !has_wildcard(path),
            What::Pid(_) => true,
            What::Process(_) => false,
        }
    }

    /// The process that it asks for.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        if let What::Pid(pid) = self.what { Some(pid) } else { None }
    }

    /// The file, or the pattern of files, that it asks for.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        if let What::Path(path) = &self.what { Some(path) } else { None }
    }

    /// What it means lies in the directories of names: [`super::Watcher`] and the table of
    /// mounts tell when there may be others. Files elsewhere and processes come and go
    /// without a word.
    #[must_use]
    pub fn is_by_name(&self) -> bool {
        matches!(self.what, What::Name(_) | What::Runtime(..))
    }

    /// It asks for namespaces by the processes in them.
    #[must_use]
    pub fn needs_processes(&self) -> bool {
        matches!(self.what, What::Process(_))
    }

    /// Does it mean a namespace that was found in this way? Says nothing of whether it
    /// excludes.
    #[must_use]
    pub fn fits(&self, origin: &Origin) -> bool {
        match (&self.what, origin) {
            (What::Name(p), Origin::Named(name) | Origin::Docker(name)) => p.fits(name),
            (What::Runtime(runtime, p), _) => runtime.part(origin).is_some_and(|n| p.fits(n)),
            (What::Path(p), Origin::Path(path)) => path_fits(p, path),
            (What::Pid(pid), Origin::Process { pid: its, .. }) => pid == its,
            (What::Process(p), Origin::Process { command: Some(command), .. }) => p.fits(command),
            _ => false,
        }
    }

    /// Whatever `other` means, this one means too; false also where that is not sure.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let within = |p: &Pattern, q: &Pattern| p == q || p.as_str() == "*" || exact_in(p, q);
        match (&self.what, &other.what) {
            (What::Name(p), What::Runtime(..)) => p.as_str() == "*",
            (What::Runtime(r, p), What::Runtime(s, q)) => r == s && within(p, q),
            (What::Name(p), What::Name(q)) | (What::Process(p), What::Process(q)) => within(p, q),
            (a, b) => a == b,
        }
    }

    /// May a namespace that it means be shown as `name`? True also where that is not known.
    #[must_use]
    pub fn may_be_called(&self, name: &str) -> bool {
        match &self.what {
            What::Name(p) => p.fits(name.strip_prefix("docker:").unwrap_or(name)),
            What::Runtime(runtime, p) => {
                let origin = Origin::of_label(name);
                runtime.part(&origin).is_some_and(|part| p.fits(part))
            }
            // Such a namespace may have a name besides.
            What::Path(_) | What::Pid(_) | What::Process(_) => true,
        }
    }
}

fn exact_in(p: &Pattern, q: &Pattern) -> bool {
    q.is_exact() && p.fits(q.as_str())
}

pub(super) fn has_wildcard(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?'])
}

/// A component of a path as a pattern; None for the root, `.` and `..`.
pub(super) fn component(c: Component<'_>) -> Option<Pattern> {
    let Component::Normal(name) = c else { return None };
    name.to_string_lossy().parse().ok()
}

fn path_fits(pattern: &Path, path: &Path) -> bool {
    let (mut patterns, mut parts) = (pattern.components(), path.components());
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(p), Some(c)) if p == c => {}
            (Some(p), Some(c)) => {
                let name = c.as_os_str().to_string_lossy();
                if !component(p).is_some_and(|p| p.fits(&name)) {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(s: &str) -> Selector {
        s.parse().unwrap()
    }

    fn named(name: &str) -> Origin {
        Origin::Named(name.to_owned())
    }

    #[test]
    fn what_the_user_types_is_shown_again() {
        let all = [
            "blue",
            "all",
            "123",
            "tenant-*",
            "*",
            "pid:123",
            "./x",
            "/proc/1/ns/net",
            "docker:*",
            "cni:4*",
            "podman:*",
            "proc:bird",
            "!infra",
            "!docker:*",
            "a:b",
        ];
        for text in all {
            assert_eq!(is(text).to_string(), text);
        }
        let wrong = |s: &str| s.parse::<Selector>().unwrap_err();
        for text in ["pid:x", "pid:0", "pid:", "pid:*"] {
            assert_eq!(wrong(text), SelectorError::Pid(text.to_owned()));
        }
        for text in ["", "..", "!", "docker:", "proc:"] {
            assert!(matches!(wrong(text), SelectorError::Name(_)), "{text}");
        }
    }

    #[test]
    fn a_selector_means_what_it_says() {
        let docker = Origin::Docker("1a2b".to_owned());
        let process = Origin::Process { pid: 7, command: Some("bird".to_owned()) };
        let path = |p: &str| Origin::Path(PathBuf::from(p));
        assert!(is("tenant-*").fits(&named("tenant-7")));
        assert!(is("1a2b").fits(&docker) && is("*").fits(&docker));
        assert!(is("docker:1a*").fits(&docker));
        assert!(!is("docker:*").fits(&named("1a2b")));
        assert!(is("cni:*").fits(&named("cni-5")) && !is("cni:*").fits(&named("blue")));
        assert!(is("podman:5").fits(&named("netns-5")));
        assert!(is("pid:7").fits(&process) && !is("pid:8").fits(&process));
        assert!(is("proc:b*").fits(&process) && !is("proc:frr").fits(&process));
        assert!(!is("*").fits(&process));
        assert!(is("/x/ns-*").fits(&path("/x/ns-1")) && !is("/x/ns-*").fits(&path("/y/ns-1")));
        assert!(is("/proc/*/ns/net").fits(&path("/proc/7/ns/net")));
        assert!(!is("/proc/*/net").fits(&path("/proc/7/ns/net")));
    }

    #[test]
    fn what_can_never_be_reached_is_known() {
        assert!(is("*").covers(&is("blue")) && is("*").covers(&is("docker:*")));
        assert!(is("tenant-*").covers(&is("tenant-7")) && is("blue").covers(&is("blue")));
        assert!(!is("blue").covers(&is("*")) && !is("*").covers(&is("proc:*")));
        assert!(!is("docker:*").covers(&is("*")) && !is("*").covers(&is("/x")));
    }

    #[test]
    fn what_is_shown_can_be_looked_up() {
        assert!(is("b*").may_be_called("blue") && !is("b*").may_be_called("red"));
        assert!(is("docker:*").may_be_called("docker:1a") && !is("docker:*").may_be_called("1a"));
        assert!(is("cni:*").may_be_called("cni-1") && is("/x").may_be_called("blue"));
    }
}
