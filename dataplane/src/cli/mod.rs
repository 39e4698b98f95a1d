//! The command line.

pub(crate) mod config;
pub(crate) mod explain;
pub(crate) mod print;
pub(crate) mod reload;
pub(crate) mod run;
pub(crate) mod show;

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use nsplane::config::{Bind, Bypass, Xdp};
use nsplane::control::view::Subject;
use nsplane::netns::{Pattern, Selector};

/// Forwards the packets of many network namespaces over AF_XDP.
///
/// Each namespace's packets are routed by that namespace's own kernel
/// configuration; what nsplane does not do exactly as the kernel would stays
/// with the kernel.
#[derive(Debug, Parser)]
#[command(name = "nsplane", version)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Drive the devices of namespaces, in the foreground, until SIGTERM or SIGINT.
    ///
    /// Which namespaces is said by --netns and --all, or by a config file. A selector that
    /// means no namespace is waited for; `nsplane show selectors` tells which do. SIGHUP
    /// reads the config file again, as `nsplane reload` does.
    Run(Box<Run>),
    /// Show what a running nsplane does.
    Show(Show),
    /// Say step by step what becomes of a packet, and what the kernel would do with it.
    ///
    /// The packet is decided on by the tables in use, and the kernel is asked in the same
    /// namespace (as `ip route get ... iif ...` does). Nothing is sent. Exit status: 0 where
    /// both agree, 3 where they differ, 1 for an error.
    Explain(Explain),
    /// Let a running nsplane read its config file again, and print what changes.
    ///
    /// A file that is wrong changes nothing. What only a restart can change is told, and
    /// all else is applied.
    Reload(Reload),
    /// Look at config files; no running nsplane is needed.
    Config {
        /// What to do.
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

/// `nsplane config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say what is wrong with a config file, each thing with its line and column.
    Check {
        /// The config file.
        file: PathBuf,
    },
    /// Print a complete config file with comments, whose values are the defaults.
    ShowDefaults,
}

/// `nsplane run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Namespaces: a name (`blue`, `tenant-*`), `docker:*`, `cni:*`, `podman:*`, a path,
    /// `pid:N`, `proc:COMMAND` (those without a name, by the processes in them), or
    /// `!NETNS` to leave some out. May be repeated; the first that fits counts.
    #[arg(
        long = "netns",
        value_name = "NETNS",
        required_unless_present_any = ["all", "config"],
        conflicts_with = "config"
    )]
    pub(crate) netns: Vec<Selector>,
    /// All namespaces that have a name, also those that get one later: the same as
    /// `--netns '*'`.
    #[arg(long, conflicts_with = "config")]
    pub(crate) all: bool,
    /// Only these devices become ports; `*` and `?` are wildcards. May be repeated.
    #[arg(long = "device", value_name = "DEV", conflicts_with = "config")]
    pub(crate) devices: Vec<Pattern>,
    /// A config file, which says all that these options do and more; see `nsplane config
    /// show-defaults`. The options below count more than the file, also when it is read
    /// again.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Number of worker threads [default: 1].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers: Option<u16>,
    /// Processors to pin the workers to, in their order. Without it the last
    /// processors of this process' set, one each.
    #[arg(long, value_delimiter = ',', value_name = "CPU")]
    pub(crate) pin: Vec<usize>,
    /// How the sockets are bound [default: copy]. Zero-copy needs a driver that can, on
    /// every port.
    #[arg(long, value_enum)]
    pub(crate) bind: Option<Bind>,
    /// How the XDP program is attached [default: auto, which is native where the driver
    /// can, else generic].
    #[arg(long, value_enum)]
    pub(crate) xdp: Option<Xdp>,
    /// Frames of memory shared with the kernel [default: 32768]. Ports share them: with
    /// the default some hundred queues can receive; the first have most.
    #[arg(long)]
    pub(crate) frames: Option<u32>,
    /// Bytes a frame: 2048, or 4096 for zero-copy. A packet that is longer takes several
    /// (not with zero-copy, nor before Linux 6.6). The default is the least that the way of
    /// binding allows.
    #[arg(long)]
    pub(crate) frame_size: Option<u32>,
    /// Entries of each AF_XDP ring, a power of two [default: 1024].
    #[arg(long)]
    pub(crate) ring_size: Option<u32>,
    /// Most ports at one time [default: 1024].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) max_ports: Option<u16>,
    /// Packets a second that each namespace may hand to its kernel from userspace
    /// [default: 20000].
    #[arg(long)]
    pub(crate) punt_rate: Option<u32>,
    /// Forward past a part of the kernel's configuration, as docs/ledger.md has them,
    /// although it would have a say. May be repeated. `show ledger` tells.
    #[arg(long, value_enum, value_name = "ITEM", conflicts_with = "config")]
    pub(crate) bypass: Vec<Bypass>,
    #[command(flatten)]
    pub(crate) api: Api,
}

/// `nsplane reload`.
#[derive(Debug, Args)]
pub(crate) struct Reload {
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) api: Api,
}

/// Where the running nsplane listens.
#[derive(Clone, Debug, Args)]
pub(crate) struct Api {
    /// Unix socket of the API.
    #[arg(long = "api", value_name = "PATH", default_value = "/run/nsplane/api.sock")]
    pub(crate) path: PathBuf,
}

/// `nsplane explain`.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The namespace that the packet is in, as `show namespaces` has it.
    #[arg(long, value_name = "NETNS")]
    pub(crate) netns: String,
    /// The device that it arrives at: a port.
    #[arg(long, value_name = "DEV")]
    pub(crate) iif: String,
    /// Where it goes.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) dst: IpAddr,
    /// Where it comes from [default: a neighbour on the device].
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) src: Option<IpAddr>,
    /// Its protocol: a number, icmp, tcp, udp, esp, icmpv6 or sctp [default: udp].
    #[arg(long, value_parser = explain::protocol)]
    pub(crate) proto: Option<u8>,
    /// Source port.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(crate) sport: u16,
    /// Destination port.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(crate) dport: u16,
    /// TOS or traffic class, as a number.
    #[arg(long, default_value_t = 0)]
    pub(crate) tos: u8,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) api: Api,
}

/// `nsplane show`.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// What to show.
    #[arg(value_enum)]
    pub(crate) subject: Subject,
    /// Only this namespace.
    #[arg(long = "netns", value_name = "NETNS")]
    pub(crate) netns: Option<String>,
    /// Of the ledger also what is not in use.
    #[arg(long)]
    pub(crate) all_items: bool,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) api: Api,
}
