//! A port follows its device: what keeps packets apart while the device moves, and
//! how a port learns of queues that its device gets or loses.
//!
//! # The guarantee
//!
//! *No packet is forwarded by a namespace that its device has left.* A packet is a
//! member of the namespace that its device was in when the packet arrived. It is
//! forwarded by that namespace's tables out of a device of that namespace, or given to
//! that namespace's kernel, or lost.
//!
//! Control learns of a move late, by a message, and workers later still. So nothing
//! here may depend on when. Three things hold at every moment:
//!
//! 1. **The ring proves the device.** The kernel puts a packet into a socket's RX ring
//!    only while the socket is bound to the very device and queue that received it
//!    (net/xdp/xsk.c, `xsk_rcv_check`). When a device leaves a namespace its sockets
//!    are unbound for good, and whoever was receiving is waited for, before it appears
//!    in another (`xsk_notifier`). So what is in a ring arrived in the namespace that
//!    the socket was made in, whatever the program's constants or the XSKMAP say.
//! 2. **The generation proves the use.** A queue goes to its worker with port, slot
//!    generation and nothing else; a packet is decided on only where queue, tag and
//!    the world's entry of the port agree in namespace, port and generation; the egress
//!    port must be of the same namespace in the same world; and the queue it is put
//!    into must be of the generation that was decided for. A slot is not given to
//!    another device before every worker has said that it has no queue of it left, and
//!    then has another generation.
//! 3. **The kernel sends only for a bound socket** (`__xsk_generic_xmit` asks under the
//!    lock that unbinding takes) whose device is up. A device is down while it moves.
//!
//! What can be anywhere while the device moves, one by one:
//!
//! | a packet, or state, is | what becomes of it |
//! |---|---|
//! | in the veth's own ring | freed when the device is closed, before it moves |
//! | arriving anew, the message not yet heard | the old instance runs in the new namespace with the old constants. What it passes goes to the kernel of where the device is now; only the reason, looked up in the old namespace's maps, may be wrong. What it redirects meets an unbound socket and is lost: at most until the message is heard, for then the entry is off and all passes |
//! | in the RX ring | arrived before (1): the old namespace's. Its tables may forward it out of its other ports |
//! | in a worker's batch | the same, and decided on in one world (2) |
//! | between two workers | sent by a queue of the generation decided for, or dropped (`egress_gone`) |
//! | in the TX ring of the device | not sent (3); its frame comes back when the socket is closed |
//! | in the punt queue | injected in the *old* namespace, by the number that the device had there, if the slot is still in the same use; no such device any more: lost, counted (`punts_failed`). Has another device of that namespace got the number meanwhile, the packet is one of that device's to the kernel: its own namespace's still |
//! | on its way out of another port | was decided on in the old namespace, leaves in the old namespace |
//! | a table of the old namespace that still names the port | the egress port's entry is gone, or has another namespace (2): the kernel's |
//! | the slot, used again at once, perhaps by the same device in its new namespace | another generation, other sockets, another instance: (1) and (2) |
//! | the device, back before anybody looked | its sockets are unbound all the same, which [`crate::xsk::has_device`] sees: the port is made anew |
//! | another device with the old name and number | likewise. A socket is bound by name: so the number is looked at after it was bound, and a program that was attached by number to another device of the same namespace only passes or loses packets of it until the unbound sockets are found |
//! | an XSKMAP entry of an unbound socket | a black hole, not a way out; taken out first of all |
//!
//! So control's promptness decides how long packets are lost, never whose they are.
//!
//! # Macvlans and VLANs
//!
//! One that is a member of a port ([`super::members`]) has no ring of its own to receive
//! by. For it the program asks the kernel's own tables, when the frame arrives, whether
//! it is where it was (`ebpf/nsplane-ebpf/src/above.rs`): that takes the place of (1). It
//! sends by sockets of its own, so that (3) holds as it stands.
//!
//! # Queues
//!
//! No message says how many a device has now. A driver that changes them takes its
//! carrier away for that or switches its queues off, though, and so a message of the
//! link comes, perhaps one that says nothing new; then the driver is asked.
//!
//! Until the port is made anew a new queue has no socket: what arrives there passes
//! to the kernel ("no_socket"). Of a port's queues none can be taken away: the kernel
//! refuses it (`EINVAL`) while a socket is bound to one, down or up. nsplane has to let
//! the device go before.

use tracing::info;

use super::Control;
use super::ports::Use;
use crate::id::{IfIndex, NsId, PortId};
use crate::netlink::{self, Event};

impl Control {
    /// Notes which of the namespace's ports a message was about; true if any was.
    pub(super) fn note_relinked(&mut self, ns: NsId, events: &[Event]) -> bool {
        let Some(n) = self.namespace_mut(ns) else { return false };
        let links = events.iter().filter_map(|event| match event {
            Event::Link(link) => Some(link.ifindex),
            _ => None,
        });
        let ours: Vec<IfIndex> = links.filter(|i| n.ports.contains_key(i)).collect();
        n.relinked.extend(&ours);
        !ours.is_empty()
    }

    /// Ports of the devices noted that have another number of queues now.
    pub(super) fn requeued(&mut self, ns: NsId) -> Vec<PortId> {
        let Some(n) = self.namespace_mut(ns) else { return Vec::new() };
        let noted = std::mem::take(&mut n.relinked);
        let Some(n) = self.namespace(ns) else { return Vec::new() };
        let ports = noted.iter().filter_map(|i| Some((n.mirror.links.get(i)?, *n.ports.get(i)?)));
        let changed = ports.filter(|(link, port)| {
            let Some(state) = self.ports.get(port.index()) else { return false };
            // A member's queues are its port's.
            if matches!(state.part, Use::Member(_)) {
                return false;
            }
            let (netns, device, before) = (n.netns.name(), &link.name, state.queues.len());
            match netlink::channels(&n.netns, device) {
                Ok(now) if now.rx as usize == before => false,
                Ok(now) => {
                    info!(netns, device, before, now = now.rx, "other queues: made anew");
                    true
                }
                // Gone or renamed meanwhile: that is told of too.
                Err(_) => false,
            }
        });
        changed.map(|(_, port)| port).collect()
    }
}
