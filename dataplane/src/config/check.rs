//! What is wrong with a file whose every single value is right.

use hashbrown::HashMap;

use super::parse::Finding;
use super::places::{Places, Step};
use super::{File, Match, Member, Namespace};
use crate::netns::Selector;
use Step::{Key, Nth};

/// Most worker threads.
pub const MAX_WORKERS: u16 = 64;
/// Largest share of a worker's time.
pub const MAX_WEIGHT: u32 = 1000;
/// Bytes of a device's name, without the end (`IFNAMSIZ`).
const MAX_DEVICE_NAME: usize = 15;

/// What is wrong, and what is probably not meant.
pub(super) fn check(file: &File, places: &Places<'_>) -> (Vec<Finding>, Vec<Finding>) {
    let mut c = Check { places, wrong: Vec::new(), notes: Vec::new() };
    c.workers(file);
    c.memory(file);
    c.limits(file);
    c.namespaces(&file.namespaces);
    c.members(file);
    (c.wrong, c.notes)
}

struct Check<'a> {
    places: &'a Places<'a>,
    wrong: Vec<Finding>,
    notes: Vec<Finding>,
}

impl Check<'_> {
    fn wrong(&mut self, way: &[Step], what: impl Into<String>) {
        self.wrong.push(Finding { place: self.places.at(way), what: what.into() });
    }

    fn note(&mut self, way: &[Step], what: impl Into<String>) {
        self.notes.push(Finding { place: self.places.at(way), what: what.into() });
    }

    fn line(&self, way: &[Step]) -> usize {
        self.places.at(way).line
    }

    fn workers(&mut self, file: &File) {
        let (count, pin) = (file.workers.count, &file.workers.pin);
        if !(1..=MAX_WORKERS).contains(&count) {
            let what = format!("{count} workers; there may be 1 to {MAX_WORKERS}");
            self.wrong(&[Key("workers"), Key("count")], what);
        }
        if !pin.is_empty() && pin.len() != usize::from(count) {
            let what = format!("{} processors for {count} workers; name one for each", pin.len());
            self.wrong(&[Key("workers"), Key("pin")], what);
        }
        let twice = |i: &usize| pin[..*i].contains(&pin[*i]);
        if let Some(i) = (0..pin.len()).find(twice) {
            let what = format!("processor {} has two workers, which take turns on it", pin[i]);
            self.note(&[Key("workers"), Key("pin"), Nth(i)], what);
        }
    }

    fn memory(&mut self, file: &File) {
        if let Some((key, why)) = file.memory_options().wrong() {
            self.wrong(&[Key("memory"), Key(key)], why);
        }
    }

    fn limits(&mut self, file: &File) {
        if file.limits.max_ports == 0 {
            self.wrong(&[Key("limits"), Key("max-ports")], "no port at all; at least 1 is needed");
        }
    }

    fn namespaces(&mut self, all: &[Namespace]) {
        let netns = |i| [Key("namespace"), Nth(i), Key("netns")];
        for (i, ns) in all.iter().enumerate() {
            let key = |key| [Key("namespace"), Nth(i), Key(key)];
            if ns.weight == 0 || ns.weight > MAX_WEIGHT {
                let what = format!("a weight of {}; it may be 1 to {MAX_WEIGHT}", ns.weight);
                self.wrong(&key("weight"), what);
            }
            if ns.netns.is_exclude() {
                let plain = Namespace::of(ns.netns.clone());
                if *ns != plain {
                    let what = "what is not driven has no settings: only netns may be here";
                    self.wrong(&netns(i), what);
                }
                continue;
            }
            let before = all[..i].iter().filter(|n| !n.netns.is_exclude());
            let covers = |n: &&Namespace| n.netns.covers(&ns.netns);
            if let Some(first) = before.clone().find(covers) {
                let at = all.iter().position(|n| std::ptr::eq(n, first)).unwrap_or_default();
                let line = self.line(&netns(at));
                let what = format!(
                    "\"{}\" is never reached: \"{}\" in line {line} comes first and means all of it",
                    ns.netns, first.netns
                );
                self.note(&netns(i), what);
            }
            let excludes = |n: &&Namespace| n.netns.is_exclude() && n.netns.covers(&ns.netns);
            if let Some(exclude) = all.iter().find(excludes) {
                let what = format!("\"{}\" is never reached: \"{}\"", ns.netns, exclude.netns);
                self.note(&netns(i), what);
            }
        }
        if all.iter().all(|ns| ns.netns.is_exclude()) {
            self.note(&[Key("namespace")], "no [[namespace]] means any: none will be driven");
        }
    }

    fn members(&mut self, file: &File) {
        let mut owners: HashMap<_, usize> = HashMap::new();
        let mut links: HashMap<_, usize> = HashMap::new();
        for (i, m) in file.members.iter().enumerate() {
            let key = |key| [Key("member"), Nth(i), Key(key)];
            let port = |key| [Key("member"), Nth(i), Key("port"), Key(key)];
            for (name, way) in [(&m.netns, &key("netns")[..]), (&m.port.netns, &port("netns")[..])]
            {
                if name.parse::<Selector>().is_ok_and(|s| s.is_exact() && !s.is_exclude()) {
                    self.selected(file, name, way);
                } else {
                    let what = format!("{name:?} is no name of one namespace");
                    self.wrong(way, what);
                }
            }
            for (name, way) in [(&m.link, &key("link")[..]), (&m.port.device, &port("device")[..])]
            {
                if !is_device_name(name) {
                    self.wrong(way, format!("{name:?} is no name of a device"));
                }
            }
            self.matches(i, m);
            if let Some(first) = owners.get(&(&m.port, &m.matches)) {
                let line = self.line(&[Key("member"), Nth(*first)]);
                let what = format!(
                    "{} of {} has two owners, {} and, in line {line}, {}; it can have one",
                    m.matches, m.port, m.netns, file.members[*first].netns
                );
                self.wrong(&key(m.matches.key()), what);
            } else {
                owners.insert((&m.port, &m.matches), i);
            }
            if let Some(first) = links.get(&(&m.netns, &m.link)) {
                let line = self.line(&[Key("member"), Nth(*first)]);
                let what = format!(
                    "link {} of {} is a member's already, in line {line}; each needs its own",
                    m.link, m.netns
                );
                self.wrong(&key("link"), what);
            } else {
                links.insert((&m.netns, &m.link), i);
            }
        }
    }

    fn selected(&mut self, file: &File, name: &str, way: &[Step]) {
        let means = |n: &&Namespace| n.netns.may_be_called(name);
        let excluded =
            |n: &&Namespace| n.netns.is_exclude() && n.netns.path().is_none() && means(n);
        let selected = file.namespaces.iter().filter(|n| !n.netns.is_exclude()).any(|n| means(&n));
        if !selected || file.namespaces.iter().any(|n| excluded(&n)) {
            let what = format!(
                "namespace {name} is not driven: no [[namespace]] means it (add one with \
                 netns = \"{name}\")"
            );
            self.wrong(way, what);
        }
    }

    fn matches(&mut self, i: usize, member: &Member) {
        let key = member.matches.key();
        let way = [Key("member"), Nth(i), Key(key)];
        match &member.matches {
            Match::Vlan(tags) => {
                if !(1..=2).contains(&tags.len()) {
                    let what = format!("{} tags; a packet is matched by one or two", tags.len());
                    self.wrong(&way, what);
                }
                for tag in tags.iter().filter(|t| !(1..=4094).contains(&t.id)) {
                    self.wrong(&way, format!("no VLAN {}; they go from 1 to 4094", tag.id));
                }
            }
            Match::Mac(mac) if mac.0[0] & 1 != 0 || mac.0 == [0; 6] => {
                self.wrong(&way, format!("{mac} is the address of no single device"));
            }
            Match::Mac(_) | Match::Queue(_) => {}
        }
    }
}

