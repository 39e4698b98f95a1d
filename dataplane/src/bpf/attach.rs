//! Instances: loading one with a port's constants, attaching it to the device.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use aya::programs::{SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use nsplane_abi::{PassReason, QUEUES_PER_PORT, consts};

use super::maps::SHARED;
use super::object::{Const, Object};
use super::{Error, Options, btf};
use crate::id::{Generation, IfIndex, NsId, PortId};
use crate::sys::bpf::{XdpMode, detached_bpffs, device_exists, link_xdp, update_link};

/// The program of a port, by its name in the object.
const PROGRAM: &str = "nsplane";

/// Which mode is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// Native where the driver has it, else generic.
    #[default]
    Auto,
    /// In the driver or not at all.
    Native,
    /// In the stack.
    Generic,
}

/// What matters of a device's driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// Hands over packets of local senders, whose checksums may be unfinished.
    Veth,
    /// Anything else.
    Other,
}

/// An instance to attach.
#[derive(Clone, Debug)]
pub struct AttachSpec {
    /// The device, in the namespace of the thread that attaches.
    pub ifindex: IfIndex,
    /// Its name, for errors.
    pub name: String,
    /// Its driver.
    pub kind: DeviceKind,
    /// The port that it is.
    pub port: PortId,
    /// The namespace it is a member of.
    pub ns: NsId,
    /// The use of the port's slot.
    pub generation: Generation,
    /// It is the far end of a member's stand-in: all that arrives is the worker's.
    pub cross: bool,
}

/// An instance at work. Dropping it detaches the program, which takes the kernel
/// some 10 ms.
#[derive(Debug)]
pub struct Attached {
    mode: XdpMode,
    spec: AttachSpec,
    /// The instance can tell members apart.
    members: bool,
    // Held also for what closing it does.
    link: OwnedFd,
}

impl Attached {
    /// The mode that it got.
    #[must_use]
    pub fn mode(&self) -> XdpMode {
        self.mode
    }
}

/// Loads and attaches instances. Clones share everything.
#[derive(Clone)]
pub struct Loader(Arc<Shared>);

struct Shared {
    object: Object,
    /// Kept, since making one costs 20-30 ms.
    library: Mutex<EbpfLoader<'static>>,
    /// Where a veth packet's checksum state is; None where this kernel does not say.
    skb: Option<Vec<Const>>,
    // The maps' paths lead through it.
    _bpffs: OwnedFd,
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader").field("skb", &self.0.skb).finish_non_exhaustive()
    }
}

impl Loader {
    pub(super) fn new(options: Options) -> Result<Self, Error> {
        let object = Object::find()?;
        let bpffs = detached_bpffs().map_err(Error::Bpffs)?;
        let mut library = EbpfLoader::new();
        library.btf(None);
        for name in SHARED {
            library.map_pin_path(
                name,
                PathBuf::from(format!("/proc/self/fd/{}/{name}", bpffs.as_raw_fd())),
            );
        }
        library
            .map_max_entries("PORTS", options.max_ports)
            .map_max_entries("XSKS", options.max_ports.saturating_mul(QUEUES_PER_PORT))
            .map_max_entries("COUNTERS", options.max_ports.saturating_mul(PassReason::COUNT));
        let skb = btf::skb_constants()
            .inspect_err(|e| {
                tracing::warn!(
                    "packets on veth whose checksum may be unfinished stay with the kernel: {e}"
                );
            })
            .ok();
        Ok(Self(Arc::new(Shared { object, library: Mutex::new(library), skb, _bpffs: bpffs })))
    }

    /// Loads an instance and attaches it to a device in the calling thread's
    /// namespace. Costs 2-3 ms of CPU, and what the driver takes to switch.
    ///
    /// # Errors
    /// Each names the device: it is gone, held by another program, has too few
    /// queues, no native XDP, or the kernel refuses for another reason.
    pub fn attach(&self, spec: &AttachSpec, mode: AttachMode) -> Result<Attached, Error> {
        match mode {
            AttachMode::Native => self.attach_as(spec, XdpMode::Native),
            AttachMode::Generic => self.attach_as(spec, XdpMode::Generic),
            AttachMode::Auto => match self.attach_as(spec, XdpMode::Native) {
                Err(Error::NotSupported { .. }) => self.attach_as(spec, XdpMode::Generic),
                other => other,
            },
        }
    }

