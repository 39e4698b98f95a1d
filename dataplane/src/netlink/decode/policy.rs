//! Rules and next-hop objects: `struct fib_rule_hdr`, `nhmsg`.

use super::super::event::{Event, Family, Hop, Prefix};
use super::super::policy::{
    NextHopKind, NextHopObject, Ports, Rule, RuleAction, Selector, Suppress, everything,
};
use super::Skip;
use super::attrs::{Value, family, split, word};
use crate::id::IfIndex;

/// `FRA_*` of include/uapi/linux/fib_rules.h.
mod fra {
    pub(super) const DST: u16 = 1;
    pub(super) const SRC: u16 = 2;
    pub(super) const IIFNAME: u16 = 3;
    pub(super) const GOTO: u16 = 4;
    pub(super) const PRIORITY: u16 = 6;
    pub(super) const FWMARK: u16 = 10;
    pub(super) const FLOW: u16 = 11;
    pub(super) const TUN_ID: u16 = 12;
    pub(super) const SUPPRESS_IFGROUP: u16 = 13;
    pub(super) const SUPPRESS_PREFIXLEN: u16 = 14;
    pub(super) const TABLE: u16 = 15;
    pub(super) const FWMASK: u16 = 16;
    pub(super) const OIFNAME: u16 = 17;
    pub(super) const PAD: u16 = 18;
    pub(super) const L3MDEV: u16 = 19;
    pub(super) const UID_RANGE: u16 = 20;
    pub(super) const PROTOCOL: u16 = 21;
    pub(super) const IP_PROTO: u16 = 22;
    pub(super) const SPORT_RANGE: u16 = 23;
    pub(super) const DPORT_RANGE: u16 = 24;
    pub(super) const DSCP: u16 = 25;
    pub(super) const FLOWLABEL: u16 = 26;
    pub(super) const FLOWLABEL_MASK: u16 = 27;
    pub(super) const SPORT_MASK: u16 = 28;
    pub(super) const DPORT_MASK: u16 = 29;
    pub(super) const DSCP_MASK: u16 = 30;
}
/// `FR_ACT_*`.
mod act {
    pub(super) const TO_TBL: u8 = 1;
    pub(super) const GOTO: u8 = 2;
    pub(super) const NOP: u8 = 3;
    pub(super) const BLACKHOLE: u8 = 6;
    pub(super) const UNREACHABLE: u8 = 7;
    pub(super) const PROHIBIT: u8 = 8;
}
/// `FIB_RULE_INVERT`, the one rule flag that is set by the user and concerns more than
/// the host's own packets.
const RULE_INVERT: u32 = 2;
/// What of a TOS byte IPv4's older way to ask looks at (`IPTOS_RT_MASK`).
const TOS_OLD: u8 = 0x1c;
/// The bits of a TOS byte that are the DSCP.
const TOS_DSCP: u8 = 0xfc;

/// `NHA_*` of include/uapi/linux/nexthop.h.
mod nha {
    pub(super) const ID: u16 = 1;
    pub(super) const GROUP: u16 = 2;
    pub(super) const GROUP_TYPE: u16 = 3;
    pub(super) const BLACKHOLE: u16 = 4;
    pub(super) const OIF: u16 = 5;
    pub(super) const GATEWAY: u16 = 6;
    pub(super) const OP_FLAGS: u16 = 14;
}

/// A rule message.
pub(super) fn rule(payload: &[u8], gone: bool) -> Result<Event, Skip> {
    let (head, rest) = split::<12>(payload)?;
    let family = family(head[0])?;
    let [_, dst_len, src_len, tos, table, _, _, action, ..] = head;
    if dst_len > family.bits() || src_len > family.bits() {
        return Err(Skip::Malformed);
    }
    let flags = word(&head, 8)?;
    let mut identity = payload.to_vec();
    identity[8..12].copy_from_slice(&(flags & RULE_INVERT).to_ne_bytes());
    let any = everything(family).addr;
    let prefix = |len| (len > 0).then_some(Prefix { addr: any, len });
    let old = if family == Family::V4 { TOS_OLD } else { TOS_DSCP };
    let mut rule = Rule {
        family,
        priority: 0,
        selector: Selector {
            invert: flags & RULE_INVERT != 0,
            src: prefix(src_len),
            dst: prefix(dst_len),
            tos: (tos, if tos == 0 { 0 } else { old }),
            ..Selector::default()
        },
        action: RuleAction::Unknown,
        suppress: Suppress::default(),
        unknown: None,
        identity: identity.into_boxed_slice(),
    };
    let mut more = More { table: u32::from(table), goto: 0 };
    for attr in rest.attrs() {
        let (kind, value) = attr?;
        if !select(&mut rule.selector, family, kind, value)? {
            act(&mut rule, &mut more, kind, value)?;
        }
    }
    rule.action = match action {
        act::TO_TBL => RuleAction::Table(more.table),
        act::GOTO => RuleAction::Goto(more.goto),
        act::NOP => RuleAction::Nop,
        act::BLACKHOLE | act::UNREACHABLE | act::PROHIBIT => RuleAction::Refuse,
        _ => RuleAction::Unknown,
    };
    Ok(if gone { Event::RuleGone(rule) } else { Event::Rule(rule) })
}

/// Where a rule leads, while its attributes are read.
struct More {
    table: u32,
    goto: u32,
}

