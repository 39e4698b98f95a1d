//! `nsplane reload`: a running nsplane reads its config again.

use anyhow::Result;
use nsplane::api;

use super::Reload;
use super::print::out;

/// Runs the command.
pub(crate) fn reload(args: &Reload) -> Result<()> {
    let report = api::reload(&args.api.path)?;
    if args.json {
        return out(&format!("{}\n", serde_json::to_string_pretty(&report)?));
    }
    out(&format!("{report}\n"))
}
