//! Looking for namespaces: which there are, by which names, files and processes.
//!
//! A [`Scan`] is what was there at one moment. It opens nothing, and so keeps nothing
//! alive: namespaces are told apart by the file's number in nsfs, which a namespace
//! keeps while anything holds it. Whoever holds one open can trust that a file with
//! its number is the same namespace; who opens one looks again ([`open`]).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use hashbrown::HashSet;

use super::select::{component, has_wildcard};
use super::{Error, Netns, Origin, Selector, open_file};

/// Where `ip netns` and CNI plugins give names.
const NAMES: &str = "/run/netns";
/// Where Docker does. `/var/run` is the same as `/run` nearly everywhere.
const DOCKER: [&str; 2] = ["/run/docker/netns", "/var/run/docker/netns"];

/// Tells namespaces apart while they live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    dev: u64,
    ino: u64,
}

impl FileId {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self { dev: metadata.dev(), ino: metadata.ino() }
    }

    fn at(path: impl AsRef<Path>) -> Option<Self> {
        fs::metadata(path).ok().map(|m| Self::of(&m))
    }
}

/// One way by which a namespace was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Known {
    /// What it was found as.
    pub origin: Origin,
    /// The file that leads to it.
    pub path: PathBuf,
}

/// What there is.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// Each namespace with all that leads to it; the best name first.
    pub found: BTreeMap<FileId, Vec<Known>>,
    /// A name is there that no namespace is mounted over yet: `ip netns add` makes the
    /// file first. Look again in a moment.
    pub unfinished: bool,
    /// A name is a link to something else, often a process: what it means changes without
    /// a word.
    pub linked: bool,
    /// Namespaces that only an exact selector means: the host's, and our own.
    hosts: Vec<FileId>,
}

/// A namespace that is meant by a selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Which.
    pub id: FileId,
    /// The first selector that means it, by its place in the list.
    pub selector: usize,
    /// What it is called, and where it is.
    pub known: Known,
}

/// Looks for all namespaces that have a name, and for those that only `selectors` know of.
///
/// # Errors
/// A directory of names exists but cannot be read.
pub fn scan(selectors: &[&Selector]) -> Result<Scan, Error> {
    let mut scan = Scan::default();
    // Every namespace's file is in the one nsfs.
    let Some(ours) = FileId::at("/proc/self/ns/net") else { return Ok(scan) };
    scan.hosts = FileId::at("/proc/1/ns/net").into_iter().chain([ours]).collect();
    let nsfs = ours.dev;
    scan.directory(Path::new(NAMES), nsfs, Origin::Named)?;
    for dir in docker() {
        scan.directory(Path::new(dir), nsfs, Origin::Docker)?;
    }
    for path in selectors.iter().filter_map(|s| s.path()) {
        for path in expand(path) {
            scan.look_at(path.clone(), nsfs, Origin::Path(path));
        }
    }
    for pid in selectors.iter().filter_map(|s| s.pid()) {
        let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
        scan.look_at(path, nsfs, Origin::Process { pid, command: None });
    }
    if selectors.iter().any(|s| s.needs_processes()) {
        scan.processes();
    }
    for known in scan.found.values_mut() {
        known.sort();
        known.dedup();
    }
    Ok(scan)
}

/// Directories to be watched for the selectors' sake; they may not exist.
pub fn directories(selectors: &[&Selector]) -> Vec<PathBuf> {
    let of_path = |path: &Path| {
        let dir = path.parent().unwrap_or(Path::new("/"));
        let dir = if dir == Path::new("") { Path::new(".") } else { dir };
        // In /proc nothing is announced.
        (!has_wildcard(dir) && !dir.starts_with("/proc")).then(|| dir.to_owned())
    };
    let mut dirs: Vec<PathBuf> = [NAMES].iter().chain(docker()).map(PathBuf::from).collect();
    dirs.extend(selectors.iter().filter_map(|s| s.path()).filter_map(of_path));
    dirs.sort();
    dirs.dedup();
    dirs
}

/// Docker's directory, by one of its paths where both are the same.
fn docker() -> &'static [&'static str] {
    let same = FileId::at("/run").is_some_and(|run| FileId::at("/var/run") == Some(run));
    if same { &DOCKER[..1] } else { &DOCKER }
}

