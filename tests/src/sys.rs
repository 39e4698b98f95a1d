//! The few system calls that std does not have, each with its name in the error.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

/// Moves the calling thread into the network namespace that `file` is.
pub(crate) fn enter(file: &File) -> io::Result<()> {
    // SAFETY: setns takes plain integers; the descriptor lives as long as `file`.
    let result = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
    check("setns", result)
}

/// Sends `signal` to one process.
pub(crate) fn kill(pid: u32, signal: i32) -> io::Result<()> {
    let pid = i32::try_from(pid)
        .map_err(|_| io::Error::other(format!("kill: {pid} is not a process id")))?;
    // SAFETY: kill takes plain integers.
    let result = unsafe { libc::kill(pid, signal) };
    check("kill", result)
}

/// Stops one thread of another process; it stays stopped until [`release`] is called by
/// the same thread as this, or that ends.
pub(crate) fn stop_thread(tid: i32) -> io::Result<()> {
    trace(libc::PTRACE_SEIZE, tid)?;
    trace(libc::PTRACE_INTERRUPT, tid)?;
    // SAFETY: no status is asked for.
    let waited = unsafe { libc::waitpid(tid, std::ptr::null_mut(), libc::__WALL) };
    if waited == tid { Ok(()) } else { Err(named("waitpid")) }
}

/// Lets a stopped thread go on.
pub(crate) fn release(tid: i32) -> io::Result<()> {
    trace(libc::PTRACE_DETACH, tid)
}

fn trace(request: libc::c_uint, tid: i32) -> io::Result<()> {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: these requests read and write no memory of ours.
    let result = unsafe { libc::ptrace(request, tid, none, none) };
    if result == -1 { Err(named("ptrace")) } else { Ok(()) }
}

/// The number of the device `name` in the calling thread's namespace.
pub(crate) fn ifindex(name: &str) -> io::Result<u32> {
    let name = CString::new(name).map_err(io::Error::other)?;
    // SAFETY: `name` is a NUL-terminated string that outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(named("if_nametoindex")),
        index => Ok(index),
    }
}

/// Whether we may make namespaces: the effective user is root.
pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid has no arguments and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn check(call: &str, result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(named(call)) }
}

fn named(call: &str) -> io::Error {
    let error = io::Error::last_os_error();
    io::Error::new(error.kind(), format!("{call}: {error}"))
}

/// Has `handler`, which must be async-signal-safe, called when `signal` comes.
/// System calls that wait are ended by it (no SA_RESTART).
pub(crate) fn on_signal(signal: i32, handler: extern "C" fn(libc::c_int)) -> io::Result<()> {
    // SAFETY: all-zero is a valid sigaction: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    // SAFETY: the action is valid and outlives the call; the old one is not asked for.
    let result = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    check("sigaction", result)
}

/// Lets the kernel cut what is sent by one call into datagrams of `size` bytes.
pub(crate) fn set_udp_segment(socket: &UdpSocket, size: u16) -> io::Result<()> {
    let size = libc::c_int::from(size);
    // SAFETY: the value lives through the call and has the length given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw const size).cast(),
            size_of_val(&size) as libc::socklen_t,
        )
    };
    check("setsockopt", result)
}

/// Pins the calling thread to a processor.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: an all-zero set is an empty one.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set has room for more processors than there are numbers tested with.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the set lives through the call and has the length given.
    let done = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
