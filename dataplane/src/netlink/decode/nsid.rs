//! Numbers by which namespaces know each other: `struct rtgenmsg` and `NETNSA_*`
//! (include/uapi/linux/net_namespace.h).

use super::attrs::split;
use super::{Message, rtm};

const NETNSA_NSID: u16 = 1;

/// The number that an answer to `RTM_GETNSID` says; -1: none.
pub(in super::super) fn nsid(m: &Message<'_>) -> Option<i32> {
    if m.kind != rtm::NSID {
        return None;
    }
    let (_, rest) = split::<4>(m.payload).ok()?;
    let mut attrs = rest.attrs().map_while(Result::ok);
    attrs.find(|(kind, _)| *kind == NETNSA_NSID)?.1.i32().ok()
}

#[cfg(test)]
mod tests {
    use super::super::messages;
    use super::super::tests::raw;
    use super::*;

    fn read(datagram: &[u8]) -> Option<i32> {
        nsid(&messages(datagram).0[0])
    }

    #[test]
    fn the_number_or_that_there_is_none() {
        assert_eq!(read(&raw(88, &[0; 4], &[(1, &7_i32.to_ne_bytes())])), Some(7));
        assert_eq!(read(&raw(88, &[0; 4], &[(1, &(-1_i32).to_ne_bytes())])), Some(-1));
        assert_eq!(read(&raw(88, &[0; 4], &[])), None);
        assert_eq!(read(&raw(88, &[0; 2], &[])), None);
        assert_eq!(read(&raw(16, &[0; 4], &[(1, &7_i32.to_ne_bytes())])), None);
    }
}
