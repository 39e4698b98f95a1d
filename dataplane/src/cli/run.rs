//! `nsplane run`: arguments into a configuration.

use anyhow::Result;
use nsplane::{bpf, control, runtime, xsk};

use super::{Bind, Run, Xdp};

/// Runs the command.
pub(crate) fn run(args: &Run) -> Result<()> {
    let mode = match args.bind {
        Bind::Copy => xsk::Mode::Copy,
        Bind::ZeroCopy => xsk::Mode::ZeroCopy,
    };
    let config = runtime::Config {
        selectors: args.netns.clone(),
        all: args.all,
        settings: control::Settings {
            devices: args.devices.clone(),
            strict: !args.all,
            xdp: match args.xdp {
                Xdp::Auto => bpf::AttachMode::Auto,
                Xdp::Native => bpf::AttachMode::Native,
                Xdp::Generic => bpf::AttachMode::Generic,
            },
            memory: xsk::Options {
                frames: args.frames,
                frame_size: args.frame_size.unwrap_or_else(|| mode.least_frame_size()),
                ring_size: args.ring_size,
                mode,
            },
            max_ports: args.max_ports,
            members: Vec::new(),
        },
        workers: args.workers,
        pin: args.pin.clone(),
        punt_rate: args.punt_rate,
        api: args.api.path.clone(),
    };
    Ok(runtime::run(&config)?)
}
