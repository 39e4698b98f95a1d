//! Which namespaces are driven: those that the selectors mean, as they come and go, by
//! whatever name, and each once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nsplane_tests::command;
use nsplane_tests::flow;
use nsplane_tests::netns::{End, Netns, veth};
use nsplane_tests::process::Nsplane;
use nsplane_tests::tenant::{Host, Tenant, TenantSpec};
use nsplane_tests::wait::{wait_for, wait_until};

const SOON: Duration = Duration::from_secs(10);

/// A selector of this process' namespaces with such a label.
fn of_label(label: &str) -> String {
    format!("nslab-{}-*-{label}", std::process::id())
}

fn start(selectors: &[&str]) -> Nsplane {
    let args: Vec<&str> = selectors.iter().flat_map(|s| ["--netns", s]).collect();
    Nsplane::start(&[], &args).unwrap()
}

/// Each namespace that is driven: its name and what it is to the kernel.
fn driven(nsplane: &Nsplane) -> Vec<(String, u64)> {
    let shown = nsplane.show("namespaces", &[]).unwrap();
    let row = |n: &serde_json::Value| {
        (n["name"].as_str().unwrap().to_owned(), n["cookie"].as_u64().unwrap())
    };
    shown.as_array().unwrap().iter().map(row).collect()
}

fn names(nsplane: &Nsplane) -> Vec<String> {
    driven(nsplane).into_iter().map(|(name, _)| name).collect()
}

#[track_caller]
fn wait_names(nsplane: &Nsplane, wanted: &[&str]) {
    let same = || {
        let mut names = names(nsplane);
        names.sort();
        names == wanted
    };
    wait_until(SOON, &format!("{wanted:?} to be driven"), same)
        .unwrap_or_else(|e| panic!("{e}: {:?}", names(nsplane)));
}

/// A file that a namespace is mounted over, as container runtimes make it.
struct Mounted {
    path: PathBuf,
    made: Vec<PathBuf>,
}

impl Mounted {
    fn new(from: &Path, path: &Path) -> Self {
        let parent = path.parent().unwrap();
        let mut made: Vec<PathBuf> =
            parent.ancestors().take_while(|p| !p.exists()).map(Path::to_owned).collect();
        made.reverse();
        for dir in &made {
            fs::create_dir(dir).unwrap();
        }
        fs::write(path, "").unwrap();
        let mounted = Self { path: path.to_owned(), made };
        mounted.mount(from);
        mounted
    }

    fn mount(&self, from: &Path) {
        let words = ["--bind".as_ref(), from.as_os_str(), self.path.as_os_str()];
        command::run("mount", words).unwrap();
    }

