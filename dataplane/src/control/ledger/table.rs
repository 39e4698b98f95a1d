//! The table of items as text, for the docs.

use super::{ITEMS, Item};

/// The item of a name.
#[must_use]
pub fn item(name: &str) -> Option<&'static Item> {
    ITEMS.iter().find(|i| i.name == name)
}

/// The table as docs/ledger.md has it.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from(
        "| item | what it is | status | concerns | why | watched | `bypass` |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for i in ITEMS {
        let bypass = i.bypass.map_or(String::new(), |b| format!("`{}`", b.name()));
        let (status, scope, watched) = (i.status.name(), i.scope.name(), i.watched.name());
        let line = format!(
            "| `{}` | {} | {status} | {scope} | {} | {watched} | {bypass} |\n",
            i.name, i.what, i.reason
        );
        out.push_str(&line);
    }
    out
}
