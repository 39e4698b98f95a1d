//! Names of namespaces as they come and go in `/run/netns`.
//!
//! The directory may not exist yet: `ip netns add` makes it. Until then its
//! parent is watched. A name that is [`Change::Added`] is not yet a namespace;
//! `open` waits for it. A name that is [`Change::Removed`] may be one still, held
//! by its processes.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use tokio::io::unix::AsyncFd;

use super::Error;
use crate::sys;

/// Something happened to a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A name appeared.
    Added(String),
    /// A name went away.
    Removed(String),
    /// Something was missed, or the directory itself came: list again.
    Rescan,
}

/// Watches a directory of namespaces. Needs a tokio runtime with I/O.
#[derive(Debug)]
pub struct Watcher {
    inotify: AsyncFd<Inotify>,
    dir: PathBuf,
    /// The watch on the parent, while the directory does not exist.
    parent: Option<WatchDescriptor>,
}

impl Watcher {
    /// Watches `/run/netns`. List after this, not before, and nothing is missed.
    ///
    /// # Errors
    /// Where inotify's limits are reached or the directory may not be read.
    pub fn new() -> Result<Self, Error> {
        Self::on(Path::new("/run/netns"))
    }

    fn on(dir: &Path) -> Result<Self, Error> {
        let watch = |source| Error::Watch { path: dir.to_owned(), source };
        let inotify = Inotify::init().and_then(sys::readable::inotify).map_err(watch)?;
        let mut watcher = Self { inotify, dir: dir.to_owned(), parent: None };
        watcher.arm().map_err(watch)?;
        Ok(watcher)
    }

    /// Watches the directory, or its parent where there is none.
    fn arm(&mut self) -> io::Result<()> {
        let mut watches = self.inotify.get_ref().watches();
        // The parent first: else the directory could come between the two looks.
        if self.parent.is_none() {
            let parent = self.dir.parent().unwrap_or(Path::new("/"));
            self.parent = Some(watches.add(parent, WatchMask::CREATE | WatchMask::ONLYDIR)?);
        }
        let names = WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::DELETE_SELF
            | WatchMask::ONLYDIR;
        match watches.add(&self.dir, names) {
            Ok(_) => {
                if let Some(parent) = self.parent.take() {
                    watches.remove(parent)?;
                }
                Ok(())
            }
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Waits for changes; all that are there, at least one. Safe to cancel.
    ///
    /// # Errors
    /// Where inotify fails.
    pub async fn next(&mut self) -> Result<Vec<Change>, Error> {
        loop {
            let read = self.read().await;
            let changes = read.map_err(|source| Error::Watch { path: self.dir.clone(), source })?;
            if !changes.is_empty() {
                return Ok(changes);
            }
        }
    }

    async fn read(&mut self) -> io::Result<Vec<Change>> {
        let mut ready = self.inotify.readable_mut().await?;
        let mut buffer = [0; 8192];
        let mut changes = Vec::new();
        let mut rearm = false;
        match ready.get_inner_mut().read_events(&mut buffer) {
            Ok(events) => {
                for event in events {
                    rearm |= event.mask.contains(EventMask::DELETE_SELF);
                    let from_parent = Some(&event.wd) == self.parent.as_ref();
                    rearm |= from_parent && event.name == self.dir.file_name();
                    if !from_parent && let Some(change) = change(&event) {
                        changes.push(change);
                    }
                }
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => ready.clear_ready(),
            Err(e) => return Err(e),
        }
        if rearm {
            self.arm()?;
            changes.push(Change::Rescan);
        }
        Ok(changes)
    }
}

fn change(event: &inotify::Event<&std::ffi::OsStr>) -> Option<Change> {
    if event.mask.contains(EventMask::Q_OVERFLOW) {
        return Some(Change::Rescan);
    }
    let name = event.name?.to_string_lossy().into_owned();
    if event.mask.intersects(EventMask::CREATE | EventMask::MOVED_TO) {
        Some(Change::Added(name))
    } else if event.mask.intersects(EventMask::DELETE | EventMask::MOVED_FROM) {
        Some(Change::Removed(name))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn names_come_and_go_even_before_the_directory_does() {
        let top = std::env::temp_dir().join(format!("hm-watch-{}", std::process::id()));
        fs::create_dir_all(&top).unwrap();
        let dir = top.join("netns");
        runtime().block_on(async {
            let mut watcher = Watcher::on(&dir).unwrap();
            fs::write(top.join("other"), "").unwrap();
            fs::create_dir(&dir).unwrap();
            assert_eq!(watcher.next().await.unwrap(), [Change::Rescan]);
            fs::write(dir.join("blue"), "").unwrap();
            assert_eq!(watcher.next().await.unwrap(), [Change::Added("blue".into())]);
            fs::remove_file(dir.join("blue")).unwrap();
            assert_eq!(watcher.next().await.unwrap(), [Change::Removed("blue".into())]);
            fs::remove_dir(&dir).unwrap();
            assert_eq!(watcher.next().await.unwrap(), [Change::Rescan]);
            fs::create_dir(&dir).unwrap();
            assert_eq!(watcher.next().await.unwrap(), [Change::Rescan]);
        });
        fs::remove_dir_all(&top).unwrap();
    }
}
