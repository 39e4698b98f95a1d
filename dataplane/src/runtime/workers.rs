//! Starts the worker threads and the punt thread, and joins them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use crossbeam::channel;
use tracing::info;

use super::Error;
use super::punt::Punt;
use crate::bpf::Injector;
use crate::config::File;
use crate::control::links::{self, Workers};
use crate::control::targets::Targets;
use crate::id::WorkerId;
use crate::netns::Netns;
use crate::port::{BATCH, Depot, Mesh, PuntQueue};
use crate::stats::WorkerStats;
use crate::sync::{Doorbell, Publisher};
use crate::sys;
use crate::sys::poll::Poll;
use crate::tables::World;
use crate::worker::idle::{self, Watched};
use crate::worker::{self, Worker};
use crate::xsk::{Frame, Queue, Region};

/// How a quarter of all frames is divided, which is for packets on their way (the rest is
/// the fill rings'): so that nobody's flood of one kind takes the frames of another, and
/// none takes those to receive into. What is left over of the quarter is in the workers'
/// hands; a quarter of it is [`worker::Config::tx_room`].
struct Places {
    /// Packets that may wait for a worker.
    handover: usize,
    /// Packets that may wait to be punted.
    punt: usize,
}

impl Places {
    fn new(frames: usize, workers: usize) -> Self {
        Self {
            handover: (frames * 7 / 64 / workers.max(1)).clamp(256, 6144),
            punt: (frames / 32).clamp(64, 4096),
        }
    }
}

/// What the threads are started with.
pub(super) struct Plan<'a> {
    pub(super) file: &'a File,
    pub(super) region: &'a Region,
    pub(super) frames: Vec<Frame>,
    pub(super) injector: Injector,
    pub(super) targets: Arc<Targets>,
    pub(super) home: Arc<Netns>,
}

/// The started threads, and control's ends of what they share.
pub(super) struct Threads {
    pub(super) handles: Handles,
    pub(super) workers: Workers,
    pub(super) publisher: Publisher<World>,
}

/// Threads to be joined.
pub(super) struct Handles {
    workers: Vec<JoinHandle<()>>,
    punt: Option<JoinHandle<()>>,
    stop_punt: Arc<AtomicBool>,
}

impl Handles {
    /// The name of a thread that ended though nobody told it to.
    pub(super) fn dead_thread(&self) -> Option<String> {
        let dead = self.workers.iter().chain(&self.punt).find(|t| t.is_finished())?;
        Some(dead.thread().name().unwrap_or_default().to_owned())
    }

    /// Waits for all threads. The workers have been told to stop before.
    pub(super) fn join(&mut self) {
        for handle in self.workers.drain(..) {
            // A worker's panic was reported when it was found dead.
            let _ = handle.join();
        }
        self.stop_punt.store(true, Ordering::Relaxed);
        if let Some(handle) = self.punt.take() {
            handle.thread().unpark();
            let _ = handle.join();
        }
    }
}

