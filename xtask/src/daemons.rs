//! FRR and BIRD for the tests: Debian's, unpacked into `target/routing-daemons`.
//!
//! They are not installed: Debian's packages start their daemons at once, in the machine's
//! own namespace. apt works with lists and archives of its own beside them, so that it
//! needs no root and changes nothing of the machine's; what the machine has it takes
//! from there (libraries), and what it lacks it unpacks too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::progress::{run_logged, say};

const PACKAGES: [&str; 2] = ["bird2", "frr"];
/// What must be there in the end.
const PROGRAMS: [&str; 2] = ["usr/lib/frr/bgpd", "usr/sbin/bird"];

fn complete(root: &Path) -> bool {
    PROGRAMS.iter().all(|program| root.join(program).is_file())
}

/// Unpacks them, unless they are there or installed.
///
/// # Errors
/// apt cannot have the packages, or one cannot be unpacked.
pub(crate) fn provide(root: &Path) -> Result<()> {
    let to = root.join("target/routing-daemons");
    if complete(&to) || complete(Path::new("/")) {
        say("setup: FRR and BIRD are there");
        return Ok(());
    }
    let work = root.join("target/xtask/apt");
    // Left by a run that did not come to its end.
    let _ = fs::remove_dir_all(&work);
    for dir in ["lists/partial", "cache/archives/partial"] {
        let dir = work.join(dir);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    run_logged(root, "daemons-update", "setup: lists of packages", apt(&work).arg("update"))?;
    let mut get = apt(&work);
    get.args(["install", "--download-only", "--yes", "--no-install-recommends"]).args(PACKAGES);
    run_logged(root, "daemons-get", "setup: FRR and BIRD for the tests", &mut get)?;
    let unpacked = root.join("target/routing-daemons.new");
    let _ = fs::remove_dir_all(&unpacked);
    for archive in archives(&work.join("cache/archives"))? {
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("--extract").arg(&archive).arg(&unpacked);
        let output = unpack.output().context("cannot run dpkg-deb")?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("cannot unpack {}: {}", archive.display(), why.trim());
        }
    }
    if !complete(&unpacked) {
        bail!("the packages {} have no {}", PACKAGES.join(", "), PROGRAMS.join(", "));
    }
    let _ = fs::remove_dir_all(&to);
    fs::rename(&unpacked, &to).with_context(|| format!("cannot make {}", to.display()))?;
    // Some ten megabytes that nobody looks at again.
    let _ = fs::remove_dir_all(&work);
    say(&format!("setup: FRR and BIRD are in {}", to.display()));
    Ok(())
}

/// apt with lists, archives and locks of its own.
fn apt(work: &Path) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    let set = |name: &str, value: String| format!("{name}={value}");
    let dir = |part: &str| format!("{}/", work.join(part).display());
    for option in [
        set("Dir::State::lists", dir("lists")),
        set("Dir::Cache", dir("cache")),
        set("Debug::NoLocking", "true".to_owned()),
        // It would not be let into our folders as the user that it becomes for that.
        set("APT::Sandbox::User", "root".to_owned()),
    ] {
        command.args(["-o", &option]);
    }
    command
}

fn archives(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "deb") {
            all.push(path);
        }
    }
    all.sort();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apt_touches_nothing_of_the_machines() {
        let command = apt(Path::new("/w"));
        let args: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        for own in ["Dir::State::lists=/w/lists/", "Dir::Cache=/w/cache/", "Debug::NoLocking=true"]
        {
            assert!(args.iter().any(|a| a == own), "{args:?}");
        }
    }
}