impl Scan {
    fn directory(
        &mut self,
        dir: &Path,
        nsfs: u64,
        origin: impl Fn(String) -> Origin,
    ) -> Result<(), Error> {
        let list = |source| Error::List { path: dir.to_owned(), source };
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Err(e) => return Err(list(e)),
        };
        for entry in entries {
            let entry = entry.map_err(list)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            self.look_at(entry.path(), nsfs, origin(name));
        }
        Ok(())
    }

    fn look_at(&mut self, path: PathBuf, nsfs: u64, origin: Origin) {
        let Ok(metadata) = fs::metadata(&path) else { return };
        let id = FileId::of(&metadata);
        if id.dev == nsfs {
            self.linked |= origin.is_name() && path.is_symlink();
            self.found.entry(id).or_default().push(Known { origin, path });
        } else {
            // Only an empty plain file is one that a namespace may yet be mounted over.
            self.unfinished |= metadata.is_file() && metadata.len() == 0;
        }
    }

    /// Namespaces that have no name, by the processes in them.
    fn processes(&mut self) {
        let named = |known: &Vec<Known>| known.iter().any(|k| k.origin.is_name());
        let named = self.found.iter().filter(|(_, known)| named(known)).map(|(id, _)| *id);
        let named: HashSet<FileId> = named.chain(self.hosts.iter().copied()).collect();
        let Ok(entries) = fs::read_dir("/proc") else { return };
        for entry in entries.flatten() {
            let Some(pid) = number(&entry.file_name()) else { continue };
            let path = entry.path().join("ns/net");
            let Some(id) = FileId::at(&path).filter(|id| !named.contains(id)) else { continue };
            let Ok(command) = fs::read_to_string(entry.path().join("comm")) else { continue };
            let command = Some(command.trim_end().to_owned());
            let origin = Origin::Process { pid, command };
            self.found.entry(id).or_default().push(Known { origin, path });
        }
    }

    /// The namespaces that `selectors` mean, each once, with the first that means it.
    pub fn choose(&self, selectors: &[&Selector]) -> Vec<Chosen> {
        let means = |s: &Selector, known: &[Known]| known.iter().any(|k| s.fits(&k.origin));
        let choose = |(id, known): (&FileId, &Vec<Known>)| {
            if selectors.iter().any(|s| s.is_exclude() && means(s, known)) {
                return None;
            }
            let of_host = self.hosts.contains(id);
            let mut in_order = selectors.iter().enumerate();
            let (selector, _) = in_order
                .find(|(_, s)| !s.is_exclude() && (!of_host || s.is_exact()) && means(s, known))?;
            Some(Chosen { id: *id, selector, known: known.first()?.clone() })
        };
        self.found.iter().filter_map(choose).collect()
    }

    /// Why a selector means nothing, for users.
    #[must_use]
    pub fn why_none(&self, selector: &Selector) -> String {
        let mut known = self.found.values().flatten();
        if known.any(|k| selector.fits(&k.origin)) {
            return "all that it means is another selector's, left out, or the host's".to_owned();
        }
        if let Some(pid) = selector.pid() {
            return format!("no process {pid}; a process number is not waited for");
        }
        if let Some(path) = selector.path() {
            return match fs::metadata(path) {
                Ok(_) => format!("{} is no network namespace", path.display()),
                Err(e) => format!("{}: {e}", path.display()),
            };
        }
        let all = self.found.values().filter_map(|known| known.first());
        let mut names: Vec<String> =
            all.filter(|k| k.origin.is_name()).map(|k| k.origin.label()).collect();
        names.sort();
        match names.as_slice() {
            [] => "no network namespace has a name (`ip netns add NAME` gives one)".to_owned(),
            names if names.len() > 12 => {
                format!("there are {} and {} more", names[..12].join(", "), names.len() - 12)
            }
            names => format!("there are {}", names.join(", ")),
        }
    }
}

/// What is wrong with a selector and does not become right by waiting: a process that is
/// not there, or a file that is something else.
///
/// # Errors
/// That.
pub fn check(selector: &Selector) -> Result<(), Error> {
    if let Some(pid) = selector.pid()
        && !Path::new(&format!("/proc/{pid}")).exists()
    {
        return Err(Error::NoSuchProcess(pid));
    }
    let Some(path) = selector.path().filter(|p| !has_wildcard(p)) else { return Ok(()) };
    let (Ok(there), Some(ours)) = (fs::metadata(path), FileId::at("/proc/self/ns/net")) else {
        return Ok(());
    };
    let empty = there.is_file() && there.len() == 0;
    if there.dev() == ours.dev || empty {
        return Ok(());
    }
    Err(Error::NotANamespace { path: path.to_owned() })
}

/// Opens what was chosen.
///
/// # Errors
/// [`Error::is_gone`] if it is there no more, also if its name is another namespace's now.
pub fn open(chosen: &Chosen) -> Result<Netns, Error> {
    let netns = open_known(&chosen.known)?;
    if netns.file_id() != chosen.id {
        return Err(Error::Gone { name: netns.name().to_owned() });
    }
    Ok(netns)
}

/// Opens the namespace that a file is.
///
/// # Errors
/// There is none, it is none, or may not be entered.
pub fn open_path(path: &Path) -> Result<Netns, Error> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
    let origin = match name {
        Some(name) if path.parent() == Some(Path::new(NAMES)) => Origin::Named(name),
        _ => Origin::Path(path.to_owned()),
    };
    open_known(&Known { origin, path: path.to_owned() })
}

fn open_known(known: &Known) -> Result<Netns, Error> {
    let file = open_file(&known.origin.label(), &known.path)?;
    let netns = Netns::from_file(file, &known.origin)?;
    netns.ok_or_else(|| Error::NotANamespace { path: known.path.clone() })
}

