//! scratch
use nsplane::id::{PortId, WorkerId};
use nsplane::sync::Doorbell;
use nsplane::worker::sim::scene::{self, Scene, Setup};

#[inline(never)]
fn counted(scene: &mut Scene) -> usize {
    let mut done = 0;
    while done < 256 {
        done += scene.workers[0].round(1).packets;
    }
    done
}

fn main() {
    let family = std::env::args().nth(1).unwrap_or_default();
    let bell = |_: WorkerId| Doorbell::new(Box::new(|| ()));
    let mut scene = Scene::new(scene::world(2, 1), &Setup::default(), bell);
    let _ = scene.workers[0].round(0);
    let packets: Vec<_> = (0..4).map(|port| packet(PortId(port), &family)).collect();
    let mut all = 0;
    for _ in 0..40 {
        for (port, packet) in (0..).map(PortId).zip(&packets) {
            for _ in 0..64 {
                assert!(scene.wires[port.index()][0].deliver(scene::tag(port), packet));
            }
        }
        all += counted(&mut scene);
    }
    println!("{all} packets");
}

fn packet(port: PortId, family: &str) -> Vec<u8> {
    let (from, to) = ((port.0 % 2) as u8, 1 - (port.0 % 2) as u8);
    if family == "ipv6" {
        scene::udp(port, scene::host6(from).into(), scene::host6(to).into(), b"")
    } else {
        scene::udp(port, scene::host4(from).into(), scene::host4(to).into(), &[0; 18])
    }
}
