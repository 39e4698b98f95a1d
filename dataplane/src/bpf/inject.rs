//! Putting packets into a namespace's stack, as if they had just been received.

use std::fmt;
use std::io;

use aya::Ebpf;
use aya::maps::{Array, MapData};
use aya::programs::{Program, ProgramError, TestRun as _, TestRunAttrs, TestRunOptions};
use nsplane_abi::long::{LONGEST, LongPacket};

use super::Error;
use super::attach::{load, load_classifier};
use crate::id::IfIndex;
use crate::sys::bpf::XdpMode;

/// The program that is run, by its name in the object.
const PROGRAM: &str = "inject";
/// The same for what is no longer than [`SHORT`].
const PROGRAM_SHORT: &str = "inject_short";
/// The same for what is longer than [`MAX_PACKET`].
const PROGRAM_LONG: &str = "inject_long";
/// The map that it finds such a packet in.
pub(super) const LONG: &str = "LONG";

/// Longest packet that a generic XDP program is told of, in bytes from the Ethernet header
/// on: the kernel builds it in one page (net/bpf/test_run.c).
pub const MAX_PACKET: usize = 3408;

/// Longest packet that is put into a socket buffer of its own size: up to here that takes
/// less of the kernel's memory than the page does (1,664 bytes on x86-64).
const SHORT: usize = 1600;

/// Bytes of a packet that the program for long ones is started with.
const START: usize = 64;

/// Bytes of the entry of the map `LONG`.
const ENTRY: usize = size_of::<LongPacket>();

/// Injects packets. There is one, and it may move to the thread that does so.
pub struct Injector {
    instance: Ebpf,
    long: Array<MapData, [u8; ENTRY]>,
    entry: Box<[u8; ENTRY]>,
}

impl fmt::Debug for Injector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Injector").finish_non_exhaustive()
    }
}

impl Injector {
    pub(super) fn new(mut instance: Ebpf) -> Result<Self, Error> {
        load(&mut instance, PROGRAM)?;
        load_classifier(&mut instance, PROGRAM_SHORT)?;
        load_classifier(&mut instance, PROGRAM_LONG)?;
        let long = super::maps::take(&mut instance, LONG)?;
        Ok(Self { instance, long, entry: Box::new([0; _]) })
    }

    /// Gives a packet to the stack of the calling thread's namespace, as received on
    /// the device, whose program runs in this mode (native where it has none). Its
    /// checksums must be complete and its destination MAC the device's own. Takes
    /// 3-20 us.
    ///
    /// # Errors
    /// `bpf(BPF_PROG_RUN)`: `ENODEV` for a device that is not there, `EINVAL` for a
    /// packet shorter than an Ethernet header or longer than [`LONGEST`].
    pub fn inject(&mut self, ifindex: IfIndex, mode: XdpMode, packet: &[u8]) -> io::Result<()> {
        if packet.len() > MAX_PACKET {
            return self.inject_long(ifindex, packet);
        }
        // A generic program would take such a socket buffer for a new packet. One that the
        // stack does not take (its queue is full) goes the way on which nothing waits.
        let short = packet.len() <= SHORT && mode == XdpMode::Native;
        if short && self.inject_short(ifindex, packet).is_ok() {
            return Ok(());
        }
        self.inject_frame(ifindex, packet)
    }

    /// The kernel's numbers of the programs that somebody could take for ones that are put
    /// on devices, by their type.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn classifiers(&self) -> Result<Vec<u32>, Error> {
        let mut ids = Vec::new();
        for name in [PROGRAM_SHORT, PROGRAM_LONG] {
            let Some(program) = self.instance.program(name) else { continue };
            let info = program.info().map_err(|e| Error::from_program(name, e))?;
            ids.push(info.id());
        }
        Ok(ids)
    }

    /// In a socket buffer that takes as much memory as the packet needs.
    fn inject_short(&self, ifindex: IfIndex, packet: &[u8]) -> io::Result<()> {
        let context = buffer_context(ifindex);
        let options = TestRunOptions {
            data_in: Some(packet),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        };
        self.run_classifier(PROGRAM_SHORT, options)
    }

    /// In a page.
    fn inject_frame(&self, ifindex: IfIndex, packet: &[u8]) -> io::Result<()> {
        let Some(Program::Xdp(program)) = self.instance.program(PROGRAM) else {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        };
        let context = frame_context(ifindex, packet.len())?;
        let options = TestRunOptions {
            data_in: Some(packet),
            ctx_in: Some(&context),
            attrs: TestRunAttrs::new().xdp_live_frames(1),
            ..TestRunOptions::new()
        };
        program.test_run(options).map(drop).map_err(plain)
    }

    /// Likewise, by way of a map and a program that makes a socket buffer of it. Where the
    /// device has a generic XDP program, that one would take the packet for a new one.
    fn inject_long(&mut self, ifindex: IfIndex, packet: &[u8]) -> io::Result<()> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let len = u32::try_from(packet.len()).ok().filter(|&len| len as usize <= LONGEST);
        let (head, bytes) = self.entry.split_at_mut(ENTRY - LONGEST);
        head[..4].copy_from_slice(&ifindex.0.to_ne_bytes());
        head[4..].copy_from_slice(&len.ok_or_else(invalid)?.to_ne_bytes());
        bytes[..packet.len()].copy_from_slice(packet);
        let entry: &[u8; ENTRY] = &self.entry;
        self.long.set(0, entry, 0).map_err(io::Error::other)?;
        // The kernel wants something that it can take for the start of a packet.
        let options = TestRunOptions { data_in: Some(&packet[..START]), ..TestRunOptions::new() };
        self.run_classifier(PROGRAM_LONG, options)
    }

    fn run_classifier(&self, name: &str, options: TestRunOptions<'_>) -> io::Result<()> {
        let Some(Program::SchedClassifier(program)) = self.instance.program(name) else {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        };
        match program.test_run(options).map_err(plain)?.return_value as i32 {
            0 => Ok(()),
            code => Err(io::Error::other(format!("{name} says {code}"))),
        }
    }
}

fn plain(error: ProgramError) -> io::Error {
    match error {
        ProgramError::SyscallError(e) => e.io_error,
        e => io::Error::other(e),
    }
}

/// `struct xdp_md` (include/uapi/linux/bpf.h) of a packet received on a device.
fn frame_context(ifindex: IfIndex, len: usize) -> io::Result<[u8; 24]> {
    let len = u32::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut out = [0; 24];
    // data is 0, data_end the length, data_meta 0
    out[4..8].copy_from_slice(&len.to_ne_bytes());
    // ingress_ifindex; then rx_queue_index and egress_ifindex, both 0
    out[12..16].copy_from_slice(&ifindex.0.to_ne_bytes());
    Ok(out)
}

/// `struct __sk_buff` (include/uapi/linux/bpf.h) of a packet of a device, up to where that
/// is said; the rest is zero.
fn buffer_context(ifindex: IfIndex) -> [u8; 44] {
    let mut out = [0; 44];
    out[40..].copy_from_slice(&ifindex.0.to_ne_bytes());
    out
}