    fn attach_as(&self, spec: &AttachSpec, mode: XdpMode) -> Result<Attached, Error> {
        let mut instance = self.instantiate(&self.constants(spec, mode, false))?;
        let program = load(&mut instance, PROGRAM)?;
        let fd = program.fd().map_err(|e| Error::from_program(PROGRAM, e))?;
        // The library's own attach falls back to netlink, and that attachment would
        // outlive us.
        let link = link_xdp(fd.as_fd(), spec.ifindex.0, mode).map_err(|e| explain(spec, e))?;
        Ok(Attached { mode, spec: spec.clone(), members: false, link })
    }

    /// Puts an instance that can tell members apart in the place of one that cannot, if it
    /// is such a one. To be called before the port's entry says that it has members:
    /// with that, an instance that cannot passes everything. From any thread; verifying
    /// takes some 50 ms.
    ///
    /// # Errors
    /// The kernel refuses, or the device is gone.
    pub fn add_members(&self, attached: &mut Attached) -> Result<(), Error> {
        if attached.members {
            return Ok(());
        }
        let Attached { spec, mode, link, .. } = &*attached;
        let mut instance = self.instantiate(&self.constants(spec, *mode, true))?;
        let program = load(&mut instance, PROGRAM)?;
        let fd = program.fd().map_err(|e| Error::from_program(PROGRAM, e))?;
        update_link(link.as_fd(), fd.as_fd())
            .map_err(|e| Error::from_link(&spec.name, spec.ifindex.0, e))?;
        attached.members = true;
        Ok(())
    }

    /// The constants of a port's instance.
    pub(super) fn constants(&self, spec: &AttachSpec, mode: XdpMode, members: bool) -> Vec<Const> {
        let mut constants = vec![
            (consts::PORT, u32::from(spec.port.0)),
            (consts::NS, spec.ns.packed()),
            (consts::GENERATION, spec.generation.0),
            (consts::GENERIC, u32::from(mode == XdpMode::Generic)),
            (consts::CROSS, u32::from(spec.cross)),
            (consts::TRUNK, u32::from(members)),
        ];
        if mode == XdpMode::Native && spec.kind == DeviceKind::Veth {
            match &self.0.skb {
                Some(skb) => constants.extend(skb),
                None => constants.push((consts::CSUM_UNKNOWN, 1)),
            }
        }
        constants
    }

    /// Opens the shared maps and prepares the programs, with these constants.
    pub(super) fn instantiate(&self, constants: &[Const]) -> Result<Ebpf, Error> {
        let object = self.0.object.with(constants);
        let mut library = self.0.library.lock().unwrap_or_else(PoisonError::into_inner);
        library.load(&object).map_err(|e| Error::Create(Box::new(e)))
    }
}

/// The kernel says `EINVAL` of many things; that the device is gone is one of them.
fn explain(spec: &AttachSpec, error: io::Error) -> Error {
    let ifindex = spec.ifindex.0;
    let gone = error.raw_os_error() == Some(libc::EINVAL) && !device_exists(ifindex);
    let error = if gone { io::Error::from_raw_os_error(libc::ENODEV) } else { error };
    Error::from_link(&spec.name, ifindex, error)
}

/// Loads one program of an instance that works on socket buffers into the kernel.
pub(super) fn load_classifier(instance: &mut Ebpf, name: &'static str) -> Result<(), Error> {
    let missing = || Error::BadObject { what: format!("it has no classifier {name}") };
    let program = instance.program_mut(name).ok_or_else(missing)?;
    let program: &mut SchedClassifier = program.try_into().map_err(|_| missing())?;
    program.load().map_err(|e| Error::from_program(name, e))
}

/// Loads one program of an instance into the kernel.
pub(super) fn load<'a>(instance: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, Error> {
    let missing = || Error::BadObject { what: format!("it has no XDP program {name}") };
    let program = instance.program_mut(name).ok_or_else(missing)?;
    let program: &mut Xdp = program.try_into().map_err(|_| missing())?;
    program.load().map_err(|e| Error::from_program(name, e))?;
    Ok(program)
}