fn is_device_name(name: &str) -> bool {
    let fits = (1..=MAX_DEVICE_NAME).contains(&name.len());
    let special = |c: char| c == '/' || c == ':' || c.is_whitespace() || c == '*' || c == '?';
    fits && !matches!(name, "." | "..") && !name.contains(special)
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    fn wrong(text: &str) -> String {
        parse("f", text).unwrap_err().to_string()
    }

    fn notes(text: &str) -> String {
        parse("f", text).unwrap().notes.join("\n")
    }

    fn member(netns: &str, port: &str, matches: &str) -> String {
        let port = format!("port = {{ netns = '{port}', device = 'e' }}");
        format!("[[member]]\nnetns = '{netns}'\nlink = 'v'\n{port}\n{matches}\n")
    }

    #[test]
    fn numbers_have_bounds() {
        let text = wrong("[workers]\ncount = 0\n[limits]\nmax-ports = 0\n");
        assert!(text.contains("f:2:9: 0 workers") && text.contains("\nf:4:13: no port"), "{text}");
        let text = wrong("[workers]\ncount = 2\npin = [1]\n");
        assert!(text.starts_with("f:3:") && text.contains("1 processors for 2 workers"), "{text}");
        let text = wrong("[memory]\nframe-size = 3000\n");
        assert!(text.starts_with("f:2:14: ") && text.contains("3000"), "{text}");
        let text = wrong("[memory]\nring-size = 1000\n");
        assert!(text.starts_with("f:2:13: ") && text.contains("1000"), "{text}");
        let text = wrong("[memory]\nframe-size = 2048\n[devices]\nbind = 'zero-copy'\n");
        assert!(text.starts_with("f:2:14: ") && text.contains("4096"), "{text}");
        let text = wrong("[[namespace]]\nnetns = 'a'\nweight = 0\n");
        assert!(text.starts_with("f:3:10: "), "{text}");
    }

    #[test]
    fn one_thing_has_one_owner() {
        let ns = "[[namespace]]\nnetns = '*'\n";
        let two = |a: &str, b: &str| {
            format!("{ns}{}{}", member("blue", "infra", a), member("red", "infra", b))
        };
        let text = wrong(&two("vlan = 7", "vlan = [{ id = 7 }]"));
        assert!(text.starts_with("f:12:"), "{text}");
        for word in ["VLAN 7 of e in infra", "blue", "red", "line 3"] {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert!(wrong(&two("queue = 3", "queue = 3")).contains("queue 3"));
        assert!(parse("f", &two("vlan = 7", "vlan = 8")).is_ok());
        assert!(parse("f", &two("vlan = 7", "vlan = [{ proto = '802.1ad', id = 7 }]")).is_ok());
    }

    #[test]
    fn a_link_is_one_member() {
        let ns = "[[namespace]]\nnetns = '*'\n";
        let first = member("blue", "infra", "queue = 0");
        let text = wrong(&format!("{ns}{first}{}", member("blue", "infra", "queue = 1")));
        assert!(text.starts_with("f:10:8: link v of blue") && text.contains("line 3"), "{text}");
        let second = member("blue", "infra", "queue = 1").replace("'v'", "'w'");
        assert!(parse("f", &format!("{ns}{first}{second}")).is_ok());
    }

    #[test]
    fn a_member_lives_in_namespaces_that_are_driven() {
        let text = wrong(&format!(
            "[[namespace]]\nnetns = 'b*'\n{}",
            member("blue", "infra", "queue = 1")
        ));
        assert!(text.starts_with("f:6:18: namespace infra is not driven"), "{text}");
        let both = "[[namespace]]\nnetns = 'b*'\n[[namespace]]\nnetns = 'infra'\n";
        assert!(parse("f", &format!("{both}{}", member("blue", "infra", "queue = 1"))).is_ok());
        let text = wrong(&format!(
            "{both}[[namespace]]\nnetns='!infra'\n{}",
            member("blue", "infra", "queue = 1")
        ));
        assert!(text.contains("infra"), "{text}");
        let text = wrong(&format!("{both}{}", member("b*", "infra", "queue = 1")));
        assert!(text.contains("no name of one namespace"), "{text}");
    }

    #[test]
    fn what_cannot_match_is_wrong() {
        let of = |matches: &str| {
            wrong(&format!("[[namespace]]\nnetns = '*'\n{}", member("blue", "infra", matches)))
        };
        assert!(of("vlan = 0").starts_with("f:7:8: no VLAN 0"), "{}", of("vlan = 0"));
        assert!(of("vlan = 4095").contains("4094"));
        assert!(of("vlan = []").contains("0 tags"));
        assert!(of("vlan = [{id=1},{id=2},{id=3}]").contains("3 tags"));
        assert!(of("mac = '01:00:00:00:00:01'").contains("01:00:00:00:00:01"));
    }

    #[test]
    fn what_is_never_reached_is_told() {
        let text = notes("[[namespace]]\nnetns = 'tenant-*'\n[[namespace]]\nnetns = 'tenant-7'\n");
        assert!(text.starts_with("f:4:9: \"tenant-7\" is never reached"), "{text}");
        assert!(text.contains("line 2"), "{text}");
        assert_eq!(notes("[[namespace]]\nnetns = 'a'\n[[namespace]]\nnetns = '*'\n"), "");
        assert!(notes("").contains("none will be driven"));
        let text = wrong("[[namespace]]\nnetns = '!a'\nweight = 3\n");
        assert!(text.contains("only netns"), "{text}");
    }
}
