//! `bench changes`: how soon a change of a route in the kernel is a change in what is
//! forwarded, with so many routes there; what loading them takes; what changes that may
//! concern all of them take; and what a storm of changes does.
//!
//! ```text
//!  host A ── router ── host B, which is 16 routers by their Ethernet addresses
//! ```
//!
//! A change is a route that is replaced: it leads to another of the routers. Where a packet
//! went is then in its Ethernet header, and none ever has no way.

mod kernel;
mod single;
mod storm;
mod wide;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nsplane_tests::frame::Udp;
use nsplane_tests::process::Nsplane;
use nsplane_tests::raw::Raw;
use nsplane_tests::tenant::{Host, Tenant, TenantSpec};
use nsplane_tests::wait::wait_until;

use crate::progress::say;
use kernel::{Kernel, Route};

const GATEWAYS: u8 = 16;
const MARK: &[u8] = b"which router gets it";

/// `cargo xtask bench changes`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// IPv4 routes.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(32..=10_000_000))]
    routes_v4: u32,
    /// IPv6 routes.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    routes_v6: u32,
    /// Single changes that are timed.
    #[arg(long, default_value_t = 200)]
    singles: usize,
    /// Changes a second in the storm.
    #[arg(long, default_value_t = 100_000)]
    rate: u32,
    /// Seconds that it lasts.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

impl Args {
    /// Enough to see that it works, in some seconds.
    pub(crate) fn few() -> Self {
        Self { routes_v4: 20_000, routes_v6: 2_000, singles: 20, rate: 10_000, seconds: 2 }
    }
}

/// The tenant, and ways to look at it.
struct Lab {
    tenant: Tenant,
    near: Raw,
    far: Raw,
    macs: ([u8; 6], [u8; 6]),
}

/// The router behind host B's device with that number.
fn gateway(v6: bool, n: u8) -> IpAddr {
    let n = 100 + n % GATEWAYS;
    if v6 {
        Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, u16::from(n)).into()
    } else {
        Ipv4Addr::new(10, 0, 1, n).into()
    }
}

fn gateway_mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0x77, n % GATEWAYS]
}

impl Lab {
    fn new() -> Result<Self> {
        let tenant = Tenant::new("changes", &TenantSpec::default())?;
        let router = tenant.router();
        let neighbor = |v6, n: u8| {
            let [.., a, b] = gateway_mac(n);
            let addr = gateway(v6, n);
            format!("neigh add {addr} lladdr 02:00:00:00:{a:02x}:{b:02x} nud permanent dev b0\n")
        };
        let all = (0..GATEWAYS).flat_map(|n| [neighbor(false, n), neighbor(true, n)]);
        router.ip_batch(&all.collect::<String>())?;
        let near = Raw::open(tenant.host(Host::A), Host::DEVICE)?;
        let far = Raw::open(tenant.host(Host::B), Host::DEVICE)?;
        let macs = (router.mac("a0")?, tenant.host(Host::A).mac(Host::DEVICE)?);
        Ok(Self { tenant, near, far, macs })
    }

    fn packet(&self, to: Ipv4Addr) -> Vec<u8> {
        Udp::new(self.macs, Host::A.v4().into(), to.into(), MARK).bytes()
    }

    /// An address below a route.
    fn under(route: &Route) -> Result<Ipv4Addr> {
        match route.dst {
            IpAddr::V4(a) => Ok(Ipv4Addr::from_bits(a.to_bits() + 7)),
            IpAddr::V6(_) => bail!("an IPv4 route was meant"),
        }
    }

    /// The router that a packet to an address was sent to, once one arrives.
    fn asks(&self, to: Ipv4Addr) -> Result<u8> {
        let packet = self.packet(to);
        let dst = to.octets();
        let ours = |f: &[u8]| f.len() > 34 && f[30..34] == dst;
        let mut seen = None;
        wait_until(Duration::from_secs(10), "a packet to come through", || {
            seen =
                self.near.send(&packet).ok().and_then(|()| {
                    self.far.receive(Duration::from_millis(100), ours).map(|f| f[5])
                });
            seen.is_some()
        })?;
        seen.context("nothing came")
    }
}

