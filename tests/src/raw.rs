//! Frames as bytes: sent from and seen on a device by an `AF_PACKET` socket.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::netns::Netns;

/// Longest frame that is read.
const MAX_FRAME: usize = 65_536;

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
            while let Some((len, outgoing)) = self.read(&mut buffer) {
                if !outgoing && wanted(&buffer[..len]) {
                    buffer.truncate(len);
                    return Some(buffer);
                }
            }
        }
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

    fn read(&self, buffer: &mut [u8]) -> Option<(usize, bool)> {
        // SAFETY: an all-zero sockaddr_ll is a valid one.
        let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        let mut from_len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: both buffers live through the call and have the lengths given.
        let n = unsafe {
            libc::recvfrom(
                self.socket.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_DONTWAIT,
                (&raw mut from).cast(),
                &raw mut from_len,
            )
        };
        let len = usize::try_from(n).ok()?;
        Some((len, from.sll_pkttype == libc::PACKET_OUTGOING))
    }
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
    if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(Raw { socket }) }
}
