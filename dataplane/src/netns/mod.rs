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
//! let blue = netns::open(&"blue".parse::<Selector>()?)?;
//! let here = blue.run(|| std::fs::read_to_string("/proc/net/route"))??;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod pattern;
mod select;
mod watch;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use thiserror::Error;

use crate::id::NetnsCookie;
use crate::sys;

pub use pattern::{Pattern, PatternError};
pub use select::{Selector, SelectorError, list_all, open, open_each};
pub use watch::{Change, Watcher};

/// Why a namespace could not be found, opened or used.
#[derive(Debug, Error)]
pub enum Error {
    /// No such name.
    #[error("no network namespace {name:?}: {}", known(.names))]
    NoSuchName {
        /// What was asked for.
        name: String,
        /// The names that exist.
        names: Vec<String>,
    },
    /// No such process.
    #[error("no process {0}, hence no network namespace of it")]
    NoSuchProcess(u32),
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
    fn call(name: &str, source: sys::netns::Error) -> Self {
        let name = name.to_owned();
        if source.is_permission() {
            Self::NotPermitted { name, source }
        } else {
            Self::Call { name, source }
        }
    }
}

fn known(names: &[String]) -> String {
    if names.is_empty() {
        return "there are none (`ip netns add NAME` makes one)".to_owned();
    }
    format!("there are {}", names.join(", "))
}

/// How a namespace was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// By its name in a directory of namespaces; the file is given.
    Named(PathBuf),
    /// By a path of the user's.
    Path(PathBuf),
    /// As the namespace of a process.
    Process(u32),
    /// Made by us, without a name.
    Private,
}

/// An open network namespace. Keeps it alive; closed when dropped.
pub struct Netns {
    fd: OwnedFd,
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

    /// What it was found by still leads to it. One whose name is gone lives on only
    /// for what holds it, which may be us.
    #[must_use]
    pub fn is_named(&self) -> bool {
        let path = match &self.origin {
            Origin::Named(path) | Origin::Path(path) => path.clone(),
            Origin::Process(pid) => PathBuf::from(format!("/proc/{pid}/ns/net")),
            Origin::Private => return true,
        };
        let ours = self.fd.try_clone().map(File::from).and_then(|f| f.metadata());
        match (ours, std::fs::metadata(path)) {
            (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
            (Ok(_), Err(e)) => e.kind() != io::ErrorKind::NotFound,
            (Err(_), _) => true,
        }
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
        Ok(Self { fd: file.into(), cookie, name: name.to_owned(), origin: Origin::Private })
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
    fn from_file(file: File, name: &str, origin: &Origin) -> Result<Option<Self>, Error> {
        if !sys::netns::is_netns(file.as_fd()).map_err(|e| Error::call(name, e))? {
            return Ok(None);
        }
        let (name, origin) = (name.to_owned(), origin.clone());
        let mut ns = Self { fd: file.into(), cookie: NetnsCookie(0), name, origin };
        let cookie = ns.run(sys::netns::cookie)?.map_err(|e| Error::call(&ns.name, e))?;
        ns.cookie = NetnsCookie(cookie);
        Ok(Some(ns))
    }
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

/// Do both files name the same namespace? True answers hold while both are open.
fn same_file(a: &File, b: &File) -> bool {
    match (a.metadata(), b.metadata()) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
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
