//! Two namespaces that send a packet to each other for ever: its hops end it, as between
//! two kernels, its sender is told, and nobody else notices.
//!
//! ```text
//!   host ── h0 [ A ] x0 ──── x0 [ B ]      A: 203.0.113.0/24 out of x0,
//!              [   ] y0 ──── y0 [   ]      B: the same out of y0
//! ```
//! Two links, since of what leaves by the device that it came in on the kernel gets samples.

use std::time::Duration;

use nsplane_tests::flow;
use nsplane_tests::frame::Udp;
use nsplane_tests::lab::SOON;
use nsplane_tests::netns::{End, Netns, veth};
use nsplane_tests::process::Nsplane;
use nsplane_tests::raw::Raw;
use nsplane_tests::wait::wait_until;

const PACKETS: u64 = 200;
/// Hops of a packet of `Udp::new`; the last is the kernel's to refuse.
const HOPS: u64 = 64;

fn forwarded(nsplane: &Nsplane) -> u64 {
    let counters = nsplane.ask("counters", None).unwrap();
    let all = counters.as_array().unwrap().iter();
    all.map(|n| n["userspace"]["forwarded"]["packets"].as_u64().unwrap()).sum()
}

#[test]
#[ignore = "needs root"]
fn hops_end_a_loop_and_the_sender_is_told() {
    let [host, a, b] = ["host", "a", "b"].map(|label| Netns::new(label).unwrap());
    veth(&End::new(&host, "eth0"), &End::new(&a, "h0")).unwrap();
    for link in ["x0", "y0"] {
        veth(&End::new(&a, link), &End::new(&b, link)).unwrap();
    }
    for router in [&a, &b] {
        router.sysctl("net/ipv4/ip_forward", "1").unwrap();
        router.sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
    }
    host.ip_batch(
        "addr add 10.0.0.2/24 dev eth0\naddr add fd00::2/64 dev eth0 nodad\n\
         route add default via 10.0.0.1\nroute add default via fd00::1\n",
    )
    .unwrap();
    a.ip_batch(
        "addr add 10.0.0.1/24 dev h0\naddr add fd00::1/64 dev h0 nodad\n\
         addr add 10.0.9.1/24 dev x0\naddr add fd00:9::1/64 dev x0 nodad\n\
         addr add 10.0.8.1/24 dev y0\naddr add fd00:8::1/64 dev y0 nodad\n\
         route add 203.0.113.0/24 via 10.0.9.2\nroute add 2001:db8::/32 via fd00:9::2\n",
    )
    .unwrap();
    b.ip_batch(
        "addr add 10.0.9.2/24 dev x0\naddr add fd00:9::2/64 dev x0 nodad\n\
         addr add 10.0.8.2/24 dev y0\naddr add fd00:8::2/64 dev y0 nodad\n\
         route add default via 10.0.8.1\nroute add default via fd00:8::1\n",
    )
    .unwrap();
    let nsplane = Nsplane::start(&[&a, &b], &[]).unwrap();
    for addr in ["10.0.9.2", "fd00:9::2"] {
        assert!(flow::ping(&host, addr.parse().unwrap(), 2).unwrap().received > 0, "{addr}");
    }
    let near = Raw::open(&host, "eth0").unwrap();
    let macs = (a.mac("h0").unwrap(), host.mac("eth0").unwrap());
    // Where the type of a message for the sender is, and the one for hops that ran out.
    for (src, dst, at, told) in
        [("10.0.0.2", "203.0.113.9", 34, 11), ("fd00::2", "2001:db8::9", 54, 3)]
    {
        let before = forwarded(&nsplane);
        near.clear();
        let frame = Udp::new(macs, src.parse().unwrap(), dst.parse().unwrap(), b"round").bytes();
        for _ in 0..PACKETS {
            near.send(&frame).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
        let exceeded =
            near.receive(SOON, |f| f.get(at) == Some(&told) && f.windows(5).any(|w| w == b"round"));
        assert!(exceeded.is_some(), "{src} was not told that the hops ran out");
        // It ends.
        let mut last = 0;
        wait_until(SOON, "the packets to end", || {
            let now = forwarded(&nsplane);
            let quiet = now == last;
            last = now;
            std::thread::sleep(Duration::from_millis(200));
            quiet
        })
        .unwrap();
        let hops = last - before;
        println!("{dst}: {PACKETS} packets, forwarded {hops} times by nsplane");
        assert!((HOPS - 2..=PACKETS * HOPS).contains(&hops), "{hops}");
        // And everything works as before.
        let other = if src.contains(':') { "fd00:9::2" } else { "10.0.9.2" };
        let seen = flow::ping(&host, other.parse().unwrap(), 3).unwrap();
        assert!(seen.received > 0, "no answer after the loop");
    }
}
