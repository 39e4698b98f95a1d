//! What of nftables makes the kernel track connections: rules, sets and objects.
//!
//! Tracking is of a namespace and a family, not of a chain: who asks for it
//! (`nf_ct_netns_get`) has the kernel track all packets that arrive, the forwarded ones too,
//! and put fragments together before that. nftables' expressions ask as soon as they are
//! there, also in a chain that nothing leads to and in a table that sleeps, and until they
//! are deleted: `ct`, `connlimit`, `synproxy`, `flow_offload`, those of nat, and what
//! iptables-nft takes from xtables. `tproxy` and the match `socket` ask for fragments to be
//! put together only, which is as bad. So do objects of these kinds, and sets whose
//! elements get such an expression. An empty chain of type nat does not ask
//! (net/netfilter/nft_chain_nat.c); nor does an element with an expression of its own, for
//! that is a copy (`nft_connlimit_clone`).
//!
//! The lists below are of what does *not* ask. What is not there is taken for something
//! that does.

use super::super::event::Family;
use super::super::hook::Hook;
use super::attrs::{Value, split};
use super::hook::{NFTABLES, nfproto};
use super::{Message, Skip};

/// `NFT_MSG_*` of include/uapi/linux/netfilter/nf_tables.h.
mod nft {
    pub(super) const NEWRULE: u16 = 6;
    pub(super) const DELRULE: u16 = 8;
    pub(super) const NEWSET: u16 = 9;
    pub(super) const DELSET: u16 = 11;
    pub(super) const NEWSETELEM: u16 = 12;
    pub(super) const DELSETELEM: u16 = 14;
    pub(super) const NEWGEN: u16 = 15;
    pub(super) const TRACE: u16 = 17;
    pub(super) const NEWOBJ: u16 = 18;
    pub(super) const DELOBJ: u16 = 20;
}
/// Of rules, sets and objects.
const NFTA_TABLE: u16 = 1;
/// Of a rule.
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
/// Of sets and objects.
const NFTA_NAME: u16 = 2;
const NFTA_SET_EXPR: u16 = 17;
const NFTA_SET_EXPRESSIONS: u16 = 18;
const NFTA_OBJ_TYPE: u16 = 3;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DYNSET_EXPR: u16 = 7;
const NFTA_DYNSET_EXPRESSIONS: u16 = 10;
/// `NFTA_MATCH_NAME`, `NFTA_TARGET_NAME`.
const NFTA_XT_NAME: u16 = 1;

/// Expressions; of `dynset`, `match` and `target` it depends.
const EXPRESSIONS: &str = "cmp payload meta immediate counter lookup bitwise limit log range \
    byteorder reject objref fib rt exthdr numgen hash quota queue socket osf xfrm tunnel inner \
    last dup fwd notrack";
/// Matches of xtables, as iptables-nft uses them.
const MATCHES: &str = "tcp udp comment icmp icmp6 multiport addrtype limit mark set ah bpf cgroup \
    cpu dccp devgroup dscp dst ecn esp eui64 frag hashlimit hbh hl ipcomp iprange ipv6header l2tp \
    length mac mh nfacct osf owner physdev pkttype policy quota rateest realm recent rpfilter rt \
    sctp srh statistic string tcpmss time tos ttl u32 udplite";
/// Targets of xtables; those in small letters are ebtables'.
const TARGETS: &str = "LOG REJECT MARK NFLOG NFQUEUE AUDIT CHECKSUM CLASSIFY DSCP ECN HL HMARK \
    IDLETIMER LED RATEEST SECMARK SET TCPMSS TCPOPTSTRIP TEE TOS TRACE TTL ULOG arpreply dnat \
    mark redirect snat";
/// `NFT_OBJECT_*`: counter, quota, limit, tunnel, secmark.
const OBJECTS: [u32; 5] = [1, 2, 4, 6, 8];

