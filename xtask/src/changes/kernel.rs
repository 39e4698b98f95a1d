//! Routes into the kernel and out of it by netlink, many in a send.

use std::io::{Error, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Context;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nsplane_tests::netns::Netns;

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST`, and with it `NLM_F_DUMP`, `NLM_F_CREATE`, `NLM_F_REPLACE`.
const REQUEST: u16 = 0x1;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const REPLACE: u16 = 0x100;
const RTA_DST: u16 = 1;
const RTA_GATEWAY: u16 = 5;
const TABLE_MAIN: u8 = 254;
/// `RTPROT_BGP`.
const BGP: u8 = 186;
const UNICAST: u8 = 1;
/// Routes of one send.
const TOGETHER: usize = 500;

/// A route: its prefix, and the router that it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) dst: IpAddr,
    pub(super) len: u8,
    pub(super) gateway: IpAddr,
}

impl Route {
    /// The nth of many. IPv4: /24 mostly, and larger ones, from 16.0.0.0 on; IPv6: /48
    /// below 2001::/16. Each n is another prefix.
    pub(super) fn nth(v6: bool, n: u32, gateway: IpAddr) -> Self {
        if v6 {
            let bits = 0x2001_u128 << 112 | u128::from(n) << 80;
            return Self { dst: Ipv6Addr::from_bits(bits).into(), len: 48, gateway };
        }
        // Of 16 consecutive /24 one each is a /20, /22 and /23 instead.
        let len = match n % 16 {
            0 => 20,
            4 => 22,
            6 => 23,
            _ => 24,
        };
        Self { dst: Ipv4Addr::from_bits((16 << 24) + (n << 8)).into(), len, gateway }
    }

    fn write(&self, out: &mut Vec<u8>, flags: u16) {
        let at = out.len();
        let family = if self.dst.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET } as u8;
        head(out, RTM_NEWROUTE, REQUEST | flags);
        out.extend([family, self.len, 0, 0, TABLE_MAIN, BGP, 0, UNICAST, 0, 0, 0, 0]);
        for (kind, addr) in [(RTA_DST, self.dst), (RTA_GATEWAY, self.gateway)] {
            let bytes = match addr {
                IpAddr::V4(a) => a.octets().to_vec(),
                IpAddr::V6(a) => a.octets().to_vec(),
            };
            out.extend((4 + bytes.len() as u16).to_ne_bytes());
            out.extend(kind.to_ne_bytes());
            out.extend(bytes);
        }
        finish(out, at);
    }
}

/// `struct nlmsghdr`, its length yet to come.
fn head(out: &mut Vec<u8>, kind: u16, flags: u16) {
    out.extend([0; 4]);
    out.extend(kind.to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    out.extend([0; 8]);
}

fn finish(out: &mut [u8], at: usize) {
    let len = (out.len() - at) as u32;
    out[at..at + 4].copy_from_slice(&len.to_ne_bytes());
}

/// A netlink socket in a namespace.
pub(super) struct Kernel {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Kernel {
    pub(super) fn of(netns: &Netns) -> anyhow::Result<Self> {
        let socket = netns.inside(|| {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok::<_, Error>(socket)
        })?;
        Ok(Self { socket: socket.context("a netlink socket")?, buffer: vec![0; 256 << 10] })
    }

    /// Sets routes. When it returns the kernel has them.
    pub(super) fn set(&mut self, routes: &[Route]) -> anyhow::Result<()> {
        let mut out = Vec::with_capacity(TOGETHER * 64);
        for routes in routes.chunks(TOGETHER) {
            out.clear();
            routes.iter().for_each(|r| r.write(&mut out, CREATE | REPLACE));
            self.socket.send(&out, 0).context("sending routes")?;
            self.refusal().context("the kernel refuses a route")?;
        }
        Ok(())
    }

    /// What the kernel answers is an error: nothing else was asked for.
    fn refusal(&mut self) -> Result<()> {
        match self.socket.recv(&mut &mut self.buffer[..], libc::MSG_DONTWAIT) {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
            Err(e) => Err(e),
            Ok(_) => {
                let code = self.buffer[16..20].try_into().map_or(0, i32::from_ne_bytes);
                Err(Error::from_raw_os_error(-code))
            }
        }
    }

    /// Has all routes of a family told, and throws them away. Returns the bytes.
    pub(super) fn dump(&mut self, v6: bool) -> Result<usize> {
        let mut out = Vec::new();
        head(&mut out, RTM_GETROUTE, REQUEST | DUMP);
        out.push(if v6 { libc::AF_INET6 } else { libc::AF_INET } as u8);
        out.extend([0; 11]);
        finish(&mut out, 0);
        self.socket.send(&out, 0)?;
        let mut bytes = 0;
        loop {
            let n = self.socket.recv(&mut &mut self.buffer[..], 0)?;
            bytes += n;
            match u16::from_ne_bytes([self.buffer[4], self.buffer[5]]) {
                NLMSG_DONE => return Ok(bytes),
                NLMSG_ERROR => return Err(Error::other("the kernel refuses a dump")),
                _ if ends(&self.buffer[..n]) => return Ok(bytes),
                _ => {}
            }
        }
    }
}

/// The last message of a datagram says that it was the last.
fn ends(mut bytes: &[u8]) -> bool {
    while let Some(&[a, b, c, d, e, f, ..]) = bytes.first_chunk::<16>().map(<[u8; 16]>::as_slice) {
        if u16::from_ne_bytes([e, f]) == NLMSG_DONE {
            return true;
        }
        let len = u32::from_ne_bytes([a, b, c, d]) as usize;
        bytes = bytes.get(len.next_multiple_of(4).max(16)..).unwrap_or_default();
    }
    false
}
