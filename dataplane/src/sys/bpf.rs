//! What the eBPF library lacks: a bpffs that nobody else sees, and XDP links that
//! are links or nothing.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::{c_int, c_long, c_void};

/// `BPF_LINK_CREATE` of `enum bpf_cmd`, include/uapi/linux/bpf.h.
const BPF_LINK_CREATE: c_int = 28;
/// `BPF_LINK_UPDATE` of `enum bpf_cmd`, include/uapi/linux/bpf.h.
const BPF_LINK_UPDATE: c_int = 29;
/// `BPF_XDP` of `enum bpf_attach_type`, include/uapi/linux/bpf.h.
const BPF_XDP: u32 = 37;
/// `FSCONFIG_CMD_CREATE` of `enum fsconfig_command`, include/uapi/linux/mount.h.
const FSCONFIG_CMD_CREATE: c_int = 6;
/// `FSOPEN_CLOEXEC`, include/uapi/linux/mount.h.
const FSOPEN_CLOEXEC: c_int = 1;
/// `FSMOUNT_CLOEXEC`, include/uapi/linux/mount.h.
const FSMOUNT_CLOEXEC: c_int = 1;

/// How an XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver, before there is an `sk_buff`: `XDP_FLAGS_DRV_MODE`.
    Native,
    /// In the stack, for any device: `XDP_FLAGS_SKB_MODE`.
    Generic,
}

impl XdpMode {
    /// The mode's name for users.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// The head of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches an XDP program to a device of the calling thread's namespace. Closing
/// the result detaches it, and so does the end of the process, however it ends.
///
/// # Errors
/// `bpf(BPF_LINK_CREATE)`, as net/core/dev.c and the driver answer it.
pub fn link_xdp(program: BorrowedFd<'_>, ifindex: u32, mode: XdpMode) -> io::Result<OwnedFd> {
    let attr = LinkCreate {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        target_ifindex: ifindex,
        attach_type: BPF_XDP,
        flags: match mode {
            XdpMode::Generic => 1 << 1,
            XdpMode::Native => 1 << 2,
        },
    };
    // SAFETY: the attributes are a local, as long as stated; the kernel takes what
    // is behind them for zero.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_LINK_CREATE,
            (&raw const attr).cast::<c_void>(),
            size_of::<LinkCreate>(),
        )
    };
    owned(fd)
}

/// The head of `union bpf_attr` for `BPF_LINK_UPDATE`.
#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// Puts another program in the place of a link's, from one packet to the next. Works from
/// any namespace.
///
/// # Errors
/// `bpf(BPF_LINK_UPDATE)`; `ENOLINK`: the device is gone.
pub fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attr = LinkUpdate {
        link_fd: link.as_raw_fd().cast_unsigned(),
        new_prog_fd: program.as_raw_fd().cast_unsigned(),
        flags: 0,
        old_prog_fd: 0,
    };
    // SAFETY: the attributes are a local, as long as stated; the kernel takes what
    // is behind them for zero.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_LINK_UPDATE,
            (&raw const attr).cast::<c_void>(),
            size_of::<LinkUpdate>(),
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether the calling thread's namespace has a device of that number.
#[must_use]
pub fn device_exists(ifindex: u32) -> bool {
    let mut name = [0; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size that the call writes at most.
    let found = unsafe { libc::if_indextoname(ifindex, name.as_mut_ptr()) };
    !found.is_null()
}

/// A bpffs of our own, mounted nowhere: the result is its root directory. It ends,
/// with everything pinned in it, when the last descriptor of it is closed.
///
/// # Errors
/// `fsopen`, `fsconfig` or `fsmount` (Linux 5.2), which need `CAP_SYS_ADMIN`; the
/// error names the call.
pub fn detached_bpffs() -> io::Result<OwnedFd> {
    let fs = named("fsopen", fsopen(c"bpf"))?;
    // SAFETY: the command takes no strings; null is what it wants for them.
    let done = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            fs.as_raw_fd(),
            FSCONFIG_CMD_CREATE,
            std::ptr::null::<c_void>(),
            std::ptr::null::<c_void>(),
            0,
        )
    };
    named("fsconfig", if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) })?;
    // SAFETY: takes three integers.
    let root = unsafe { libc::syscall(libc::SYS_fsmount, fs.as_raw_fd(), FSMOUNT_CLOEXEC, 0) };
    named("fsmount", owned(root))
}

fn fsopen(name: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: the name is a C string that outlives the call.
    owned(unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), FSOPEN_CLOEXEC) })
}

fn owned(fd: c_long) -> io::Result<OwnedFd> {
    let Some(fd) = c_int::try_from(fd).ok().filter(|fd| *fd >= 0) else {
        return Err(io::Error::last_os_error());
    };
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn named<T>(call: &str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|e| io::Error::new(e.kind(), format!("{call}: {e}")))
}
