//! `check-layers`: who may import whom in dataplane/src.
//!
//! Imports go down only, never sideways, unless [`SIDEWAYS`] names the edge; some
//! crates belong to one room ([`CRATES`]), and `unsafe` to few ([`UNSAFE`]); a room's
//! `tests.rs` is free of these two. This is a
//! reader of text, not of Rust: comments and strings are blanked out, then what
//! looks like a path from the crate's root is one (`crate::x`, `super::` as far as it
//! leaves a room, and `nsplane::x` in the binary). A macro that makes paths would
//! get past it; we have none.

mod scan;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::progress::say;

/// The rooms, each with its layer. The binary is above all.
const LAYERS: &[(&str, u8)] = &[
    ("id", 0),
    ("plant", 0),
    ("stats", 0),
    ("wire", 0),
    ("sync", 0),
    ("sys", 0),
    ("netns", 1),
    ("netlink", 1),
    ("xsk", 1),
    ("bpf", 1),
    ("tables", 2),
    ("port", 2),
    ("config", 2),
    ("control", 3),
    ("worker", 3),
    ("api", 4),
    ("runtime", 4),
];

/// Edges within a layer.
const SIDEWAYS: &[(&str, &str)] = &[
    // Names of things are everybody's.
    ("stats", "id"),
    ("wire", "id"),
    ("sync", "id"),
    ("sys", "id"),
    // A netlink socket is opened inside a namespace.
    ("netlink", "netns"),
    // The runtime starts the API and answers it.
    ("runtime", "api"),
];

/// Edges that go down and yet may not be.
const FORBIDDEN: &[(&str, &str)] =
    &[("worker", "netlink"), ("worker", "netns"), ("worker", "bpf"), ("worker", "xsk")];

/// Crates that only some rooms may name.
const CRATES: &[(&str, &[&str])] = &[
    ("aya", &["bpf"]),
    ("aya_obj", &["bpf"]),
    ("xsk_rs", &["xsk"]),
    ("libxdp_sys", &["xsk"]),
    // sys registers its socket with tokio, which is an unsafe promise about the type.
    ("netlink_sys", &["netlink", "sys"]),
    ("netlink_packet_core", &["netlink"]),
    ("netlink_packet_route", &["netlink"]),
];

/// Rooms that may be unsafe.
const UNSAFE: &[&str] = &["sys", "xsk"];

/// Files outside all rooms: the crate's root, which declares them, and the binary,
/// which is above them.
const ABOVE: &str = "binary";
const ROOT: &str = "lib.rs";

/// One breach.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Breach {
    file: PathBuf,
    line: usize,
    what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.what)
    }
}

/// Checks the workspace's dataplane.
///
/// # Errors
/// A breach, each with its place and what the table allows.
pub(crate) fn check(root: &Path) -> Result<()> {
    let source = root.join("dataplane/src");
    let (files, breaches) = check_tree(&source)?;
    if breaches.is_empty() {
        say(&format!("check-layers: {files} files, imports go down only"));
        return Ok(());
    }
    let lines: Vec<String> = breaches.iter().map(ToString::to_string).collect();
    bail!("imports that the layers do not allow:\n  {}", lines.join("\n  "));
}

/// Checks all files below `source`; returns how many there were.
pub(crate) fn check_tree(source: &Path) -> Result<(usize, Vec<Breach>)> {
    let files = rust_files(source)?;
    ensure!(!files.is_empty(), "no Rust files in {}", source.display());
    let mut breaches = Vec::new();
    for file in &files {
        let text =
            fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let inner = file.strip_prefix(source).unwrap_or(file);
        for mut breach in check_file(inner, &text) {
            breach.file.clone_from(file);
            breaches.push(breach);
        }
    }
    Ok((files.len(), breaches))
}

fn rust_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Checks one file, given by its path below dataplane/src.
fn check_file(inner: &Path, text: &str) -> Vec<Breach> {
    let room = room_of(inner);
    let code = scan::blank(text);
    let mut breaches = Vec::new();
    let mut breach = |line, what| {
        breaches.push(Breach { file: inner.to_owned(), line, what });
    };
    if room == ROOT {
        // It declares rooms and their lints, and that is all.
        for (line, target) in scan::rooms_used(&code, 0) {
            breach(line, format!("the crate's root imports `{target}`; it only declares rooms"));
        }
        return breaches;
    }
    if room != ABOVE && layer(&room).is_none() {
        breach(1, format!("`{room}` has no layer: add it to the table in check-layers"));
        return breaches;
    }
    let depth = depth_of(inner);
    for (line, target) in scan::rooms_used(&code, depth) {
        if let Some(why) = refuse(&room, &target) {
            breach(line, why);
        }
    }
    if is_test(inner) {
        return breaches;
    }
    for (line, word) in scan::words(&code) {
        let owners = CRATES.iter().find(|(name, _)| *name == word).map(|(_, rooms)| *rooms);
        if let Some(owners) = owners
            && !owners.contains(&room.as_str())
        {
            breach(line, format!("`{room}` uses {word}, which belongs to {} only", list(owners)));
        }
        if word == "unsafe" && !UNSAFE.contains(&room.as_str()) {
            breach(line, format!("`{room}` is unsafe; only {} may be", list(UNSAFE)));
        }
    }
    breaches
}

