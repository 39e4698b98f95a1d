//! Ping, datagrams sent as one packet, and TCP transfers whose content is checked.

use std::io::{ErrorKind, Read, Write};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket,
};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::netns::Netns;
use crate::{command, sys};

/// A transfer that moves nothing for this long has failed.
const STALL: Duration = Duration::from_secs(10);
const CHUNK: usize = 64 * 1024;

/// What `ping` saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Requests sent.
    pub sent: u32,
    /// Replies that came back.
    pub received: u32,
}

/// Pings `to` from a namespace, `count` times, ten a second. No reply is an
/// answer, not an error.
///
/// # Errors
/// `ping` could not be run or printed no summary.
pub fn ping(from: &Netns, to: IpAddr, count: u32) -> Result<Ping> {
    let script = "ping -n -q -i 0.1 -W 2 -c \"$1\" \"$2\" || [ $? -eq 1 ]";
    let words = ["netns", "exec", from.name(), "sh", "-c", script, "ping"];
    let (count, to) = (count.to_string(), to.to_string());
    let text = command::run("ip", words.into_iter().chain([count.as_str(), to.as_str()]))?;
    parse_ping(&text).ok_or_else(|| anyhow!("ping printed no summary: {text}"))
}

fn parse_ping(text: &str) -> Option<Ping> {
    let line = text.lines().find(|line| line.contains("packets transmitted"))?;
    let number = |field: &str| field.split_whitespace().next()?.parse().ok();
    let mut fields = line.split(',');
    Some(Ping { sent: number(fields.next()?)?, received: number(fields.next()?)? })
}

/// Sends `payload` to `address` in `to` by one call, to be cut into datagrams of
/// `size` bytes (`UDP_SEGMENT`), and returns those that arrive; after one is late by a
/// second no more are waited for.
///
/// # Errors
/// A socket could not be made, or sending failed.
pub fn segmented(
    from: &Netns,
    to: &Netns,
    address: IpAddr,
    payload: &[u8],
    size: u16,
) -> Result<Vec<Vec<u8>>> {
    let receiver = to.inside(|| UdpSocket::bind((address, 0)))?.context("cannot bind")?;
    receiver.set_read_timeout(Some(Duration::from_secs(1))).context("SO_RCVTIMEO")?;
    let target = receiver.local_addr().context("no local address")?;
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let sender = from.inside(|| UdpSocket::bind((any, 0)))?.context("cannot bind")?;
    sys::set_udp_segment(&sender, size).context("cannot set UDP_SEGMENT")?;
    sender.send_to(payload, target).with_context(|| format!("sending to {target}"))?;
    let mut buffer = vec![0; CHUNK];
    let mut arrived = Vec::new();
    for _ in payload.chunks(size.into()) {
        let Ok(len) = receiver.recv(&mut buffer) else { break };
        arrived.push(buffer[..len].to_vec());
    }
    Ok(arrived)
}

/// A TCP transfer to be made.
#[derive(Clone, Copy, Debug)]
pub struct Transfer<'a> {
    /// The sender's namespace.
    pub from: &'a Netns,
    /// The receiver's namespace.
    pub to: &'a Netns,
    /// The receiver's address.
    pub address: IpAddr,
    /// Bytes to move.
    pub bytes: u64,
}

impl Transfer<'_> {
    /// Moves the bytes through a real TCP connection. The stream is a sequence of
    /// numbers that never repeats; the receiver computes each one again, so that
    /// a byte that is wrong, missing or in a wrong place is found and named.
    /// Returns the time from `connect` to the receiver's word that all is well.
    ///
    /// # Errors
    /// No connection, a stall of 10 s, or wrong content.
    pub fn run(&self) -> Result<Duration> {
        let listener = self
            .to
            .inside(|| TcpListener::bind(SocketAddr::new(self.address, 0)))?
            .with_context(|| format!("cannot listen on {}", self.address))?;
        listener.set_nonblocking(true).context("cannot make the listener non-blocking")?;
        let address = listener.local_addr().context("no local address")?;
        std::thread::scope(|scope| {
            let receiver = scope.spawn(|| receive(&listener, self.bytes));
            let sent = self.from.inside(|| send(address, self.bytes)).flatten();
            let received = receiver.join().map_err(|_| anyhow!("the receiver panicked"))?;
            // The receiver knows better what went wrong with the content.
            received.with_context(|| format!("receiving {} bytes at {address}", self.bytes))?;
            sent.with_context(|| format!("sending {} bytes to {address}", self.bytes))
        })
    }
}

