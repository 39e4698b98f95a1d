//! A worker's queues by namespace, and what one turn of a namespace is.
//!
//! ```text
//!  look: handed-in packets into lanes; some idle queues ─► who has work
//!  turn: half of it handed-in packets ─► queues one after the other ─► kick, reap, refill
//! ```
//!
//! Whose turn it is says [`Schedule`]. Between two turns the worker looks at a part of
//! the idle queues only ([`LOOK`]), so that hundreds of them cost no more than some; where
//! nobody has work it looks at all.

use super::io::{BATCH, Queue};
use super::run::{Driver, Owned};
use super::schedule::Schedule;
use crate::id::{PortId, WorkerId};
use crate::port::share::allowed;
use crate::port::{Account, Handed, Lanes, Mesh};
use crate::stats::DropReason;
use crate::tables::World;

/// Queues that are looked at between two turns.
const LOOK: usize = 64;

/// A queue that has all frames it wants is topped up when a look comes to it this many times:
/// its driver may have begun to wait for being told of the last ones.
const ASK: usize = 16;

/// The queues of an account that receive, in `Turns::members`.
#[derive(Clone, Copy, Default)]
struct Members {
    start: usize,
    len: usize,
    /// The one to begin with at the next turn.
    next: usize,
    /// Frames in the transmit rings of all of its queues.
    in_flight: u32,
}

/// Who is to be served, and with what.
pub(super) struct Turns<F> {
    pub(super) schedule: Schedule,
    /// What other workers handed over, by account.
    lanes: Lanes<Handed<F>>,
    /// By account.
    accounts: Vec<Members>,
    /// Positions of the queues that receive, those of an account side by side.
    members: Vec<usize>,
    weights: Vec<u16>,
    /// Frames in transmit rings, and the most there may be.
    in_flight: u32,
    tx_room: u32,
    /// Positions of queues that got frames to send in this turn.
    touched: Vec<usize>,
    /// Positions of queues with frames in flight after a turn.
    flying: Vec<usize>,
    /// Queues without a frame to receive into.
    hungry: usize,
    /// What the present turn costs beside its packets: system calls, and the frames of long
    /// packets behind their first.
    pub(super) beside: usize,
    /// Where among the members the next look begins.
    look_at: usize,
    /// How often the looks came to the first.
    look_pass: usize,
    look_at_all: bool,
}

/// What a turn came to.
pub(super) struct Turn {
    pub(super) packets: usize,
    pub(super) received: usize,
    pub(super) cost: usize,
    pub(super) busy: bool,
}

fn account_of(world: &World, port: PortId) -> Account {
    let port = world.ports.get(port.index()).and_then(Option::as_ref);
    port.map_or(Account::NOBODY, |port| Account::of(port.ns))
}

/// The accounts that there are, as an index' bound: nobody's is the first.
fn accounts(world: &World) -> usize {
    world.namespaces.len() + 1
}

impl<F> Turns<F> {
    /// No queues yet. `places` is how many handed-in packets there may be, `tx_room` how
    /// many frames may be in transmit rings.
    pub(super) fn new(places: usize, tx_room: u32) -> Self {
        Self {
            schedule: Schedule::default(),
            lanes: Lanes::new(places),
            accounts: Vec::new(),
            members: Vec::new(),
            weights: Vec::new(),
            in_flight: 0,
            tx_room,
            touched: Vec::new(),
            flying: Vec::new(),
            hungry: 0,
            beside: 0,
            look_at: 0,
            look_pass: 0,
            look_at_all: true,
        }
    }

    /// The world says of a queue or a namespace something else than before.
    pub(super) fn is_stale<Q>(&self, world: &World, queues: &[Owned<Q>]) -> bool {
        self.accounts.len() != accounts(world)
            || self.weights != world.weights
            || queues.iter().any(|owned| owned.account != account_of(world, owned.port))
    }

