//! `nsplane show`: asks a running nsplane and prints the answer.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use nsplane::api;

use super::{Show, print};

/// Runs the command.
pub(crate) fn show(args: &Show) -> Result<()> {
    let request = api::Request { show: args.subject, netns: args.netns.clone() };
    let view = api::ask(&args.api.path, &request)?;
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
