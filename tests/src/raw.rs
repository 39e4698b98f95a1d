//! Frames as bytes: sent from and seen on a device by an `AF_PACKET` socket.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::netns::Netns;

/// Longest frame that is read.
const MAX_FRAME: usize = 65_536;
/// Bytes of a frame's two addresses.
const ADDRESSES: usize = 12;
/// Bytes of a VLAN tag.
const TAG: usize = 4;

/// A socket that sends and sees whole frames on one device.
#[derive(Debug)]
pub struct Raw {
    socket: OwnedFd,
}

impl Raw {
    /// Opens one on a device of a namespace. It sees what arrives from now on.
    ///
    /// # Errors
    /// No such device, or not permitted.
    pub fn open(netns: &Netns, device: &str) -> Result<Self> {
        let index = netns.ifindex(device)?;
        netns
            .inside(|| open(index))?
            .with_context(|| format!("an AF_PACKET socket on {device} of {}", netns.name()))
    }

    /// Sends a frame out of the device.
    ///
    /// # Errors
    /// The device does not take it.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the buffer lives through the call and has the length given.
        let n =
            unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if n < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Sends a frame by the device's transmit queue of that number, past its queueing
    /// discipline: the kernel then chooses by the processor.
    ///
    /// # Errors
    /// No such processor, or the device does not take the frame.
    ///
    /// # Panics
    /// If the thread that sends does.
    pub fn send_by(&self, queue: usize, frame: &[u8]) -> io::Result<()> {
        self.set(libc::PACKET_QDISC_BYPASS, 1)?;
        let sent = std::thread::scope(|scope| {
            let pinned = scope.spawn(|| crate::sys::pin(queue).and_then(|()| self.send(frame)));
            pinned.join().expect("it only sends")
        });
        self.set(libc::PACKET_QDISC_BYPASS, 0)?;
        sent
    }

    fn set(&self, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
        self.set_at(libc::SOL_PACKET, option, value)
    }

    fn set_at(
        &self,
        level: libc::c_int,
        option: libc::c_int,
        value: libc::c_int,
    ) -> io::Result<()> {
        // SAFETY: the number lives through the call and has the length given.
        let set = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                level,
                option,
                (&raw const value).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The first frame within `timeout` that arrived (did not leave) and is `wanted`.
    pub fn receive(
        &self,
        timeout: Duration,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> Option<Vec<u8>> {
        let end = Instant::now() + timeout;
        let mut buffer = vec![0; MAX_FRAME];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.readable(left) {
                return None;
            }
            while let Some(read) = self.read(&mut buffer) {
                if !read.outgoing && wanted(&buffer[..read.len]) {
                    buffer.truncate(read.len);
                    return Some(buffer);
                }
            }
        }
    }

    /// The next frame that arrived (did not leave), if there is one by now: its length,
    /// and whether its TCP or UDP checksum is unfinished, as between devices of one
    /// machine.
    pub fn next(&self, buffer: &mut [u8]) -> Option<(usize, bool)> {
        loop {
            let read = self.read(buffer)?;
            if !read.outgoing {
                return Some((read.len, read.unfinished));
            }
        }
    }

    /// Makes room for so many bytes of frames that arrived and were not read yet; each
    /// counts with what the kernel keeps beside it.
    ///
    /// # Errors
    /// Not permitted.
    pub fn make_room(&self, bytes: libc::c_int) -> io::Result<()> {
        self.set_at(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes)
    }

    /// Forgets all frames that arrived until now.
    pub fn clear(&self) {
        let mut buffer = [0; 64];
        while self.read(&mut buffer).is_some() {}
    }

    fn readable(&self, timeout: Duration) -> bool {
        let mut poll =
            libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let ms = timeout.as_millis().clamp(1, 10_000) as i32;
        // SAFETY: one pollfd, which lives through the call.
        unsafe { libc::poll(&raw mut poll, 1, ms) > 0 }
    }

    /// The next frame, whether it arrived or left.
    ///
    /// The kernel takes the outer VLAN tag out before a socket sees the frame, and says
    /// beside it which it was: here it is put back.
    fn read(&self, buffer: &mut [u8]) -> Option<Read> {
        // SAFETY: an all-zero sockaddr_ll is a valid one.
        let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        let mut part =
            libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() - TAG };
        // Aligned as control messages ask for.
        let mut control = [0_u64; 16];
        // SAFETY: an all-zero msghdr is a valid one.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_name = (&raw mut from).cast();
        message.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: all that the message points to lives through the call.
        let n =
            unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
        let len = usize::try_from(n).ok()?;
        let outgoing = from.sll_pkttype == libc::PACKET_OUTGOING;
        let aux = beside(&message);
        let unfinished = aux.is_some_and(|aux| aux.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0);
        let len = match aux.and_then(vlan) {
            Some(tag) if len >= ADDRESSES => {
                buffer.copy_within(ADDRESSES..len, ADDRESSES + TAG);
                buffer[ADDRESSES..ADDRESSES + TAG].copy_from_slice(&tag);
                len + TAG
            }
            _ => len,
        };
        Some(Read { len, outgoing, unfinished })
    }
}

/// What was read.
struct Read {
    len: usize,
    outgoing: bool,
    unfinished: bool,
}

/// What the kernel says of a received frame beside it.
fn beside(message: &libc::msghdr) -> Option<libc::tpacket_auxdata> {
    // SAFETY: the kernel has filled the message in.
    let first = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: null, or within the message's control buffer.
    let head = unsafe { first.as_ref() }?;
    if (head.cmsg_level, head.cmsg_type) != (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
        return None;
    }
    // SAFETY: a control message of this type carries this.
    let data = unsafe { libc::CMSG_DATA(first) };
    // SAFETY: as above; nothing is said of its alignment.
    Some(unsafe { data.cast::<libc::tpacket_auxdata>().read_unaligned() })
}

/// The VLAN tag that the kernel keeps beside it.
fn vlan(aux: libc::tpacket_auxdata) -> Option<[u8; TAG]> {
    let [a, b] = aux.tp_vlan_tpid.to_be_bytes();
    let [c, d] = aux.tp_vlan_tci.to_be_bytes();
    (aux.tp_status & libc::TP_STATUS_VLAN_VALID != 0).then_some([a, b, c, d])
}

fn open(index: u32) -> io::Result<Raw> {
    let all = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: plain system call.
    let fd = unsafe {
        libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(all))
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was made above for us alone.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: an all-zero sockaddr_ll is a valid one.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = all;
    address.sll_ifindex = index as i32;
    // SAFETY: the address lives through the call and has the length given.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if bound < 0 {
        return Err(io::Error::last_os_error());
    }
    let raw = Raw { socket };
    raw.set(libc::PACKET_AUXDATA, 1)?;
    Ok(raw)
}
