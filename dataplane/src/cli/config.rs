//! `nsplane config`: looks at config files, without a running nsplane.

use std::path::Path;

use anyhow::{Context as _, Result};
use nsplane::config;

use super::ConfigCommand;
use super::print::out;

/// Runs the command.
pub(crate) fn config(command: &ConfigCommand) -> Result<()> {
    match command {
        ConfigCommand::Check { file } => check(file),
        ConfigCommand::ShowDefaults => out(config::DEFAULTS),
    }
}

fn check(file: &Path) -> Result<()> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {name}"))?;
    let parsed = config::parse(&name, &text)?;
    for note in &parsed.notes {
        eprintln!("{note}");
    }
    let (namespaces, members) = (parsed.file.namespaces.len(), parsed.file.members.len());
    out(&format!("{name}: good; {namespaces} [[namespace]], {members} [[member]]\n"))
}