/// True: after this notice of nftables the base chains may be others.
pub(in super::super) fn changes_chains(m: &Message<'_>) -> bool {
    use nft::{DELSETELEM, NEWGEN, NEWSETELEM, TRACE};
    let silent = matches!(number(m), Some(NEWSETELEM | DELSETELEM | NEWGEN | TRACE));
    !silent && !is_added(m) && !is_removed(m)
}

/// True: after this notice there may be tracking where there was none.
pub(in super::super) fn may_begin(m: &Message<'_>) -> bool {
    changes_chains(m) || is_added(m) && asks(m).is_some()
}

/// True: after this notice there may be tracking, or none any more.
pub(in super::super) fn may_change(m: &Message<'_>) -> bool {
    // Of a set that goes the kernel does not say what was in it.
    changes_chains(m) || number(m) == Some(nft::DELSET) || asks(m).is_some()
}

/// True: after this notice there may be fewer of anything.
pub(in super::super) fn removes(m: &Message<'_>) -> bool {
    changes_chains(m) || is_removed(m)
}

fn is_added(m: &Message<'_>) -> bool {
    matches!(number(m), Some(nft::NEWRULE | nft::NEWSET | nft::NEWOBJ))
}

fn is_removed(m: &Message<'_>) -> bool {
    matches!(number(m), Some(nft::DELRULE | nft::DELSET | nft::DELOBJ))
}

/// None: it is not nftables'.
fn number(m: &Message<'_>) -> Option<u16> {
    (m.kind >> 8 == NFTABLES).then_some(m.kind & 0xff)
}

/// A rule, a set or an object that makes the kernel track connections. One that cannot be
/// read may.
pub(in super::super) fn asks(m: &Message<'_>) -> Option<Hook> {
    let read = match number(m)? {
        nft::NEWRULE | nft::DELRULE => rule,
        nft::NEWSET => set,
        nft::NEWOBJ | nft::DELOBJ => object,
        _ => return None,
    };
    read(m.payload).unwrap_or_else(|_| {
        let name = "nftables rule, set or object that could not be read".to_owned();
        Some(Hook { family: None, name, on_device: false })
    })
}

/// Whose packets are tracked, and what the table's family is called. None: nobody's.
fn family(number: u8) -> Option<(Option<Family>, &'static str)> {
    match number {
        nfproto::IPV4 => Some((Some(Family::V4), "ip")),
        nfproto::IPV6 => Some((Some(Family::V6), "ip6")),
        nfproto::INET => Some((None, "inet")),
        // There is no tracking of these.
        nfproto::ARP => None,
        // Tracking what a bridge forwards is also tracking of both families.
        _ => Some((None, "bridge")),
    }
}

fn rule(payload: &[u8]) -> Result<Option<Hook>, Skip> {
    let (head, rest) = split::<4>(payload)?;
    let Some((family, called)) = family(head[0]) else { return Ok(None) };
    let (mut table, mut chain, mut expressions) = (Value(&[]), Value(&[]), None);
    for attr in rest.attrs() {
        match attr? {
            (NFTA_TABLE, v) => table = v,
            (NFTA_RULE_CHAIN, v) => chain = v,
            (NFTA_RULE_EXPRESSIONS, v) => expressions = Some(v),
            _ => {}
        }
    }
    let Some(what) = first(expressions.ok_or(Skip::Malformed)?)? else { return Ok(None) };
    let name = format!("nftables rule with {what} in {called} {}/{}", table.text(), chain.text());
    Ok(Some(Hook { family, name, on_device: false }))
}

fn set(payload: &[u8]) -> Result<Option<Hook>, Skip> {
    let (head, rest) = split::<4>(payload)?;
    let Some((family, called)) = family(head[0]) else { return Ok(None) };
    let (mut table, mut set, mut what) = (Value(&[]), Value(&[]), None);
    for attr in rest.attrs() {
        match attr? {
            (NFTA_TABLE, v) => table = v,
            (NFTA_NAME, v) => set = v,
            (NFTA_SET_EXPR, v) => what = what.or(expression(v)?),
            (NFTA_SET_EXPRESSIONS, v) => what = what.or(first(v)?),
            _ => {}
        }
    }
    let Some(what) = what else { return Ok(None) };
    let name = format!("nftables set {called} {}/{} with {what}", table.text(), set.text());
    Ok(Some(Hook { family, name, on_device: false }))
}

