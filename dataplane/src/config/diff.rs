//! What is different between two files, as far as the files alone tell.
//!
//! Which namespaces and ports are taken in or let go depends on what there is, and is
//! found out by the runtime.

use serde::{Deserialize, Serialize};

use super::{File, Member};

/// A setting with its value in the old file and in the new one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Table and key.
    pub name: String,
    /// The old value.
    pub from: String,
    /// The new value.
    pub to: String,
}

/// From one file to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Settings that a running nsplane cannot change: threads are started, memory is
    /// registered and programs are attached once.
    pub restart: Vec<Setting>,
    /// Settings that it can change.
    pub live: Vec<Setting>,
    /// Members that are new.
    pub members_added: Vec<Member>,
    /// Members that are no longer there.
    pub members_removed: Vec<Member>,
}

/// Compares two files.
#[must_use]
pub fn diff(old: &File, new: &File) -> Diff {
    let mut restart = Vec::new();
    for (name, value) in FIXED {
        push(&mut restart, name, &value(old), &value(new));
    }
    let mut live = Vec::new();
    let punt_rate = |f: &File| f.limits.punt_rate.to_string();
    push(&mut live, "limits.punt-rate", &punt_rate(old), &punt_rate(new));
    let without = |these: &[Member], those: &[Member]| -> Vec<Member> {
        these.iter().filter(|m| !those.contains(m)).cloned().collect()
    };
    Diff {
        restart,
        live,
        members_added: without(&new.members, &old.members),
        members_removed: without(&old.members, &new.members),
    }
}

/// The new file as far as a running nsplane can obey it: what needs a restart stays as
/// it is, so that the next comparison tells it again.
#[must_use]
pub fn obeyable(old: &File, new: File) -> File {
    let (workers, memory, devices) = (old.workers.clone(), old.memory.clone(), old.devices.clone());
    let limits = super::Limits { max_ports: old.limits.max_ports, ..new.limits.clone() };
    File { workers, memory, devices, limits, ..new }
}

/// A setting that needs a restart: its name, and its value as it works.
type Fixed = (&'static str, fn(&File) -> String);

const FIXED: [Fixed; 8] = [
    ("workers.count", |f| f.workers.count.to_string()),
    ("workers.pin", |f| format!("{:?}", f.workers.pin)),
    ("memory.frames", |f| f.memory.frames.to_string()),
    ("memory.frame-size", |f| f.memory_options().frame_size.to_string()),
    ("memory.ring-size", |f| f.memory.ring_size.to_string()),
    ("limits.max-ports", |f| f.limits.max_ports.to_string()),
    ("devices.bind", |f| f.memory_options().mode.name().to_owned()),
    ("devices.xdp", |f| format!("{:?}", f.devices.xdp).to_lowercase()),
];

fn push(list: &mut Vec<Setting>, name: &str, from: &str, to: &str) {
    if from != to {
        let (name, from, to) = (name.to_owned(), from.to_owned(), to.to_owned());
        list.push(Setting { name, from, to });
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn file(text: &str) -> File {
        parse("f", text).unwrap().file
    }

    #[test]
    fn nothing_different_is_nothing_to_do() {
        let same = file("[memory]\nframe-size = 2048\n");
        assert_eq!(diff(&File::default(), &same), Diff::default());
    }

    #[test]
    fn what_cannot_change_is_named_and_stays() {
        let old = File::default();
        let new = file(
            "[workers]\ncount = 2\npin = [0, 1]\n[memory]\nframes = 4096\nring-size = 512\n\
             [limits]\nmax-ports = 7\npunt-rate = 9\n[devices]\nbind = 'zero-copy'\nxdp = 'native'\n",
        );
        let seen = diff(&old, &new);
        let names: Vec<&str> = seen.restart.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "workers.count",
                "workers.pin",
                "memory.frames",
                "memory.frame-size",
                "memory.ring-size",
                "limits.max-ports",
                "devices.bind",
                "devices.xdp",
            ]
        );
        let setting = |name: &str, from: &str, to: &str| Setting {
            name: name.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
        };
        assert_eq!(seen.restart[3], setting("memory.frame-size", "2048", "4096"));
        assert_eq!(seen.live, [setting("limits.punt-rate", "20000", "9")]);
        let obeyed = obeyable(&old, new.clone());
        assert_eq!(obeyed, File { limits: obeyed.limits.clone(), ..File::default() });
        assert_eq!(obeyed.limits.punt_rate, 9);
        assert_eq!(diff(&obeyed, &new).restart, seen.restart);
        assert_eq!(diff(&obeyed, &new).live, []);
    }

    #[test]
    fn members_come_and_go() {
        let member = |queue: u16| {
            format!(
                "[[member]]\nnetns = 'blue'\nlink = 'v{queue}'\nqueue = {queue}\n\
                 port = {{ netns = 'infra', device = 'e' }}\n"
            )
        };
        let all = "[[namespace]]\nnetns = '*'\n";
        let old = file(&format!("{all}{}{}", member(1), member(2)));
        let new = file(&format!("{all}{}{}", member(2), member(3)));
        let seen = diff(&old, &new);
        assert_eq!(seen.members_added, new.members[1..]);
        assert_eq!(seen.members_removed, old.members[..1]);
    }
}
