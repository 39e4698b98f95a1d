//! Network namespaces: finding, opening and entering them.
//!
//! A [`Netns`] is an open namespace. Work inside it is done by [`Netns::run`],
//! on a thread of its own, so that no caller ever changes namespace by accident;
//! a thread that is dedicated to namespaces calls [`Netns::enter_current_thread`].
//!
//! Not here: what is in a namespace (`netlink`), and what becomes of it (`control`).
//!
//! Invariants:
//! - A namespace is told from others by its cookie, never by its inode number,
//!   which the kernel gives away again, nor by its name, which may be reused.
//! - An open [`Netns`] keeps the namespace alive. Whoever holds one drops it when
//!   the namespace's name goes away.
//!
//! ```no_run
//! use nsplane::netns::{self, Selector};
//!
//! let tenants: Selector = "tenant-*".parse()?;
//! for chosen in netns::scan(&[&tenants])?.choose(&[&tenants]) {
//!     let tenant = netns::open(&chosen)?;
//!     let routes = tenant.run(|| std::fs::read_to_string("/proc/net/route"))??;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod pattern;
mod scan;
mod select;
mod watch;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use thiserror::Error;

use crate::id::NetnsCookie;
use crate::sys;

pub use pattern::{Pattern, PatternError};
pub use scan::{Chosen, FileId, Known, Scan, check, directories, open, open_path, scan};
pub use select::{Selector, SelectorError};
pub use watch::Watcher;

/// Why a namespace could not be found, opened or used.
#[derive(Debug, Error)]
pub enum Error {
    /// No such process.
    #[error("no process {0}, hence no network namespace of it")]
    NoSuchProcess(u32),
    /// It was there a moment ago.
    #[error("network namespace {name} is gone")]
    Gone {
        /// The namespace as users know it.
        name: String,
    },
    /// The file cannot be opened.
    #[error("network namespace {name}: open {}: {source}", path.display())]
    Open {
        /// The namespace as users know it.
        name: String,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is there, but is no network namespace.
    #[error("{} is no network namespace (give a name of `ip netns`, a file such as \
             /proc/1/ns/net, or pid:N)", path.display())]
    NotANamespace {
        /// The file.
        path: PathBuf,
    },
    /// The caller may not do it.
    #[error(
        "network namespace {name}: not permitted: {source} (CAP_SYS_ADMIN is needed; run as root)"
    )]
    NotPermitted {
        /// The namespace as users know it.
        name: String,
        /// The call that was refused.
        source: sys::netns::Error,
    },
    /// A system call failed.
    #[error("network namespace {name}: {source}")]
    Call {
        /// The namespace as users know it.
        name: String,
        /// The call that failed.
        source: sys::netns::Error,
    },
    /// No thread to run in the namespace.
    #[error("network namespace {name}: start a thread: {source}")]
    Thread {
        /// The namespace as users know it.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A directory of namespaces cannot be listed.
    #[error("list {}: {source}", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// inotify does not work.
    #[error("watch {}: {source}", path.display())]
    Watch {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    /// The namespace went away: nothing is wrong.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Gone { .. } | Self::NoSuchProcess(_) | Self::NotANamespace { .. } => true,
            Self::Open { source, .. } => {
                source.kind() == io::ErrorKind::NotFound
                    || source.raw_os_error() == Some(libc::ESRCH)
            }
            _ => false,
        }
    }

    fn call(name: &str, source: sys::netns::Error) -> Self {
        let name = name.to_owned();
        if source.is_permission() {
            Self::NotPermitted { name, source }
        } else {
            Self::Call { name, source }
        }
    }
}

/// How a namespace was found, the best way first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// By its name in `/run/netns`.
    Named(String),
    /// By its name in Docker's directory.
    Docker(String),
    /// By a path of the user's.
    Path(PathBuf),
    /// As the namespace of a process.
    Process {
        /// Its number.
        pid: u32,
        /// Its command, where that was looked for.
        command: Option<String>,
    },
    /// Made by us, without a name.
    Private(String),
}

impl Origin {
    /// What the namespace is called. Selects it again.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Named(name) | Self::Private(name) => name.clone(),
            Self::Docker(name) => format!("docker:{name}"),
            Self::Path(path) => path.display().to_string(),
            Self::Process { pid, .. } => format!("pid:{pid}"),
        }
    }

    /// It is a name that somebody gave the namespace.
    #[must_use]
    pub fn is_name(&self) -> bool {
        matches!(self, Self::Named(_) | Self::Docker(_))
    }

    /// The origin of what has this label and a name.
    fn of_label(label: &str) -> Self {
        match label.strip_prefix("docker:") {
            Some(name) => Self::Docker(name.to_owned()),
            None => Self::Named(label.to_owned()),
        }
    }
}

/// An open network namespace. Keeps it alive; closed when dropped.
pub struct Netns {
    fd: OwnedFd,
    id: FileId,
    cookie: NetnsCookie,
    name: String,
    origin: Origin,
}