fn object(payload: &[u8]) -> Result<Option<Hook>, Skip> {
    let (head, rest) = split::<4>(payload)?;
    let Some((family, called)) = family(head[0]) else { return Ok(None) };
    let (mut table, mut name, mut kind) = (Value(&[]), Value(&[]), None);
    for attr in rest.attrs() {
        match attr? {
            (NFTA_TABLE, v) => table = v,
            (NFTA_NAME, v) => name = v,
            (NFTA_OBJ_TYPE, v) => kind = Some(u32::from_be(v.u32()?)),
            _ => {}
        }
    }
    let kind = kind.ok_or(Skip::Malformed)?;
    if OBJECTS.contains(&kind) {
        return Ok(None);
    }
    let what = match kind {
        3 => "ct helper",
        5 => "ct count",
        7 => "ct timeout",
        9 => "ct expectation",
        10 => "synproxy",
        _ => "object of an unknown kind",
    };
    let name = format!("nftables {what} {called} {}/{}", table.text(), name.text());
    Ok(Some(Hook { family, name, on_device: false }))
}

/// The first of a list of expressions that asks, as its user knows it.
fn first(list: Value<'_>) -> Result<Option<String>, Skip> {
    for attr in list.attrs() {
        if let Some(what) = expression(attr?.1)? {
            return Ok(Some(what));
        }
    }
    Ok(None)
}

fn expression(nested: Value<'_>) -> Result<Option<String>, Skip> {
    let (name, data) = parts(nested)?;
    match name {
        b"match" => xtables(data, "match", MATCHES),
        b"target" => xtables(data, "target", TARGETS),
        b"dynset" => elements(data),
        name => Ok(unlisted(name, EXPRESSIONS)),
    }
}

/// An expression's name and what else there is of it.
fn parts(nested: Value<'_>) -> Result<(&[u8], Value<'_>), Skip> {
    let (mut name, mut data) = (None, Value(&[]));
    for attr in nested.attrs() {
        match attr? {
            (NFTA_EXPR_NAME, v) => name = Some(word(v)),
            (NFTA_EXPR_DATA, v) => data = v,
            _ => {}
        }
    }
    Ok((name.ok_or(Skip::Malformed)?, data))
}

/// Text without its zero byte. There may be a hundred thousand names to read.
fn word(v: Value<'_>) -> &[u8] {
    v.0.strip_suffix(&[0]).unwrap_or(v.0)
}

fn unlisted(name: &[u8], list: &str) -> Option<String> {
    let listed = list.split_ascii_whitespace().any(|plain| plain.as_bytes() == name);
    (!listed).then(|| String::from_utf8_lossy(name).into_owned())
}

fn xtables(data: Value<'_>, what: &str, plain: &str) -> Result<Option<String>, Skip> {
    for attr in data.attrs() {
        if let (NFTA_XT_NAME, v) = attr? {
            return Ok(unlisted(word(v), plain).map(|name| format!("{what} {name}")));
        }
    }
    Err(Skip::Malformed)
}

/// What a rule gives the elements that it makes, which have none themselves.
fn elements(data: Value<'_>) -> Result<Option<String>, Skip> {
    let asks = |nested| Ok(unlisted(parts(nested)?.0, EXPRESSIONS));
    for attr in data.attrs() {
        let found = match attr? {
            (NFTA_DYNSET_EXPR, v) => asks(v)?,
            (NFTA_DYNSET_EXPRESSIONS, v) => {
                let mut list = v.attrs().map(|attr| asks(attr?.1));
                list.find_map(Result::transpose).transpose()?
            }
            _ => None,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