    fn unmount(&self) {
        command::run("umount", ["-l".as_ref(), self.path.as_os_str()]).unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = command::run("umount", ["-l".as_ref(), self.path.as_os_str()]);
        let _ = fs::remove_file(&self.path);
        for dir in self.made.iter().rev() {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// A process in a namespace of its own that has no name; its command is `command`.
struct Holder {
    child: Child,
    link: PathBuf,
}

impl Holder {
    fn new(command: &str) -> Self {
        let link = std::env::temp_dir().join(command);
        std::os::unix::fs::symlink("/bin/sleep", &link).unwrap();
        let child = Command::new("unshare").arg("-n").arg(&link).arg("120").spawn().unwrap();
        let holder = Self { child, link };
        let comm = format!("/proc/{}/comm", holder.pid());
        let runs = || fs::read_to_string(&comm).is_ok_and(|c| c.trim() == command);
        wait_until(SOON, "the process to run", runs).unwrap();
        holder
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.link);
    }
}

#[test]
#[ignore = "needs root"]
fn a_pattern_waits_for_its_namespaces_and_lets_them_go() {
    let other = Netns::new("other").unwrap();
    let pattern = of_label("wild-r");
    let nsplane = start(&[&pattern, "nslab-nobody"]);
    let selectors = || nsplane.show("selectors", &[]).unwrap();
    assert_eq!(selectors()[0]["selector"], pattern.as_str());
    assert!(selectors()[1]["note"].as_str().unwrap().contains(other.name()), "{}", selectors());
    assert!(nsplane.log().contains("nslab-nobody"), "{}", nsplane.log());
    assert!(names(&nsplane).is_empty());

    let tenant = Tenant::new("wild", &TenantSpec::default()).unwrap();
    let router = tenant.router().name().to_owned();
    wait_names(&nsplane, &[&router]);
    assert_eq!(selectors()[0]["namespaces"][0], router.as_str());
    let forwards = || {
        let seen = flow::ping(tenant.host(Host::A), Host::B.v4().into(), 1).unwrap();
        let counters = nsplane.show("counters", &["--netns", &router]).unwrap();
        seen.received == 1 && counters[0]["userspace"]["forwarded"]["packets"] != 0
    };
    wait_until(SOON, "its packets to be forwarded", forwards).unwrap();
    drop(tenant);
    wait_names(&nsplane, &[]);
}

#[test]
#[ignore = "needs root"]
fn the_same_name_made_again_is_another_namespace() {
    let first = Netns::new("again").unwrap();
    let name = first.name().to_owned();
    let nsplane = start(&[&name]);
    for _ in 0..10 {
        let before = driven(&nsplane)[0].1;
        command::run("ip", ["netns", "del", &name]).unwrap();
        command::run("ip", ["netns", "add", &name]).unwrap();
        let another = || {
            let now = driven(&nsplane);
            now.len() == 1 && now[0].1 != before
        };
        wait_until(SOON, "the new namespace", another).unwrap();
    }
}

#[test]
#[ignore = "needs root"]
fn two_names_are_one_namespace_until_both_are_gone() {
    let keeper = Netns::new("keeper").unwrap();
    let ns = Netns::new("two").unwrap();
    veth(&End::new(&ns, "d0"), &End::new(&keeper, "k0")).unwrap();
    let name = ns.name().to_owned();
    let alias = name.replace("-two", "-twin");
    let path = Path::new("/run/netns").join(&alias);
    let nsplane = start(&[&of_label("tw*")]);
    wait_names(&nsplane, &[&name]);
    let port = || nsplane.show("ports", &[]).unwrap()[0]["port"].as_str().unwrap().to_owned();
    wait_until(SOON, "the port", || !port().is_empty()).unwrap();
    let before = (port(), driven(&nsplane)[0].1);

    let second = Mounted::new(&Path::new("/run/netns").join(&name), &path);
    let third = Netns::new("twelve").unwrap();
    // It is seen with all that there is, and the other name changes nothing.
    wait_until(SOON, "the third", || names(&nsplane).len() == 2).unwrap();
    assert!(names(&nsplane).contains(&name));
    third.remove().unwrap();
    wait_names(&nsplane, &[&name]);

    ns.remove().unwrap();
    wait_names(&nsplane, &[&alias]);
    assert_eq!((port(), driven(&nsplane)[0].1), before, "it is the same namespace and port");
    drop(second);
    wait_names(&nsplane, &[]);
    wait_until(SOON, "its device to be gone", || keeper.ifindex("k0").is_err()).unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_mount_over_a_name_is_seen_though_the_directory_does_not_change() {
    let source = Netns::new("source").unwrap();
    let from = Path::new("/run/netns").join(source.name());
    let name = of_label("late").replace('*', "0");
    let nsplane = start(&[&of_label("late")]);
    let mounted = Mounted::new(&from, &Path::new("/run/netns").join(&name));
    wait_names(&nsplane, &[&name]);
    for _ in 0..2 {
        mounted.unmount();
        wait_names(&nsplane, &[]);
        // By now nobody looks again because of the name's file.
        std::thread::sleep(Duration::from_secs(1));
        mounted.mount(&from);
        wait_names(&nsplane, &[&name]);
    }
}

#[test]
#[ignore = "needs root"]
fn dockers_names_are_found_though_their_directory_comes_later() {
    let ns = Netns::new("box").unwrap();
    let from = Path::new("/run/netns").join(ns.name());
    let id = format!("nslab{}box", std::process::id());
    let dir = Path::new("/run/docker/netns");
    let nsplane = start(&["docker:nslab*"]);
    assert!(names(&nsplane).is_empty());
    for _ in 0..2 {
        let mounted = Mounted::new(&from, &dir.join(&id));
        // It has a name in /run/netns, too, which is the better one.
        wait_names(&nsplane, &[ns.name()]);
        drop(mounted);
        wait_names(&nsplane, &[]);
    }
    let mounted = Mounted::new(&from, &dir.join(&id));
    wait_names(&nsplane, &[ns.name()]);
    ns.remove().unwrap();
    wait_names(&nsplane, &[&format!("docker:{id}")]);
    drop(mounted);
    wait_names(&nsplane, &[]);
}

#[test]
#[ignore = "needs root"]
fn a_namespace_that_only_a_process_holds() {
    let keeper = Netns::new("keeper").unwrap();
    let command = format!("nsl{}", std::process::id());
    let nsplane = start(&[&format!("proc:{command}")]);
    let holder = Holder::new(&command);
    let name = format!("pid:{}", holder.pid());
    wait_names(&nsplane, &[&name]);
    keeper.ip(&format!("link add k0 type veth peer name d0 netns {}", holder.pid())).unwrap();
    let seen = || {
        let ports = nsplane.show("ports", &["--netns", &name]).unwrap();
        ports.as_array().unwrap().iter().any(|p| p["device"] == "d0")
    };
    wait_until(SOON, "its device", seen).unwrap();
    drop(holder);
    wait_names(&nsplane, &[]);
    wait_until(SOON, "its device to be gone", || keeper.ifindex("k0").is_err()).unwrap();
}

#[test]
#[ignore = "needs root"]
fn some_are_left_out_and_the_host_is_never_meant_by_chance() {
    let (one, two) = (Netns::new("out-1").unwrap(), Netns::new("out-2").unwrap());
    let host = Path::new("/run/netns").join(format!("nslab-{}-h-out-3", std::process::id()));
    let _named = Mounted::new(Path::new("/proc/self/ns/net"), &host);
    let nsplane = start(&[&of_label("out-*"), &format!("!{}", one.name())]);
    wait_names(&nsplane, &[two.name()]);
    let shown = nsplane.show("selectors", &[]).unwrap();
    assert_eq!(shown[1]["note"], "left out", "{shown}");
}

/// Descriptors that a process has open.
fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
#[ignore = "needs root"]
fn what_goes_away_while_it_is_set_up_leaves_nothing_behind() {
    let keeper = Netns::new("keeper").unwrap();
    let nsplane = start(&[&of_label("brief")]);
    let rest = open_files(nsplane.pid());
    for round in 0..40_u64 {
        let brief = Netns::new("brief").unwrap();
        veth(&End::new(&brief, "d0"), &End::new(&keeper, "k0")).unwrap();
        // Sooner and later, so that every step of the set-up is met once.
        std::thread::sleep(Duration::from_millis(round * 7 % 61));
        if round % 2 == 0 {
            // Only the device goes, then the namespace.
            brief.ip("link del d0").unwrap();
        }
        brief.remove().unwrap();
        wait_until(SOON, "the peer to be gone", || keeper.ifindex("k0").is_err())
            .unwrap_or_else(|e| panic!("{e} in round {round}"));
    }
    wait_names(&nsplane, &[]);
    let at_rest = wait_for(SOON, "all files to be closed", || {
        (open_files(nsplane.pid()) <= rest).then_some(())
    });
    at_rest.unwrap_or_else(|e| panic!("{e}: {rest} before, {} now", open_files(nsplane.pid())));
    // It works as before.
    let tenant = Netns::new("brief").unwrap();
    wait_names(&nsplane, &[tenant.name()]);
}

#[test]
#[ignore = "needs root"]
fn devices_and_namespaces_that_go_while_it_starts_are_no_error() {
    let keeper = Netns::new("keeper").unwrap();
    let stays = Netns::new("start-0").unwrap();
    let pattern = of_label("start-*");
    for round in 0..6 {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    veth(&End::new(&stays, "d0"), &End::new(&keeper, "k0")).unwrap();
                    let brief = Netns::new("start-1").unwrap();
                    std::thread::sleep(Duration::from_millis(number * 13 % 47));
                    stays.ip("link del d0").unwrap();
                    drop(brief);
                }
            });
            // By its very name, where what does not fit is an error, and by a pattern.
            let selector = if round % 2 == 0 { stays.name() } else { &pattern };
            let started = Nsplane::start(&[], &["--netns", selector]);
            stop.store(true, Ordering::Relaxed);
            let nsplane = started.unwrap_or_else(|e| panic!("round {round}: {e:#}"));
            wait_until(SOON, "what stays", || names(&nsplane) == [stays.name()]).unwrap();
        });
    }
}