/// What a rule does.
fn act(rule: &mut Rule, more: &mut More, kind: u16, value: Value<'_>) -> Result<(), Skip> {
    let given = |v: u32| (v != u32::MAX).then_some(v);
    match kind {
        fra::PRIORITY => rule.priority = value.u32()?,
        fra::TABLE => more.table = value.u32()?,
        fra::GOTO => more.goto = value.u32()?,
        fra::SUPPRESS_PREFIXLEN => rule.suppress.prefixlen = given(value.u32()?),
        fra::SUPPRESS_IFGROUP => rule.suppress.ifgroup = given(value.u32()?),
        // Who made it, a mark for accounting, padding: not about where to.
        fra::PROTOCOL | fra::FLOW | fra::PAD => {}
        fra::TUN_ID => rule.unknown = Some("a tunnel's key"),
        fra::UID_RANGE => rule.unknown = Some("users"),
        fra::FLOWLABEL | fra::FLOWLABEL_MASK => rule.unknown = Some("the flow label"),
        _ => rule.unknown = Some("something that nsplane does not know"),
    }
    Ok(())
}

/// Which packets a rule is for. False: the attribute says something else.
fn select(s: &mut Selector, family: Family, kind: u16, value: Value<'_>) -> Result<bool, Skip> {
    match kind {
        fra::SRC => fill(&mut s.src, family, value)?,
        fra::DST => fill(&mut s.dst, family, value)?,
        fra::IIFNAME => s.iif = Some(value.text()),
        fra::OIFNAME => s.oif = Some(value.text()),
        fra::FWMARK => s.mark.0 = value.u32()?,
        fra::FWMASK => s.mark.1 = value.u32()?,
        fra::L3MDEV => s.l3mdev = value.u8()? != 0,
        fra::IP_PROTO => s.proto = value.u8()?,
        fra::SPORT_RANGE => range(&mut s.sport, value)?,
        fra::DPORT_RANGE => range(&mut s.dport, value)?,
        fra::SPORT_MASK => s.sport.mask = value.u16()?,
        fra::DPORT_MASK => s.dport.mask = value.u16()?,
        fra::DSCP => {
            let mask = if s.tos.1 == 0 { TOS_DSCP } else { s.tos.1 };
            s.tos = (value.u8()? << 2, mask);
        }
        fra::DSCP_MASK => s.tos.1 = value.u8()? << 2,
        _ => return Ok(false),
    }
    Ok(true)
}

/// The address of a prefix whose length the message's head has.
fn fill(prefix: &mut Option<Prefix>, family: Family, value: Value<'_>) -> Result<(), Skip> {
    let addr = value.addr(family)?;
    if let Some(prefix) = prefix {
        prefix.addr = addr;
    }
    Ok(())
}

/// `struct fib_rule_port_range`.
fn range(ports: &mut Ports, value: Value<'_>) -> Result<(), Skip> {
    ports.start = value.u16()?;
    ports.end = Value(value.0.get(2..).unwrap_or_default()).u16()?;
    Ok(())
}

/// A next-hop object's message. Attributes that we do not know make it something that
/// we do not know: an FDB entry, a tunnel, a resilient group.
pub(super) fn nexthop(payload: &[u8], gone: bool) -> Result<Event, Skip> {
    let (head, rest) = split::<8>(payload)?;
    let mut id = None;
    let mut hop = Hop { oif: None, gateway: None, encap: false, weight: 1, dead: false };
    let (mut group, mut blackhole, mut plain) = (None, false, true);
    for attr in rest.attrs() {
        match attr? {
            (nha::ID, v) => id = Some(v.u32()?),
            (nha::OIF, v) => hop.oif = Some(IfIndex(v.u32()?)),
            (nha::GATEWAY, v) => hop.gateway = Some(v.addr(family(head[0])?)?),
            (nha::GROUP, v) => group = Some(members(v)?),
            (nha::BLACKHOLE, _) => blackhole = true,
            // 0: by the packets' hash.
            (nha::GROUP_TYPE, v) => plain &= v.u16()? == 0,
            // What of the message is reserved.
            (nha::OP_FLAGS, _) => {}
            _ => plain = false,
        }
    }
    let id = id.ok_or(Skip::Malformed)?;
    if gone {
        return Ok(Event::NextHopGone(id));
    }
    let kind = match group {
        _ if !plain => NextHopKind::Other,
        Some(members) => NextHopKind::Group(members),
        None if blackhole => NextHopKind::Blackhole,
        None if hop.oif.is_some() => NextHopKind::Hop(hop),
        None => NextHopKind::Other,
    };
    Ok(Event::NextHop(NextHopObject { id, kind }))
}

/// `struct nexthop_grp`, one behind the other: an id, the weight less one in two parts.
fn members(value: Value<'_>) -> Result<Box<[(u32, u16)]>, Skip> {
    let (all, []) = value.0.as_chunks::<8>() else { return Err(Skip::Malformed) };
    let member = |m: &[u8; 8]| {
        let id = u32::from_ne_bytes([m[0], m[1], m[2], m[3]]);
        // Two bytes of weight hold one more than two bytes do: nobody uses that one.
        (id, u16::from_le_bytes([m[4], m[5]]).saturating_add(1))
    };
    Ok(all.iter().map(member).collect())
}
