//! Which BPF programs others have on the ways of packets.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use libc::{c_int, c_long, c_void};

/// `enum bpf_cmd` of include/uapi/linux/bpf.h.
mod cmd {
    use libc::c_int;
    pub(super) const PROG_GET_NEXT_ID: c_int = 11;
    pub(super) const PROG_GET_FD_BY_ID: c_int = 13;
    pub(super) const OBJ_GET_INFO_BY_FD: c_int = 15;
    pub(super) const PROG_QUERY: c_int = 16;
    pub(super) const LINK_GET_FD_BY_ID: c_int = 30;
    pub(super) const LINK_GET_NEXT_ID: c_int = 31;
}
/// `BPF_PROG_TYPE_SCHED_CLS`.
const SCHED_CLS: u32 = 3;
/// `BPF_LINK_TYPE_NETFILTER` and `BPF_LINK_TYPE_TCX`.
const NETFILTER: u32 = 10;
const TCX: u32 = 11;
/// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS` of `enum bpf_attach_type`.
const DIRECTIONS: [u32; 2] = [46, 47];

/// What a link of BPF is, as far as it matters to packets that are forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// On a netfilter hook: `NFPROTO_*` and `NF_INET_*`. The kernel does not say in
    /// which namespace.
    Netfilter {
        /// Protocol family.
        pf: u32,
        /// Hook.
        hook: u32,
    },
    /// On a device's tcx.
    Tcx,
    /// Of no concern.
    Other,
    /// One that is being made: ask again.
    Unfinished,
}

/// The least number above `after` that a link has; None: there is none.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`; `EINVAL` before Linux 5.8.
pub fn next_link(after: u32) -> io::Result<Option<u32>> {
    next(cmd::LINK_GET_NEXT_ID, after)
}

/// The least number above `after` that a program has; None: there is none.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn next_program(after: u32) -> io::Result<Option<u32>> {
    next(cmd::PROG_GET_NEXT_ID, after)
}

/// What a link is; None: it is gone.
///
/// # Errors
/// The kernel refuses.
pub fn link(id: u32) -> io::Result<Option<Link>> {
    // struct bpf_link_info: type, id, program, padding, then what its type has.
    let info = match info::<10>(cmd::LINK_GET_FD_BY_ID, id) {
        Ok(Some(info)) => info,
        Ok(None) => return Ok(None),
        // It has a number, but is not yet anybody's to have (`bpf_link_settle`).
        Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => return Ok(Some(Link::Unfinished)),
        Err(e) => return Err(e),
    };
    Ok(Some(match info[0] {
        NETFILTER => Link::Netfilter { pf: info[4], hook: info[5] },
        TCX => Link::Tcx,
        _ => Link::Other,
    }))
}

/// True: the program can be put on tcx; None: it is gone.
///
/// # Errors
/// The kernel refuses.
pub fn is_classifier(id: u32) -> io::Result<Option<bool>> {
    Ok(info::<1>(cmd::PROG_GET_FD_BY_ID, id)?.map(|[kind]| kind == SCHED_CLS))
}

/// The devices of the calling thread's namespace.
///
/// # Errors
/// `if_nameindex`.
pub fn devices() -> io::Result<Vec<u32>> {
    // SAFETY: takes nothing; the result is freed below.
    let list = unsafe { libc::if_nameindex() };
    if list.is_null() {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut at = list;
    loop {
        // SAFETY: the array ends with an entry of index 0, before which we stop.
        let index = unsafe { (*at).if_index };
        if index == 0 {
            break;
        }
        found.push(index);
        // SAFETY: that entry was not the last.
        at = unsafe { at.add(1) };
    }
    // SAFETY: made by if_nameindex, freed once.
    unsafe { libc::if_freenameindex(list) };
    Ok(found)
}

/// Whether there are programs on the tcx of a device of the calling thread's
/// namespace: of what arrives, and of what leaves.
///
/// # Errors
/// The kernel refuses; not where it has no tcx (before Linux 6.6) or no such device.
pub fn tcx(ifindex: u32) -> io::Result<[bool; 2]> {
    let mut found = [false; 2];
    for (direction, found) in DIRECTIONS.into_iter().zip(&mut found) {
        // target_ifindex, attach_type, query_flags, attach_flags, prog_ids (8 bytes),
        // count, and what else a query answers.
        let mut attr = [0_u32; 16];
        (attr[0], attr[1]) = (ifindex, direction);
        match call(cmd::PROG_QUERY, &mut attr) {
            Ok(_) => *found = attr[6] > 0,
            Err(e) => match e.raw_os_error() {
                Some(libc::ENOENT | libc::ENODEV | libc::EINVAL) => {}
                _ => return Err(e),
            },
        }
    }
    Ok(found)
}

fn next(command: c_int, after: u32) -> io::Result<Option<u32>> {
    let mut attr = [after, 0];
    match call(command, &mut attr) {
        Ok(_) => Ok(Some(attr[1])),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The first words of an object's description; None: there is no such object.
fn info<const WORDS: usize>(command: c_int, id: u32) -> io::Result<Option<[u32; WORDS]>> {
    let fd = match call(command, &mut [id, 0, 0]) {
        Ok(fd) => owned(fd),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        Err(e) => return Err(e),
    };
    #[repr(C)]
    struct Query {
        fd: u32,
        len: u32,
        info: u64,
    }
    let mut info = [0_u32; WORDS];
    let query = Query {
        fd: fd.as_raw_fd().cast_unsigned(),
        len: size_of_val(&info) as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: both live through the call, and the lengths are theirs.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            cmd::OBJ_GET_INFO_BY_FD,
            (&raw const query).cast::<c_void>(),
            size_of::<Query>(),
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(Some(info)) }
}

/// `bpf`, with attributes that hold no pointer.
fn call(command: c_int, attr: &mut [u32]) -> io::Result<c_long> {
    // SAFETY: the attributes are ours to be written, as long as stated; a null pointer
    // is the only one there may be among them.
    let done = unsafe {
        libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr().cast::<c_void>(), size_of_val(attr))
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
}

fn owned(fd: c_long) -> OwnedFd {
    // SAFETY: the kernel has just given us this descriptor, a small number, and nobody
    // else has it.
    unsafe { OwnedFd::from_raw_fd(fd as c_int) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lo_is_a_device_without_programs() {
        let devices = devices().unwrap();
        assert!(devices.contains(&1));
        // Without the capability there is no answer.
        assert!(tcx(1).is_ok_and(|t| t == [false; 2]) || tcx(1).is_err());
    }

    #[test]
    fn after_the_last_there_is_none() {
        assert!(matches!(next_link(u32::MAX - 1), Ok(None) | Err(_)));
        assert!(matches!(link(u32::MAX - 1), Ok(None) | Err(_)));
    }
}
