//! The `nsplane` command.

mod cli;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use cli::{Cli, Command};
use nsplane::control::error::told;

/// Exit status of `nsplane explain` where the kernel would do something else.
const DIFFERS: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        Command::Explain(args) => match cli::explain::explain(args) {
            Ok(false) => return ExitCode::from(DIFFERS),
            other => other.map(drop),
        },
        Command::Run(args) => {
            log();
            cli::run::run(args)
        }
        Command::Show(args) => cli::show::show(args),
        Command::Reload(args) => cli::reload::reload(args),
        Command::Config { command } => cli::config::config(command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("nsplane: {}", told(&*e));
            ExitCode::FAILURE
        }
    }
}

/// Logs to stderr; RUST_LOG chooses what, "info" by default.
fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}
