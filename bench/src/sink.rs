//! The sink: an XDP program on a receiving host's device that counts marked
//! packets and drops them. All others go on into the host's stack.

use std::fmt;

use anyhow::{Context, Result, anyhow};
use aya::Ebpf;
use aya::maps::PerCpuArray;
use aya::programs::{Xdp, XdpMode};
use nsplane_abi::traffic::{Counts, consts};
use nsplane_tests::netns::Netns;

use crate::object::{self, SinkValue};

/// Counts until it is dropped.
pub struct Sink {
    ebpf: Ebpf,
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").finish_non_exhaustive()
    }
}

impl Sink {
    /// Counts what `device` in `netns` receives. Packets with another mark than
    /// `mark` have leaked from elsewhere.
    ///
    /// # Errors
    /// No such device, or another XDP program is on it.
    pub fn attach(netns: &Netns, device: &str, mark: u32) -> Result<Self> {
        Self::attach_as(netns, device, mark, false)
    }

    /// As [`Sink::attach`], and reads the clock for each packet to count how long
    /// it took.
    ///
    /// # Errors
    /// As [`Sink::attach`].
    pub fn attach_with_latency(netns: &Netns, device: &str, mark: u32) -> Result<Self> {
        Self::attach_as(netns, device, mark, true)
    }

    fn attach_as(netns: &Netns, device: &str, mark: u32, latency: bool) -> Result<Self> {
        let index = netns.ifindex(device)?;
        let mut ebpf =
            object::load(&[(consts::MARK, mark), (consts::LATENCY, u32::from(latency))])?;
        let program = ebpf.program_mut("sink").context("the object has no program `sink`")?;
        let program: &mut Xdp =
            program.try_into().map_err(|error| anyhow!("`sink` is not an XDP program: {error}"))?;
        program.load().context("the kernel refuses the sink")?;
        netns
            .inside(|| program.attach_to_if_index(index, XdpMode::Driver))?
            .with_context(|| format!("cannot attach the sink to {device} of {}", netns.name()))?;
        Ok(Self { ebpf })
    }

    /// What was seen until now, on all CPUs together.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counts(&self) -> Result<Counts> {
        let map = self.ebpf.map("SINK").context("the object has no SINK map")?;
        let map: PerCpuArray<_, SinkValue> =
            map.try_into().context("the SINK map has another layout")?;
        let values = map.get(&0, 0).context("cannot read the SINK map")?;
        Ok(values.iter().fold(Counts::default(), |sum, value| add(sum, &value.0)))
    }
}

fn add(mut sum: Counts, cpu: &Counts) -> Counts {
    sum.own += cpu.own;
    sum.own_bytes += cpu.own_bytes;
    sum.foreign += cpu.foreign;
    if cpu.foreign > 0 {
        sum.foreign_mark = cpu.foreign_mark;
    }
    sum.passed += cpu.passed;
    sum.late += cpu.late;
    sum.next = sum.next.max(cpu.next);
    for (all, one) in sum.latency.iter_mut().zip(cpu.latency) {
        *all += one;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_all_cpus_are_added() {
        let one = Counts { own: 3, next: 9, foreign: 1, foreign_mark: 7, ..Counts::default() };
        let two = Counts { own: 4, next: 5, ..Counts::default() };
        let sum = add(add(Counts::default(), &one), &two);
        assert_eq!((sum.own, sum.next, sum.foreign, sum.foreign_mark), (7, 9, 1, 7));
    }
}
