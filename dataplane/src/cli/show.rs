//! `nsplane show`: asks a running nsplane and prints the answer.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use nsplane::api::{self, Request};
use nsplane::control::ledger;
use nsplane::control::view::{LedgerRow, Subject, View};

use super::{Show, print};

/// Runs the command.
pub(crate) fn show(args: &Show) -> Result<()> {
    let request = Request { show: args.subject, netns: args.netns.clone() };
    let mut view = api::ask(&args.api.path, &request)?;
    if let (View::Ledger(rows), true) = (&mut view, args.all_items) {
        let namespaces =
            api::ask(&args.api.path, &Request { show: Subject::Namespaces, ..request })?;
        add_unused(rows, &namespaces);
    }
    let text = if args.json {
        format!("{}\n", serde_json::to_string_pretty(&print::json(&view))?)
    } else {
        print::table(&view)
    };
    match io::stdout().write_all(text.as_bytes()) {
        // `nsplane show routes | head` has seen enough.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("writing the answer"),
    }
}

/// Adds to a ledger what its namespaces do not use.
fn add_unused(rows: &mut Vec<LedgerRow>, namespaces: &View) {
    let View::Namespaces(namespaces) = namespaces else { return };
    for n in namespaces {
        let unused: Vec<LedgerRow> = ledger::unused(&n.name, rows).collect();
        rows.extend(unused);
    }
    rows.sort_by(|a, b| a.netns.cmp(&b.netns));
}
