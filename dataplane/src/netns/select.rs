//! Which namespaces are meant, and opening them.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use hashbrown::HashSet;
use serde::{Deserialize, Serialize};

use super::{Error, Netns, Origin, open_file, same_file};

/// Where namespaces have names: iproute2's directory and Docker's.
const DIRECTORIES: [&str; 2] = ["/run/netns", "/var/run/docker/netns"];

/// `ip netns add` makes the file first and mounts the namespace over it a moment
/// later. That moment is waited for, this often and this long each time.
const MOUNT_TRIES: u32 = 25;
const MOUNT_WAIT: Duration = Duration::from_millis(10);

/// A namespace, or all, as the user names it.
///
/// On the command line: what has a `/` is a path, `pid:N` a process's namespace,
/// anything else a name in `/run/netns` (then `/var/run/docker/netns`). A bare
/// number is a name, as it is for `ip netns`. `All` is asked for by an option of
/// its own, since a namespace may be called `all`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Selector {
    /// By name.
    Name(String),
    /// By a file.
    Path(PathBuf),
    /// By a process.
    Pid(u32),
    /// Every named one, but for the host's initial namespace.
    All,
}

/// A text that selects no namespace.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SelectorError {
    /// Nothing at all, or a name that no file can have.
    #[error("{0:?} is no name of a network namespace")]
    Name(String),
    /// `pid:` and no number.
    #[error("{0:?}: pid: wants a process number, as in pid:1234")]
    Pid(String),
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s.contains('/') {
            return Ok(Self::Path(PathBuf::from(s)));
        }
        if let Some(pid) = s.strip_prefix("pid:") {
            return match pid.parse() {
                Ok(pid) if pid > 0 => Ok(Self::Pid(pid)),
                _ => Err(SelectorError::Pid(s.to_owned())),
            };
        }
        if matches!(s, "" | "." | "..") || s.contains('\0') {
            return Err(SelectorError::Name(s.to_owned()));
        }
        Ok(Self::Name(s.to_owned()))
    }
}

impl TryFrom<String> for Selector {
    type Error = SelectorError;

    fn try_from(s: String) -> Result<Self, Self::Error> {
        s.parse()
    }
}

impl From<Selector> for String {
    fn from(s: Selector) -> Self {
        match s {
            Selector::Name(name) => name,
            Selector::Path(path) => path.display().to_string(),
            Selector::Pid(pid) => format!("pid:{pid}"),
            Selector::All => "*".to_owned(),
        }
    }
}

/// Opens the namespaces that `selector` means: one, or for `All` as many as
/// [`list_all`] finds.
///
/// # Errors
/// Names the namespace and says what to do about it.
pub fn open_each(selector: &Selector) -> Result<Vec<Netns>, Error> {
    match selector {
        Selector::All => list_all(),
        one => open(one).map(|ns| vec![ns]),
    }
}

/// Opens one namespace. Waits up to a quarter of a second for one that is just
/// being made.
///
/// # Errors
/// Names the namespace and says what to do about it. [`Selector::All`] is not one
/// namespace: it is answered like a name that does not exist.
pub fn open(selector: &Selector) -> Result<Netns, Error> {
    match selector {
        Selector::Name(name) => open_name(name),
        Selector::Path(path) => open_path(path),
        Selector::Pid(pid) => {
            let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
            if !Path::new(&format!("/proc/{pid}")).exists() {
                return Err(Error::NoSuchProcess(*pid));
            }
            finish(&path, &format!("pid:{pid}"), &Origin::Process(*pid))
        }
        Selector::All => Err(Error::NoSuchName { name: "all".to_owned(), names: names() }),
    }
}

fn open_name(name: &str) -> Result<Netns, Error> {
    let path = DIRECTORIES.iter().map(|d| Path::new(d).join(name)).find(|p| p.exists());
    let Some(path) = path else {
        return Err(Error::NoSuchName { name: name.to_owned(), names: names() });
    };
    finish(&path, name, &Origin::Named(path.clone()))
}

fn open_path(path: &Path) -> Result<Netns, Error> {
    // A path into iproute2's directory is shown by the name that everybody uses.
    let named = path.parent() == Some(Path::new(DIRECTORIES[0]));
    let name = match path.file_name() {
        Some(file) if named => file.to_string_lossy().into_owned(),
        _ => path.display().to_string(),
    };
    finish(path, &name, &Origin::Path(path.to_owned()))
}

