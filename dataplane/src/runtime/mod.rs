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
mod discover;
mod events;
mod explain;
mod progress;
mod punt;
mod reload;
mod signals;
mod steps;
mod workers;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::api::{ListenError, Listener};
use crate::bpf::{self, Bpf};
use crate::config::{self, File, Overrides, Parsed, Xdp};
use crate::control::closer::Closer;
use crate::control::error::told;
use crate::control::targets::Targets;
use crate::control::{self, Control, Parts, Seen, Settings};
use crate::netlink;
use crate::netns::{self, Chosen, Netns, Selector};
use crate::sys;
use crate::xsk::{self, Frame, Mode, Region};
use daemon::Daemon;
use discover::Discovery;
use events::{Listeners, Subscribed};
use signals::Signals;
use workers::{Plan, Threads};

/// Namespaces whose state is read again at the same time.
const DUMPS_AT_ONCE: usize = 2;

/// What `nsplane run` was asked for.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which namespaces.
    pub source: Source,
    /// Settings that count more than the file's, also when it is read again.
    pub overrides: Overrides,
    /// The API's socket.
    pub api: PathBuf,
}

/// Where it is said which namespaces are driven.
#[derive(Clone, Debug)]
pub enum Source {
    /// On the command line.
    Flags(Vec<config::Namespace>),
    /// In a config file.
    File(PathBuf),
}

impl Config {
    /// Reads the config file, if there is one.
    fn load(&self) -> Result<Parsed, Error> {
        let mut parsed = match &self.source {
            Source::Flags(rules) => {
                let file = File { namespaces: rules.clone(), ..File::default() };
                Parsed { file, notes: Vec::new(), selectors: Vec::new() }
            }
            Source::File(path) => {
                let unreadable = |source| Error::Unreadable { path: path.clone(), source };
                let text = std::fs::read_to_string(path).map_err(unreadable)?;
                config::parse(&path.display().to_string(), &text)?
            }
        };
        self.overrides.apply(&mut parsed.file);
        Ok(parsed)
    }

    /// Looks whether the selectors mean what can be waited for.
    fn check_selectors(
        &self,
        parsed: &Parsed,
        is_new: impl Fn(&Selector) -> bool,
    ) -> Result<(), Error> {
        for (i, rule) in parsed.file.namespaces.iter().enumerate() {
            let Some(e) = netns::check(&rule.netns).err().filter(|_| is_new(&rule.netns)) else {
                continue;
            };
            return Err(match (&self.source, parsed.selectors.get(i)) {
                (Source::File(path), Some(place)) => {
                    let finding = config::Finding { place: *place, what: e.to_string() };
                    let name = path.display().to_string();
                    Error::Config(config::Error { name, findings: vec![finding] })
                }
                _ => Error::Netns(e),
            });
        }
        Ok(())
    }
}

/// The rules for namespaces, each with what holds where it says nothing itself.
fn rules(file: &File) -> Vec<Arc<config::Namespace>> {
    let complete = |ns: &config::Namespace| {
        let punt_rate = ns.punt_rate.or(Some(file.limits.punt_rate));
        Arc::new(config::Namespace { punt_rate, ..ns.clone() })
    };
    file.namespaces.iter().map(complete).collect()
}

/// How the devices become ports.
fn settings(file: &File) -> Settings {
    Settings {
        xdp: match file.devices.xdp {
            Xdp::Auto => bpf::AttachMode::Auto,
            Xdp::Native => bpf::AttachMode::Native,
            Xdp::Generic => bpf::AttachMode::Generic,
        },
        memory: file.memory_options(),
        max_ports: file.limits.max_ports,
        members: file.members.clone(),
    }
}

/// Why nsplane does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The config file is wrong.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The config file cannot be read.
    #[error("reading {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// There is nothing that could be read again.
    #[error("there is no config file to read again (start nsplane with --config FILE)")]
    NoConfig,
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
    sys::memory::one_heap();
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

/// What was there at the start.
struct Start {
    states: Vec<(Subscribed, Arc<config::Namespace>)>,
    /// All that was asked for is there, by its very name: what does not fit is an error.
    strict: bool,
}

