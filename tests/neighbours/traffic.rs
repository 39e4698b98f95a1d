//! Packets that flow while something happens to the neighbours that they go to.

use super::*;

/// What was sent, and what of it arrived.
pub(super) struct Seen {
    pub(super) sent: u32,
    /// Numbers and the Ethernet addresses that they went to, as they arrived.
    pub(super) arrived: Vec<(u32, [u8; 6])>,
}

impl Seen {
    pub(super) fn lost(&self) -> usize {
        let mut numbers: Vec<_> = self.arrived.iter().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]), "one came twice");
        self.sent as usize - numbers.len()
    }
}

/// Sets the flag when it goes, also where that is a panic's doing.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The family of a frame of ours, and the number in it.
fn number(frame: &[u8]) -> Option<u32> {
    let family = if frame.get(12..14)? == [8, 0] { Family::V4 } else { Family::V6 };
    let at = payload_at(family);
    let number = frame.get(at + 2..at + 6)?;
    is_ours(family, frame).then(|| u32::from_be_bytes(number.try_into().unwrap()))
}

/// Sends to all of these, some hundred packets a second, as long as `body` runs.
pub(super) fn under_traffic(ends: &Ends, to: &[IpAddr], body: impl FnOnce()) -> Seen {
    let (macs, done) = (ends.macs(), AtomicBool::new(false));
    ends.b.clear();
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sent = 0_u32;
            while !done.load(Ordering::Relaxed) {
                for &dst in to {
                    let family = if dst.is_ipv4() { Family::V4 } else { Family::V6 };
                    let mark = [&b"ns"[..], &sent.to_be_bytes()].concat();
                    let packet = Udp::new(macs, Host::A.address(family), dst, &mark);
                    ends.a.send(&packet.bytes()).unwrap();
                    sent += 1;
                    std::thread::sleep(PACE);
                }
            }
            sent
        });
        let reader = scope.spawn(|| {
            let mut arrived = Vec::new();
            loop {
                let last = done.load(Ordering::Relaxed);
                let patience = Duration::from_millis(if last { 1000 } else { 100 });
                match ends.b.receive(patience, |f| number(f).is_some()) {
                    Some(f) => arrived.push((number(&f).unwrap(), f[..6].try_into().unwrap())),
                    None if last => return arrived,
                    None => {}
                }
            }
        });
        {
            let _done = Done(&done);
            body();
        }
        Seen { sent: sender.join().unwrap(), arrived: reader.join().unwrap() }
    })
}
