//! Tells when a directory of namespaces changes.
//!
//! It does not tell what changed: whoever hears it looks again ([`super::scan()`]), so
//! that nothing can be missed. A directory need not exist: Docker's is made when Docker
//! starts, and `ip netns add` makes its own. Until then the nearest directory above it
//! is watched for the next one on the way.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use tokio::io::unix::AsyncFd;

use super::Error;
use crate::sys;

/// Watches directories. Needs a tokio runtime with I/O.
#[derive(Debug)]
pub struct Watcher {
    inotify: AsyncFd<Inotify>,
    dirs: Vec<PathBuf>,
    armed: Vec<(WatchDescriptor, Awaited)>,
}

/// What a watched directory is watched for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Awaited {
    /// Anything in it.
    All,
    /// The next directory on the way to one that does not exist.
    Next(OsString),
}

impl Watcher {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// Where the system's limit of inotify instances is reached.
    pub fn new() -> Result<Self, Error> {
        let inotify = Inotify::init().and_then(sys::readable::inotify);
        let inotify =
            inotify.map_err(|source| Error::Watch { path: PathBuf::from("inotify"), source })?;
        Ok(Self { inotify, dirs: Vec::new(), armed: Vec::new() })
    }

    /// Watches these directories from now on, and no others. Look after this, not
    /// before, and nothing is missed.
    ///
    /// # Errors
    /// Where the system's limit of watches is reached or a directory may not be read.
    pub fn watch(&mut self, dirs: Vec<PathBuf>) -> Result<(), Error> {
        self.dirs = dirs;
        self.arm()
    }

    /// Watches what is at the directories' paths now: something may have been mounted
    /// there, or on the way.
    ///
    /// # Errors
    /// As [`Watcher::watch`].
    pub fn watch_again(&mut self) -> Result<(), Error> {
        self.arm()
    }

    fn arm(&mut self) -> Result<(), Error> {
        let mut armed = Vec::new();
        for dir in &self.dirs {
            let failed = |source| Error::Watch { path: dir.clone(), source };
            armed.push(arm(&self.inotify, dir).map_err(failed)?);
        }
        let before = std::mem::replace(&mut self.armed, armed);
        for (old, _) in before {
            if self.armed.iter().all(|(wd, _)| *wd != old) {
                // The kernel removes the watch of a directory that is gone by itself.
                let _ = self.inotify.get_ref().watches().remove(old);
            }
        }
        Ok(())
    }

    /// Waits until something changed. Safe to cancel.
    ///
    /// # Errors
    /// Where inotify fails.
    pub async fn changed(&mut self) -> Result<(), Error> {
        let failed = |source| Error::Watch { path: PathBuf::from("inotify"), source };
        loop {
            let (changed, rearm) = self.read().await.map_err(failed)?;
            if rearm {
                self.arm()?;
            }
            if changed {
                return Ok(());
            }
        }
    }

    /// Reads what is queued: something changed; a directory came or went.
    async fn read(&mut self) -> io::Result<(bool, bool)> {
        let (mut changed, mut rearm) = (false, false);
        let mut ready = self.inotify.readable_mut().await?;
        let mut buffer = [0; 8192];
        match ready.get_inner_mut().read_events(&mut buffer) {
            Ok(events) => {
                for event in events {
                    if event.mask.contains(EventMask::Q_OVERFLOW) {
                        (changed, rearm) = (true, true);
                    }
                    for (_, awaited) in self.armed.iter().filter(|(wd, _)| *wd == event.wd) {
                        let gone = EventMask::DELETE_SELF | EventMask::MOVE_SELF;
                        let next = matches!(awaited, Awaited::Next(n) if event.name == Some(n));
                        rearm |= next || event.mask.intersects(gone);
                        changed |= rearm || *awaited == Awaited::All;
                    }
                }
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => ready.clear_ready(),
            Err(e) => return Err(e),
        }
        Ok((changed, rearm))
    }
}

/// Watches `dir`, or what is there of the way to it.
fn arm(inotify: &AsyncFd<Inotify>, dir: &Path) -> io::Result<(WatchDescriptor, Awaited)> {
    // The same for every use: one directory has one watch.
    let mask = WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::MOVED_TO
        | WatchMask::MOVED_FROM
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::ONLYDIR;
    let mut watches = inotify.get_ref().watches();
    loop {
        let mut awaited = Awaited::All;
        for there in dir.ancestors() {
            let there = if there == Path::new("") { Path::new(".") } else { there };
            match watches.add(there, mask) {
                Ok(watch) => {
                    // Made between the two looks? Then it is looked for again.
                    let came = matches!(&awaited, Awaited::Next(n) if there.join(n).is_dir());
                    if came {
                        break;
                    }
                    return Ok((watch, awaited));
                }
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    let name = there.file_name().map(Into::into);
                    awaited = Awaited::Next(name.ok_or(e)?);
                }
                Err(e) => return Err(e),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    async fn heard(watcher: &mut Watcher) -> bool {
        let wait = tokio::time::timeout(Duration::from_millis(200), watcher.changed());
        wait.await.map(Result::unwrap).is_ok()
    }

    #[test]
    fn names_come_and_go_even_before_their_directories_do() {
        let top = std::env::temp_dir().join(format!("nsplane-watch-{}", std::process::id()));
        fs::create_dir_all(&top).unwrap();
        let (near, far) = (top.join("netns"), top.join("docker/netns"));
        runtime().block_on(async {
            let mut watcher = Watcher::new().unwrap();
            watcher.watch(vec![near.clone(), far.clone()]).unwrap();
            fs::write(top.join("other"), "").unwrap();
            assert!(!heard(&mut watcher).await, "not ours");
            for dir in [&near, &far] {
                fs::create_dir_all(dir).unwrap();
                while heard(&mut watcher).await {}
                fs::write(dir.join("blue"), "").unwrap();
                assert!(heard(&mut watcher).await, "a name in {}", dir.display());
                fs::remove_file(dir.join("blue")).unwrap();
                assert!(heard(&mut watcher).await, "a name's end");
                fs::remove_dir(dir).unwrap();
                assert!(heard(&mut watcher).await, "the directory's end");
                fs::create_dir(dir).unwrap();
                assert!(heard(&mut watcher).await, "the directory again");
                fs::write(dir.join("red"), "").unwrap();
                assert!(heard(&mut watcher).await, "a name in it");
                while heard(&mut watcher).await {}
            }
            fs::remove_dir_all(top.join("docker")).unwrap();
            assert!(heard(&mut watcher).await, "the way's end");
            while heard(&mut watcher).await {}
            fs::create_dir_all(&far).unwrap();
            assert!(heard(&mut watcher).await, "the way again");
            watcher.watch(vec![near.clone()]).unwrap();
            while heard(&mut watcher).await {}
            fs::write(far.join("blue"), "").unwrap();
            assert!(!heard(&mut watcher).await, "watched no longer");
            fs::write(near.join("blue"), "").unwrap();
            assert!(heard(&mut watcher).await, "still watched");
        });
        fs::remove_dir_all(&top).unwrap();
    }
}
