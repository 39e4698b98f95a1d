use super::*;

fn p(addr: &str, len: u8) -> Prefix {
    Prefix { addr: addr.parse().unwrap(), len }
}

#[test]
fn networks_of_any_length() {
    let addr: IpAddr = "10.1.2.3".parse().unwrap();
    assert_eq!(network(addr, 0), p("0.0.0.0", 0));
    assert_eq!(network(addr, 16), p("10.1.0.0", 16));
    assert_eq!(network(addr, 32), p("10.1.2.3", 32));
    let addr: IpAddr = "2001:db8:1::7".parse().unwrap();
    assert_eq!(network(addr, 0), p("::", 0));
    assert_eq!(network(addr, 33), p("2001:db8::", 33));
    assert_eq!(network(addr, 128), p("2001:db8:1::7", 128));
}

#[test]
fn a_neighbour_is_made_up_in_the_network() {
    let other = |addr, len| beside(p(addr, len)).map(|a| a.to_string());
    assert_eq!(other("10.0.0.1", 24).as_deref(), Some("10.0.0.2"));
    assert_eq!(other("10.0.0.9", 24).as_deref(), Some("10.0.0.1"));
    assert_eq!(other("10.0.0.5", 31).as_deref(), Some("10.0.0.4"));
    assert_eq!(other("10.0.0.5", 32), None);
    assert_eq!(other("fd00::1", 64).as_deref(), Some("fd00::2"));
}

/// The order of the program's questions, and each of them.
#[test]
fn the_program_asks_one_thing_after_the_other() {
    let ns = NsId { index: 1, generation: 1 };
    let mut frame = vec![0; 34];
    frame[..6].copy_from_slice(&[2; 6]);
    frame[6..12].copy_from_slice(&[4; 6]);
    (frame[12], frame[14], frame[17], frame[22], frame[23]) = (8, 0x45, 20, 64, 17);
    frame[26..30].copy_from_slice(&[10, 0, 0, 2]);
    frame[30..34].copy_from_slice(&[10, 9, 1, 1]);
    let mut maps = plan::State::default();
    let mut conf = PortConf { mac: [2; 6], max_frame: 1600, ..PortConf::default() };
    let asked = |conf: &PortConf, maps: &plan::State| program(conf, maps, ns, &frame);
    assert_eq!(asked(&conf, &maps), Err(PassReason::NotRouted));
    conf.flags = PORT_ROUTE_V6;
    assert_eq!(asked(&conf, &maps), Err(PassReason::NotRouted));
    conf.flags = PORT_ROUTE_V4;
    assert_eq!(asked(&conf, &maps), Ok(()));
    conf.max_frame = 33;
    assert_eq!(asked(&conf, &maps), Err(PassReason::TooLong));
    conf.max_frame = 34;
    conf.mac = [6; 6];
    assert_eq!(asked(&conf, &maps), Err(PassReason::NotForUs));
    conf.mac = [2; 6];
    maps.routes.insert((ns, p("10.9.0.0", 16)), Owner::Kernel);
    assert_eq!(asked(&conf, &maps), Ok(()), "a port that does not ask");
    conf.flags |= PORT_KERNEL_ROUTES_V4;
    assert_eq!(asked(&conf, &maps), Err(PassReason::KernelRoute));
    maps.routes.insert((ns, p("10.9.1.0", 24)), Owner::Ours);
    assert_eq!(asked(&conf, &maps), Ok(()), "ours inside of the kernel's");
    let other = NsId { index: 2, generation: 1 };
    maps.locals.insert((other, "10.9.1.1".parse().unwrap()));
    assert_eq!(asked(&conf, &maps), Ok(()), "another namespace's address");
    for addr in ["10.9.1.1", "10.0.0.2"] {
        let mut maps = maps.clone();
        maps.locals.insert((ns, addr.parse().unwrap()));
        assert_eq!(asked(&conf, &maps), Err(PassReason::Local), "{addr}");
    }
}
