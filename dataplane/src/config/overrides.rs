//! Settings of the command line, which count more than the file's.

use super::{Bind, File, Xdp};

/// What was given on the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `[workers] count`
    pub workers: Option<u16>,
    /// `[workers] pin`
    pub pin: Option<Vec<usize>>,
    /// `[devices] bind`
    pub bind: Option<Bind>,
    /// `[devices] xdp`
    pub xdp: Option<Xdp>,
    /// `[memory] frames`
    pub frames: Option<u32>,
    /// `[memory] frame-size`
    pub frame_size: Option<u32>,
    /// `[memory] ring-size`
    pub ring_size: Option<u32>,
    /// `[limits] max-ports`
    pub max_ports: Option<u16>,
    /// `[limits] punt-rate`
    pub punt_rate: Option<u32>,
}

impl Overrides {
    /// Replaces what was given.
    pub fn apply(&self, file: &mut File) {
        put(&mut file.workers.count, self.workers.as_ref());
        put(&mut file.workers.pin, self.pin.as_ref());
        put(&mut file.devices.bind, self.bind.as_ref());
        put(&mut file.devices.xdp, self.xdp.as_ref());
        put(&mut file.memory.frames, self.frames.as_ref());
        put(&mut file.memory.ring_size, self.ring_size.as_ref());
        put(&mut file.limits.max_ports, self.max_ports.as_ref());
        put(&mut file.limits.punt_rate, self.punt_rate.as_ref());
        file.memory.frame_size = self.frame_size.or(file.memory.frame_size);
    }
}

fn put<T: Clone>(setting: &mut T, given: Option<&T>) {
    if let Some(value) = given {
        setting.clone_from(value);
    }
}
