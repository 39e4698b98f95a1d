//! From text to [`File`], and what is wrong with the text.

use std::fmt;
use std::ops::Range;

use super::File;

/// What is wrong with a config file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, in characters.
    pub column: usize,
    /// What is wrong, and what to do.
    pub what: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.what)
    }
}

impl Error {
    fn at(text: &str, span: Option<Range<usize>>, what: impl Into<String>) -> Self {
        let before = &text[..text.floor_char_boundary(span.map_or(0, |s| s.start))];
        let start = before.rfind('\n').map_or(0, |i| i + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[start..].chars().count() + 1,
            what: what.into(),
        }
    }
}

/// Reads a config file's text.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn parse(text: &str) -> Result<File, Error> {
    toml::from_str(text).map_err(|e| Error::at(text, e.span(), e.message()))
}

#[cfg(test)]
mod tests {
    use super::super::{Bypass, Match, Tier, VlanProto, VlanTag};
    use super::*;
    use crate::id::Mac;

    #[test]
    fn the_whole_shape_is_understood() {
        let file = parse(
            r#"
[workers]
count = 2
pin = [0, 1]
[memory]
frames = 4096
[limits]
punt-rate = 7
[devices]
bind = "zero-copy"
xdp = "native"
[[namespace]]
netns = "tenant-*"
devices = ["eth*"]
tier = "userspace"
bypass = ["netfilter"]
punt-rate = 5000
[[member]]
netns = "blue"
link = "v100"
port = { netns = "infra", device = "trunk0" }
vlan = 100
[[member]]
netns = "blue"
link = "v101"
port = { netns = "infra", device = "trunk0" }
vlan = [{ proto = "802.1ad", id = 10 }, { proto = "802.1Q", id = 100 }]
[[member]]
netns = "red"
link = "q3"
port = { netns = "infra", device = "trunk0" }
queue = 3
[[member]]
netns = "red"
link = "m"
port = { netns = "infra", device = "trunk0" }
mac = "02:00:00:00:00:0A"
"#,
        )
        .unwrap();
        assert_eq!(file.workers.pin, [0, 1]);
        assert_eq!((file.memory.frames, file.memory.ring_size), (4096, 1024));
        let ns = &file.namespaces[0];
        assert_eq!((ns.tier, ns.weight, ns.punt_rate), (Tier::Userspace, 1, Some(5000)));
        assert_eq!(ns.bypass, [Bypass::Netfilter]);
        assert!(ns.devices[0].fits("eth7"));
        let tag = |proto, id| VlanTag { proto, id };
        let (q, ad) = (VlanProto::Dot1Q, VlanProto::Dot1Ad);
        let matches: Vec<Match> = file.members.iter().map(|m| m.matches.clone()).collect();
        assert_eq!(
            matches,
            [
                Match::Vlan(vec![tag(q, 100)]),
                Match::Vlan(vec![tag(ad, 10), tag(q, 100)]),
                Match::Queue(3),
                Match::Mac(Mac([2, 0, 0, 0, 0, 10])),
            ]
        );
    }

    #[test]
    fn an_empty_file_is_all_defaults() {
        assert_eq!(parse("").unwrap(), File::default());
    }
}
