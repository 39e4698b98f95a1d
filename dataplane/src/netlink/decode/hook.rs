//! Hooks: `struct nfgenmsg`, `xfrm_userpolicy_info`, `tcmsg`.

use std::net::IpAddr;

use super::super::event::{Event, Family};
use super::super::hook::{Hook, Qdisc};
use super::attrs::{Value, split, word};
use super::{Message, Skip};
use crate::id::IfIndex;

/// `NFNL_SUBSYS_NFTABLES`, the high byte of a message's type.
pub(super) const NFTABLES: u16 = 10;
/// `NFT_MSG_*` of include/uapi/linux/netfilter/nf_tables.h.
mod nft {
    pub(super) const NEWCHAIN: u16 = 3;
    pub(super) const NEWFLOWTABLE: u16 = 22;
}
/// `NFPROTO_*` of include/uapi/linux/netfilter.h.
pub(super) mod nfproto {
    pub(in super::super) const INET: u8 = 1;
    pub(in super::super) const IPV4: u8 = 2;
    pub(in super::super) const ARP: u8 = 3;
    pub(in super::super) const NETDEV: u8 = 5;
    pub(in super::super) const IPV6: u8 = 10;
}
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_FLOWTABLE_TABLE: u16 = 1;
const NFTA_FLOWTABLE_NAME: u16 = 2;
/// `NF_INET_LOCAL_IN` and `NF_INET_LOCAL_OUT`: what is forwarded meets neither.
const LOCAL: [u32; 2] = [1, 3];
/// `NF_INET_INGRESS`: of a device, in front of everything that tells frames apart.
const INGRESS_OF_DEVICE: u32 = 5;

/// `XFRM_MSG_NEWPOLICY` and `XFRM_MSG_GETDEFAULT` of include/uapi/linux/xfrm.h.
const NEWPOLICY: u16 = 0x13;
const GETDEFAULT: u16 = 0x28;
/// `XFRM_POLICY_OUT` and `_FWD`, as iproute2 calls them. Policies of the direction
/// `in` are for what is delivered, and those above for single sockets.
const DIRECTIONS: [(u8, &str); 2] = [(1, "out"), (2, "fwd")];
/// `XFRM_USERPOLICY_BLOCK`.
const BLOCK: u8 = 1;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_FQ_FLOW_MAX_RATE: u16 = 7;
/// Such a rate is none.
const UNLIMITED: u32 = u32::MAX;

/// A message of a dump of chains. One that cannot be read may be a firewall.
pub(in super::super) fn chain(m: &Message<'_>) -> Option<Hook> {
    if m.kind != NFTABLES << 8 | nft::NEWCHAIN {
        return None;
    }
    chain_hook(m.payload).unwrap_or_else(|_| unreadable("nftables chain"))
}

/// None: no base chain, or one that forwarded packets do not meet.
fn chain_hook(payload: &[u8]) -> Result<Option<Hook>, Skip> {
    let (head, rest) = split::<4>(payload)?;
    let (family, called) = match head[0] {
        nfproto::IPV4 => (Some(Family::V4), "ip"),
        nfproto::IPV6 => (Some(Family::V6), "ip6"),
        nfproto::INET => (None, "inet"),
        nfproto::NETDEV => (None, "netdev"),
        // arp and bridge: not what is routed.
        _ => return Ok(None),
    };
    let (mut table, mut name, mut hook) = (String::new(), String::new(), None);
    for attr in rest.attrs() {
        match attr? {
            (NFTA_CHAIN_TABLE, v) => table = v.text(),
            (NFTA_CHAIN_NAME, v) => name = v.text(),
            (NFTA_CHAIN_HOOK, v) => hook = Some(hook_number(v)?),
            _ => {}
        }
    }
    let Some(number) = hook else { return Ok(None) };
    if head[0] != nfproto::NETDEV && LOCAL.contains(&number) {
        return Ok(None);
    }
    let on_device =
        head[0] == nfproto::NETDEV || head[0] == nfproto::INET && number == INGRESS_OF_DEVICE;
    let name = format!("nftables chain {called} {table}/{name}");
    Ok(Some(Hook { family, name, on_device }))
}

fn hook_number(hook: Value<'_>) -> Result<u32, Skip> {
    for attr in hook.attrs() {
        if let (NFTA_HOOK_HOOKNUM, v) = attr? {
            return v.u32().map(u32::from_be);
        }
    }
    Err(Skip::Malformed)
}