/// The files that a path with wildcards means; the path itself if it has none.
fn expand(path: &Path) -> Vec<PathBuf> {
    if !has_wildcard(path) {
        return vec![path.to_owned()];
    }
    path.components().fold(vec![PathBuf::new()], |bases, part| {
        let Some(pattern) = component(part).filter(|p| !p.is_exact()) else {
            return bases.into_iter().map(|b| b.join(part)).collect();
        };
        let inside = |base: PathBuf| {
            let entries = fs::read_dir(&base).into_iter().flatten().flatten();
            let names = entries.map(|e| e.file_name());
            let names: Vec<_> = names.filter(|n| pattern.fits(&n.to_string_lossy())).collect();
            names.into_iter().map(move |n| base.join(n))
        };
        bases.into_iter().flat_map(inside).collect()
    })
}

fn number(name: &OsStr) -> Option<u32> {
    name.to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(origin: Origin) -> Known {
        Known { origin, path: PathBuf::new() }
    }

    fn named(name: &str) -> Known {
        known(Origin::Named(name.to_owned()))
    }

    fn process(pid: u32, command: Option<&str>) -> Known {
        known(Origin::Process { pid, command: command.map(str::to_owned) })
    }

    fn made(found: &[(u64, &[Known])], host: u64) -> Scan {
        let id = |ino| FileId { dev: 4, ino };
        let found = found.iter().map(|(ino, known)| (id(*ino), known.to_vec())).collect();
        Scan { found, unfinished: false, linked: false, hosts: vec![id(host)] }
    }

    fn choose(scan: &Scan, selectors: &[&str]) -> Vec<(u64, usize, String)> {
        let selectors: Vec<Selector> = selectors.iter().map(|s| s.parse().unwrap()).collect();
        let chosen = scan.choose(&selectors.iter().collect::<Vec<_>>());
        chosen.into_iter().map(|c| (c.id.ino, c.selector, c.known.origin.label())).collect()
    }

    #[test]
    fn the_first_selector_that_fits_counts_and_two_names_are_one_namespace() {
        let scan = made(
            &[
                (1, &[named("blue"), named("old-blue")]),
                (2, &[named("tenant-1")]),
                (3, &[known(Origin::Docker("1a".to_owned()))]),
                (4, &[process(7, Some("bird"))]),
            ],
            0,
        );
        let one = |ino, selector, name: &str| (ino, selector, name.to_owned());
        assert_eq!(
            choose(&scan, &["tenant-*", "*"]),
            [one(1, 1, "blue"), one(2, 0, "tenant-1"), one(3, 1, "docker:1a")]
        );
        assert_eq!(choose(&scan, &["old-*"]), [one(1, 0, "blue")]);
        assert_eq!(choose(&scan, &["*", "!blue", "!docker:*"]), [one(2, 0, "tenant-1")]);
        assert!(choose(&scan, &["!*", "blue"]).is_empty());
        assert_eq!(choose(&scan, &["proc:*"]), [one(4, 0, "pid:7")]);
    }

    #[test]
    fn the_hosts_namespace_is_meant_only_by_what_means_nothing_else() {
        let scan = made(&[(1, &[named("default"), process(1, None)]), (2, &[named("blue")])], 1);
        let inos = |s: &[&str]| choose(&scan, s).iter().map(|c| c.0).collect::<Vec<_>>();
        assert_eq!(inos(&["*"]), [2]);
        assert!(inos(&["defaul?"]).is_empty());
        assert_eq!(inos(&["default"]), [1]);
        assert_eq!(inos(&["pid:1", "*"]), [1, 2]);
    }

    #[test]
    fn paths_have_wildcards_in_any_part() {
        let dir = std::env::temp_dir().join(format!("nsplane-expand-{}", std::process::id()));
        for sub in ["a1/x", "a2/x", "b/x"] {
            fs::create_dir_all(dir.join(sub)).unwrap();
        }
        let mut found = expand(&dir.join("a*/?"));
        found.sort();
        assert_eq!(found, [dir.join("a1/x"), dir.join("a2/x")]);
        assert_eq!(expand(&dir.join("no")), [dir.join("no")]);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_waiting_does_not_mend_is_an_error() {
        let wrong = |s: &str| check(&s.parse().unwrap()).unwrap_err().to_string();
        assert!(wrong("/proc/self/exe").contains("/proc/self/exe"));
        assert!(wrong("pid:4194304").contains("4194304"));
        check(&"/nowhere/at/all".parse().unwrap()).unwrap();
        check(&"nobody".parse().unwrap()).unwrap();
        check(&"/proc/self/ns/net".parse().unwrap()).unwrap();
    }

    #[test]
    fn a_process_is_found_by_its_number_and_the_host_only_by_it() {
        let me = std::process::id();
        let pid: Selector = format!("pid:{me}").parse().unwrap();
        let all: Selector = "proc:*".parse().unwrap();
        let scan = scan(&[&pid, &all]).unwrap();
        let chosen = scan.choose(&[&pid, &all]);
        let ours = FileId::at("/proc/self/ns/net").unwrap();
        assert_eq!(chosen.iter().find(|c| c.id == ours).unwrap().selector, 0);
        assert!(scan.choose(&[&all]).iter().all(|c| c.id != ours));
    }
}
