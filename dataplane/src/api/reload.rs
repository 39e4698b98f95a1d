//! What a new config changed.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::Setting;

/// What a new config changed, or is about to: namespaces are taken in one after the
/// other, and their devices become ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Namespaces that are taken in.
    pub taken_in: Vec<String>,
    /// Namespaces that were let go; the kernel forwards there.
    pub let_go: Vec<String>,
    /// Namespaces whose settings are others now.
    pub changed: Vec<ChangedNamespace>,
    /// Settings of the whole that are others now.
    pub settings: Vec<Setting>,
    /// Members that are new.
    pub members_added: Vec<String>,
    /// Members that are gone.
    pub members_removed: Vec<String>,
    /// What the file says and only a restart brings about.
    pub needs_restart: Vec<Setting>,
    /// Selectors that mean no namespace yet.
    pub waiting: Vec<String>,
    /// What the file says and probably does not mean.
    pub notes: Vec<String>,
}

/// A namespace whose settings are others now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedNamespace {
    /// Its name.
    pub netns: String,
    /// Which settings.
    pub settings: Vec<String>,
    /// Devices that become ports.
    pub ports_added: Vec<String>,
    /// Devices that are ports no longer.
    pub ports_removed: Vec<String>,
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        let mut list = |what: &str, names: &[String]| {
            if !names.is_empty() {
                lines.push(format!("{what}: {}", names.join(", ")));
            }
        };
        list("taken in", &self.taken_in);
        list("let go", &self.let_go);
        for c in &self.changed {
            let signed = |sign: char, ports: &[String]| -> Vec<String> {
                ports.iter().map(|p| format!("{sign}{p}")).collect()
            };
            let mut what = c.settings.clone();
            what.extend(signed('+', &c.ports_added));
            what.extend(signed('-', &c.ports_removed));
            list(&format!("changed in {}", c.netns), &what);
        }
        let settings = |all: &[Setting]| -> Vec<String> {
            all.iter().map(|s| format!("{} {} -> {}", s.name, s.from, s.to)).collect()
        };
        list("changed", &settings(&self.settings));
        list("members added", &self.members_added);
        list("members removed", &self.members_removed);
        if lines.is_empty() {
            lines.push("nothing changed".to_owned());
        }
        let mut list = |what: &str, names: &[String]| {
            if !names.is_empty() {
                lines.push(format!("{what}: {}", names.join(", ")));
            }
        };
        list("needs a restart", &settings(&self.needs_restart));
        list("no namespace yet", &self.waiting);
        for note in &self.notes {
            lines.push(format!("note: {note}"));
        }
        f.write_str(&lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_well() {
        assert_eq!(Reloaded::default().to_string(), "nothing changed");
        let owned = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        let report = Reloaded {
            taken_in: owned(&["a", "b"]),
            changed: vec![ChangedNamespace {
                netns: "c".to_owned(),
                settings: owned(&["weight"]),
                ports_added: owned(&["eth1"]),
                ports_removed: owned(&["eth0"]),
            }],
            needs_restart: vec![Setting {
                name: "workers.count".to_owned(),
                from: "1".to_owned(),
                to: "2".to_owned(),
            }],
            waiting: owned(&["d*"]),
            ..Reloaded::default()
        };
        assert_eq!(
            report.to_string(),
            "taken in: a, b\nchanged in c: weight, +eth1, -eth0\n\
             needs a restart: workers.count 1 -> 2\nno namespace yet: d*"
        );
    }
}