/// Opens `path`, again and again while it is a file that a namespace may yet be
/// mounted over.
fn finish(path: &Path, name: &str, origin: &Origin) -> Result<Netns, Error> {
    for attempt in 0..MOUNT_TRIES {
        let file = open_file(name, path)?;
        // Only an empty plain file is one that `ip netns` may have just made.
        let waits = file.metadata().is_ok_and(|m| m.is_file() && m.len() == 0);
        if let Some(ns) = Netns::from_file(file, name, origin)? {
            return Ok(ns);
        }
        if !waits || attempt + 1 == MOUNT_TRIES {
            break;
        }
        thread::sleep(MOUNT_WAIT);
    }
    Err(Error::NotANamespace { path: path.to_owned() })
}

/// Every namespace that has a name, once each, by cookie.
///
/// Left out: the host's initial namespace (that of process 1, or our own where we
/// may not look at that), also where a runtime gave it a name (Docker's `default`);
/// routing for the host itself is asked for by name, `/proc/1/ns/net` or `pid:1`.
/// Left out too are files that are no namespace, and names that went away meanwhile.
///
/// # Errors
/// Where a directory exists but cannot be read, or a namespace may not be entered.
pub fn list_all() -> Result<Vec<Netns>, Error> {
    let initial = File::open("/proc/1/ns/net").or_else(|_| File::open("/proc/self/ns/net")).ok();
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for (path, name) in files()? {
        let Ok(file) = File::open(&path) else { continue };
        if initial.as_ref().is_some_and(|i| same_file(i, &file)) {
            continue;
        }
        drop(file);
        match finish(&path, &name, &Origin::Named(path.clone())) {
            Ok(ns) => {
                if seen.insert(ns.cookie()) {
                    found.push(ns);
                }
            }
            Err(Error::NotANamespace { .. } | Error::Open { .. }) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

/// The files that may be namespaces, with their names, in a stable order.
fn files() -> Result<Vec<(PathBuf, String)>, Error> {
    let mut out = Vec::new();
    for dir in DIRECTORIES {
        let list = |source| Error::List { path: PathBuf::from(dir), source };
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            Err(e) => return Err(list(e)),
        };
        let mut here = Vec::new();
        for entry in entries {
            let entry = entry.map_err(list)?;
            here.push((entry.path(), entry.file_name().to_string_lossy().into_owned()));
        }
        here.sort();
        out.append(&mut here);
    }
    Ok(out)
}

/// Names for an error message; as many as can be had.
fn names() -> Vec<String> {
    files().unwrap_or_default().into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_types_selects() {
        let is = |s: &str| s.parse::<Selector>();
        assert_eq!(is("blue"), Ok(Selector::Name("blue".into())));
        assert_eq!(is("all"), Ok(Selector::Name("all".into())));
        assert_eq!(is("123"), Ok(Selector::Name("123".into())));
        assert_eq!(is("pid:123"), Ok(Selector::Pid(123)));
        assert_eq!(is("./x"), Ok(Selector::Path("./x".into())));
        assert_eq!(is("/proc/1/ns/net"), Ok(Selector::Path("/proc/1/ns/net".into())));
        assert_eq!(is("pid:x"), Err(SelectorError::Pid("pid:x".into())));
        assert_eq!(is("pid:0"), Err(SelectorError::Pid("pid:0".into())));
        assert_eq!(is(""), Err(SelectorError::Name(String::new())));
        assert_eq!(is(".."), Err(SelectorError::Name("..".into())));
    }

    #[test]
    fn an_unknown_name_is_named_in_the_error() {
        let e = open(&Selector::Name("hm-no-such".into())).unwrap_err();
        assert!(e.to_string().contains("hm-no-such"), "{e}");
    }

    #[test]
    fn an_ordinary_file_is_refused_at_once() {
        let e = open(&Selector::Path("/proc/self/status".into())).unwrap_err();
        assert!(matches!(e, Error::NotANamespace { .. } | Error::NotPermitted { .. }), "{e}");
        let e = open(&Selector::Path("/nowhere/at/all".into())).unwrap_err();
        assert!(e.to_string().contains("/nowhere/at/all"), "{e}");
    }

    #[test]
    fn a_dead_process_has_no_namespace() {
        let e = open(&Selector::Pid(u32::MAX >> 1)).unwrap_err();
        assert!(matches!(e, Error::NoSuchProcess(_)), "{e}");
    }
}
