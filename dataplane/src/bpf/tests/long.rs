//! Packets longer than a page, into the stack.

use nsplane_abi::long::LONGEST;

use super::*;

/// A UDP packet for the router itself, without a UDP checksum, in a frame of `len` bytes.
pub(super) fn packet(len: usize) -> Vec<u8> {
    let mut packet = V4.to_vec();
    packet.extend((42..len).map(|i| (i * 7 + (i >> 8)) as u8));
    packet[30..34].copy_from_slice(&[10, 9, 0, 1]);
    packet[16..18].copy_from_slice(&(len as u16 - 14).to_be_bytes());
    packet[38..40].copy_from_slice(&(len as u16 - 34).to_be_bytes());
    let header = !sum(&packet[14..34], 0);
    packet[24..26].copy_from_slice(&header.to_be_bytes());
    packet
}

#[test]
fn packets_of_every_length_reach_the_stack_whole() {
    if !privileged() {
        return;
    }
    let (router, _host) = router_and_host();
    let mut bpf = load();
    let mut injector = bpf.take_injector().expect("one");
    let loader = bpf.loader();
    let _attached = router.run(move || loader.attach(&spec(), AttachMode::Native)).expect("attach");
    bpf.set_port(PORT, &conf(PORT_ROUTE_V4)).expect("a port");
    counted(&mut bpf);
    let listener = router.run(|| UdpSocket::bind("10.9.0.1:8192")).expect("a socket");
    listener.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    router.run(move || {
        let lens = [43, 2000, MAX_PACKET, MAX_PACKET + 1, 4096, 8193, 9014, LONGEST - 1, LONGEST];
        for len in lens.into_iter().chain([60, 9014]) {
            let packet = packet(len);
            injector.inject(IfIndex(10), XdpMode::Native, &packet).expect("injecting");
            let mut got = vec![0; LONGEST];
            let n = listener.recv(&mut got).expect("delivered by the stack");
            assert_eq!(got[..n], packet[42..], "{len}");
        }
        let missing = injector.inject(IfIndex(99), XdpMode::Native, &packet(9014));
        missing.expect_err("there is no such device");
        injector.inject(IfIndex(10), XdpMode::Native, &[0; LONGEST + 1]).expect_err("too long");
    });
    // It was not a new packet to the program.
    assert!(counted_routable(&mut bpf).is_empty());
}

#[test]
fn our_classifiers_are_known_by_number() {
    if !privileged() {
        return;
    }
    let injector = load().take_injector().expect("there is one");
    let ids = injector.classifiers().expect("their numbers");
    assert_eq!(ids.len(), 2);
    for id in ids {
        assert_eq!(crate::sys::programs::is_classifier(id).expect("the kernel tells"), Some(true));
    }
}