/// Starts everything.
pub(super) fn start(plan: Plan<'_>) -> Result<Threads, Error> {
    let cpus = processors(plan.file)?;
    let options = plan.region.memory().options();
    let depot = fill_depot(plan.frames, options.frames as usize);
    let places = Places::new(options.frames as usize, usize::from(plan.file.workers.count));
    let punts = Arc::new(PuntQueue::new(places.punt));
    let (punt_bell, punt_thread) = unparking_bell();
    let stop_punt = Arc::new(AtomicBool::new(false));
    let punt = Punt {
        queue: punts.clone(),
        depot: depot.clone(),
        memory: plan.region.memory().clone(),
        injector: plan.injector,
        targets: plan.targets,
        home: plan.home,
        bell: punt_bell.clone(),
        stop: stop_punt.clone(),
        whole: Vec::with_capacity(nsplane_abi::long::LONGEST),
    };
    let punt = spawn("nsplane-punt", move || punt.run())?;
    // Set once, here; a bell rung before finds nobody asleep anyway.
    let _ = punt_thread.set(punt.thread().clone());

    let polls: Vec<Poll> = (0..plan.file.workers.count)
        .map(|_| Poll::new())
        .collect::<Result<_, _>>()
        .map_err(super::io("making an epoll set"))?;
    let bells = polls.iter().map(|p| {
        let bell = p.bell();
        Doorbell::new(Box::new(move || bell.ring()))
    });
    let mesh = Arc::new(Mesh::new(bells.collect(), places.handover));
    let publisher = Publisher::new(Arc::new(World::default()));
    let (outbox, answers) = channel::unbounded();

    let mut handles = Handles { workers: Vec::new(), punt: Some(punt), stop_punt };
    let mut links = Vec::new();
    for (i, (poll, cpu)) in polls.into_iter().zip(cpus).enumerate() {
        let id = WorkerId(i as u16);
        let (inbox_in, inbox) = channel::unbounded();
        let stats = Arc::new(WorkerStats::new(usize::from(plan.file.limits.max_ports)));
        let parts = worker::Parts {
            memory: plan.region.memory().clone(),
            inbox,
            outbox: outbox.clone(),
            world: publisher.reader(),
            stats: stats.clone(),
            punts: punts.clone(),
            punt_bell: punt_bell.clone(),
            depot: depot.clone(),
            mesh: mesh.clone(),
        };
        let worker = Worker::new(&worker_config(plan.file, id), parts);
        let name = format!("nsplane-w{i}");
        handles.workers.push(spawn(&name, move || run(worker, poll, cpu))?);
        info!(worker = i, cpu, "worker");
        links.push(links::Worker { inbox: inbox_in, stats, cpu: Some(cpu) });
    }
    let workers = Workers::new(links, answers, depot, mesh);
    Ok(Threads { handles, workers, publisher })
}

fn worker_config(file: &File, id: WorkerId) -> worker::Config {
    let frames = file.memory.frames as usize;
    let workers = file.workers.count;
    let mut of_worker =
        worker::Config::new(id, workers, usize::from(file.limits.max_ports), frames);
    of_worker.punt_rate = (file.limits.punt_rate / u32::from(workers)).max(1);
    of_worker.punt_burst = (of_worker.punt_rate / 10).clamp(64, 2000);
    of_worker
}

fn run(mut worker: Worker<Queue>, poll: Poll, cpu: usize) {
    if let Err(e) = sys::thread::pin(cpu) {
        // It was checked that we may; slower, but not wrong.
        tracing::warn!(cpu, error = %e, "pinning a worker");
    }
    let start = Instant::now();
    let mut sleep = Epoll { poll, watched: Vec::new(), refused: Vec::new() };
    let now = || start.elapsed().as_nanos() as u64;
    idle::run_loop(&mut worker, &mut sleep, &idle::Idle::default(), now);
}

/// A worker's sleep: until a socket is readable or its bell rings.
struct Epoll {
    poll: Poll,
    /// Sorted.
    watched: Vec<Watched>,
    /// Sockets that the kernel would not wait for: no memory, or the user's limit. They
    /// are tried again before each sleep.
    refused: Vec<Watched>,
}

impl idle::Sleep for Epoll {
    fn watch(&mut self, sockets: &mut dyn Iterator<Item = Watched>) {
        let mut now: Vec<Watched> = sockets.collect();
        // Sorted, and only what is new is told to the kernel: there may be thousands, which
        // come one at a time.
        now.sort_unstable();
        for gone in self.watched.iter().filter(|w| now.binary_search(w).is_err()) {
            // Closed already, as a rule: then it has left the set by itself. If its
            // number is that of a new socket, that one is added below.
            let _ = self.poll.remove(gone.fd);
        }
        let new = now.iter().filter(|w| self.watched.binary_search(w).is_err());
        let before = std::mem::take(&mut self.refused);
        for new in new {
            if let Err(e) = self.poll.add(new.fd) {
                if !before.contains(new) {
                    tracing::warn!(fd = new.fd, error = %e, "waiting for a socket; tried again");
                }
                self.refused.push(*new);
            }
        }
        now.retain(|w| !self.refused.contains(w));
        self.watched = now;
    }

