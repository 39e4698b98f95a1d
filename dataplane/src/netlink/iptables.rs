//! Legacy iptables: which tables a namespace has.
//!
//! There are no notices of it and no way to ask by netlink; a file names the
//! tables. A table comes into being when the `iptables` command (of old) first
//! touches it, with rules or without, and stays while the namespace lives or until
//! its module is removed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::event::Family;
use super::hook::Hook;
use crate::netns::Netns;

/// Where the calling thread's namespace has the files.
const NET: &str = "/proc/thread-self/net";
/// Family, the file that names its tables, and the command that makes them.
const FILES: [(Family, &str, &str); 2] =
    [(Family::V4, "ip_tables_names", "iptables"), (Family::V6, "ip6_tables_names", "ip6tables")];
/// There are five tables a family, of names of up to 31 bytes.
const ROOM: usize = 1024;

/// The files of one namespace, kept open: looking again needs no thread inside. As
/// a socket would, they keep the namespace alive.
#[derive(Debug, Default)]
pub(super) struct Tables {
    files: [Option<File>; 2],
}

impl Tables {
    /// The tables of both families as they are now. What may not be looked at may
    /// hold rules.
    pub(super) fn look(&mut self, ns: &Netns) -> Vec<Hook> {
        let mut found = Vec::new();
        for (slot, (family, file, command)) in self.files.iter_mut().zip(FILES) {
            match names(slot, file, ns) {
                Ok(text) => hooks(&text, family, command, &mut found),
                Err(e) => Hook {
                    family: Some(family),
                    name: format!(
                        "{command} tables that cannot be seen: {file}: {e} (run as root)"
                    ),
                }
                .join(&mut found),
            }
        }
        found
    }
}

fn hooks(text: &str, family: Family, command: &str, found: &mut Vec<Hook>) {
    for table in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let name = format!("{command} (legacy) table {table}");
        Hook { family: Some(family), name }.join(found);
    }
}

/// The file's text; none where the kernel has no legacy iptables, as it says in any
/// namespace. It may get it later, by a module.
fn names(slot: &mut Option<File>, name: &str, ns: &Netns) -> io::Result<String> {
    if let Some(file) = slot {
        // Fails where the module is gone.
        if let Ok(text) = text(file) {
            return Ok(text);
        }
        *slot = None;
    }
    let path = Path::new(NET).join(name);
    if !path.exists() {
        return Ok(String::new());
    }
    let opened = ns.run(|| File::open(&path)).map_err(io::Error::other)?;
    let file = match opened {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        opened => opened?,
    };
    let text = text(&file)?;
    *slot = Some(file);
    Ok(text)
}

fn text(file: &File) -> io::Result<String> {
    let mut room = [0; ROOM];
    let mut len = 0;
    loop {
        match file.read_at(&mut room[len..], len as u64)? {
            0 => return Ok(String::from_utf8_lossy(&room[..len]).into_owned()),
            n => len += n,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_table() {
        let mut found = Vec::new();
        hooks("", Family::V4, "iptables", &mut found);
        hooks("\n", Family::V4, "iptables", &mut found);
        assert_eq!(found, []);
        hooks("nat\nfilter\n", Family::V4, "iptables", &mut found);
        hooks("raw\n", Family::V6, "ip6tables", &mut found);
        let names: Vec<&str> = found.iter().map(|h| h.name.as_str()).collect();
        assert_eq!(names, ["iptables (legacy) table nat", "ip6tables (legacy) table raw"]);
    }
}