/// Why `from` may not import `to`; None if it may.
fn refuse(from: &str, to: &str) -> Option<String> {
    if from == to || from == ABOVE {
        return None;
    }
    let (Some(above), Some(below)) = (layer(from), layer(to)) else {
        return Some(format!("`{from}` imports `{to}`, which has no layer in the table"));
    };
    if may(from, to) {
        return None;
    }
    let how = match below.cmp(&above) {
        Ordering::Less => "which is closed to it",
        Ordering::Equal => "that is sideways",
        Ordering::Greater => "that is up",
    };
    let allowed = allowed(from);
    Some(format!("`{from}` (layer {above}) imports `{to}` (layer {below}), {how}; {allowed}"))
}

fn may(from: &str, to: &str) -> bool {
    let edge = (from, to);
    (layer(to) < layer(from) && !FORBIDDEN.contains(&edge)) || SIDEWAYS.contains(&edge)
}

fn allowed(from: &str) -> String {
    let mut by_layer: BTreeMap<u8, Vec<&str>> = BTreeMap::new();
    for (to, number) in LAYERS {
        if may(from, to) {
            by_layer.entry(*number).or_default().push(to);
        }
    }
    let rooms: Vec<&str> = by_layer.into_values().flatten().collect();
    if rooms.is_empty() {
        return format!("`{from}` may import no room");
    }
    format!("`{from}` may import {}", list(&rooms))
}

fn list(names: &[&str]) -> String {
    names.join(", ")
}

/// A room's tests in a file of their own may use any crate and be unsafe.
fn is_test(inner: &Path) -> bool {
    inner.iter().any(|part| part == "tests.rs" || part == "tests")
}

fn layer(room: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == room).map(|(_, layer)| *layer)
}

/// The room that a file belongs to: its first directory, or its name.
fn room_of(inner: &Path) -> String {
    let first = inner.iter().next().map(|part| part.to_string_lossy()).unwrap_or_default();
    match first.as_ref() {
        ROOT => ROOT.to_owned(),
        "main.rs" | "cli" | "cli.rs" | "bin" => ABOVE.to_owned(),
        name => name.trim_end_matches(".rs").to_owned(),
    }
}