fn send(to: SocketAddr, bytes: u64) -> Result<Duration> {
    let start = Instant::now();
    let mut stream = TcpStream::connect_timeout(&to, STALL).context("connect")?;
    set_timeouts(&stream)?;
    let mut chunk = vec![0; CHUNK];
    let mut at = 0;
    while at < bytes {
        let len = chunk_len(bytes - at);
        fill(&mut chunk[..len], at);
        stream.write_all(&chunk[..len]).with_context(|| format!("write at byte {at}"))?;
        at += len as u64;
    }
    stream.shutdown(Shutdown::Write).context("shutdown")?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).context("the receiver did not confirm")?;
    ensure!(u64::from_be_bytes(answer) == bytes, "the receiver confirmed another number of bytes");
    Ok(start.elapsed())
}

fn receive(listener: &TcpListener, bytes: u64) -> Result<()> {
    let mut stream = accept(listener)?;
    set_timeouts(&stream)?;
    let (mut chunk, mut wanted) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = 0;
    while at < bytes {
        let len = chunk_len(bytes - at);
        let got = &mut chunk[..len];
        stream.read_exact(got).with_context(|| format!("read at byte {at}"))?;
        fill(&mut wanted[..len], at);
        if let Some(i) = got.iter().zip(&wanted).position(|(got, wanted)| got != wanted) {
            bail!("byte {} is {:#04x}, sent was {:#04x}", at + i as u64, got[i], wanted[i]);
        }
        at += len as u64;
    }
    ensure!(stream.read(&mut [0])? == 0, "more than {bytes} bytes arrived");
    stream.write_all(&bytes.to_be_bytes()).context("confirm")
}

fn accept(listener: &TcpListener) -> Result<TcpStream> {
    let start = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).context("cannot make the socket blocking")?;
                return Ok(stream);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("accept"),
        }
        ensure!(start.elapsed() < STALL, "no connection within {STALL:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn set_timeouts(stream: &TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(STALL)).context("SO_RCVTIMEO")?;
    stream.set_write_timeout(Some(STALL)).context("SO_SNDTIMEO")
}

fn chunk_len(rest: u64) -> usize {
    usize::try_from(rest).map_or(CHUNK, |rest| rest.min(CHUNK))
}

/// Fills `chunk` with the stream's bytes from offset `at`, a multiple of 8.
fn fill(chunk: &mut [u8], at: u64) {
    debug_assert_eq!(at % 8, 0);
    for (word, number) in chunk.chunks_mut(8).zip(at / 8..) {
        word.copy_from_slice(&mix(number).to_be_bytes()[..word.len()]);
    }
}

/// Scrambles a counter so that neighbouring words differ in about half of their
/// bits: the finishing steps of the SplitMix64 generator.
fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_of_ping_is_read() {
        let text = "--- 10.0.1.2 ping statistics ---\n\
                    3 packets transmitted, 2 received, 33.3333% packet loss, time 203ms\n";
        assert_eq!(parse_ping(text), Some(Ping { sent: 3, received: 2 }));
        assert_eq!(parse_ping("ping: unknown host"), None);
    }

    #[test]
    fn the_stream_is_the_same_however_it_is_cut() {
        let mut whole = [0; 64];
        fill(&mut whole, 0);
        let mut half = [0; 32];
        fill(&mut half, 32);
        assert_eq!(whole[32..], half);
        assert_ne!(whole[..32], half);
    }

    #[test]
    fn a_transfer_is_checked_to_its_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::scope(|scope| {
            let receiver = scope.spawn(|| receive(&listener, 100_003));
            send(address, 100_003).unwrap();
            receiver.join().unwrap().unwrap();
        });
    }
}