/// A message of a dump of flowtables: such a table forwards by itself what chains put
/// into it, also when they are gone.
pub(in super::super) fn flowtable(m: &Message<'_>) -> Option<Hook> {
    if m.kind != NFTABLES << 8 | nft::NEWFLOWTABLE {
        return None;
    }
    flowtable_hook(m.payload).map_or_else(|_| unreadable("nftables flowtable"), Some)
}

fn flowtable_hook(payload: &[u8]) -> Result<Hook, Skip> {
    let (head, rest) = split::<4>(payload)?;
    let family = match head[0] {
        nfproto::IPV4 => Some(Family::V4),
        nfproto::IPV6 => Some(Family::V6),
        _ => None,
    };
    let (mut table, mut name) = (String::new(), String::new());
    for attr in rest.attrs() {
        match attr? {
            (NFTA_FLOWTABLE_TABLE, v) => table = v.text(),
            (NFTA_FLOWTABLE_NAME, v) => name = v.text(),
            _ => {}
        }
    }
    // It takes its packets from its devices' ingress, whatever its family.
    Ok(Hook { family, name: format!("nftables flowtable {table}/{name}"), on_device: true })
}

/// A message of a dump of IPsec policies. One that cannot be read may hold any packet.
pub(in super::super) fn policy(m: &Message<'_>) -> Option<Hook> {
    match m.kind {
        NEWPOLICY => policy_hook(m.payload).unwrap_or_else(|_| unreadable("xfrm policy")),
        GETDEFAULT => default_hook(m.payload).unwrap_or_else(|_| unreadable("xfrm default policy")),
        _ => None,
    }
}

fn policy_hook(payload: &[u8]) -> Result<Option<Hook>, Skip> {
    let (head, _) = split::<164>(payload)?;
    let Some((_, direction)) = DIRECTIONS.iter().find(|(number, _)| *number == head[160]) else {
        return Ok(None);
    };
    let family = match i32::from(u16::from_ne_bytes([head[40], head[41]])) {
        libc::AF_INET => Some(Family::V4),
        libc::AF_INET6 => Some(Family::V6),
        _ => None,
    };
    let mut name = format!("xfrm policy dir {direction}");
    if let Some(family) = family {
        let addr = |at: usize| -> Result<IpAddr, Skip> {
            let len = usize::from(family.bits() / 8);
            Value(head.get(at..at + len).unwrap_or_default()).addr(family)
        };
        let (dst, src) = (addr(0)?, addr(16)?);
        name = format!("{name} src {src}/{} dst {dst}/{}", head[43], head[42]);
    }
    Ok(Some(Hook { family, name, on_device: false }))
}

/// `struct xfrm_userpolicy_default`: in, fwd, out.
fn default_hook(payload: &[u8]) -> Result<Option<Hook>, Skip> {
    let ([_, fwd, out], _) = split::<3>(payload)?;
    let blocked = [("fwd", fwd), ("out", out)].into_iter().find(|(_, action)| *action == BLOCK);
    Ok(blocked.map(|(direction, _)| Hook {
        family: None,
        name: format!("xfrm default policy {direction} block"),
        on_device: false,
    }))
}

#[expect(clippy::unnecessary_wraps, reason = "stands in for a hook that may be none")]
fn unreadable(what: &str) -> Option<Hook> {
    let name = format!("{what} that could not be read");
    Some(Hook { family: None, name, on_device: true })
}

/// A queueing discipline's message.
pub(super) fn qdisc(payload: &[u8], gone: bool) -> Result<Event, Skip> {
    let (head, rest) = split::<20>(payload)?;
    let mut qdisc =
        Qdisc { ifindex: IfIndex(word(&head, 4)?), parent: word(&head, 12)?, kind: String::new() };
    let mut options = None;
    for attr in rest.attrs() {
        match attr? {
            (TCA_KIND, v) => qdisc.kind = v.text(),
            (TCA_OPTIONS, v) => options = Some(v),
            _ => {}
        }
    }
    // Without that option it paces sockets only, which ours do not come from
    // (net/sched/sch_fq.c, `fq_dequeue`).
    if qdisc.kind == "fq" && max_rate(options)? != Some(UNLIMITED) {
        qdisc.kind.push_str(" maxrate");
    }
    Ok(if gone { Event::QdiscGone(qdisc) } else { Event::Qdisc(qdisc) })
}