    /// Starts anew: with these queues, and nobody known to have work but whom packets were
    /// handed to. Here alone is allocated.
    pub(super) fn index<Q: Queue>(&mut self, world: &World, queues: &mut [Owned<Q>]) {
        let count = accounts(world);
        self.weights.clone_from(&world.weights);
        let weight = |at: usize| world.weights.get(at).copied().unwrap_or(1);
        self.schedule.reset((0..count).map(|at| at.checked_sub(1).map_or(1, weight)));
        self.lanes.reserve(count);
        self.accounts.clear();
        self.accounts.resize(count, Members::default());
        for list in [&mut self.touched, &mut self.flying] {
            list.clear();
            // A queue may be touched again after a kick within the turn, once a group.
            list.reserve(queues.len() + 4 * BATCH);
        }
        (self.in_flight, self.hungry, self.look_at, self.look_at_all) = (0, 0, 0, true);
        for (at, owned) in queues.iter_mut().enumerate() {
            owned.account = account_of(world, owned.port);
            let members = &mut self.accounts[owned.account.index()];
            members.len += usize::from(owned.io.receives());
            members.in_flight += owned.in_flight as u32;
            self.in_flight += owned.in_flight as u32;
            self.hungry += usize::from(owned.hungry);
            owned.flying = owned.in_flight > 0;
            if owned.flying {
                self.flying.push(at);
            }
        }
        self.members.clear();
        self.members.extend((0..queues.len()).filter(|&at| queues[at].io.receives()));
        self.members.sort_by_key(|&at| queues[at].account);
        let mut start = 0;
        for (n, members) in self.accounts.iter_mut().enumerate() {
            members.start = start;
            start += members.len;
            let account = Account::at(n);
            if !self.lanes.lane_is_empty(account) {
                self.schedule.wake(account);
            }
        }
    }

    /// How many of `want` frames an account may put into transmit rings.
    pub(super) fn may_send(&self, account: Account, want: usize) -> usize {
        let own = self.accounts[account.index()].in_flight;
        allowed(self.tx_room, self.in_flight, own, want as u32) as usize
    }

    /// Frames went into a transmit ring.
    pub(super) fn sent<Q>(&mut self, at: usize, owned: &mut Owned<Q>, frames: usize) {
        if frames == 0 {
            return;
        }
        owned.in_flight += frames;
        self.accounts[owned.account.index()].in_flight += frames as u32;
        self.in_flight += frames as u32;
        if !std::mem::replace(&mut owned.touched, true) {
            self.touched.push(at);
        }
    }

    /// Frames came back out of one.
    pub(super) fn reaped<Q>(&mut self, owned: &mut Owned<Q>, frames: usize) {
        let frames = frames.min(owned.in_flight);
        owned.in_flight -= frames;
        self.accounts[owned.account.index()].in_flight -= frames as u32;
        self.in_flight -= frames as u32;
    }

    /// Packets that were handed over and not yet sent.
    pub(super) fn handed(&self) -> usize {
        self.lanes.len()
    }

    /// Takes what was handed over into the lanes, as far as there is room.
    fn take_in(&mut self, mesh: &Mesh<F>, me: WorkerId) {
        for from in (0..mesh.workers()).map(WorkerId).filter(|&from| from != me) {
            let ring = mesh.ring(from, me);
            // As many as the ring holds now: a fast producer cannot keep us here.
            for _ in 0..ring.len() {
                let Some(handed) = (!self.lanes.is_full()).then(|| ring.pop()).flatten() else {
                    break;
                };
                // The other worker may know a namespace that we do not know yet.
                let known = Some(handed.way.account).filter(|a| a.index() < self.accounts.len());
                let account = known.unwrap_or(Account::NOBODY);
                if self.lanes.push(account, handed).is_ok() {
                    self.schedule.wake(account);
                }
            }
        }
    }
}

impl<Q: Queue> Driver<Q> {
    /// Finds out who has work.
    pub(super) fn look(&mut self) {
        self.turns.take_in(&self.mesh, self.id);
        let queues = self.turns.members.len();
        let all = self.turns.look_at_all || self.turns.schedule.is_idle();
        self.turns.look_at_all = false;
        for _ in 0..if all { queues } else { queues.min(LOOK) } {
            let nth = self.turns.look_at;
            self.turns.look_at = if nth + 1 < queues { nth + 1 } else { 0 };
            let at = self.turns.members[nth];
            self.turns.look_pass += usize::from(nth == 0);
            let owned = &self.queues[at];
            let asked = self.turns.look_pass.is_multiple_of(ASK);
            if !owned.dead && (owned.short || asked) {
                self.refill(at);
            }
            let owned = &mut self.queues[at];
            if !self.turns.schedule.is_busy(owned.account) && owned.io.has_received() {
                self.turns.schedule.wake(owned.account);
            }
        }
    }

