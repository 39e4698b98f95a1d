//! From text to [`File`], and what is wrong with the text.

use std::fmt;

use super::File;
use super::check::check;
use super::places::{Place, Places, Step};

/// Something about a place of a config file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub place: Place,
    /// What is wrong, and what to do.
    pub what: String,
}

/// What is wrong with a config file: one line for each thing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// The file's name.
    pub name: String,
    /// At least one.
    pub findings: Vec<Finding>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&lines(&self.name, &self.findings).join("\n"))
    }
}

/// A file that is right.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// What it says.
    pub file: File,
    /// What it says, and probably does not mean.
    pub notes: Vec<String>,
    /// Where each selector of namespaces stands.
    pub selectors: Vec<Place>,
}

/// Reads a config file's text; `name` is the file's, for errors.
///
/// # Errors
/// All that is wrong with it; of the syntax and of keys only the first.
pub fn parse(name: &str, text: &str) -> Result<Parsed, Error> {
    let wrong = |findings| Error { name: name.to_owned(), findings };
    let syntax = |e: &toml::de::Error| {
        let place = Place::of(text, e.span().map_or(0, |s| s.start));
        wrong(vec![Finding { place, what: advised(e.message()) }])
    };
    let places = Places::of(text).map_err(|e| syntax(&e))?;
    let file: File = toml::from_str(text).map_err(|e| syntax(&e))?;
    let (mut findings, notes) = check(&file, &places);
    if findings.is_empty() {
        let selector = |i| places.at(&[Step::Key("namespace"), Step::Nth(i), Step::Key("netns")]);
        let selectors = (0..file.namespaces.len()).map(selector).collect();
        return Ok(Parsed { file, notes: lines(name, &notes), selectors });
    }
    findings.sort_by_key(|f| f.place);
    Err(wrong(findings))
}

fn lines(name: &str, findings: &[Finding]) -> Vec<String> {
    let line = |f: &Finding| format!("{name}:{}:{}: {}", f.place.line, f.place.column, f.what);
    findings.iter().map(line).collect()
}

/// The message, and for a word that is not known the known one that is nearest to it.
fn advised(message: &str) -> String {
    let mut words = message.split('`').skip(1).step_by(2);
    let unknown = message.starts_with("unknown").then(|| words.next()).flatten();
    let Some(unknown) = unknown else { return message.to_owned() };
    let near = |word: &&str| strsim::damerau_levenshtein(unknown, word);
    match words.min_by_key(near) {
        Some(word) if near(&word) <= 1 + unknown.len() / 3 => {
            format!("{message} (did you mean `{word}`?)")
        }
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Bypass, Match, Tier, VlanProto, VlanTag};
    use super::*;
    use crate::id::Mac;

    fn wrong(text: &str) -> String {
        parse("f", text).unwrap_err().to_string()
    }

    #[test]
    fn the_whole_shape_is_understood() {
        let text = r#"
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
[[namespace]]
netns = "*"
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
"#;
        let file = parse("f", text).unwrap().file;
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
    fn errors_have_their_place_and_a_near_word() {
        let text = wrong("[workers]\ncuont = 2\n");
        assert!(text.starts_with("f:2:1: ") && text.contains("did you mean `count`?"), "{text}");
        let text = wrong("\n[[namespaces]]\nnetns = 'x'\n");
        assert!(text.starts_with("f:2:3: ") && text.contains("mean `namespace`?"), "{text}");
        let text = wrong("[[namespace]]\nnetns = 'x'\nbypas = []\n");
        assert!(text.starts_with("f:3:1: ") && text.contains("mean `bypass`?"), "{text}");
        let text = wrong("[[namespace]]\nnetns = 'x'\ntier = 'slow'\n");
        assert!(text.starts_with("f:3:8: ") && !text.contains("mean"), "{text}");
        let text = wrong("[[namespace]]\nnetns = 'pid:x'\n");
        assert!(text.starts_with("f:2:9: ") && text.contains("pid:1234"), "{text}");
        let text = wrong("[[namespace]]\nweight = 3\n");
        assert!(text.starts_with("f:1:") && text.contains("netns"), "{text}");
        let text = wrong("[memory]\nframes = \"many\"\n");
        assert!(text.starts_with("f:2:10: ") && text.contains("expected u32"), "{text}");
        let text = wrong("[memory\nframes = 1\n");
        assert!(text.starts_with("f:1:"), "{text}");
    }

    #[test]
    fn a_member_is_matched_in_one_way() {
        let member = |matches: &str| {
            let port = "port = { netns = 'infra', device = 'e' }";
            wrong(&format!("[[member]]\nnetns = 'blue'\nlink = 'v'\n{port}\n{matches}\n"))
        };
        assert!(member("").contains("vlan, queue and mac"), "{}", member(""));
        assert!(
            member("queue = 1\nvlan = 2").contains("only one"),
            "{}",
            member("queue = 1\nvlan = 2")
        );
        assert!(member("vlan = 'x'").starts_with("f:5:8: a VLAN"), "{}", member("vlan = 'x'"));
        assert!(member("vlna = 1").contains("did you mean `vlan`?"), "{}", member("vlna = 1"));
        assert!(member("mac = 'x'").starts_with("f:5:7: "), "{}", member("mac = 'x'"));
    }

    #[test]
    fn an_empty_file_is_all_defaults() {
        assert_eq!(parse("f", "").unwrap().file, File::default());
    }
}