impl Start {
    fn seen(&self) -> Vec<Seen<'_>> {
        self.states.iter().map(|((netns, _, mirror), rule)| (&**netns, mirror, &**rule)).collect()
    }
}

async fn start_and_serve(config: &Config) -> Result<(), Error> {
    let parsed = config.load()?;
    config.check_selectors(&parsed, |_| true)?;
    let Parsed { file, notes, .. } = parsed;
    for note in notes {
        warn!("{note}");
    }
    let mut signals = Signals::new()?;
    let mut listeners = Listeners::new()?;
    let mut discovery = Discovery::new(rules(&file));
    listeners.watcher.watch(discovery.directories())?;
    let chosen = discovery.look()?;
    let strict = matches!(config.source, Source::Flags(_)) && all_there(&discovery, &chosen);
    let mut start = Start { states: Vec::new(), strict };
    for chosen in chosen {
        match look_into(&chosen) {
            Ok(subscribed) => start.states.push((subscribed, discovery.rule(&chosen))),
            Err(Error::Netns(e)) if e.is_gone() => {}
            Err(e) if strict => return Err(e),
            Err(e) => discovery.refuse(chosen.id, &chosen.known.origin.label(), told(&e)),
        }
        if let Some(signal) = signals.pending().await {
            return leave(signal);
        }
    }
    let settings = settings(&file);
    if strict {
        control::check(&settings.memory, &start.seen())?;
    }
    let listener = Listener::bind(&config.api)?;

    let home = Arc::new(Netns::private("nsplane", true)?);
    let first = control::first_namespace(&start.seen());
    let (region, frames) = register(settings.memory, &home, first)?;
    let max_ports = u32::from(settings.max_ports);
    let mut bpf = Bpf::load(bpf::Options { max_ports })?;
    let injector = bpf.take_injector().expect("nobody took it before");
    netlink::own_programs(injector.classifiers()?);
    let targets = Arc::new(Targets::new(usize::from(settings.max_ports)));
    let threads = workers::start(Plan {
        file: &file,
        region: &region,
        frames,
        injector,
        targets: targets.clone(),
        home,
    })?;
    let Threads { handles, workers, publisher } = threads;
    let closer = Closer::start().map_err(io("starting the threads that close sockets"))?;
    let control =
        Control::new(Parts { settings, bpf, region, workers, publisher, targets, closer });
    let mut daemon = Daemon {
        control,
        handles,
        listener,
        listeners,
        signals,
        unsettled: VecDeque::new(),
        discovery,
        config,
        file,
    };
    let served = daemon.take_in_and_serve(start).await;
    match daemon.control.shut_down() {
        Ok(()) => daemon.handles.join(),
        // Its thread may never end; the kernel takes what it has when the process does.
        Err(e) => warn!(error = told(&e), "stopping the workers"),
    }
    served
}

/// Every selector is exact and means something.
fn all_there(discovery: &Discovery, chosen: &[Chosen]) -> bool {
    let there = |i| chosen.iter().any(|c| c.selector == i);
    discovery.rules().iter().enumerate().all(|(i, r)| r.netns.is_exact() && there(i))
}

fn look_into(chosen: &Chosen) -> Result<Subscribed, Error> {
    let netns = Arc::new(netns::open(chosen)?);
    let (monitor, mirror) = events::subscribe_and_dump(&netns)?;
    Ok((netns, monitor, mirror))
}

fn leave(signal: &str) -> Result<(), Error> {
    info!(signal, "leaving: the kernel forwards");
    // Without a service manager there is nobody to notify.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    Ok(())
}

fn register(
    options: xsk::Options,
    home: &Netns,
    first: Option<&Netns>,
) -> Result<(Region, Vec<Frame>), Error> {
    let netns = match options.mode {
        Mode::Copy => home,
        Mode::ZeroCopy => first.ok_or(Error::NoZeroCopyDevice)?,
    };
    Ok(netns.run(|| Region::create(options))??)
}