impl fmt::Debug for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Netns")
            .field("name", &self.name)
            .field("cookie", &self.cookie.0)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Netns {
    /// The kernel's identity of the namespace.
    #[must_use]
    pub fn cookie(&self) -> NetnsCookie {
        self.cookie
    }

    /// The name shown to users: as `ip netns` has it, else the path or `pid:N`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it was found.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Tells it from all others for as long as it is open.
    #[must_use]
    pub fn file_id(&self) -> FileId {
        self.id
    }

    /// The same namespace under another name.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn known_as(&self, origin: &Origin) -> Result<Self, Error> {
        let name = origin.label();
        let fd = self
            .fd
            .try_clone()
            .map_err(|source| Error::call(&name, sys::netns::Error { call: "dup", source }))?;
        Ok(Self { fd, id: self.id, cookie: self.cookie, name, origin: origin.clone() })
    }

    /// Makes a namespace without a name, which lives as long as something holds
    /// it (this value, a socket, a device's other end). `lo` is set up if asked.
    ///
    /// # Errors
    /// Where the caller may not make one, or the system's limit is reached.
    pub fn private(name: &str, loopback: bool) -> Result<Self, Error> {
        let made = on_own_thread(name, || {
            sys::netns::unshare()?;
            if loopback {
                sys::netns::loopback_up()?;
            }
            sys::netns::cookie()
                .map(|cookie| (File::open("/proc/thread-self/ns/net"), NetnsCookie(cookie)))
        })?;
        let (file, cookie) = made.map_err(|e| Error::call(name, e))?;
        let file = file.map_err(|source| Error::Open {
            name: name.to_owned(),
            path: PathBuf::from("/proc/thread-self/ns/net"),
            source,
        })?;
        let id = id_of(&file, name)?;
        let (name, origin) = (name.to_owned(), Origin::Private(name.to_owned()));
        Ok(Self { fd: file.into(), id, cookie, name, origin })
    }

    /// Runs `f` inside the namespace, on a thread of its own, and returns what it
    /// returns. Descriptors that `f` opens belong to the namespace and may be
    /// used anywhere. A panic of `f` goes on in the caller.
    ///
    /// # Errors
    /// Where the thread cannot be started or may not enter.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let done = on_own_thread(&self.name, || {
            sys::netns::enter(self.fd.as_fd())?;
            Ok(f())
        })?;
        done.map_err(|e| Error::call(&self.name, e))
    }

    /// Moves the calling thread into the namespace, for good or until it enters
    /// another. Only for threads that do nothing else than work in namespaces.
    ///
    /// # Errors
    /// Where the caller may not enter.
    pub fn enter_current_thread(&self) -> Result<(), Error> {
        sys::netns::enter(self.fd.as_fd()).map_err(|e| Error::call(&self.name, e))
    }

    /// Takes an open file, which must be a network namespace; None if it is not.
    fn from_file(file: File, origin: &Origin) -> Result<Option<Self>, Error> {
        let name = origin.label();
        if !sys::netns::is_netns(file.as_fd()).map_err(|e| Error::call(&name, e))? {
            return Ok(None);
        }
        let id = id_of(&file, &name)?;
        let (fd, origin) = (file.into(), origin.clone());
        let mut ns = Self { fd, id, cookie: NetnsCookie(0), name, origin };
        let cookie = ns.run(sys::netns::cookie)?.map_err(|e| Error::call(&ns.name, e))?;
        ns.cookie = NetnsCookie(cookie);
        Ok(Some(ns))
    }
}

fn id_of(file: &File, name: &str) -> Result<FileId, Error> {
    let metadata = file.metadata();
    let failed = |source| Error::call(name, sys::netns::Error { call: "fstat", source });
    metadata.map(|m| FileId::of(&m)).map_err(failed)
}

/// Runs `f` on a thread that ends afterwards, whatever namespace it is in then.
fn on_own_thread<T: Send>(name: &str, f: impl FnOnce() -> T + Send) -> Result<T, Error> {
    thread::scope(|scope| {
        let spawned = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, f);
        let thread = spawned.map_err(|source| Error::Thread { name: name.to_owned(), source })?;
        match thread.join() {
            Ok(value) => Ok(value),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn open_file(name: &str, path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|source| {
        let name = name.to_owned();
        if source.kind() == io::ErrorKind::PermissionDenied {
            let source = sys::netns::Error { call: "open", source };
            return Error::NotPermitted { name, source };
        }
        Error::Open { name, path: path.to_owned(), source }
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Root is needed to make namespaces; says so where it is not there.
    pub(crate) fn root(test: &str) -> bool {
        let root = std::fs::read_to_string("/proc/self/status").is_ok_and(|s| {
            s.lines().any(|l| l.starts_with("Uid:") && l.split_whitespace().nth(2) == Some("0"))
        });
        if !root {
            println!("{test}: left out, needs root");
        }
        root
    }

    #[test]
    fn a_private_namespace_is_another_one_and_the_caller_stays() {
        if !root("a_private_namespace_is_another_one_and_the_caller_stays") {
            return;
        }
        let before = sys::netns::cookie().unwrap();
        let ns = Netns::private("hm-private", true).unwrap();
        assert_ne!(ns.cookie().0, before);
        assert_eq!(sys::netns::cookie().unwrap(), before);
        assert_eq!(ns.run(sys::netns::cookie).unwrap().unwrap(), ns.cookie().0);
        let flags = ns.run(|| std::fs::read_to_string("/proc/thread-self/net/dev")).unwrap();
        assert!(flags.unwrap().contains("lo:"));
    }

    #[test]
    fn a_panic_inside_goes_on_outside() {
        if !root("a_panic_inside_goes_on_outside") {
            return;
        }
        let ns = Netns::private("hm-panic", false).unwrap();
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            ns.run(|| std::panic::resume_unwind(Box::new("inside")))
        }));
        let payload = caught.map(|_: Result<(), Error>| ()).unwrap_err();
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"inside"));
    }
}
