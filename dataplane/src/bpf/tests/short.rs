//! What a packet takes of the kernel's memory that was given to it.

use std::os::fd::AsRawFd;

use super::*;

/// `SO_MEMINFO` and `SK_MEMINFO_RMEM_ALLOC`: bytes of what a socket's reader has to read.
fn taken(socket: &UdpSocket) -> u32 {
    let mut info = [0_u32; 16];
    let mut len = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the buffer lives through the call and has the length given.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    assert_eq!(got, 0);
    info[0]
}

#[test]
fn a_short_packet_takes_little_memory_where_the_program_is_native() {
    if !privileged() {
        return;
    }
    let (router, _host) = router_and_host();
    let mut bpf = load();
    let mut injector = bpf.take_injector().expect("one");
    let listener = router.run(|| UdpSocket::bind("10.9.0.1:8192")).expect("a socket");
    listener.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    router.run(move || {
        let mut takes = |mode, len: usize| {
            let packet = long::packet(len);
            injector.inject(IfIndex(10), mode, &packet).expect("injecting");
            let mut got = [0; 4096];
            listener.peek(&mut got).expect("delivered by the stack");
            let taken = taken(&listener);
            let n = listener.recv(&mut got).expect("delivered by the stack");
            assert_eq!(got[..n], packet[42..], "{len}");
            taken
        };
        for len in [43, 60] {
            let short = takes(XdpMode::Native, len);
            assert!(short <= 1024, "{len}: {short}");
        }
        let usual = takes(XdpMode::Native, 1514);
        assert!(usual <= 2560, "{usual}");
        for (mode, len) in [(XdpMode::Generic, 60), (XdpMode::Native, MAX_PACKET)] {
            let page = takes(mode, len);
            assert!(page > 3072, "{mode:?} {len}: {page}");
        }
    });
}