fn max_rate(options: Option<Value<'_>>) -> Result<Option<u32>, Skip> {
    let Some(options) = options else { return Ok(None) };
    for attr in options.attrs() {
        if let (TCA_FQ_FLOW_MAX_RATE, v) = attr? {
            return v.u32().map(Some);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::messages;
    use super::super::tests::raw;
    use super::*;
    use crate::netlink::hook::{INGRESS, ROOT};

    const CHAIN: u16 = NFTABLES << 8 | nft::NEWCHAIN;

    fn read(datagram: &[u8], f: fn(&Message<'_>) -> Option<Hook>) -> Option<Hook> {
        let (messages, rest) = messages(datagram);
        assert!(!rest);
        f(&messages[0])
    }

    fn a_chain(family: u8, hook: Option<u32>) -> Option<Hook> {
        let mut nested = vec![8, 0, 1, 0];
        nested.extend(hook.unwrap_or(0).to_be_bytes());
        let mut attrs: Vec<(u16, &[u8])> = vec![(1, b"t\0"), (3, b"c\0")];
        if hook.is_some() {
            attrs.push((0x8000 | 4, &nested));
        }
        read(&raw(CHAIN, &[family, 0, 0, 0], &attrs), chain)
    }

    #[test]
    fn base_chains_in_the_way_of_forwarded_packets() {
        let name = |family, hook| a_chain(family, Some(hook)).map(|h| (h.family, h.name));
        let found = |family, called| Some((family, format!("nftables chain {called} t/c")));
        for hook in [0, 2, 4] {
            assert_eq!(name(nfproto::IPV4, hook), found(Some(Family::V4), "ip"));
            assert_eq!(name(nfproto::IPV6, hook), found(Some(Family::V6), "ip6"));
            assert_eq!(name(nfproto::INET, hook), found(None, "inet"));
        }
        assert_eq!(name(nfproto::INET, 5), found(None, "inet"), "ingress");
        let on_device = |family, hook| a_chain(family, Some(hook)).unwrap().on_device();
        assert!(on_device(nfproto::INET, 5) && on_device(nfproto::NETDEV, 0));
        assert!(!on_device(nfproto::INET, 2) && !on_device(nfproto::IPV4, 0));
        for hook in [0, 1] {
            assert_eq!(name(nfproto::NETDEV, hook), found(None, "netdev"));
        }
        for hook in LOCAL {
            assert_eq!(name(nfproto::INET, hook), None, "input and output");
        }
        assert_eq!((name(3, 0), name(7, 2)), (None, None), "arp and bridge");
        assert_eq!(a_chain(nfproto::INET, None), None, "no base chain");
    }

    #[test]
    fn flowtables_forward_by_themselves() {
        let kind = NFTABLES << 8 | nft::NEWFLOWTABLE;
        let named: [(u16, &[u8]); 2] = [(1, b"t\0"), (2, b"f\0")];
        let found = |family| read(&raw(kind, &[family, 0, 0, 0], &named), flowtable).unwrap();
        assert_eq!(found(nfproto::INET).name, "nftables flowtable t/f");
        assert_eq!(found(nfproto::IPV6).family, Some(Family::V6));
        assert!(found(nfproto::INET).on_device() && found(nfproto::IPV4).on_device());
        assert!(read(&raw(kind, &[1], &[]), flowtable).unwrap().name.contains("could not be"));
        assert_eq!(read(&raw(CHAIN, &[2, 0, 0, 0], &named), flowtable), None);
    }

    #[test]
    fn what_cannot_be_read_may_be_a_firewall() {
        let cut = read(&raw(CHAIN, &[1], &[]), chain).unwrap();
        assert!(cut.family.is_none() && cut.name.contains("could not be read"));
        let empty = read(&raw(CHAIN, &[2, 0, 0, 0], &[(0x8004, &[])]), chain).unwrap();
        assert!(empty.name.contains("could not be read"));
        assert!(read(&raw(NEWPOLICY, &[0; 20], &[]), policy).is_some());
        assert_eq!(read(&raw(CHAIN + 1, &[1], &[]), chain), None, "another message");
    }

    fn a_policy(af: u16, direction: u8) -> Option<Hook> {
        let mut info = [0; 168];
        info[..4].copy_from_slice(&[10, 1, 0, 0]);
        info[16..20].copy_from_slice(&[10, 0, 0, 0]);
        info[40..42].copy_from_slice(&af.to_ne_bytes());
        (info[42], info[43], info[160]) = (16, 8, direction);
        read(&raw(NEWPOLICY, &info, &[]), policy)
    }

    #[test]
    fn policies_in_the_way_of_forwarded_packets() {
        let v4 = a_policy(2, 2).unwrap();
        assert_eq!(v4.family, Some(Family::V4));
        assert_eq!(v4.name, "xfrm policy dir fwd src 10.0.0.0/8 dst 10.1.0.0/16");
        assert_eq!(a_policy(10, 1).unwrap().family, Some(Family::V6));
        assert_eq!(a_policy(0, 1).unwrap().name, "xfrm policy dir out");
        for other in [0, 3, 4, 5] {
            assert_eq!(a_policy(2, other), None, "delivered, or a socket's");
        }
        let default = |actions: [u8; 3]| read(&raw(GETDEFAULT, &actions, &[]), policy);
        assert_eq!(default([1, 2, 2]), None);
        assert_eq!(default([2, 1, 2]).unwrap().name, "xfrm default policy fwd block");
    }

    #[test]
    fn a_queueing_discipline() {
        let mut head = [0; 20];
        head[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        head[12..16].copy_from_slice(&ROOT.to_ne_bytes());
        let one = |kind, head: &[u8]| {
            let datagram = raw(kind, head, &[(TCA_KIND, b"tbf\0")]);
            let (mut events, mut tally) = (Vec::new(), super::super::Tally::default());
            super::super::decode(&datagram, &mut events, &mut tally);
            events.pop()
        };
        let tbf = Qdisc { ifindex: IfIndex(7), parent: ROOT, kind: "tbf".to_owned() };
        assert_eq!(one(36, &head), Some(Event::Qdisc(tbf.clone())));
        assert_eq!(one(37, &head), Some(Event::QdiscGone(tbf)));
        assert_eq!(one(36, &head[..8]), Some(Event::Overrun));
        head[12..16].copy_from_slice(&INGRESS.to_ne_bytes());
        assert!(matches!(one(36, &head), Some(Event::Qdisc(q)) if q.on_ingress()));
    }

    #[test]
    fn a_pacing_fq() {
        let kind_of = |options: &[(u16, &[u8])]| {
            let mut attrs: Vec<(u16, &[u8])> = vec![(TCA_KIND, b"fq\0")];
            attrs.extend(options);
            let datagram = raw(36, &[0; 20], &attrs);
            match qdisc(messages(&datagram).0[0].payload, false) {
                Ok(Event::Qdisc(q)) => q.kind,
                other => panic!("{other:?}"),
            }
        };
        // A buckets' number in front, as others are in the kernel's.
        let options = |rate: u32| {
            let mut nested = vec![8, 0, 8, 0, 10, 0, 0, 0, 8, 0, 7, 0];
            nested.extend(rate.to_ne_bytes());
            nested
        };
        assert_eq!(kind_of(&[(TCA_OPTIONS, &options(UNLIMITED))]), "fq");
        assert_eq!(kind_of(&[(TCA_OPTIONS, &options(125_000))]), "fq maxrate");
        assert_eq!(kind_of(&[(TCA_OPTIONS, &[])]), "fq maxrate", "it may have one");
        assert_eq!(kind_of(&[]), "fq maxrate");
    }

    proptest! {
        #[test]
        fn random_messages_never_panic(
            kind in prop::sample::select(vec![CHAIN, NEWPOLICY, GETDEFAULT, 36]),
            head in prop::collection::vec(any::<u8>(), 0..180),
            attrs in prop::collection::vec(
                (0_u16..12, prop::collection::vec(any::<u8>(), 0..24)), 0..8),
            cut in 0_usize..40,
        ) {
            let attrs: Vec<(u16, &[u8])> = attrs.iter().map(|(k, v)| (*k, v.as_slice())).collect();
            let mut datagram = raw(kind, &head, &attrs);
            datagram.truncate(datagram.len().saturating_sub(cut));
            for m in messages(&datagram).0 {
                let _ = (chain(&m), flowtable(&m), policy(&m));
                let _ = qdisc(m.payload, false);
            }
        }
    }
}
