//! Messages of a kernel (Linux 6.18), cut short, changed, and with attributes of kernels
//! to come: nothing panics, and nothing that may matter is passed over in silence.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

/// One a line, as hexadecimal digits; `#` says what follows.
const REAL: &str = include_str!("real.hex");

const ROUTE: u16 = 24;
const RULE: u16 = 32;
const NEXTHOP: u16 = 104;

fn real() -> Vec<Vec<u8>> {
    let lines = REAL.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    lines.map(|line| line.as_bytes().chunks(2).map(byte).collect()).collect()
}

fn kind(message: &[u8]) -> u16 {
    u16::from_ne_bytes([message[4], message[5]])
}

/// Bytes in front of a message's attributes.
fn head(message: &[u8]) -> usize {
    16 + match kind(message) {
        16 => 16,
        20 | NEXTHOP => 8,
        36 => 20,
        80 => 4,
        _ => 12,
    }
}

/// Where attributes begin, and where the last ends.
fn bounds(message: &[u8]) -> Vec<usize> {
    let mut at = head(message);
    let mut all = vec![at];
    while at + 4 <= message.len() {
        let len = usize::from(u16::from_ne_bytes([message[at], message[at + 1]]));
        at += len.next_multiple_of(4);
        all.push(at.min(message.len()));
    }
    all
}

fn set_len(message: &mut [u8]) {
    let len = u32::try_from(message.len()).unwrap();
    message[..4].copy_from_slice(&len.to_ne_bytes());
}

fn read(datagram: &[u8]) -> (Vec<Event>, Tally) {
    let (mut events, mut tally) = (Vec::new(), Tally::default());
    decode(datagram, &mut events, &mut tally);
    (events, tally)
}

#[test]
fn all_of_them_are_understood() {
    let all = real();
    for wanted in [16, 20, ROUTE, 28, RULE, 36, 80, NEXTHOP] {
        assert!(all.iter().any(|m| kind(m) == wanted), "none of kind {wanted}");
    }
    for message in all {
        let (events, tally) = read(&message);
        assert_eq!((tally.malformed, tally.refused), (0, 0), "{message:02x?}");
        assert!(!events.contains(&Event::Overrun));
        // Neighbours of groups and what is no link's own are of no use.
        assert!(events.len() == 1 || tally.ignored == 1, "{message:02x?}");
    }
}

/// A message that ends too early by its own word.
#[test]
fn cut_at_every_byte() {
    for message in real() {
        let bounds = bounds(&message);
        for len in 16..message.len() {
            let mut cut = message[..len].to_vec();
            set_len(&mut cut);
            let (events, tally) = read(&cut);
            // Between two attributes it is a whole message; padding may be missing.
            let whole = bounds.iter().any(|b| len <= *b && len + 3 >= *b && len >= head(&message));
            let told = events.contains(&Event::Overrun) && tally.malformed == 1;
            let ignored = tally.ignored == 1 && events.is_empty();
            assert!(whole || told || ignored, "{len} of {message:02x?}: {events:?}");
        }
    }
}

/// A datagram that ends before its message does.
#[test]
fn a_datagram_cut_at_every_byte() {
    for message in real() {
        for len in 1..message.len() {
            let (events, tally) = read(&message[..len]);
            assert_eq!((events, tally.malformed), (vec![Event::Overrun], 1));
        }
    }
}

/// It is known that there is something that we do not know.
fn is_strange(event: &Event) -> bool {
    match event {
        Event::Route(route, _) => route.unknown,
        Event::Rule(rule) => rule.unknown.is_some(),
        Event::NextHop(object) => object.kind == NextHopKind::Other,
        _ => false,
    }
}

fn any_real() -> impl Strategy<Value = Vec<u8>> {
    select(real())
}

proptest! {
    /// An attribute of a kernel to come: where it may be about the way, it is the
    /// kernel's to follow; elsewhere it changes nothing.
    #[test]
    fn a_new_attribute(
        message in any_real(),
        place: Index,
        new in 200_u16..4000,
        value in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let (before, tally) = read(&message);
        prop_assume!(tally == Tally::default());
        let mut attribute = u16::try_from(value.len() + 4).unwrap().to_ne_bytes().to_vec();
        attribute.extend(new.to_ne_bytes());
        attribute.extend(value);
        attribute.resize(attribute.len().next_multiple_of(4), 0);
        let mut message = message;
        message.resize(message.len().next_multiple_of(4), 0);
        let bounds = bounds(&message);
        let at = bounds[place.index(bounds.len())];
        message.splice(at..at, attribute);
        set_len(&mut message);
        let (events, tally) = read(&message);
        prop_assert_eq!((events.len(), tally), (1, Tally::default()));
        match kind(&message) {
            ROUTE | RULE | NEXTHOP => prop_assert!(is_strange(&events[0]), "{:?}", events),
            // Told apart by all of its bytes.
            36 => {}
            _ => prop_assert_eq!(&events, &before),
        }
    }

    #[test]
    fn changed_bytes_never_panic(
        message in any_real(),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..6),
        cut: Index,
    ) {
        let mut message = message;
        for (at, byte) in changes {
            let at = at.index(message.len());
            message[at] = byte;
        }
        read(&message);
        let cut = cut.index(message.len());
        message.truncate(cut);
        read(&message);
    }
}

/// The same inside of one of several next hops.
#[test]
fn a_new_attribute_of_a_next_hop() {
    let (gateway, new) = ([8, 0, 5, 0, 10, 0, 0, 9], [8, 0, 200, 0, 1, 2, 3, 4]);
    let hop = |attrs: &[&[u8]]| {
        let attrs = attrs.concat();
        let len = u16::try_from(8 + attrs.len()).unwrap().to_ne_bytes();
        [&len[..], &[0, 0], &3_u32.to_ne_bytes(), &attrs].concat()
    };
    let mut head = [0; 12];
    (head[0], head[4], head[7]) = (2, 254, 1);
    for (hops, unknown) in [
        ([hop(&[&gateway]), hop(&[&gateway])], false),
        ([hop(&[&gateway]), hop(&[&gateway, &new])], true),
    ] {
        let Event::Route(route, _) = one(&raw(ROUTE, &head, &[(9, &hops.concat())])) else {
            panic!()
        };
        assert_eq!((route.hops.len(), route.unknown), (2, unknown));
    }
}
