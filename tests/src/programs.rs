//! Programs and sockets of somebody else's, which the kernel asks before it forwards.
//!
//! Each program has a few instructions: it does the same with every packet.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `enum bpf_cmd`.
const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const LINK_CREATE: i32 = 28;
/// `BPF_PROG_TYPE_*` and `BPF_*` of `enum bpf_attach_type`.
const SCHED_CLS: u32 = 3;
const PROG_TYPE_NETFILTER: u32 = 32;
const NETFILTER: u32 = 45;
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;
/// `MRT_INIT` of include/uapi/linux/mroute.h.
const MRT_INIT: i32 = 200;
/// The helper `bpf_skb_vlan_push`.
const VLAN_PUSH: u64 = 18;
const EXIT: u64 = 0x95;
/// `TCX_NEXT`: go on.
const TCX_NEXT: i32 = -1;
/// `TCX_DROP`, `NF_DROP`.
const TCX_DROP: i32 = 2;
const NF_DROP: i32 = 0;

/// A program that drops every packet it is shown.
#[derive(Debug)]
pub struct Dropper(OwnedFd);

impl Dropper {
    /// One for a device's tcx.
    ///
    /// # Errors
    /// The kernel does not take it.
    pub fn tcx() -> io::Result<Self> {
        load(SCHED_CLS, 0, &[say(TCX_DROP), EXIT]).map(Self)
    }

    /// One for a netfilter hook.
    ///
    /// # Errors
    /// The kernel does not take it; before Linux 6.4 it cannot.
    pub fn netfilter() -> io::Result<Self> {
        load(PROG_TYPE_NETFILTER, NETFILTER, &[say(NF_DROP), EXIT]).map(Self)
    }

    /// Puts it on what arrives at a device of the calling thread's namespace, or leaves
    /// by it, until the result is closed.
    ///
    /// # Errors
    /// The kernel refuses; before Linux 6.6 it cannot.
    pub fn on_device(&self, ifindex: u32, egress: bool) -> io::Result<OwnedFd> {
        on_device(&self.0, ifindex, if egress { TCX_EGRESS } else { TCX_INGRESS })
    }

    /// The same without a link, until the device is gone.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn on_device_for_good(&self, ifindex: u32) -> io::Result<()> {
        bpf(PROG_ATTACH, &mut [ifindex, self.number(), TCX_INGRESS, 0]).map(drop)
    }

    /// Puts it on the hook `forward` of IPv4 of the calling thread's namespace.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn on_forward_v4(&self) -> io::Result<OwnedFd> {
        // After the four common words: protocol family, hook, priority, flags.
        let (ipv4, forward) = (2, 2);
        bpf_fd(LINK_CREATE, &mut [self.number(), 0, NETFILTER, 0, ipv4, forward, 0, 0])
    }

    fn number(&self) -> u32 {
        self.0.as_raw_fd().cast_unsigned()
    }
}

/// A program that gives every packet that leaves by a device a VLAN tag, beside its bytes:
/// a veth hands it over so.
///
/// # Errors
/// The kernel does not take it, or has no tcx (before Linux 6.6).
pub fn tag_beside(ifindex: u32, (proto, tci): (u16, u16)) -> io::Result<OwnedFd> {
    let program = [
        // r2 = protocol, in network byte order; r3 = TCI; bpf_skb_vlan_push(r1, r2, r3)
        0x02b7 | u64::from(proto.to_be()) << 32,
        0x03b7 | u64::from(tci) << 32,
        0x85 | VLAN_PUSH << 32,
        say(TCX_NEXT),
        EXIT,
    ];
    on_device(&load(SCHED_CLS, 0, &program)?, ifindex, TCX_EGRESS)
}

fn on_device(program: &OwnedFd, ifindex: u32, place: u32) -> io::Result<OwnedFd> {
    let number = program.as_raw_fd().cast_unsigned();
    bpf_fd(LINK_CREATE, &mut [number, ifindex, place, 0, 0, 0, 0, 0])
}

/// Makes the calling thread's namespace a multicast router, until the result is closed.
///
/// # Errors
/// The kernel has no multicast routing.
pub fn multicast_router() -> io::Result<OwnedFd> {
    // SAFETY: socket takes plain integers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_IGMP) };
    let socket = owned("socket", i64::from(fd))?;
    let one: libc::c_int = 1;
    // SAFETY: the value lives through the call and has the length given.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            MRT_INIT,
            (&raw const one).cast(),
            size_of_val(&one) as libc::socklen_t,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

/// r0 = answer
fn say(answer: i32) -> u64 {
    0xb7 | u64::from(answer.cast_unsigned()) << 32
}

fn load(kind: u32, attach: u32, program: &[u64]) -> io::Result<OwnedFd> {
    let license = c"GPL";
    let mut attr = [0_u32; 18];
    (attr[0], attr[1], attr[17]) = (kind, program.len() as u32, attach);
    for (at, address) in [(2, program.as_ptr() as u64), (4, license.as_ptr() as u64)] {
        // The least significant half first, as on every machine that this runs on.
        (attr[at], attr[at + 1]) = (address as u32, (address >> 32) as u32);
    }
    bpf_fd(PROG_LOAD, &mut attr)
}

fn bpf_fd(command: i32, attr: &mut [u32]) -> io::Result<OwnedFd> {
    owned("bpf", bpf(command, attr)?)
}

fn bpf(command: i32, attr: &mut [u32]) -> io::Result<i64> {
    // SAFETY: the attributes are as long as stated; what they point to lives in the
    // caller, and is only read.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
}

fn owned(call: &str, fd: i64) -> io::Result<OwnedFd> {
    match i32::try_from(fd).ok().filter(|fd| *fd >= 0) {
        // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
        Some(fd) => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        None => Err(io::Error::other(format!("{call}: {}", io::Error::last_os_error()))),
    }
}
