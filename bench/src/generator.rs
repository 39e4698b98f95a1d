//! The generator: sends marked packets out of a device of a namespace.
//!
//! Packets are live frames of `BPF_PROG_RUN`, which the kernel sends straight to
//! the device's driver: no socket, no `sk_buff`. Two things to know of it:
//!
//! - A call that runs a program more than once takes 25 ms before it sends
//!   anything, since the kernel patches its XDP dispatcher, unless that program is
//!   attached to some device. So it is, to one in a namespace that nothing uses.
//!   Calls are cheap then, and pacing is a matter of how many packets a call has.
//! - A veth takes such frames only if its peer polls (NAPI): it does with an XDP
//!   program on it or with GRO on; else all are lost without a word.
//!
//! What is sent here may still be lost before the router has seen it, where its
//! receive ring is full.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use aya::Ebpf;
use aya::maps::{Array, MapData};
use aya::programs::{ProgramError, TestRun, TestRunAttrs, TestRunOptions, Xdp, XdpMode};
use nsplane_abi::traffic::consts;
use nsplane_tests::netns::{End, Netns, veth};

use crate::frame::{Frame, Template};
use crate::object::{self, GeneratorValue};
use crate::sys;

/// Most packets of one call: some 10 ms, so that a run ends near its time.
const CALL: u64 = 16 * 1024;
/// Frames that the kernel sends at once.
const BATCH: u32 = 64;
/// Pauses shorter than this are spun: a sleep takes longer than that to end.
const SPIN: Duration = Duration::from_micros(100);

/// How much to send, and how fast. A run ends at its time or its number of
/// packets, whichever is first.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Longest time.
    pub duration: Duration,
    /// Most packets; None has no limit.
    pub packets: Option<u64>,
    /// Packets a second; None sends as fast as the receiver's driver takes them.
    pub rate: Option<u64>,
    /// The CPU that the sending thread is kept on.
    pub cpu: Option<usize>,
    /// The sending thread has the right of way over ordinary ones (where the system lets
    /// us): for a slow load beside fast ones on the same CPU.
    pub urgent: bool,
}

impl Load {
    /// As fast as it goes, for some time.
    #[must_use]
    pub fn full(duration: Duration) -> Self {
        Self { duration, packets: None, rate: None, cpu: None, urgent: false }
    }

    /// So many packets at so many a second.
    #[must_use]
    pub fn paced(packets: u64, rate: u64) -> Self {
        Self { packets: Some(packets), rate: Some(rate), ..Self::full(Duration::from_secs(3600)) }
    }

    /// How many packets may be sent now, `elapsed` after the start.
    fn due(&self, elapsed: Duration, sent: u64) -> u64 {
        let left = self.packets.map_or(u64::MAX, |most| most.saturating_sub(sent));
        let due = self.rate.map_or(u64::MAX, |rate| {
            let until_now = elapsed.as_nanos() * u128::from(rate) / 1_000_000_000;
            u64::try_from(until_now).unwrap_or(u64::MAX).saturating_add(1).saturating_sub(sent)
        });
        left.min(due).min(CALL)
    }
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Packets handed to the device.
    pub packets: u64,
    /// From the first to the last.
    pub elapsed: Duration,
}

/// Sends one kind of packet out of one device.
pub struct Generator<'a> {
    netns: &'a Netns,
    device: u32,
    template: Template,
    ebpf: Ebpf,
    // Where the program is attached, for cheap calls. Goes after the program.
    _anchor: Netns,
}

impl fmt::Debug for Generator<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generator")
            .field("netns", &self.netns)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

impl<'a> Generator<'a> {
    /// Prepares to send `frame` out of `device`, which lies in `netns`.
    ///
    /// # Errors
    /// No such device, a frame that cannot be, or the kernel refuses the program.
    pub fn new(netns: &'a Netns, device: &str, frame: &Frame) -> Result<Self> {
        let template = frame.template()?;
        let index = netns.ifindex(device)?;
        let mut ebpf =
            object::load(&[(consts::V6, u32::from(template.v6)), (consts::DEVICE, index)])?;
        let program = program(&mut ebpf)?;
        program.load().context("the kernel refuses the generator")?;
        let anchor = anchor(program)?;
        let mut generator = Self { netns, device: index, template, ebpf, _anchor: anchor };
        let value = GeneratorValue(generator.template.generator);
        generator.map()?.set(0, value, 0).context("cannot write the GENERATOR map")?;
        Ok(generator)
    }

    /// Sends `frame` from now on. Sequence numbers go on.
    ///
    /// # Errors
    /// A frame that cannot be, or of the other family.
    pub fn set_frame(&mut self, frame: &Frame) -> Result<()> {
        let mut template = frame.template()?;
        ensure!(template.v6 == self.template.v6, "a generator keeps to one family");
        template.generator.sequence = self.sequence()?;
        self.map()?
            .set(0, GeneratorValue(template.generator), 0)
            .context("cannot write the GENERATOR map")?;
        self.template = template;
        Ok(())
    }

