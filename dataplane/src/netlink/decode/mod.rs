//! Bytes from the kernel to events. Never panics, whatever the bytes.

mod attrs;
pub(super) mod hook;
mod link;
mod neigh;
mod nsid;
mod policy;
mod route;
pub(super) mod tracking;

use netlink_packet_core::NetlinkBuffer;

use super::event::{Event, Family};

pub(super) use nsid::nsid;

/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// Messages below this number are netlink's own, not rtnetlink's.
const FIRST_RTM: u16 = 16;

pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
pub(super) const NLMSG_OVERRUN: u16 = 4;

/// `RTM_*` of include/uapi/linux/rtnetlink.h: NEW is the base, DEL is one more,
/// GET two more.
pub(super) mod rtm {
    pub(in super::super) const LINK: u16 = 16;
    pub(in super::super) const ADDR: u16 = 20;
    pub(in super::super) const ROUTE: u16 = 24;
    pub(in super::super) const NEIGH: u16 = 28;
    pub(in super::super) const RULE: u16 = 32;
    pub(in super::super) const QDISC: u16 = 36;
    pub(in super::super) const NETCONF: u16 = 80;
    pub(in super::super) const NSID: u16 = 88;
    pub(in super::super) const NEXTHOP: u16 = 104;
}

/// What was not turned into events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages of kinds, families or tables that we have no use for.
    pub ignored: u64,
    /// Messages that could not be read.
    pub malformed: u64,
    /// Requests that the kernel refused.
    pub refused: u64,
}

/// Why a message gives no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skip {
    /// It is not about what we mirror.
    Ignored,
    /// It is cut short or contradicts itself.
    Malformed,
}

/// One message of a datagram.
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) payload: &'a [u8],
}

/// The messages of a datagram, and whether bytes were left that are none.
pub(super) fn messages(mut bytes: &[u8]) -> (Vec<Message<'_>>, bool) {
    let mut out = Vec::new();
    while bytes.len() >= HEADER {
        let Ok(m) = NetlinkBuffer::new_checked(bytes) else { return (out, true) };
        let len = m.length() as usize;
        let Some(payload) = bytes.get(HEADER..len) else { return (out, true) };
        out.push(Message {
            kind: m.message_type(),
            flags: m.flags(),
            sequence: m.sequence_number(),
            payload,
        });
        let next = len.next_multiple_of(4).min(bytes.len());
        bytes = &bytes[next..];
    }
    (out, !bytes.is_empty())
}

/// Appends the events of a datagram to `out`, and counts what gives none. What could not
/// be read may have changed anything: then the state is to be read anew.
pub fn decode(datagram: &[u8], out: &mut Vec<Event>, tally: &mut Tally) {
    let (messages, rest) = messages(datagram);
    let malformed = tally.malformed;
    tally.malformed += u64::from(rest);
    for m in messages {
        match m.kind {
            NLMSG_ERROR => tally.refused += u64::from(error_code(m.payload) != Some(0)),
            NLMSG_OVERRUN => out.push(Event::Overrun),
            kind if kind < FIRST_RTM => {}
            _ => decode_one(&m, out, tally),
        }
    }
    if tally.malformed > malformed {
        out.push(Event::Overrun);
    }
}

/// The negative errno of an error message.
pub(super) fn error_code(payload: &[u8]) -> Option<i32> {
    Some(i32::from_ne_bytes(payload.get(..4)?.try_into().ok()?))
}

pub(super) fn decode_one(m: &Message<'_>, out: &mut Vec<Event>, tally: &mut Tally) {
    let (base, gone) = (m.kind & !3, m.kind & 3 == 1);
    if m.kind & 3 > 1 {
        tally.ignored += 1;
        return;
    }
    let event = match base {
        rtm::LINK => link::link(m.payload, gone),
        rtm::ADDR => neigh::address(m.payload, gone),
        rtm::NEIGH => neigh::neighbor(m.payload, gone),
        rtm::NETCONF => neigh::netconf(m.payload, gone),
        rtm::ROUTE => route::route(m.payload, m.flags, gone),
        rtm::RULE => policy::rule(m.payload, gone),
        rtm::QDISC => hook::qdisc(m.payload, gone),
        rtm::NEXTHOP => policy::nexthop(m.payload, gone),
        _ => Err(Skip::Ignored),
    };
    match event {
        Ok(event) => out.push(event),
        Err(Skip::Ignored) => tally.ignored += 1,
        Err(Skip::Malformed) => {
            tally.malformed += 1;
            out.extend(unreadable(base, m.payload));
        }
    }
}

/// What it means that a message of this kind could not be read, in a dump too. A device,
/// an address or a neighbour that we do not know is merely not used; a route that we do
/// not know would let packets take a shorter prefix instead, a setting or a queueing
/// discipline would be taken for one that is not there.
fn unreadable(base: u16, payload: &[u8]) -> Vec<Event> {
    let both = [Family::V4, Family::V6];
    let families: &[Family] = match (base, payload.first().copied().map(attrs::family)) {
        (rtm::ROUTE | rtm::RULE | rtm::NEXTHOP | rtm::NETCONF, Some(Ok(Family::V4))) => &both[..1],
        (rtm::ROUTE | rtm::RULE | rtm::NEXTHOP | rtm::NETCONF, Some(Ok(Family::V6))) => &both[1..],
        // Cut before it says whose it is.
        (rtm::ROUTE | rtm::RULE | rtm::NETCONF, None) | (rtm::NEXTHOP | rtm::QDISC, _) => &both,
        _ => &[],
    };
    families.iter().copied().map(Event::Unreadable).collect()
}

#[cfg(test)]
mod tests;