    fn wait(&mut self, timeout: Duration) {
        let poll = &self.poll;
        for added in self.refused.extract_if(.., |w| poll.add(w.fd).is_ok()) {
            let at = self.watched.partition_point(|w| *w < added);
            self.watched.insert(at, added);
        }
        poll.wait(timeout);
    }
}

/// The workers' processors: those asked for, or the last ones, so that the first,
/// which most interrupts go to, stays free as long as it can.
fn processors(file: &File) -> Result<Vec<usize>, Error> {
    let ours = sys::thread::processors().map_err(super::io("reading the processors we may use"))?;
    let count = usize::from(file.workers.count);
    if file.workers.pin.is_empty() {
        let skip = ours.len().saturating_sub(count);
        return Ok(ours[skip..].iter().copied().cycle().take(count).collect());
    }
    if file.workers.pin.len() != count {
        return Err(Error::Pin(format!(
            "--pin names {} processors for {count} workers",
            file.workers.pin.len()
        )));
    }
    match file.workers.pin.iter().find(|c| !ours.contains(c)) {
        Some(cpu) => Err(Error::Pin(format!(
            "--pin: processor {cpu} is not one that this process may use ({ours:?})"
        ))),
        None => Ok(file.workers.pin.clone()),
    }
}

fn fill_depot(frames: Vec<Frame>, count: usize) -> Arc<Depot<Frame>> {
    // Room for every frame in full magazines, and as many again that are not full.
    let depot = Depot::new(2 * count.div_ceil(BATCH) + 64);
    let mut magazine = ArrayVec::new();
    for frame in frames {
        magazine.push(frame);
        if magazine.is_full() {
            let full = std::mem::take(&mut magazine);
            assert!(depot.push(full).is_ok(), "the depot has room for all frames");
        }
    }
    if !magazine.is_empty() {
        assert!(depot.push(magazine).is_ok(), "the depot has room for all frames");
    }
    Arc::new(depot)
}

/// A bell that unparks the thread which is put into the cell later.
fn unparking_bell() -> (Arc<Doorbell>, Arc<OnceLock<thread::Thread>>) {
    let cell = Arc::new(OnceLock::<thread::Thread>::new());
    let wakes = cell.clone();
    let bell = Doorbell::new(Box::new(move || {
        if let Some(thread) = wakes.get() {
            thread.unpark();
        }
    }));
    (Arc::new(bell), cell)
}

fn spawn(name: &str, f: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(f);
    spawned.map_err(|source| Error::Thread { what: format!("starting thread {name}"), source })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::id::{Generation, PortId, QueueId};
    use crate::worker::idle::Sleep;

    #[test]
    fn what_the_kernel_refused_is_not_taken_for_watched() {
        // Nobody waits for a file, and a closed descriptor is none.
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let (socket, _other) = UnixStream::pair().unwrap();
        let watched = |fd| Watched { fd, of: (PortId(1), QueueId(0), Generation(1)) };
        let (bad, good) = (watched(file.as_raw_fd()), watched(socket.as_raw_fd()));
        let mut sleep =
            Epoll { poll: Poll::new().unwrap(), watched: Vec::new(), refused: Vec::new() };
        sleep.watch(&mut [bad, good].into_iter());
        assert_eq!((sleep.watched.as_slice(), sleep.refused.as_slice()), (&[good][..], &[bad][..]));
        sleep.wait(Duration::ZERO);
        assert_eq!(sleep.refused, [bad], "tried again, and refused again");
        // What was refused for a time only, as for want of memory.
        let late = watched(socket.as_raw_fd());
        sleep.watch(&mut std::iter::empty());
        assert_eq!((sleep.watched.as_slice(), sleep.refused.as_slice()), (&[][..], &[][..]));
        sleep.refused.push(late);
        sleep.wait(Duration::ZERO);
        assert_eq!((sleep.watched.as_slice(), sleep.refused.as_slice()), (&[late][..], &[][..]));
    }
}