    /// Sends, until the load is done or `stop` is true. Sequence numbers go on
    /// from the run before.
    ///
    /// # Errors
    /// The kernel refuses the run: the device is gone.
    pub fn run(&mut self, load: &Load, stop: &AtomicBool) -> Result<Sent> {
        let netns = self.netns;
        let before = self.sequence()?;
        let elapsed = netns.inside(|| self.send(load, before, stop)).flatten()?;
        Ok(Sent { packets: self.sequence()? - before, elapsed })
    }

    fn send(&mut self, load: &Load, before: u64, stop: &AtomicBool) -> Result<Duration> {
        if let Some(cpu) = load.cpu {
            sys::pin(cpu)?;
        }
        if load.urgent {
            // Where it is not allowed, the load is only less even.
            let _ = sys::hurry();
        }
        let start = Instant::now();
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) {
            let elapsed = start.elapsed();
            if elapsed >= load.duration || load.packets.is_some_and(|most| sent >= most) {
                break;
            }
            let due = load.due(elapsed, sent);
            if due == 0 {
                pause(load.rate, elapsed, sent);
            } else if self.call(due)? {
                sent += due;
            } else {
                // A signal ended the call early: count afresh.
                sent = self.sequence()? - before;
            }
        }
        Ok(start.elapsed())
    }

    /// Sends `packets` packets; false if a signal came between.
    fn call(&mut self, packets: u64) -> Result<bool> {
        let length = u32::try_from(self.template.bytes.len())?;
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex,
        // rx_queue_index, egress_ifindex.
        let context = [0, length, 0, self.device, 0, 0].map(u32::to_ne_bytes);
        let options = TestRunOptions {
            data_in: Some(&self.template.bytes),
            ctx_in: Some(context.as_flattened()),
            repeat: u32::try_from(packets)?,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        };
        match program(&mut self.ebpf)?.test_run(options) {
            Ok(_) => Ok(true),
            Err(ProgramError::SyscallError(error))
                if error.io_error.kind() == io::ErrorKind::Interrupted =>
            {
                Ok(false)
            }
            Err(error) => Err(error).context("BPF_PROG_RUN refused to send"),
        }
    }

    fn sequence(&mut self) -> Result<u64> {
        Ok(self.map()?.get(&0, 0).context("cannot read the GENERATOR map")?.0.sequence)
    }

    fn map(&mut self) -> Result<Array<&mut MapData, GeneratorValue>> {
        let map = self.ebpf.map_mut("GENERATOR").context("the object has no GENERATOR map")?;
        Array::try_from(map).context("the GENERATOR map has another layout")
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp> {
    let program = ebpf.program_mut("generate").context("the object has no program `generate`")?;
    program.try_into().map_err(|error| anyhow!("`generate` is not an XDP program: {error}"))
}

/// Attaches the program to a device that nobody uses.
fn anchor(program: &mut Xdp) -> Result<Netns> {
    let netns = Netns::new("anchor")?;
    veth(&End::new(&netns, "anchor"), &End::new(&netns, "peer"))?;
    let index = netns.ifindex("anchor")?;
    netns
        .inside(|| program.attach_to_if_index(index, XdpMode::Driver))?
        .context("cannot attach the generator to its anchor")?;
    Ok(netns)
}

fn pause(rate: Option<u64>, elapsed: Duration, sent: u64) {
    let Some(rate) = rate.filter(|&rate| rate > 0) else { return };
    let due = u128::from(sent) * 1_000_000_000 / u128::from(rate);
    let due = Duration::from_nanos(u64::try_from(due).unwrap_or(u64::MAX));
    match due.saturating_sub(elapsed).checked_sub(SPIN) {
        // Not for long: whoever stops us shall not wait.
        Some(rest) => std::thread::sleep(rest.min(Duration::from_millis(20))),
        None => std::hint::spin_loop(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paced_load_is_due_bit_by_bit() {
        let load = Load::paced(1000, 1_000_000);
        assert_eq!(load.due(Duration::ZERO, 0), 1);
        assert_eq!(load.due(Duration::ZERO, 1), 0);
        assert_eq!(load.due(Duration::from_micros(10), 1), 10);
        assert_eq!(load.due(Duration::from_secs(1), 990), 10);
        assert_eq!(load.due(Duration::from_secs(1), 1000), 0);
    }

    #[test]
    fn a_full_load_is_due_by_calls() {
        assert_eq!(Load::full(Duration::from_secs(1)).due(Duration::ZERO, 7), CALL);
    }
}