/// Routes of both families, spread over the routers.
fn routes(args: &Args) -> [Vec<Route>; 2] {
    let all =
        |v6, count| (0..count).map(|n| Route::nth(v6, n, gateway(v6, (n % 16) as u8))).collect();
    [all(false, args.routes_v4), all(true, args.routes_v6)]
}

/// What loading took.
struct Load {
    into_kernel: Duration,
    dump: Duration,
    megabytes: f64,
    empty_start: Duration,
    start: Duration,
    empty_kib: f64,
    kib: f64,
}

/// Runs it and prints what was measured.
///
/// # Errors
/// Something could not be set up, or what came of a change is wrong.
pub(crate) fn changes(args: &Args) -> Result<()> {
    let lab = Lab::new()?;
    let router = lab.tenant.router();
    let mut kernel = Kernel::of(router)?;
    let options = ["--workers", "1"];

    say("nsplane without the routes, to compare with");
    let (mut empty, empty_start) = start(&lab, &options)?;
    let empty_kib = own_kib(&empty)?;
    empty.stop()?;

    let all = routes(args);
    say(&format!("{} IPv4 and {} IPv6 routes into the kernel", args.routes_v4, args.routes_v6));
    let began = Instant::now();
    all.iter().try_for_each(|routes| kernel.set(routes))?;
    let into_kernel = began.elapsed();

    say("all of them told by netlink, and thrown away");
    let began = Instant::now();
    let bytes = kernel.dump(false)? + kernel.dump(true)?;
    let dump = began.elapsed();

    say("single changes, the kernel forwarding");
    let by_kernel = single::measure(&lab, &mut kernel, args.singles)?;

    say("nsplane with the routes");
    let (mut nsplane, took) = start(&lab, &options)?;
    let kib = own_kib(&nsplane)?;
    let megabytes = bytes as f64 / 1e6;
    let load = Load { into_kernel, dump, megabytes, empty_start, start: took, empty_kib, kib };

    say("single changes, nsplane forwarding");
    let by_nsplane = single::measure(&lab, &mut kernel, args.singles)?;
    say("changes that may concern all routes");
    let wide = wide::measure(&lab, &mut kernel)?;
    say(&format!("{} changes a second for {} s", args.rate, args.seconds));
    let storm = storm::run(&lab, &mut kernel, &nsplane, &all[0], args)?;
    let after = own_kib(&nsplane)?;
    nsplane.stop()?;

    println!("{}", load.lines());
    println!("{}", single::lines(&by_kernel, &by_nsplane));
    println!("{}", wide::lines(&wide));
    println!("{}", storm.lines(after));
    Ok(())
}

impl Load {
    fn lines(&self) -> String {
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        format!(
            "routes into the kernel               {:.0} ms\n\
             netlink's dump of them, thrown away  {:.0} ms, {:.0} MB\n\
             nsplane's start without, with them   {:.0} ms, {:.0} ms: {:.2} of the dump\n\
             nsplane's own memory                 {:.1} MB, {:.1} MB",
            ms(self.into_kernel),
            ms(self.dump),
            self.megabytes,
            ms(self.empty_start),
            ms(self.start),
            ms(self.start.saturating_sub(self.empty_start)) / ms(self.dump),
            self.empty_kib / 1024.0,
            self.kib / 1024.0,
        )
    }
}

/// Starts nsplane; returns it and how long until it answers.
fn start(lab: &Lab, options: &[&str]) -> Result<(Nsplane, Duration)> {
    let began = Instant::now();
    let mut nsplane = Nsplane::spawn(&[lab.tenant.router()], options)?;
    loop {
        if nsplane.ask("namespaces", None).is_ok() {
            return Ok((nsplane, began.elapsed()));
        }
        if let Some(status) = nsplane.exited() {
            bail!("nsplane ended at its start ({status}); its log:\n{}", nsplane.log());
        }
        if began.elapsed() > Duration::from_secs(120) {
            bail!("nsplane is not ready after two minutes");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Its anonymous memory.
fn own_kib(nsplane: &Nsplane) -> Result<f64> {
    Ok(crate::scale::usage::Process::of(nsplane.pid())?.own_kib)
}
