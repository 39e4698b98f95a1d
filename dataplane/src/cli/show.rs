//! `nsplane show`: asks a running nsplane and prints the answer.

use anyhow::{Context as _, Result};
use nsplane::api;

use super::{Show, print};

/// Runs the command.
pub(crate) fn show(args: &Show) -> Result<()> {
    let request = api::Request { show: args.subject, netns: args.netns.clone() };
    let view = api::ask(&args.api.path, &request).with_context(|| {
        format!("asking the nsplane at {} (is it running? see --api)", args.api.path.display())
    })?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&print::json(&view))?);
    } else {
        print!("{}", print::table(&view));
    }
    Ok(())
}
