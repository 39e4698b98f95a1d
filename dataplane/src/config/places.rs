//! Where things stand in a config file's text.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// A line and a column, both from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Place {
    pub(super) fn of(text: &str, byte: usize) -> Self {
        let before = &text[..text.floor_char_boundary(byte)];
        let start = before.rfind('\n').map_or(0, |i| i + 1);
        let line = before.matches('\n').count() + 1;
        Self { line, column: before[start..].chars().count() + 1 }
    }
}

/// One step on the way to a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Key(&'static str),
    Nth(usize),
}

/// The text with its structure.
pub(super) struct Places<'a> {
    text: &'a str,
    root: DeTable<'a>,
}

impl<'a> Places<'a> {
    pub(super) fn of(text: &'a str) -> Result<Self, toml::de::Error> {
        Ok(Self { text, root: DeTable::parse(text)?.into_inner() })
    }

    /// Where a value stands, or what it would be part of if it were there.
    pub(super) fn at(&self, way: &[Step]) -> Place {
        let mut span: Range<usize> = 0..0;
        let mut table = Some(&self.root);
        let mut array = None;
        for step in way {
            let value = match (step, table, array) {
                (Step::Key(key), Some(table), _) => {
                    let here = |(k, _): &(&toml::Spanned<_>, _)| {
                        let k: &std::borrow::Cow<'_, str> = k.get_ref();
                        k == key
                    };
                    let Some((key, value)) = table.iter().find(here) else { break };
                    // A value that is a table or list begins where its key does.
                    let plain = !matches!(value.get_ref(), DeValue::Table(_) | DeValue::Array(_));
                    span = if plain { value.span() } else { key.span() };
                    value
                }
                (Step::Nth(n), _, Some(array)) => {
                    let array: &toml::de::DeArray<'_> = array;
                    let Some(value) = array.get(*n) else { break };
                    span = value.span();
                    value
                }
                _ => break,
            };
            table = None;
            array = None;
            match value.get_ref() {
                DeValue::Table(t) => table = Some(t),
                DeValue::Array(a) => array = Some(a),
                _ => {}
            }
        }
        Place::of(self.text, span.start)
    }
}

#[cfg(test)]
mod tests {
    use super::Step::{Key, Nth};
    use super::*;

    #[test]
    fn a_value_is_found_and_a_missing_one_is_where_it_would_be() {
        let text =
            "[workers]\ncount = 2\n\n[[namespace]]\nnetns = 'ä'\n[[namespace]]\nweight = 7\n";
        let places = Places::of(text).unwrap();
        let at = |way: &[Step]| {
            let Place { line, column } = places.at(way);
            (line, column)
        };
        assert_eq!(at(&[Key("workers"), Key("count")]), (2, 9));
        assert_eq!(at(&[Key("workers"), Key("pin")]).0, 1);
        assert_eq!(at(&[Key("namespace"), Nth(1), Key("weight")]), (7, 10));
        assert_eq!(at(&[Key("namespace"), Nth(1), Key("netns")]).0, 6);
        assert_eq!(at(&[Key("memory")]), (1, 1));
        assert_eq!(Place::of("ä=1", 2), Place { line: 1, column: 2 });
    }
}