    /// One turn of an account, of at most `most` packets.
    pub(super) fn turn(&mut self, world: &World, who: Account, most: usize, now: u64) -> Turn {
        self.turns.beside = 0;
        // Half for each way that packets come, the rest for whichever has more.
        let mut packets = self.send_handed(who, most.div_ceil(2));
        let Members { start, len, mut next, .. } = self.turns.accounts[who.index()];
        let (mut received, mut visited, mut busy) = (0, 0, false);
        while visited < len && packets < most {
            let at = self.turns.members[start + next];
            next = if next + 1 < len { next + 1 } else { 0 };
            let got = self.run_queue(world, at, most - packets, now);
            if got.packets > 0 {
                self.refill(at);
            }
            packets += got.packets;
            received += got.packets;
            visited += 1;
            busy |= got.more;
        }
        busy |= visited < len;
        self.turns.accounts[who.index()].next = next;
        packets += self.send_handed(who, most - packets);
        busy |= !self.turns.lanes.lane_is_empty(who);
        self.send_off();
        Turn { packets, received, cost: packets + self.turns.beside, busy }
    }

    /// Makes the kernel send what the turn put into transmit rings.
    fn send_off(&mut self) {
        while let Some(at) = self.turns.touched.pop() {
            if self.queues[at].touched {
                self.kick(at);
            }
            self.reap(at);
            self.keep_in_mind(at);
        }
    }

    fn keep_in_mind(&mut self, at: usize) {
        let owned = &mut self.queues[at];
        if owned.in_flight > 0 && !std::mem::replace(&mut owned.flying, true) {
            self.turns.flying.push(at);
        }
    }

    /// Looks after frames that are in flight since an earlier round: takes back what was
    /// sent, and tries one queue again that the kernel did not take all from.
    pub(super) fn look_after(&mut self) {
        let mut retry = None;
        let mut n = 0;
        while let Some(&at) = self.turns.flying.get(n) {
            self.reap(at);
            let owned = &mut self.queues[at];
            owned.flying = owned.in_flight > 0;
            if owned.flying {
                if owned.pending {
                    retry.get_or_insert(n);
                }
                n += 1;
            } else {
                self.turns.flying.swap_remove(n);
            }
        }
        if let Some(n) = retry {
            let at = self.turns.flying.swap_remove(n);
            // The others come before it the next time.
            self.turns.flying.push(at);
            self.turns.beside = 0;
            self.kick(at);
            self.reap(at);
            let account = self.queues[at].account;
            self.turns.schedule.charge(account, self.turns.beside);
        }
    }

    /// Something is left to be tried again that no arriving packet will announce.
    pub(super) fn is_pending(&self) -> bool {
        let stuck = |&at: &usize| self.queues[at].pending;
        self.turns.hungry > 0 || self.turns.flying.iter().any(stuck)
    }

    /// Tops up the fill ring of a queue that receives, from the depot where the pool is not
    /// enough.
    pub(super) fn refill(&mut self, at: usize) {
        let owned = &mut self.queues[at];
        loop {
            owned.posted += owned.io.refill(self.pool.free());
            if self.pool.len() > 0 || !self.pool.fetch() {
                break;
            }
        }
        owned.short = self.pool.len() == 0;
        let hungry = owned.posted == 0;
        if std::mem::replace(&mut owned.hungry, hungry) != hungry {
            self.turns.hungry = self.turns.hungry + usize::from(hungry) - usize::from(!hungry);
        }
    }

    /// Sends at most `most` packets of a lane. Returns how many it took.
    fn send_handed(&mut self, lane: Account, most: usize) -> usize {
        let mut taken = 0;
        while taken < most {
            let Some(first) = self.turns.lanes.pop_if(lane, |_| true) else {
                break;
            };
            let way = first.way;
            let mut group = super::egress::Group::new(way, self.list());
            let mut next = Some(first);
            while let Some(mut handed) = next {
                let extent = self.extent(&mut handed.frame);
                group.push(handed.frame, extent);
                taken += 1;
                let more = taken < most && group.packets.len() < BATCH;
                next = more.then(|| self.turns.lanes.pop_if(lane, |h| h.way == way)).flatten();
            }
            self.turns.beside += group.places - group.packets.len();
            self.mesh.waiting(self.id).leave(way.account, group.places as u32);
            match self.tx_queue(way.egress, way.queue) {
                Some(at) => self.transmit(at, group),
                None => self.discard(group, DropReason::EgressGone),
            }
        }
        taken
    }

    /// Nothing can be sent any more: what was handed over comes back as free frames.
    pub(super) fn send_all_handed(&mut self) {
        loop {
            self.turns.take_in(&self.mesh, self.id);
            if self.turns.lanes.is_empty() {
                return;
            }
            for account in (0..self.turns.accounts.len()).map(Account::at) {
                self.send_handed(account, usize::MAX);
            }
        }
    }
}
