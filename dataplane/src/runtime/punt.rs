//! The punt thread: gives packets to the kernel's stack of their namespace.
//!
//! It takes what workers punted, enters the packet's namespace, and injects it as
//! received on the device it came in on. Each packet costs a system call of 3 to
//! 16 microseconds, which is why workers punt at a limited rate, and why nothing
//! but the punted packets depends on this thread. It serves the namespaces one after the
//! other, some packets each: who punts little waits for one turn of each of the others,
//! and finds room in the queue ([`crate::port::Share`]). Between bursts it goes back to
//! its home namespace: a thread inside a namespace keeps it alive.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use arrayvec::ArrayVec;

use crate::bpf::Injector;
use crate::control::targets::{Target, Targets};
use crate::id::NetnsCookie;
use crate::netns::Netns;
use crate::port::{Depot, InTurn, PuntQueue, Punted};
use crate::sync::Doorbell;
use crate::worker::long;
use crate::xsk::{Frame, Memory};

/// What the thread works with.
pub(super) struct Punt {
    /// Packets to inject.
    pub(super) queue: Arc<PuntQueue<Frame>>,
    /// Where frames go when their packet is injected.
    pub(super) depot: Arc<Depot<Frame>>,
    /// The frames' memory.
    pub(super) memory: Memory,
    /// The way into the stack.
    pub(super) injector: Injector,
    /// Which device and namespace each port is.
    pub(super) targets: Arc<Targets>,
    /// Where the thread is while it has nothing to do.
    pub(super) home: Arc<Netns>,
    /// Rung by whoever pushes to the queue; its wake-up unparks this thread.
    pub(super) bell: Arc<Doorbell>,
    /// Set to end the thread.
    pub(super) stop: Arc<AtomicBool>,
    /// Room for a packet of several frames, to have it in one piece.
    pub(super) whole: Vec<u8>,
}

/// Bound of one sleep, against a wake-up lost by a bug.
const SLEEP: Duration = Duration::from_millis(500);

impl Punt {
    /// Runs until `stop` is set and the bell rung.
    pub(super) fn run(mut self) {
        let mut here = self.home.cookie();
        let mut free = ArrayVec::new();
        let mut waiting = InTurn::new(self.queue.places());
        while !self.stop.load(Ordering::Relaxed) {
            // After each packet, so that the way in never fills while one is injected.
            self.take_in(&mut waiting);
            if let Some(mut punted) = waiting.pop() {
                self.inject(&mut punted, &mut here);
                self.queue.done(punted.account, punted.frames);
                self.give_back(&mut free, punted.frame);
                continue;
            }
            self.go_home(&mut here);
            self.bell.arm();
            if self.queue.is_empty() && !self.stop.load(Ordering::Relaxed) {
                thread::park_timeout(SLEEP);
            }
            self.bell.disarm();
        }
        self.go_home(&mut here);
    }

    fn take_in(&self, waiting: &mut InTurn<Punted<Frame>>) {
        while !waiting.is_full()
            && let Some(punted) = self.queue.pop()
        {
            let pushed = waiting.push(punted.account, punted);
            debug_assert!(pushed.is_ok(), "it is not full");
        }
    }

    fn inject(&mut self, punted: &mut Punted<Frame>, here: &mut NetnsCookie) {
        let target = self.targets.get(punted.port);
        let Some(target) = target.filter(|t| t.generation == punted.generation) else {
            self.targets.failed(punted.port).add(1);
            return;
        };
        let done = Self::enter(&target, here) && self.put_in(&target, punted).is_ok();
        if !done {
            self.targets.failed(punted.port).add(1);
        }
    }

    fn put_in(&mut self, target: &Target, punted: &mut Punted<Frame>) -> io::Result<()> {
        let (lead, ifindex, mode) = (usize::from(punted.lead), target.ifindex, target.mode);
        if !self.memory.is_long(&punted.frame) {
            let packet = self.memory.packet(&mut punted.frame);
            return self.injector.inject(ifindex, mode, packet.get(lead..).unwrap_or_default());
        }
        let whole = &mut self.whole;
        whole.clear();
        long::each(&self.memory, &mut punted.frame, |part| whole.extend(part));
        self.injector.inject(ifindex, mode, whole.get(lead..).unwrap_or_default())
    }

    fn enter(target: &Target, here: &mut NetnsCookie) -> bool {
        let there = target.netns.cookie();
        if *here == there {
            return true;
        }
        let entered = target.netns.enter_current_thread().is_ok();
        if entered {
            *here = there;
        }
        entered
    }

    fn go_home(&self, here: &mut NetnsCookie) {
        if *here != self.home.cookie() && self.home.enter_current_thread().is_ok() {
            *here = self.home.cookie();
        }
    }

    /// Only full magazines go to the depot: it has room for twice as many of them as
    /// there are frames, so the wait for room ends.
    fn give_back(&self, free: &mut ArrayVec<Frame, 64>, packet: Frame) {
        long::give(&self.memory, packet, |frame| self.give_frame(free, frame));
    }

    fn give_frame(&self, free: &mut ArrayVec<Frame, 64>, frame: Frame) {
        free.push(frame);
        self.targets.free_frames.set(free.len() as u64);
        if !free.is_full() {
            return;
        }
        let mut magazine = std::mem::take(free);
        self.targets.free_frames.set(0);
        while let Err(back) = self.depot.push(magazine) {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            magazine = back;
            thread::yield_now();
        }
    }
}
