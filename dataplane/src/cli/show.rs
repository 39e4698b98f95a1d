//! `nsplane show`: asks a running nsplane and prints the answer.

use anyhow::Result;
use nsplane::api;
use nsplane::control::ledger;
use nsplane::control::view::{LedgerRow, Subject, View};

use super::{Show, print};

/// Runs the command.
pub(crate) fn show(args: &Show) -> Result<()> {
    let ask = |subject| api::show(&args.api.path, subject, args.netns.clone());
    let mut view = ask(args.subject)?;
    if let (View::Ledger(rows), true) = (&mut view, args.all_items) {
        add_unused(rows, &ask(Subject::Namespaces)?);
    }
    print::out(&if args.json {
        format!("{}\n", serde_json::to_string_pretty(&print::json(&view))?)
    } else {
        print::table(&view)
    })
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
