//! `nsplane run`: arguments into a configuration.

use anyhow::{Context as _, Result};
use nsplane::config::{Namespace, Overrides};
use nsplane::netns::Selector;
use nsplane::runtime::{self, Source};

use super::Run;

/// Runs the command.
pub(crate) fn run(args: &Run) -> Result<()> {
    let source = match &args.config {
        // Read again later, from wherever.
        Some(path) => Source::File(std::path::absolute(path).context("finding the config file")?),
        None => Source::Flags(rules(args)),
    };
    let config = runtime::Config { source, overrides: overrides(args), api: args.api.path.clone() };
    Ok(runtime::run(&config)?)
}

/// The selectors in their order; `--all` comes last.
fn rules(args: &Run) -> Vec<Namespace> {
    let all = args.all.then(Selector::all);
    let rule = |netns| Namespace {
        devices: args.devices.clone(),
        bypass: args.bypass.clone(),
        ..Namespace::of(netns)
    };
    let exclude_or_rule = |netns: Selector| {
        if netns.is_exclude() { Namespace::of(netns) } else { rule(netns) }
    };
    args.netns.iter().cloned().chain(all).map(exclude_or_rule).collect()
}

fn overrides(args: &Run) -> Overrides {
    Overrides {
        workers: args.workers,
        pin: (!args.pin.is_empty()).then(|| args.pin.clone()),
        bind: args.bind,
        xdp: args.xdp,
        frames: args.frames,
        frame_size: args.frame_size,
        ring_size: args.ring_size,
        max_ports: args.max_ports,
        punt_rate: args.punt_rate,
    }
}
