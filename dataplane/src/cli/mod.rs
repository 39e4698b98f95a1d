//! The command line.

pub(crate) mod print;
pub(crate) mod run;
pub(crate) mod show;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use nsplane::config::Bypass;
use nsplane::control::view::Subject;
use nsplane::netns::Selector;

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
    Run(Box<Run>),
    /// Show what a running nsplane does.
    Show(Show),
}

/// `nsplane run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// A namespace: its name (`ip netns`), a path to it, or `pid:N`. May be repeated.
    #[arg(long = "netns", value_name = "NETNS", required_unless_present = "all")]
    pub(crate) netns: Vec<Selector>,
    /// All named namespaces (/run/netns, /var/run/docker/netns), and those that later
    /// get a name in /run/netns.
    #[arg(long)]
    pub(crate) all: bool,
    /// Only these devices become ports. May be repeated.
    #[arg(long = "device", value_name = "DEV")]
    pub(crate) devices: Vec<String>,
    /// Number of worker threads.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers: u16,
    /// Processors to pin the workers to, in their order. Without it the last
    /// processors of this process' set, one each.
    #[arg(long, value_delimiter = ',', value_name = "CPU")]
    pub(crate) pin: Vec<usize>,
    /// How the sockets are bound. Zero-copy needs a driver that can, on every port.
    #[arg(long, value_enum, default_value_t = Bind::Copy)]
    pub(crate) bind: Bind,
    /// How the XDP program is attached: native where the driver can, else generic.
    #[arg(long, value_enum, default_value_t = Xdp::Auto)]
    pub(crate) xdp: Xdp,
    /// Frames of memory shared with the kernel. Ports share them: with the default some
    /// hundred queues can receive; the first have most.
    #[arg(long, default_value_t = 32_768)]
    pub(crate) frames: u32,
    /// Bytes a frame: 2048, or 4096 for MTUs above 1778 and for zero-copy. The default
    /// is the least that the way of binding allows.
    #[arg(long)]
    pub(crate) frame_size: Option<u32>,
    /// Entries of each AF_XDP ring, a power of two.
    #[arg(long, default_value_t = 1024)]
    pub(crate) ring_size: u32,
    /// Most ports at one time.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) max_ports: u16,
    /// Packets a second that each namespace may hand to its kernel from userspace.
    #[arg(long, default_value_t = 20_000)]
    pub(crate) punt_rate: u32,
    /// Forward past a part of the kernel's configuration, as docs/ledger.md has them,
    /// although it would have had a say. May be repeated. `show ledger` tells.
    #[arg(long, value_enum, value_name = "ITEM")]
    pub(crate) bypass: Vec<Bypass>,
    #[command(flatten)]
    pub(crate) api: Api,
}

/// How sockets are bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Bind {
    /// The kernel copies: every device can do it.
    Copy,
    /// The device reads and writes our memory.
    ZeroCopy,
}

/// How the program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Xdp {
    /// Native where the driver can, else generic.
    Auto,
    /// In the driver.
    Native,
    /// In the stack, for every device.
    Generic,
}

/// Where the running nsplane listens.
#[derive(Clone, Debug, Args)]
pub(crate) struct Api {
    /// Unix socket of the API.
    #[arg(long = "api", value_name = "PATH", default_value = "/run/nsplane/api.sock")]
    pub(crate) path: PathBuf,
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
