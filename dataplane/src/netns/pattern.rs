//! Names with wildcards.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A name, in which `*` stands for any characters or none, and `?` for any one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(String);

/// A text that is no name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no name, and no pattern of one")]
pub struct PatternError(pub(super) String);

impl Pattern {
    /// The pattern that every name fits.
    #[must_use]
    pub fn any() -> Self {
        Self("*".to_owned())
    }

    /// Does the name fit?
    #[must_use]
    pub fn fits(&self, name: &str) -> bool {
        fits(self.0.as_bytes(), name.as_bytes())
    }

    /// Only one name fits, the pattern itself.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        !self.0.contains(['*', '?'])
    }

    /// The pattern as it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Goes back to the last `*` only, for an earlier one can take no more than a later
/// one could.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => {
                p += 1;
                n += char_len(name, n, c);
            }
            _ => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                (p, n) = (at + 1, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

/// `?` stands for a character, which may be several bytes.
fn char_len(name: &[u8], at: usize, pattern: u8) -> usize {
    if pattern != b'?' {
        return 1;
    }
    let rest = name[at + 1..].iter();
    1 + rest.take_while(|&&byte| byte & 0xc0 == 0x80).count()
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if matches!(s, "" | "." | "..") || s.contains(['/', '\0']) {
            return Err(PatternError(s.to_owned()));
        }
        Ok(Self(s.to_owned()))
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(s: String) -> Result<Self, Self::Error> {
        s.parse()
    }
}

impl From<Pattern> for String {
    fn from(p: Pattern) -> Self {
        p.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wildcards_stand_for_what_they_should() {
        let fits = |p: &str, n: &str| p.parse::<Pattern>().unwrap().fits(n);
        assert!(fits("blue", "blue"));
        assert!(!fits("blue", "blue2"));
        assert!(fits("tenant-*", "tenant-"));
        assert!(fits("tenant-*", "tenant-7"));
        assert!(!fits("tenant-*", "a-tenant-7"));
        assert!(fits("*-r", "a-r-b-r"));
        assert!(!fits("*-r", "a-r-b"));
        assert!(fits("*a*b*", "xxaxxbxx"));
        assert!(!fits("*a*b*", "xxbxxaxx"));
        assert!(fits("eth?", "eth0"));
        assert!(!fits("eth?", "eth"));
        assert!(!fits("eth?", "eth10"));
        assert!(fits("gr?n", "grün"));
        assert!(fits("*", ""));
        assert!("a/b".parse::<Pattern>().is_err());
        assert!("".parse::<Pattern>().is_err());
    }

    /// The definition, word by word.
    fn oracle(pattern: &[char], name: &[char]) -> bool {
        match (pattern.first(), name.first()) {
            (None, None) => true,
            (Some('*'), _) => {
                oracle(&pattern[1..], name) || (!name.is_empty() && oracle(pattern, &name[1..]))
            }
            (Some('?'), Some(_)) => oracle(&pattern[1..], &name[1..]),
            (Some(p), Some(n)) => p == n && oracle(&pattern[1..], &name[1..]),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn as_the_definition_says(pattern in "[ab*?ü]{1,8}", name in "[abü]{0,8}") {
            let (p, n): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
            prop_assert_eq!(pattern.parse::<Pattern>().unwrap().fits(&name), oracle(&p, &n));
        }
    }
}
