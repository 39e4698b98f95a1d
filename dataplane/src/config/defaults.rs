//! The default config file.

/// A complete file with a comment for each setting, whose values are the defaults.
pub const DEFAULTS: &str = include_str!("defaults.toml");

#[cfg(test)]
mod tests {
    use super::super::{File, Match, Member, Namespace, parse};
    use super::*;

    #[test]
    fn the_file_says_what_is_so_without_it() {
        let parsed = parse("defaults", DEFAULTS).unwrap();
        assert_eq!(parsed.file, File::default());
        // Complete: a setting that is not there could not be wrong either.
        let settings =
            ["count", "pin", "frames", "ring-size", "max-ports", "punt-rate", "bind", "xdp"];
        for key in settings {
            assert!(DEFAULTS.contains(&format!("\n{key} = ")), "{key}");
        }
    }

    /// The examples are comments that begin with `#` and no space.
    fn uncommented() -> String {
        let line = |l: &'static str| match l.strip_prefix('#') {
            Some(example) if !example.starts_with(' ') => example,
            _ => l,
        };
        DEFAULTS.lines().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn its_examples_are_right_and_show_the_defaults() {
        let parsed = parse("examples", &uncommented()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(parsed.notes, Vec::<String>::new());
        let file = parsed.file;
        assert_eq!(file.memory.frame_size, Some(file.memory_options().frame_size));
        let [excluded, first, all] = file.namespaces.as_slice() else {
            panic!("{:?}", file.namespaces)
        };
        assert!(excluded.netns.is_exclude());
        let mut plain = Namespace::of(first.netns.clone());
        plain.punt_rate = Some(file.limits.punt_rate);
        assert_eq!(first, &plain);
        assert_eq!(all, &Namespace::of(all.netns.clone()));
        let kinds: Vec<&str> = file.members.iter().map(|m: &Member| m.matches.key()).collect();
        assert_eq!(kinds, ["vlan", "vlan", "queue", "mac"]);
        assert!(matches!(&file.members[1].matches, Match::Vlan(tags) if tags.len() == 2));
    }
}
