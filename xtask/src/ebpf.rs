//! Builds the eBPF objects from source, and checks the committed ones.
//!
//! Every member of the workspace in `ebpf/` whose name ends in `-ebpf` becomes
//! `ebpf/<name without -ebpf>.o`, with the toolchain that made it recorded beside
//! it in `<object>.toolchain`. It takes a Rust with its library's source and a
//! `bpf-linker` of an LLVM not older than that Rust's; installing them is not done
//! here.
//!
//! Invariant: the same sources and the same toolchain make the same instructions
//! on every machine, so no path of the machine gets into an object.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use object::build::elf::{Builder, SectionData};
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionFlags, elf};

use crate::progress::say;

/// What all objects are built for: the little-endian machines' eBPF.
const TARGET: &str = "bpfel-unknown-none";

/// A Rust that can build eBPF, and its linker.
struct Toolchain {
    rustc: PathBuf,
    sysroot: PathBuf,
    linker: PathBuf,
    /// What is recorded beside an object: the versions, one fact a line.
    versions: String,
}

/// What [`check`] found about one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The committed object has the instructions that its sources make.
    Same,
    /// It has others: it was not built again after a change.
    Differs,
    /// The toolchain is not the recorded one, so a difference would say nothing.
    NotCompared,
    /// Nothing is committed under that name.
    Missing,
}

/// One object as built afresh, compared with the committed one.
#[derive(Debug)]
pub(crate) struct Checked {
    /// The fresh object, below `target/`.
    pub(crate) fresh: PathBuf,
    /// The committed object.
    pub(crate) committed: PathBuf,
    /// How they compare.
    pub(crate) verdict: Verdict,
}

/// Whether a toolchain is here that can build the objects.
pub(crate) fn ready(root: &Path) -> bool {
    Toolchain::find(root).is_ok()
}

/// [`build`], and says what was built.
///
/// # Errors
/// As [`build`].
pub(crate) fn build_all(root: &Path) -> Result<()> {
    say("building the eBPF objects");
    for object in build(root)? {
        say(&format!("built {}", object.display()));
    }
    Ok(())
}

/// [`check`], and says what was found. Returns the fresh objects.
///
/// # Errors
/// As [`check`], or an object that differs or is missing.
pub(crate) fn check_committed(root: &Path) -> Result<Vec<PathBuf>> {
    say("building the eBPF objects afresh, to compare with the committed ones");
    let mut fresh = Vec::new();
    let mut wrong = Vec::new();
    for object in check(root)? {
        let path = object.committed.display();
        match object.verdict {
            Verdict::Same => say(&format!("{path}: the same instructions")),
            Verdict::NotCompared => {
                say(&format!("{path}: not compared, this toolchain is not the recorded one"));
            }
            Verdict::Differs => wrong.push(format!("{path} has other instructions")),
            Verdict::Missing => wrong.push(format!("{path} is not committed")),
        }
        fresh.push(object.fresh);
    }
    ensure!(wrong.is_empty(), "{}: run `cargo xtask build-ebpf`", wrong.join(", "));
    Ok(fresh)
}

/// Builds all objects into `ebpf/` and records the toolchain. Returns their paths.
///
/// # Errors
/// No toolchain that can do it (the message says what is missing), or the
/// compiler's own refusal.
pub(crate) fn build(root: &Path) -> Result<Vec<PathBuf>> {
    let tools = Toolchain::find(root)?;
    let mut objects = Vec::new();
    for package in packages(root)? {
        let to = object_path(root, &package);
        strip(&compile(root, &tools, &package)?, &to)?;
        let record = record_path(&to);
        fs::write(&record, &tools.versions)
            .with_context(|| format!("writing {}", record.display()))?;
        objects.push(to);
    }
    Ok(objects)
}

/// Builds all objects below `target/ebpf` and compares their instructions with the
/// committed ones. Changes nothing below `ebpf/` but its build directory.
///
/// # Errors
/// As [`build`], or a committed object that is no ELF file. A difference is not an
/// error but a [`Verdict`].
pub(crate) fn check(root: &Path) -> Result<Vec<Checked>> {
    let tools = Toolchain::find(root)?;
    let out = root.join("target/ebpf");
    fs::create_dir_all(&out).with_context(|| format!("creating {}", out.display()))?;
    let mut all = Vec::new();
    for package in packages(root)? {
        let committed = object_path(root, &package);
        let fresh = out.join(committed.file_name().context("an object has a name")?);
        strip(&compile(root, &tools, &package)?, &fresh)?;
        let verdict = compare(&fresh, &committed, &tools.versions)?;
        all.push(Checked { fresh, committed, verdict });
    }
    Ok(all)
}

