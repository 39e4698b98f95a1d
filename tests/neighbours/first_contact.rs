//! Packets to neighbours that nobody knows yet: those that the kernel would keep arrive,
//! in order.

use std::collections::BTreeSet;

use super::traffic::under_traffic;
use super::*;

/// Packets that are sent before anybody is resolved.
#[derive(Clone, Copy, Debug)]
struct Burst {
    neighbours: u8,
    /// To each of them.
    each: u16,
    /// Bytes of UDP's payload.
    payload: usize,
    /// The kernel keeps one of each only.
    few: bool,
    /// The kernel keeps all of them.
    whole: bool,
}

const SHORT: Burst = Burst { neighbours: 1, each: 250, payload: 18, few: false, whole: true };

/// What the kernel keeps is bounded for each neighbour by the memory that it takes
/// (`unres_qlen_bytes`, 212,992 by default).
const BURSTS: [Burst; 7] = [
    SHORT,
    Burst { neighbours: 10, each: 25, ..SHORT },
    Burst { neighbours: CONTACTS, each: 6, ..SHORT },
    Burst { neighbours: CONTACTS, each: 6, few: true, whole: false, ..SHORT },
    Burst { each: 80, payload: 1400, ..SHORT },
    // The last of too many.
    Burst { each: 400, whole: false, ..SHORT },
    Burst { each: 150, payload: 1400, whole: false, ..SHORT },
];

/// Packets by neighbour and number.
type Packets = Vec<(u8, u16)>;

/// Which of the packets arrive, as they do.
fn first_contacts(ends: &Ends, family: Family, burst: Burst) -> Packets {
    let (macs, src) = (ends.macs(), Host::A.address(family));
    let send = |dst, payload: &[u8]| {
        ends.a.send(&Udp::new(macs, src, dst, payload).bytes()).unwrap();
    };
    for number in 0..burst.each {
        for n in 0..burst.neighbours {
            let [high, low] = number.to_be_bytes();
            let mut payload = vec![b'n', b's', n, high, low];
            payload.resize(burst.payload, 0);
            send(contact(family, n), &payload);
            std::thread::sleep(PACE / 4);
        }
    }
    // When the kernel says of this one that there is no route, it has had all before it.
    let nowhere: IpAddr = match family {
        Family::V4 => "198.51.100.1".parse().unwrap(),
        Family::V6 => "2001:db8::1".parse().unwrap(),
    };
    send(nowhere, b"the last");
    assert!(ends.a.receive(SOON, |f| is_unreachable(family, f)).is_some(), "{family}: no answer");
    let mine = ends.tenant.host(Host::B).mac(Host::DEVICE).unwrap();
    ends.b.clear();
    for n in 0..burst.neighbours {
        ends.say(contact(family, n), mine);
    }
    let mut arrived = Vec::new();
    let sent = usize::from(burst.each) * usize::from(burst.neighbours);
    while arrived.len() < sent
        && let Some(frame) = ends.b.receive(Duration::from_secs(1), |f| is_ours(family, f))
    {
        let payload = &frame[payload_at(family)..];
        arrived.push((payload[2], u16::from_be_bytes([payload[3], payload[4]])));
    }
    arrived
}

/// Builds a tenant, and sends the burst through its router.
fn run(family: Family, burst: Burst, with: bool) -> Packets {
    let ends = Ends::new();
    let (router, name) = (ends.tenant.router(), family_name(family));
    if burst.few {
        let kept = format!("net/{name}/neigh/b0/unres_qlen_bytes");
        // The kernel counts what a packet takes of its memory: one is always kept.
        router.sysctl(&kept, "0").unwrap();
    }
    // Asked again and again, until all are there.
    router.sysctl(&format!("net/{name}/neigh/b0/mcast_solicit"), "100").unwrap();
    let nsplane = with.then(|| Nsplane::start(&[router], &[]).unwrap());
    let arrived = first_contacts(&ends, family, burst);
    if let Some(nsplane) = nsplane {
        let counters = nsplane.show("counters", &[]).unwrap();
        let punted = counters[0]["userspace"]["punts"]["no_neighbor"].as_u64();
        let sent = u64::from(burst.neighbours) * u64::from(burst.each);
        assert_eq!(punted, Some(sent), "{counters}");
    }
    arrived
}

/// Each neighbour's packets are in the order that they were sent in.
fn assert_ordered(arrived: &Packets, what: &str) {
    for n in 0..=u8::MAX {
        let own = arrived.iter().filter(|(to, _)| *to == n).map(|(_, number)| number);
        assert!(own.is_sorted(), "{what}: {arrived:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn loses_what_it_would_lose() {
    for family in Family::BOTH {
        for burst in BURSTS {
            let (kernel, ours) = (run(family, burst, false), run(family, burst, true));
            let what = format!("{family}, {burst:?}");
            println!("{what}: {} by the kernel, {} by nsplane", kernel.len(), ours.len());
            assert_ordered(&kernel, &what);
            assert_ordered(&ours, &what);
            let sent = usize::from(burst.each) * usize::from(burst.neighbours);
            // The kernel's own packets may take a little more memory than those that are
            // given to it: it may keep fewer of them.
            let kept: BTreeSet<_> = ours.into_iter().collect();
            let lost: Vec<_> = kernel.iter().filter(|packet| !kept.contains(packet)).collect();
            assert!(lost.is_empty(), "{what}: {lost:?}");
            assert_eq!(kernel.len() == sent, burst.whole, "{what}");
            assert_eq!(kept.len() == sent, burst.whole, "{what}");
            assert!(!burst.few || kept.len() == kernel.len(), "{what}: {kept:?}");
        }
    }
}

/// Each of them answers for itself, while the next packets to it are under way.
#[test]
#[ignore = "needs root"]
fn loses_nothing_where_it_is_answered() {
    let ends = Ends::new();
    let far = ends.tenant.host(Host::B);
    let mut contacts = Vec::new();
    for n in 0..CONTACTS {
        contacts.extend(Family::BOTH.map(|family| contact(family, n)));
    }
    let add = |addr: &IpAddr| match addr {
        IpAddr::V4(addr) => format!("addr add {addr}/24 dev eth0\n"),
        IpAddr::V6(addr) => format!("addr add {addr}/64 dev eth0 nodad\n"),
    };
    far.ip_batch(&contacts.iter().map(add).collect::<String>()).unwrap();
    let nsplane = Nsplane::start(&[ends.tenant.router()], &["--workers", "2"]).unwrap();
    let mut first = 0;
    for few in contacts.chunks(25) {
        let seen = under_traffic(&ends, few, || {
            first += few.len() as u64;
            wait_until(SOON, "all to be known", || known(&nsplane) >= first).unwrap();
        });
        assert_eq!(seen.lost(), 0, "{few:?}");
    }
    assert!(punted(&nsplane) >= contacts.len() as u64);
}
