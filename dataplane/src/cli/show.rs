//! `nsplane show`: asks a running nsplane and prints the answer.

use anyhow::Result;
use nsplane::api;

use super::{Show, print};

/// Runs the command.
pub(crate) fn show(args: &Show) -> Result<()> {
    let view = api::show(&args.api.path, args.subject, args.netns.clone())?;
    print::out(&if args.json {
        format!("{}\n", serde_json::to_string_pretty(&print::json(&view))?)
    } else {
        print::table(&view)
    })
}
