//! How many channels (queues with an interrupt) a device really uses.
//!
//! rtnetlink tells how many queues were allocated (`IFLA_NUM_RX_QUEUES`); those
//! in use are known to ethtool, and to sysfs of the device's own namespace only.

use std::os::fd::AsRawFd;

use super::netns::{Error, any_socket};

/// `ETHTOOL_GCHANNELS` of include/uapi/linux/ethtool.h.
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// `ETHTOOL_GFLAGS` of include/uapi/linux/ethtool.h.
const ETHTOOL_GFLAGS: u32 = 0x25;
/// `ETH_FLAG_RXVLAN`: the device takes VLAN tags out of what it receives.
const ETH_FLAG_RXVLAN: u32 = 1 << 8;

/// `struct ethtool_value`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct EthtoolChannels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// Queues that a device uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    /// Receive queues.
    pub rx: u32,
    /// Transmit queues.
    pub tx: u32,
}

/// The channels of device `name` in the calling thread's namespace. None where
/// the driver does not say, as macvlan and tun: then it is one of each.
///
/// # Errors
/// `ENODEV` where there is no such device.
pub fn channels(name: &str) -> Result<Option<Channels>, Error> {
    let mut answer = EthtoolChannels { cmd: ETHTOOL_GCHANNELS, ..EthtoolChannels::default() };
    if !ask(name, &mut answer, "ioctl(SIOCETHTOOL, ETHTOOL_GCHANNELS)")? {
        return Ok(None);
    }
    Ok(Some(Channels { rx: answer.rx + answer.combined, tx: answer.tx + answer.combined }))
}

/// Whether device `name` in the calling thread's namespace takes VLAN tags out of
/// what it receives (`rx-vlan-offload`), so that an XDP program does not see them.
///
/// # Errors
/// `ENODEV` where there is no such device.
pub fn strips_vlans(name: &str) -> Result<bool, Error> {
    let mut answer = EthtoolValue { cmd: ETHTOOL_GFLAGS, data: 0 };
    let known = ask(name, &mut answer, "ioctl(SIOCETHTOOL, ETHTOOL_GFLAGS)")?;
    Ok(known && answer.data & ETH_FLAG_RXVLAN != 0)
}

/// Has the kernel fill in `answer`, whose first field is the command. False where
/// the driver does not know it.
fn ask<T: Copy>(name: &str, answer: &mut T, call: &'static str) -> Result<bool, Error> {
    let socket = any_socket()?;
    // SAFETY: ifreq is plain data; all-zero is a valid value of it.
    let mut req: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte stays zero: the name's end. A longer name is nobody's.
    let room = req.ifr_name.len() - 1;
    for (to, from) in req.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    req.ifr_ifru.ifru_data = std::ptr::from_mut(answer).cast();
    // SAFETY: SIOCETHTOOL reads one ifreq, and reads and writes the command's own
    // struct at its data pointer; callers pass that struct, and both outlive the call.
    let ret = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut req) };
    if ret >= 0 {
        return Ok(true);
    }
    let error = Error::last(call);
    match error.source.raw_os_error() {
        Some(libc::EOPNOTSUPP) => Ok(false),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_no_channels_and_a_stranger_is_an_error() {
        assert_eq!(channels("lo").unwrap(), None);
        assert!(!strips_vlans("lo").unwrap());
        let e = channels("hm-nobody").unwrap_err();
        assert_eq!(e.source.raw_os_error(), Some(libc::ENODEV));
    }
}
