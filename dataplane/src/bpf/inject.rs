//! Putting packets into a namespace's stack, as if they had just been received.

use std::fmt;
use std::io;

use aya::Ebpf;
use aya::programs::{Program, ProgramError, TestRun as _, TestRunAttrs, TestRunOptions};

use super::Error;
use super::attach::load;
use crate::id::IfIndex;

/// The program that is run, by its name in the object.
const PROGRAM: &str = "inject";

/// Longest packet that can be injected, in bytes from the Ethernet header on: the
/// kernel builds it in one page (net/bpf/test_run.c).
pub const MAX_PACKET: usize = 3408;

/// Injects packets. There is one, and it may move to the thread that does so.
pub struct Injector {
    instance: Ebpf,
}

impl fmt::Debug for Injector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Injector").finish_non_exhaustive()
    }
}

impl Injector {
    pub(super) fn new(mut instance: Ebpf) -> Result<Self, Error> {
        load(&mut instance, PROGRAM)?;
        Ok(Self { instance })
    }

    /// Gives a packet to the stack of the calling thread's namespace, as received on
    /// the device. Its checksums must be complete and its destination MAC the
    /// device's own. Takes 10-20 us.
    ///
    /// # Errors
    /// `bpf(BPF_PROG_RUN)`: `ENODEV` for a device that is not there, `EINVAL` for a
    /// packet shorter than an Ethernet header or longer than [`MAX_PACKET`].
    pub fn inject(&self, ifindex: IfIndex, packet: &[u8]) -> io::Result<()> {
        let Some(Program::Xdp(program)) = self.instance.program(PROGRAM) else {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        };
        let context = context(ifindex, packet.len())?;
        let options = TestRunOptions {
            data_in: Some(packet),
            ctx_in: Some(&context),
            attrs: TestRunAttrs::new().xdp_live_frames(1),
            ..TestRunOptions::new()
        };
        match program.test_run(options) {
            Ok(_) => Ok(()),
            Err(ProgramError::SyscallError(e)) => Err(e.io_error),
            Err(e) => Err(io::Error::other(e)),
        }
    }
}

/// `struct xdp_md` (include/uapi/linux/bpf.h) of a packet received on a device.
fn context(ifindex: IfIndex, len: usize) -> io::Result<[u8; 24]> {
    let len = u32::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut out = [0; 24];
    // data is 0, data_end the length, data_meta 0
    out[4..8].copy_from_slice(&len.to_ne_bytes());
    // ingress_ifindex; then rx_queue_index and egress_ifindex, both 0
    out[12..16].copy_from_slice(&ifindex.0.to_ne_bytes());
    Ok(out)
}
