//! What control holds of the worker threads: the way to each, and the way back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};

use super::error::Error;
use crate::id::{Generation, PortId, QueueId, WorkerId};
use crate::port::{BATCH, Depot, FromWorker, Mesh, ToWorker};
use crate::stats::WorkerStats;
use crate::xsk::{Bound, Frame, Queue};

/// A worker answers within one round; this is for a machine that stands still.
const PATIENCE: Duration = Duration::from_secs(5);

/// One worker, as control sees it.
pub struct Worker {
    /// Its messages.
    pub inbox: Sender<ToWorker<Queue>>,
    /// Its counters.
    pub stats: Arc<WorkerStats>,
    /// The processor it is pinned to.
    pub cpu: Option<usize>,
}

/// All workers.
pub struct Workers {
    workers: Vec<Worker>,
    answers: Receiver<FromWorker<Queue>>,
    depot: Arc<Depot<Frame>>,
    /// The workers' bells.
    mesh: Arc<Mesh<Frame>>,
    /// Frames of closed sockets that the depot had no room for.
    spare: Vec<Frame>,
    /// Queues that died, reported since they were last asked for.
    dead: Vec<(PortId, Generation)>,
    /// Queues that came back and are still to be closed.
    returned: Vec<Returned>,
}

/// A queue that no worker drives any more.
pub struct Returned {
    /// Its port.
    pub port: PortId,
    /// The use of the port's slot.
    pub generation: Generation,
    /// Its rings.
    pub io: Queue,
}

impl Workers {
    /// Workers with their common way back and the depot of free frames.
    #[must_use]
    pub fn new(
        workers: Vec<Worker>,
        answers: Receiver<FromWorker<Queue>>,
        depot: Arc<Depot<Frame>>,
        mesh: Arc<Mesh<Frame>>,
    ) -> Self {
        Self {
            workers,
            answers,
            depot,
            mesh,
            spare: Vec::new(),
            dead: Vec::new(),
            returned: Vec::new(),
        }
    }

    /// The workers in the order of their numbers.
    #[must_use]
    pub fn all(&self) -> &[Worker] {
        &self.workers
    }

    /// Number of workers.
    #[must_use]
    pub fn count(&self) -> u16 {
        self.workers.len() as u16
    }

    /// Free frames that wait for whoever needs them: in the depot, and those that it
    /// has no room for.
    #[must_use]
    pub fn free_frames(&self) -> usize {
        self.depot.frames() + self.spare.len()
    }

    /// Gives a queue to a worker, with `posted` frames in it to receive into.
    pub fn add_queue(
        &self,
        worker: WorkerId,
        port: PortId,
        generation: Generation,
        queue: QueueId,
        io: Queue,
        posted: usize,
    ) {
        // One that ended is found by whoever started it; its queue dies with it.
        let _ = self.tell(worker, ToWorker::AddQueue { port, generation, queue, io, posted });
    }

    /// False: the worker ended, and with it what it was sent.
    fn tell(&self, worker: WorkerId, message: ToWorker<Queue>) -> bool {
        let told = self.workers[worker.index()].inbox.send(message).is_ok();
        self.mesh.bell(worker).ring();
        told
    }

    /// Tells all workers that live, and returns which they are.
    fn tell_all(&self, message: impl Fn() -> ToWorker<Queue>) -> Vec<WorkerId> {
        (0..self.count()).map(WorkerId).filter(|w| self.tell(*w, message())).collect()
    }

    /// Takes the queues of ports back from all workers. When this returns no worker
    /// holds a frame of their rings, and [`Self::returned`] has them.
    ///
    /// # Errors
    /// A worker does not answer; what it has it keeps until it ends.
    pub fn remove_ports(&mut self, ports: &[(PortId, Generation)]) -> Result<(), Error> {
        let Some((&last, rest)) = ports.split_last() else { return Ok(()) };
        for &(port, generation) in rest {
            self.tell_all(|| ToWorker::RemovePort { port, generation });
        }
        // Each obeys in order: with its answer for the last it has answered all.
        let (port, generation) = last;
        let mut waiting = self.tell_all(|| ToWorker::RemovePort { port, generation });
        self.answers_until(&mut waiting, |answer| match answer {
            FromWorker::PortRemoved { worker, port, generation }
                if (*port, *generation) == last =>
            {
                Some(*worker)
            }
            FromWorker::Stopped { worker } => Some(*worker),
            _ => None,
        })
    }

    /// Ends all workers. Their queues come back as those of removed ports do.
    ///
    /// # Errors
    /// A worker does not answer.
    pub fn stop(&mut self) -> Result<(), Error> {
        let mut waiting = self.tell_all(|| ToWorker::Stop);
        self.answers_until(&mut waiting, |answer| match answer {
            FromWorker::Stopped { worker } => Some(*worker),
            _ => None,
        })
    }

    /// The queues that came back since the last call, to be closed.
    pub fn returned(&mut self) -> Vec<Returned> {
        std::mem::take(&mut self.returned)
    }

    /// Ports of which a queue died since the last call.
    pub fn dead_ports(&mut self) -> Vec<(PortId, Generation)> {
        while let Ok(answer) = self.answers.try_recv() {
            self.take(answer);
        }
        self.put_spare();
        std::mem::take(&mut self.dead)
    }

    /// Gives a new queue its first frames to receive into, as many of `frames` as
    /// no worker holds. The rest is the worker's to give.
    pub fn fill(&mut self, bound: &mut Bound, frames: u32) {
        while self.spare.len() < frames as usize {
            let Some(magazine) = self.depot.pop() else { break };
            self.spare.extend(magazine);
        }
        bound.queue.set_fill_target(frames);
        bound.posted += bound.queue.refill(&mut self.spare);
        self.put_spare();
    }

    /// Gives frames to whoever needs them.
    pub fn free(&mut self, frames: Vec<Frame>) {
        self.spare.extend(frames);
        self.put_spare();
    }

    fn answers_until(
        &mut self,
        waiting: &mut Vec<WorkerId>,
        done: impl Fn(&FromWorker<Queue>) -> Option<WorkerId>,
    ) -> Result<(), Error> {
        let end = Instant::now() + PATIENCE;
        while let Some(first) = waiting.first() {
            let silent = Error::WorkerSilent(first.0);
            let left = end.saturating_duration_since(Instant::now());
            match self.answers.recv_timeout(left) {
                Ok(answer) => {
                    if let Some(worker) = done(&answer) {
                        waiting.retain(|w| *w != worker);
                    }
                    self.take(answer);
                }
                Err(RecvTimeoutError::Timeout) => return Err(silent),
                // All workers have ended: nobody is left to wait for.
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(())
    }

    fn take(&mut self, answer: FromWorker<Queue>) {
        match answer {
            FromWorker::QueueRemoved { port, generation, io, .. } => {
                self.returned.push(Returned { port, generation, io });
            }
            FromWorker::QueueDead { port, generation, .. } => self.dead.push((port, generation)),
            FromWorker::PortRemoved { .. } | FromWorker::Stopped { .. } => {}
        }
    }

    fn put_spare(&mut self) {
        while !self.spare.is_empty() {
            let n = self.spare.len().min(BATCH);
            let magazine = self.spare.drain(self.spare.len() - n..).collect();
            if let Err(magazine) = self.depot.push(magazine) {
                self.spare.extend(magazine);
                return;
            }
        }
    }
}
