use proptest::prelude::*;

use super::super::messages;
use super::super::tests::raw;
use super::*;

const NESTED: u16 = 0x8000;

fn kind(number: u16) -> u16 {
    NFTABLES << 8 | number
}

/// What `f` says of a message.
fn of<T>(datagram: &[u8], f: fn(&Message<'_>) -> T) -> T {
    let (messages, rest) = messages(datagram);
    assert!(!rest);
    f(&messages[0])
}

/// Attributes by themselves.
fn attrs(list: &[(u16, &[u8])]) -> Vec<u8> {
    raw(0, &[], list).split_off(16)
}

fn expr(name: &str, data: &[u8]) -> Vec<u8> {
    let name = [name.as_bytes(), &[0]].concat();
    attrs(&[(NFTA_EXPR_NAME, &name), (NESTED | NFTA_EXPR_DATA, data)])
}

fn list(expressions: &[Vec<u8>]) -> Vec<u8> {
    let elements: Vec<(u16, &[u8])> =
        expressions.iter().map(|e| (NESTED | 1, e.as_slice())).collect();
    attrs(&elements)
}

fn rule_of(number: u16, family: u8, expressions: &[Vec<u8>]) -> Vec<u8> {
    let list = list(expressions);
    let attrs: [(u16, &[u8]); 3] =
        [(NFTA_TABLE, b"t\0"), (NFTA_RULE_CHAIN, b"c\0"), (NESTED | NFTA_RULE_EXPRESSIONS, &list)];
    raw(kind(number), &[family, 0, 0, 0], &attrs)
}

/// What of a rule with these expressions asks, beside one that does not.
fn what(expressions: &[Vec<u8>]) -> Option<String> {
    let mut all = vec![expr("payload", &[]), expr("cmp", &[])];
    all.extend_from_slice(expressions);
    let name = of(&rule_of(nft::NEWRULE, nfproto::IPV4, &all), asks)?.name;
    let name = name.strip_prefix("nftables rule with ").unwrap();
    Some(name.strip_suffix(" in ip t/c").unwrap().to_owned())
}

fn xt(name: &str) -> Vec<u8> {
    attrs(&[(NFTA_XT_NAME, &[name.as_bytes(), &[0]].concat())])
}

#[test]
fn expressions_that_ask() {
    for plain in EXPRESSIONS.split_ascii_whitespace() {
        assert_eq!(what(&[expr(plain, &[])]), None);
    }
    for name in ["ct", "nat", "masq", "redir", "connlimit", "synproxy", "flow_offload", "tproxy"] {
        assert_eq!(what(&[expr(name, &[])]).as_deref(), Some(name));
        assert_eq!(what(&[expr("counter", &[]), expr(name, &[])]).as_deref(), Some(name));
    }
    assert_eq!(what(&[expr("of tomorrow", &[])]).as_deref(), Some("of tomorrow"));
    assert_eq!(what(&[]), None);
}

#[test]
fn parts_of_xtables_that_ask() {
    for (name, asks) in [("comment", false), ("tcp", false), ("conntrack", true), ("socket", true)]
    {
        let expected = asks.then(|| format!("match {name}"));
        assert_eq!(what(&[expr("match", &xt(name))]), expected);
    }
    for (name, asks) in [("LOG", false), ("CT", true), ("DNAT", true), ("tomorrow", true)] {
        let expected = asks.then(|| format!("target {name}"));
        assert_eq!(what(&[expr("target", &xt(name))]), expected);
    }
}

#[test]
fn elements_that_rules_make() {
    let dynset = |attr: u16, value: &[u8]| expr("dynset", &attrs(&[(NESTED | attr, value)]));
    let (count, plain) = (expr("connlimit", &[]), expr("counter", &[]));
    assert_eq!(what(&[dynset(NFTA_DYNSET_EXPR, &plain)]), None);
    assert_eq!(what(&[dynset(NFTA_DYNSET_EXPR, &count)]).as_deref(), Some("connlimit"));
    let both = list(&[plain, count]);
    assert_eq!(what(&[dynset(NFTA_DYNSET_EXPRESSIONS, &both)]).as_deref(), Some("connlimit"));
}

#[test]
fn whose_packets_are_tracked() {
    let family = |number| {
        let hook = of(&rule_of(nft::NEWRULE, number, &[expr("ct", &[])]), asks)?;
        assert!(!hook.on_device());
        Some(hook.family)
    };
    assert_eq!(family(nfproto::IPV4), Some(Some(Family::V4)));
    assert_eq!(family(nfproto::IPV6), Some(Some(Family::V6)));
    assert_eq!((family(nfproto::INET), family(7)), (Some(None), Some(None)), "inet and bridge");
    assert_eq!(family(nfproto::ARP), None);
}

fn set_of(attr: u16, value: &[u8]) -> Vec<u8> {
    let attrs: [(u16, &[u8]); 3] =
        [(NFTA_TABLE, b"t\0"), (NFTA_NAME, b"s\0"), (NESTED | attr, value)];
    raw(kind(nft::NEWSET), &[nfproto::INET, 0, 0, 0], &attrs)
}

fn object_of(number: u16, of_kind: u32) -> Vec<u8> {
    let of_kind = of_kind.to_be_bytes();
    let attrs: [(u16, &[u8]); 3] =
        [(NFTA_TABLE, b"t\0"), (NFTA_NAME, b"o\0"), (NFTA_OBJ_TYPE, &of_kind)];
    raw(kind(number), &[nfproto::IPV4, 0, 0, 0], &attrs)
}

#[test]
fn sets_and_objects_that_ask() {
    let count = expr("connlimit", &[]);
    let name = |datagram: &[u8]| of(datagram, asks).map(|h| h.name);
    let found = Some("nftables set inet t/s with connlimit".to_owned());
    assert_eq!(name(&set_of(NFTA_SET_EXPR, &count)), found);
    let both = list(&[expr("counter", &[]), count]);
    assert_eq!(name(&set_of(NFTA_SET_EXPRESSIONS, &both)), found);
    assert_eq!(name(&set_of(NFTA_SET_EXPR, &expr("counter", &[]))), None);
    assert_eq!(name(&set_of(9, &[])), None, "no expression");
    for plain in OBJECTS {
        assert_eq!(name(&object_of(nft::NEWOBJ, plain)), None);
    }
    let helper = Some("nftables ct helper ip t/o".to_owned());
    assert_eq!(
        (name(&object_of(nft::NEWOBJ, 3)), name(&object_of(nft::DELOBJ, 3))),
        (helper.clone(), helper)
    );
    for asking in [5, 7, 9, 10, 99] {
        assert!(name(&object_of(nft::NEWOBJ, asking)).is_some(), "{asking}");
    }
}

#[test]
fn what_cannot_be_read_may_ask() {
    let head = [nfproto::IPV4, 0, 0, 0];
    let nested = NESTED | NFTA_RULE_EXPRESSIONS;
    // An expression without a name, a list cut short, a match without a name, nothing.
    let nameless = list(&[attrs(&[(NFTA_EXPR_DATA, &[])])]);
    let short = {
        let mut list = list(&[expr("payload", &[])]);
        list.truncate(list.len() - 3);
        list
    };
    let matches = list(&[expr("match", &[])]);
    for list in [&nameless, &short, &matches] {
        let hook = of(&raw(kind(nft::NEWRULE), &head, &[(nested, list)]), asks).unwrap();
        assert!(hook.name.contains("could not be read") && hook.family.is_none());
    }
    for datagram in [
        raw(kind(nft::NEWRULE), &head, &[]),
        raw(kind(nft::NEWRULE), &head[..2], &[]),
        raw(kind(nft::NEWSET), &head[..2], &[]),
        raw(kind(nft::NEWOBJ), &head, &[]),
    ] {
        assert!(of(&datagram, asks).is_some());
    }
    assert_eq!(of(&raw(kind(nft::NEWGEN), &head, &[]), asks), None, "another message");
    assert_eq!(of(&raw(nft::NEWRULE, &head, &[]), asks), None, "not nftables'");
}

/// Which notices mean that chains are others, that tracking may begin, that it may begin or
/// end, and that there may be less of anything.
#[test]
fn notices_that_count() {
    let all = |datagram: &[u8]| {
        [changes_chains, may_begin, may_change, removes].map(|counts| of(datagram, counts))
    };
    let bare = |number| raw(kind(number), &[2, 0, 0, 0], &[]);
    for number in [0, 2, 3, 5, 22] {
        assert_eq!(all(&bare(number)), [true; 4], "{number}");
    }
    for number in [nft::NEWSETELEM, nft::DELSETELEM, nft::NEWGEN, nft::TRACE] {
        assert_eq!(all(&bare(number)), [false; 4], "{number}");
    }
    let rule = |number, name| rule_of(number, nfproto::INET, &[expr(name, &[])]);
    assert_eq!(all(&rule(nft::NEWRULE, "counter")), [false; 4]);
    assert_eq!(all(&rule(nft::NEWRULE, "ct")), [false, true, true, false]);
    assert_eq!(all(&rule(nft::DELRULE, "counter")), [false, false, false, true]);
    assert_eq!(all(&rule(nft::DELRULE, "ct")), [false, false, true, true]);
    // Newer kernels may leave out what is deleted.
    assert_eq!(all(&bare(nft::DELRULE)), [false, false, true, true]);
    assert_eq!(all(&bare(nft::DELSET)), [false, false, true, true]);
    assert_eq!(all(&set_of(NFTA_SET_EXPR, &expr("connlimit", &[]))), [false, true, true, false]);
    assert_eq!(all(&set_of(9, &[])), [false; 4]);
    assert_eq!(all(&object_of(nft::NEWOBJ, 3)), [false, true, true, false]);
    assert_eq!(all(&object_of(nft::DELOBJ, 1)), [false, false, false, true]);
    // Not nftables' own: an overrun of the socket, say.
    assert_eq!(all(&raw(super::super::NLMSG_OVERRUN, &[], &[])), [true; 4]);
}

proptest! {
    #[test]
    fn random_messages_never_panic(
        number in prop::sample::select(vec![nft::NEWRULE, nft::DELRULE, nft::NEWSET, nft::NEWOBJ]),
        head in prop::collection::vec(any::<u8>(), 0..8),
        nested in prop::collection::vec(
            (0_u16..20, prop::collection::vec(any::<u8>(), 0..24)), 0..8),
        cut in 0_usize..40,
    ) {
        let inner: Vec<(u16, &[u8])> = nested.iter().map(|(k, v)| (*k, v.as_slice())).collect();
        let deeper = attrs(&[(1, &attrs(&inner))]);
        let mut all = inner.clone();
        all.push((NESTED | NFTA_RULE_EXPRESSIONS, &deeper));
        let mut datagram = raw(kind(number), &head, &all);
        datagram.truncate(datagram.len().saturating_sub(cut));
        for m in messages(&datagram).0 {
            let _ = (asks(&m), changes_chains(&m), may_begin(&m), may_change(&m), removes(&m));
        }
    }
}
