//! The hosts at the far ends: they answer ARP and neighbour solicitations, nothing else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nsplane_tests::frame::sum;

use super::plan::{Mac, Plan};

const ARP_LEN: usize = 42;

/// The answer to a frame that came out at a wire's far end, if a host has one.
pub(super) fn answer(plan: &Plan, wire: usize, frame: &[u8]) -> Option<Vec<u8>> {
    let mac_of =
        |addr: IpAddr| plan.hosts.iter().find(|h| h.wire == wire && h.addr == addr).map(|h| h.mac);
    match frame.get(12..14)? {
        [0x08, 0x06] => arp(frame, mac_of),
        [0x86, 0xdd] => solicitation(frame, mac_of),
        _ => None,
    }
}

fn arp(frame: &[u8], mac_of: impl Fn(IpAddr) -> Option<Mac>) -> Option<Vec<u8>> {
    let asks = frame.len() >= ARP_LEN && frame[20..22] == [0, 1];
    let target: [u8; 4] = frame.get(38..42)?.try_into().ok()?;
    let mac = mac_of(Ipv4Addr::from(target).into()).filter(|_| asks)?;
    let mut out = Vec::with_capacity(ARP_LEN);
    out.extend(&frame[6..12]);
    out.extend(mac);
    out.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 2]);
    out.extend(mac);
    out.extend(target);
    out.extend(&frame[22..32]);
    Some(out)
}

fn solicitation(frame: &[u8], mac_of: impl Fn(IpAddr) -> Option<Mac>) -> Option<Vec<u8>> {
    let asks = frame.get(20) == Some(&58) && frame.get(54) == Some(&135);
    let target: [u8; 16] = frame.get(62..78)?.try_into().ok()?;
    let mac = mac_of(Ipv6Addr::from(target).into()).filter(|_| asks)?;
    let asker = &frame[22..38];
    let mut message = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
    message.extend(target);
    message.extend([2, 1]);
    message.extend(mac);
    let length = message.len() as u16;
    let pseudo = sum(&target, sum(asker, sum(&[0, 58], sum(&length.to_be_bytes(), 0))));
    let checksum = !sum(&message, pseudo);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut out = Vec::with_capacity(86);
    out.extend(&frame[6..12]);
    out.extend(mac);
    out.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    out.extend(length.to_be_bytes());
    out.extend([58, 255]);
    out.extend(target);
    out.extend(asker);
    out.extend(message);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::super::plan::Host;
    use super::*;

    #[test]
    fn a_host_answers_for_its_own_address_on_its_own_wire() {
        let host = Host { wire: 1, addr: [10, 0, 0, 2].into(), mac: [2; 6] };
        let plan = Plan { hosts: vec![host], ..Plan::default() };
        let mut question = vec![0xff; 6];
        question.extend([4; 6]);
        question.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
        question.extend([4; 6]);
        question.extend([10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2]);
        assert_eq!(answer(&plan, 0, &question), None);
        let reply = answer(&plan, 1, &question).unwrap();
        assert_eq!(reply[..12], [4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2]);
        assert_eq!(reply[28..32], [10, 0, 0, 2]);
        assert_eq!(reply[38..42], [10, 0, 0, 1]);
        question[41] = 3;
        assert_eq!(answer(&plan, 1, &question), None);
    }
}
