//! Threads: what is started in which order, and stopped in which.
//!
//! Start: look (capabilities, namespaces, their state, what the devices allow) before
//! anything is changed; then memory, program, workers; then ports, whose traffic still
//! goes to the kernel; then their entries are switched on. Stop is the reverse: entries
//! and programs off first, so that the kernel forwards, then workers and sockets. An
//! error on the way up runs the same way down. After `kill -9` the kernel itself takes
//! programs and sockets away, for all of them live by file descriptors.

mod afxdp;
mod daemon;
mod events;
mod punt;
mod signals;
mod workers;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::api::{ListenError, Listener};
use crate::bpf::{self, Bpf};
use crate::config;
use crate::control::closer::Closer;
use crate::control::error::told;
use crate::control::targets::Targets;
use crate::control::{self, Control, Parts, Settings};
use crate::netns::{self, Netns, Selector};
use crate::sys;
use crate::xsk::{Mode, Region};
use daemon::Daemon;
use events::Listeners;
use signals::Signals;
use workers::{Plan, Threads};

/// Namespaces whose state is read again at the same time.
const DUMPS_AT_ONCE: usize = 2;

/// What `nsplane run` was asked for.
#[derive(Clone, Debug)]
pub struct Config {
    /// Namespaces that are named; each must exist at the start.
    pub selectors: Vec<Selector>,
    /// All named namespaces of the host, also later ones.
    pub all: bool,
    /// Devices and memory.
    pub settings: Settings,
    /// Number of worker threads.
    pub workers: u16,
    /// Processors of the workers, in their order; chosen where empty.
    pub pin: Vec<usize>,
    /// Packets a second a namespace may punt.
    pub punt_rate: u32,
    /// The API's socket.
    pub api: PathBuf,
}

impl Config {
    /// What is to be done with a namespace.
    fn rule_of(&self, netns: &Netns) -> Arc<config::Namespace> {
        let by_name = Selector::Name(netns.name().to_owned());
        Arc::new(config::Namespace::of(by_name))
    }
}

/// Why nsplane does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Missing capabilities.
    #[error("missing {0} (run as root, or give these capabilities)")]
    Capabilities(String),
    /// A namespace.
    #[error(transparent)]
    Netns(#[from] netns::Error),
    /// The API.
    #[error(transparent)]
    Api(#[from] ListenError),
    /// Setting up.
    #[error(transparent)]
    Control(#[from] control::Error),
    /// AF_XDP memory.
    #[error(transparent)]
    Xsk(#[from] crate::xsk::Error),
    /// The XDP program.
    #[error("{}", control::error::advised(.0))]
    Bpf(#[from] bpf::Error),
    /// A thread could not be started or pinned.
    #[error("{what}")]
    Thread {
        /// What was tried.
        what: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// `--pin` does not fit.
    #[error("{0}")]
    Pin(String),
    /// No device for a zero-copy memory to begin with.
    #[error("--bind zero-copy needs a device that is up at the start, to register the memory with")]
    NoZeroCopyDevice,
    /// A thread ended by itself: our bug. The kernel forwards from here on.
    #[error("thread {0} ended unexpectedly (a bug; please report it); the kernel forwards again")]
    ThreadDied(String),
}

fn io(what: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::Thread { what: what.to_owned(), source }
}

/// Runs until SIGTERM or SIGINT. Everything that was changed is changed back when
/// this returns, also with an error.
///
/// # Errors
/// What kept it from starting, or made it stop.
pub fn run(config: &Config) -> Result<(), Error> {
    let missing = sys::cap::missing().map_err(io("reading this process' capabilities"))?;
    if !missing.is_empty() {
        let list = missing.iter().map(|c| format!("{} ({})", c.name, c.needed_for));
        return Err(Error::Capabilities(list.collect::<Vec<_>>().join(", ")));
    }
    if let Err(e) = sys::limits::raise_open_files() {
        // Enough for some namespaces all the same.
        warn!(error = %e, "raising the limit of open files");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(DUMPS_AT_ONCE)
        .thread_keep_alive(Duration::from_secs(1))
        .build()
        .map_err(io("starting the async runtime"))?;
    tokio::task::LocalSet::new().block_on(&runtime, start_and_serve(config))
}

async fn start_and_serve(config: &Config) -> Result<(), Error> {
    let mut signals = Signals::new()?;
    let listeners = Listeners::new()?;
    let mut states = Vec::new();
    for netns in find(config)? {
        let netns = Arc::new(netns);
        let (monitor, mirror) = events::subscribe_and_dump(&netns)?;
        states.push((netns, monitor, mirror));
        if let Some(signal) = signals.pending().await {
            return leave(signal);
        }
    }
    let seen: Vec<_> = states.iter().map(|(n, _, m)| (&**n, m)).collect();
    control::check(&config.settings, &seen)?;
    let listener = Listener::bind(&config.api)?;

    let home = Arc::new(Netns::private("nsplane", true)?);
    let first = control::first_namespace(&config.settings, &seen);
    let (region, frames) = register(config, &home, first)?;
    let max_ports = u32::from(config.settings.max_ports);
    let mut bpf = Bpf::load(bpf::Options { max_ports })?;
    let injector = bpf.take_injector().expect("nobody took it before");
    let targets = Arc::new(Targets::new(usize::from(config.settings.max_ports)));
    let threads = workers::start(Plan {
        config,
        region: &region,
        frames,
        injector,
        targets: targets.clone(),
        home,
    })?;
    let Threads { handles, workers, publisher } = threads;
    let settings = config.settings.clone();
    let closer = Closer::start().map_err(io("starting the threads that close sockets"))?;
    let control =
        Control::new(Parts { settings, bpf, region, workers, publisher, targets, closer });
    let unsettled = VecDeque::new();
    let mut daemon = Daemon { control, handles, listener, listeners, signals, unsettled, config };
    let served = daemon.take_in_and_serve(states).await;
    match daemon.control.shut_down() {
        Ok(()) => daemon.handles.join(),
        // Its thread may never end; the kernel takes what it has when the process does.
        Err(e) => warn!(error = told(&e), "stopping the workers"),
    }
    served
}

fn leave(signal: &str) -> Result<(), Error> {
    info!(signal, "leaving: the kernel forwards");
    // Without a service manager there is nobody to notify.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    Ok(())
}

fn find(config: &Config) -> Result<Vec<Netns>, Error> {
    let mut found: Vec<Netns> = Vec::new();
    for selector in &config.selectors {
        let netns = netns::open(selector)?;
        if let Some(first) = found.iter().find(|n| n.cookie() == netns.cookie()) {
            return Err(Error::Control(control::Error::SameNamespace {
                first: first.name().to_owned(),
                second: netns.name().to_owned(),
            }));
        }
        found.push(netns);
    }
    if config.all {
        let rest = netns::list_all()?;
        let is_new = |n: &Netns| found.iter().all(|f| f.cookie() != n.cookie());
        let mut rest: Vec<Netns> = rest.into_iter().filter(is_new).collect();
        found.append(&mut rest);
    }
    Ok(found)
}

fn register(
    config: &Config,
    home: &Netns,
    first: Option<&Netns>,
) -> Result<(Region, Vec<crate::xsk::Frame>), Error> {
    let options = config.settings.memory;
    let netns = match options.mode {
        Mode::Copy => home,
        Mode::ZeroCopy => first.ok_or(Error::NoZeroCopyDevice)?,
    };
    Ok(netns.run(|| Region::create(options))??)
}