/// How many `super::` lead from the file's own module to the crate's root.
fn depth_of(inner: &Path) -> usize {
    let parts = inner.iter().count();
    let is_mod = inner.file_name().is_some_and(|name| name == "mod.rs");
    if is_mod { parts - 1 } else { parts }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaches(file: &str, text: &str) -> Vec<String> {
        check_file(Path::new(file), text).iter().map(ToString::to_string).collect()
    }

    fn refused(file: &str, text: &str) -> String {
        let all = breaches(file, text);
        assert_eq!(all.len(), 1, "{file}: {text}: {all:?}");
        all.into_iter().next().unwrap_or_default()
    }

    #[test]
    fn down_is_fine() {
        let text = "use crate::id::NsId;\nuse crate::{tables::Fib, port, xsk};\n";
        assert_eq!(breaches("control/mod.rs", text), Vec::<String>::new());
        assert_eq!(breaches("main.rs", "use nsplane::{api, runtime};"), Vec::<String>::new());
        assert_eq!(breaches("cli/run.rs", "use nsplane::control;"), Vec::<String>::new());
    }

    #[test]
    fn up_names_the_place_and_what_is_allowed() {
        let text = "//! Head.\n\nuse crate::control::Plan;\n";
        let line = refused("tables/fib.rs", text);
        assert!(line.starts_with("tables/fib.rs:3: "), "{line}");
        assert!(line.contains("`tables` (layer 2) imports `control` (layer 3)"), "{line}");
        assert!(line.contains("up"), "{line}");
        assert!(line.contains("may import id, plant, stats, wire, sync, sys, netns"), "{line}");
    }

    #[test]
    fn sideways_needs_an_entry() {
        assert!(refused("control/mod.rs", "use crate::worker::Io;").contains("sideways"));
        assert!(refused("worker/mod.rs", "use crate::control::Plan;").contains("sideways"));
        assert!(refused("port.rs", "use crate::tables::Fib;").contains("sideways"));
        assert!(refused("api/mod.rs", "use crate::runtime::run;").contains("sideways"));
        assert!(breaches("netlink/mod.rs", "use crate::netns::Netns;").is_empty());
        assert!(breaches("runtime/mod.rs", "use crate::api::Call;").is_empty());
    }

    #[test]
    fn the_worker_knows_no_kernel() {
        for room in ["netlink", "netns", "bpf", "xsk"] {
            let line = refused("worker/run.rs", &format!("use crate::{room}::X;"));
            assert!(line.contains("closed"), "{line}");
        }
    }

    #[test]
    fn paths_in_the_code_count_as_imports() {
        let text = "fn f() -> usize {\n    crate::runtime::run()\n}\n";
        assert!(refused("wire.rs", text).starts_with("wire.rs:2:"));
        let text = "pub(crate) fn f() {}\npub(in crate::tables) fn g() {}\n";
        assert!(breaches("tables/fib.rs", text).is_empty());
    }

    #[test]
    fn braces_and_lines_are_followed() {
        let text = "use crate::{\n    id::NsId,\n    tables::{self, Fib},\n    api,\n};\n";
        let line = refused("control/plan.rs", text);
        assert!(line.starts_with("control/plan.rs:4:"), "{line}");
        let text = "use {crate::api::Request, std::io};";
        assert!(refused("port.rs", text).contains("`api`"));
    }

    #[test]
    fn super_may_leave_a_room_too() {
        assert!(breaches("tables/fib.rs", "use super::Snapshot;").is_empty());
        assert!(refused("tables/fib.rs", "use super::super::api::X;").contains("`api`"));
        assert!(refused("tables/mod.rs", "use super::api;").contains("`api`"));
        assert!(refused("wire.rs", "use super::port;").contains("`port`"));
        // A test module is one deeper.
        let text = "mod tests {\n    use super::*;\n    use super::super::id;\n}\n";
        assert!(breaches("tables/fib.rs", text).is_empty());
    }

    #[test]
    fn comments_and_strings_are_not_code() {
        let text = "//! See [`crate::control`].\n/* crate::api /* unsafe */ */\n\
                    const S: &str = \"crate::runtime unsafe\";\nconst R: &str = r#\"aya \"x\" unsafe\"#;\n\
                    const C: char = '\"'; fn f<'a>(x: &'a str) {} // unsafe\n";
        assert!(breaches("wire.rs", text).is_empty(), "{:?}", breaches("wire.rs", text));
    }

    #[test]
    fn crates_and_unsafe_stay_in_their_rooms() {
        assert!(refused("control/mod.rs", "use aya::Ebpf;").contains("belongs to bpf"));
        assert!(refused("bpf/mod.rs", "use xsk_rs::Umem;").contains("belongs to xsk"));
        assert!(refused("worker/mod.rs", "use netlink_sys::Socket;").contains("netlink"));
        assert!(refused("wire.rs", "fn f() { unsafe { g() } }").contains("is unsafe"));
        assert!(refused("main.rs", "use aya::Ebpf;").contains("bpf"));
        assert!(breaches("bpf/load.rs", "use aya::Ebpf;").is_empty());
        assert!(breaches("xsk/ring.rs", "unsafe { libxdp_sys::x() }").is_empty());
        assert!(breaches("wire.rs", "#![deny(unsafe_code)]").is_empty());
        assert!(breaches("bpf/tests.rs", "use xsk_rs::Umem;\nunsafe { f() }").is_empty());
        assert!(refused("bpf/tests.rs", "use crate::control::Plan;").contains("up"));
    }

    #[test]
    fn the_root_declares_and_does_nothing_else() {
        assert!(breaches("lib.rs", "#![deny(unsafe_code)]\npub mod id;\n").is_empty());
        assert!(refused("lib.rs", "pub use crate::id::NsId;").contains("only declares"));
    }

    #[test]
    fn a_new_room_needs_a_layer() {
        assert!(refused("flow/mod.rs", "").contains("no layer"));
        assert!(refused("control/mod.rs", "use crate::flow::Flow;").contains("no layer"));
    }

    #[test]
    fn a_breach_planted_in_the_real_tree_is_found() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask has a parent");
        let source = root.join("dataplane/src");
        let copy = std::env::temp_dir().join(format!("xtask-layers-{}", std::process::id()));
        for file in rust_files(&source).expect("the tree is readable") {
            let to = copy.join(file.strip_prefix(&source).expect("it is below"));
            fs::create_dir_all(to.parent().expect("it has one")).expect("mkdir");
            fs::copy(file, to).expect("copy");
        }
        let before = check_tree(&copy).map(|(_, breaches)| breaches);
        let file = copy.join("stats.rs");
        let planted =
            fs::read_to_string(&file).expect("read") + "use crate::worker::io as planted;\n";
        fs::write(&file, &planted).expect("write");
        let after = check_tree(&copy).map(|(_, breaches)| breaches);
        fs::remove_dir_all(&copy).expect("remove");

        assert_eq!(before.expect("checked"), []);
        let after = after.expect("checked");
        assert_eq!(after.len(), 1, "{after:?}");
        assert_eq!(after[0].line, planted.lines().count());
        assert!(after[0].what.contains("`stats` (layer 0) imports `worker` (layer 3)"));
    }
}