fn compare(fresh: &Path, committed: &Path, versions: &str) -> Result<Verdict> {
    if !committed.exists() {
        return Ok(Verdict::Missing);
    }
    if fs::read_to_string(record_path(committed)).unwrap_or_default() != versions {
        return Ok(Verdict::NotCompared);
    }
    let same = instructions(fresh)? == instructions(committed)?;
    Ok(if same { Verdict::Same } else { Verdict::Differs })
}

/// Names of the packages to build, sorted: directories `ebpf/*-ebpf`.
fn packages(root: &Path) -> Result<Vec<String>> {
    let dir = root.join("ebpf");
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))? {
        let entry = entry.with_context(|| format!("reading {}", dir.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with("-ebpf") && entry.path().join("Cargo.toml").exists() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn object_path(root: &Path, package: &str) -> PathBuf {
    let name = package.strip_suffix("-ebpf").unwrap_or(package);
    root.join("ebpf").join(format!("{name}.o"))
}

fn record_path(object: &Path) -> PathBuf {
    let mut path = object.as_os_str().to_owned();
    path.push(".toolchain");
    path.into()
}

/// Copies an object without its debug information: a loader has no use for it, and
/// it is three quarters of the size. BTF stays.
fn strip(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    let mut object = Builder::read(&*bytes).with_context(|| format!("in {}", from.display()))?;
    for section in &mut object.sections {
        let name = section.name.to_string();
        section.delete = name.starts_with(".debug") || name.starts_with(".rel.debug");
    }
    object.delete_orphans();
    // LLVM keeps the sections' names in the table of the symbols' names; what writes
    // here wants a table of their own.
    let names = object.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = elf::SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    object.write(&mut stripped).with_context(|| format!("stripping {}", from.display()))?;
    fs::write(to, stripped).with_context(|| format!("writing {}", to.display()))
}

/// Compiles one package; returns where cargo left the object.
fn compile(root: &Path, tools: &Toolchain, package: &str) -> Result<PathBuf> {
    let workspace = root.join("ebpf");
    let target_dir = workspace.join("target");
    let mut cargo = Command::new(tools.cargo());
    // A cargo that runs us leaves its own settings in the environment.
    for name in ["RUSTUP_TOOLCHAIN", "RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
        cargo.env_remove(name);
    }
    cargo
        .current_dir(&workspace)
        .args(["build", "--release", "--locked", "-Zbuild-std=core", "--target", TARGET])
        .args(["--package", package, "--target-dir"])
        .arg(&target_dir)
        .env("RUSTC", &tools.rustc)
        // A released compiler builds its own library only when told that it may.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", tools.flags(root)?);
    let status = cargo.status().with_context(|| format!("running {}", tools.cargo().display()))?;
    ensure!(status.success(), "building {package} for {TARGET} failed ({status})");
    Ok(target_dir.join(TARGET).join("release").join(package))
}

impl Toolchain {
    /// The first complete toolchain, one that matches the recorded versions before
    /// others.
    fn find(root: &Path) -> Result<Self> {
        let linker = find_linker(root)?;
        let recorded = fs::read_to_string(root.join("ebpf/nsplane.o.toolchain")).ok();
        let mut found = Vec::new();
        for rustc in rustc_candidates() {
            if let Some(tools) = Self::probe(&rustc, &linker) {
                if Some(&tools.versions) == recorded.as_ref() {
                    return Ok(tools);
                }
                found.push(tools);
            }
        }
        found.into_iter().next().context(
            "no Rust with its library's source: install rust-web-src and rustc-web (Debian 12), \
             or `rustup toolchain install nightly --component rust-src`",
        )
    }

    /// The toolchain of `rustc`, if that runs and has the library's source.
    fn probe(rustc: &Path, linker: &Path) -> Option<Self> {
        let sysroot = PathBuf::from(output(rustc, &["--print", "sysroot"])?.trim());
        if !sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists() {
            return None;
        }
        let verbose = output(rustc, &["-vV"])?;
        // The host does not matter for what is built.
        let rust = verbose.lines().filter(|l| !l.starts_with("host:"));
        let versions = rust
            .chain(output(linker, &["--version"])?.lines())
            .flat_map(|line| [line.trim_end(), "\n"])
            .collect();
        Some(Self { rustc: rustc.into(), sysroot, linker: linker.into(), versions })
    }

    /// The toolchain's own cargo, else the one that runs us, else the user's.
    fn cargo(&self) -> PathBuf {
        let own = self.sysroot.join("bin/cargo");
        if own.exists() {
            return own;
        }
        env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
    }

    /// Flags for rustc in cargo's encoding: words between 0x1f bytes.
    fn flags(&self, root: &Path) -> Result<OsString> {
        let mut flags = Vec::new();
        let mut flag = |parts: &[&std::ffi::OsStr]| {
            flags.push(parts.iter().copied().collect::<OsString>());
        };
        flag(&["-Clinker=".as_ref(), self.linker.as_ref()]);
        flag(&["-Clink-arg=--btf".as_ref()]);
        // aya-ebpf asks whose registers a traced function has. XDP traces none, so
        // one answer for all keeps the objects equal.
        flag(&["--cfg=bpf_target_arch=\"x86_64\"".as_ref()]);
        // Where rustc finds several that fit, the last counts: inner paths last.
        let source = self.sysroot.join("lib/rustlib/src/rust");
        let home = cargo_home()?;
        let mut places = vec![(home.clone(), "cargo"), (root.to_owned(), ".")];
        // Sources of a registry lie in a directory named after its host.
        for entry in fs::read_dir(home.join("registry/src")).into_iter().flatten().flatten() {
            places.push((entry.path(), "crates"));
        }
        places.extend(source.canonicalize().ok().map(|path| (path, "rust")));
        places.extend(source.join("library").canonicalize().ok().map(|p| (p, "rust/library")));
        places.push((source, "rust"));
        for (path, name) in &places {
            flag(&["--remap-path-prefix=".as_ref(), path.as_ref(), "=".as_ref(), name.as_ref()]);
        }
        Ok(flags.join("\u{1f}".as_ref()))
    }
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    let home = env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?;
    Ok(Path::new(&home).join(".cargo"))
}

/// Compilers that might do, best first.
fn rustc_candidates() -> Vec<PathBuf> {
    let mut candidates = vec![PathBuf::from("/usr/bin/rustc")];
    let nightly = output(Path::new("rustup"), &["which", "--toolchain", "nightly", "rustc"]);
    candidates.extend(nightly.map(|path| PathBuf::from(path.trim())));
    candidates.extend(find_in_path("rustc"));
    candidates
}

fn find_linker(root: &Path) -> Result<PathBuf> {
    let own = root.join("target/tools/bin/bpf-linker");
    if own.exists() {
        return Ok(own);
    }
    let Some(path) = find_in_path("bpf-linker") else {
        bail!("no bpf-linker in target/tools/bin or PATH: `cargo xtask setup` builds it");
    };
    Ok(path)
}

fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// What a program printed, if it ran and was content. Runs without the settings
/// of the cargo that runs us, so that a rustup proxy picks its own default.
fn output(program: &Path, args: &[&str]) -> Option<String> {
    let out = Command::new(program).args(args).env_remove("RUSTUP_TOOLCHAIN").output().ok()?;
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned())
}

/// What the kernel will run: the name and bytes of each section of instructions,
/// and its relocations by the name of what they refer to.
type Instructions = Vec<(String, Vec<u8>, Vec<(u64, String)>)>;

fn instructions(path: &Path) -> Result<Instructions> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let file = object::File::parse(&*bytes).with_context(|| format!("in {}", path.display()))?;
    let mut all = Vec::new();
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags } = section.flags() else {
            bail!("{} is not an ELF object", path.display());
        };
        if sh_flags & u64::from(elf::SHF_EXECINSTR) == 0 || section.size() == 0 {
            continue;
        }
        let mut relocations = Vec::new();
        for (at, relocation) in section.relocations() {
            let RelocationTarget::Symbol(index) = relocation.target() else { continue };
            relocations.push((at, file.symbol_by_index(index)?.name()?.to_owned()));
        }
        all.push((section.name()?.to_owned(), section.data()?.to_vec(), relocations));
    }
    all.sort();
    ensure!(!all.is_empty(), "{} holds no instructions", path.display());
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_named_after_its_package() {
        let path = object_path(Path::new("/r"), "nsplane-ebpf");
        assert_eq!(path, Path::new("/r/ebpf/nsplane.o"));
        assert_eq!(record_path(&path), Path::new("/r/ebpf/nsplane.o.toolchain"));
    }

    #[test]
    fn packages_are_found_by_their_ending() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask has a parent");
        let names = packages(root).expect("ebpf/ is readable");
        assert!(names.contains(&"nsplane-ebpf".to_owned()), "{names:?}");
        assert!(!names.contains(&"abi".to_owned()), "{names:?}");
    }
}
