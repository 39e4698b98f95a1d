//! Whose a frame is: the port's, or that of a part of it.

use aya_ebpf::programs::XdpContext;
use nsplane_abi::headers::{Bytes, eth};
use nsplane_abi::member::{MEMBER_ABSENT, MEMBER_STATED, MemberEntry, MemberKey};
use nsplane_abi::tag::TAG_MEMBER;
use nsplane_abi::vlan::{self, Tags};
use nsplane_abi::{
    MemberTag, PORT_MEMBER_MACS, PORT_MEMBER_QUEUES, PORT_MEMBER_VLANS, PassReason, PortConf,
};

use crate::packet::Packet;
use crate::{above, globals, maps, skb};

const NO_TAG: MemberTag =
    MemberTag { generation: 0, vlan_proto: 0, vlan_tci: 0, selector: 0, reserved: 0 };

/// Whose a frame is, and what goes with that.
pub(crate) struct Owner {
    /// The namespace.
    pub(crate) ns: u32,
    /// The port or member that it is counted for.
    pub(crate) number: u32,
    /// `TAG_MEMBER`, or 0.
    pub(crate) flags: u16,
    /// What the tag of a member's frame says.
    pub(crate) tag: MemberTag,
    /// Bytes of VLAN tags in the frame that are not the owner's to see.
    pub(crate) skip: usize,
    /// No device of the kernel brings the frame to its owner: it must not pass.
    pub(crate) stated: bool,
}

impl Owner {
    /// The port itself.
    #[inline(always)]
    pub(crate) fn port(port: u32) -> Self {
        Self { ns: globals::NS.load(), number: port, flags: 0, tag: NO_TAG, skip: 0, stated: false }
    }

    /// Makes it the member that the frame belongs to, and returns the member's settings;
    /// None where the frame is no member's.
    #[inline(always)]
    pub(crate) fn find(
        &mut self,
        ctx: &XdpContext,
        port_flags: u16,
        packet: &Packet,
        skb: u64,
    ) -> Option<Result<&'static PortConf, PassReason>> {
        let (entry, tags) = self.entry(ctx, port_flags, packet, skb)?;
        if entry.parent != globals::GENERATION.load() {
            // Of the port that had the number before: nothing that it said counts.
            self.skip = 0;
            self.tag = NO_TAG;
            return None;
        }
        self.stated = entry.flags & MEMBER_STATED != 0;
        if entry.flags & MEMBER_ABSENT != 0 {
            return Some(Err(PassReason::NoMember));
        }
        let Some(conf) = maps::PORTS.get(u32::from(entry.member)) else {
            return Some(Err(PassReason::Stale));
        };
        if conf.generation != entry.generation {
            return Some(Err(PassReason::Stale));
        }
        self.ns = entry.ns;
        self.number = u32::from(entry.member);
        self.flags = TAG_MEMBER;
        self.tag.generation = entry.generation;
        if !self.stated && !above::is_there(ctx, entry, packet, tags) {
            return Some(Err(PassReason::Moved));
        }
        Some(Ok(conf))
    }

    #[inline(always)]
    fn entry(
        &mut self,
        ctx: &XdpContext,
        port_flags: u16,
        packet: &Packet,
        skb: u64,
    ) -> Option<(&'static MemberEntry, Tags)> {
        let port = self.number;
        if port_flags & PORT_MEMBER_QUEUES != 0 {
            let key = MemberKey::queue(port, ctx.rx_queue_index() as u16);
            if let Some(entry) = maps::member(key) {
                return Some((entry, Tags::default()));
            }
        }
        let beside = skb::vlan(skb);
        let tags = vlan::tags(packet, beside);
        if tags.outer.0 == 0 {
            if port_flags & PORT_MEMBER_MACS == 0 {
                return None;
            }
            let entry = maps::member(MemberKey::mac(port, packet.load(eth::DST)?))?;
            return Some((entry, tags));
        }
        if port_flags & PORT_MEMBER_VLANS == 0 {
            return None;
        }
        let entry = maps::member(MemberKey::vlan(port, tags.outer, tags.inner))?;
        self.skip = tags.in_packet * vlan::LEN;
        if let Some((proto, tci)) = beside {
            self.tag.vlan_proto = proto;
            self.tag.vlan_tci = tci;
        }
        Some((entry, tags))
    }
}
