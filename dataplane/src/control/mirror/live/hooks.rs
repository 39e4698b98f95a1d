//! Hooks as the commands make and remove them.

use std::path::Path;

use super::*;
use crate::netlink::HookSource;

impl Space {
    /// A program inside the namespace, words split at spaces; `{...}` is one word.
    fn exec(&self, words: &str) {
        let mut args = vec!["netns", "exec", &self.name];
        let (plain, braced) = words.split_at(words.find('{').unwrap_or(words.len()));
        args.extend(plain.split_whitespace());
        args.extend((!braced.is_empty()).then_some(braced));
        run("ip", &args);
    }
}

impl Follower {
    fn hook(&self, family: Family) -> Option<&str> {
        self.mirror.hook(family).map(|h| h.name.as_str())
    }

    /// After `words` are run inside, the mirror names these hooks of both families.
    #[track_caller]
    fn expect(&mut self, space: &Space, words: &str, v4: Option<&str>, v6: Option<&str>) {
        space.exec(words);
        self.settle(words, false);
        assert_eq!((self.hook(Family::V4), self.hook(Family::V6)), (v4, v6), "{words}");
    }
}

#[test]
fn nftables_chains_come_and_go() {
    if !netns::tests::root("nftables_chains_come_and_go") {
        return;
    }
    let runtime = runtime();
    let _context = runtime.enter();
    let space = Space::new("nft");
    let mut f = Follower::new(&space);
    f.expect(&space, "nft add table inet t", None, None);
    f.expect(&space, "nft add chain inet t c", None, None);
    f.expect(&space, "nft add chain inet t i {type filter hook input priority 0;}", None, None);
    let inet = Some("nftables chain inet t/f");
    f.expect(&space, "nft add chain inet t f {type filter hook forward priority 0;}", inet, inet);
    f.expect(&space, "nft add rule inet t f counter drop", inet, inet);
    f.expect(&space, "nft delete table inet t", None, None);
    let v4 = Some("nftables chain ip n/p");
    f.expect(&space, "nft add table ip n", None, None);
    f.expect(&space, "nft add chain ip n p {type nat hook postrouting priority 100;}", v4, None);
    let v6 = Some("nftables chain ip6 n/p");
    f.expect(&space, "nft add table ip6 n", v4, None);
    f.expect(&space, "nft add chain ip6 n p {type filter hook prerouting priority 0;}", v4, v6);
    f.expect(&space, "nft flush ruleset", None, None);
    space.ip("link add hfa type veth peer name hfb");
    f.settle("a device", false);
    for (table, hook) in [("i", "ingress"), ("e", "egress")] {
        let name = format!("nftables chain netdev {table}/c");
        f.expect(&space, &format!("nft add table netdev {table}"), None, None);
        let chain = format!("{{type filter hook {hook} device hfa priority 0;}}");
        let words = format!("nft add chain netdev {table} c {chain}");
        f.expect(&space, &words, Some(&name), Some(&name));
        f.expect(&space, "nft flush ruleset", None, None);
    }
    let inet = Some("nftables chain inet t/c");
    f.expect(&space, "nft add table inet t", None, None);
    let chain = "{type filter hook ingress device hfa priority 0;}";
    f.expect(&space, &format!("nft add chain inet t c {chain}"), inet, inet);
    assert!(f.mirror.hook(Family::V4).unwrap().on_device());
    f.expect(&space, "nft flush ruleset", None, None);
    // What was there before nsplane.
    space.exec("iptables-nft -A FORWARD -j DROP");
    let f = Follower::new(&space);
    assert_eq!(f.hook(Family::V4), Some("nftables chain ip filter/FORWARD"));
    assert_eq!(f.hook(Family::V6), None);
}

/// Connection tracking that is asked for where no forwarded packet meets a chain.
#[test]
fn tracking_comes_and_goes() {
    if !netns::tests::root("tracking_comes_and_goes") {
        return;
    }
    let runtime = runtime();
    let _context = runtime.enter();
    let space = Space::new("track");
    let mut f = Follower::new(&space);
    f.expect(&space, "nft add table inet t", None, None);
    f.expect(&space, "nft add chain inet t i {type filter hook input priority 0;}", None, None);
    f.expect(&space, "nft add rule inet t i tcp dport 22 accept", None, None);
    let inet = Some("nftables rule with ct in inet t/i");
    f.expect(&space, "nft add rule inet t i ct state established accept", inet, inet);
    // Another one that asks, of one family only, and in a chain that nothing leads to.
    f.expect(&space, "nft add table ip6 n", inet, inet);
    f.expect(&space, "nft add chain ip6 n c", inet, inet);
    f.expect(&space, "nft add rule ip6 n c masquerade", inet, inet);
    let v6 = Some("nftables rule with masq in ip6 n/c");
    f.expect(&space, "nft flush chain inet t i", None, v6);
    // A chain that forwarded packets meet says it all.
    let chain = Some("nftables chain ip6 n/f");
    let add = "nft add chain ip6 n f {type filter hook forward priority 0;}";
    f.expect(&space, add, None, chain);
    f.expect(&space, "nft delete rule ip6 n c handle 2", None, chain);
    f.expect(&space, "nft add rule ip6 n c masquerade", None, chain);
    f.expect(&space, "nft delete chain ip6 n f", None, v6);
    f.expect(&space, "nft delete table ip6 n", None, None);
    // An empty chain of type nat does not ask; a rule in it does.
    f.expect(&space, "nft add table ip n", None, None);
    f.expect(&space, "nft add chain ip n o {type nat hook output priority 0;}", None, None);
    let v4 = Some("nftables rule with redir in ip n/o");
    f.expect(&space, "nft add rule ip n o tcp dport 80 redirect to :81", v4, None);
    f.expect(&space, "nft flush table ip n", None, None);
    // Sets and objects.
    f.expect(&space, "nft add set ip n p {type ipv4_addr; flags dynamic;}", None, None);
    let set = Some("nftables set ip n/s with connlimit");
    let add = "nft add set ip n s {type ipv4_addr; flags dynamic; ct count over 5;}";
    f.expect(&space, add, set, None);
    f.expect(&space, "nft delete set ip n s", None, None);
    f.expect(&space, "nft add counter ip n k", None, None);
    let object = Some("nftables ct helper ip n/h");
    f.expect(&space, "nft add ct helper ip n h {type \"ftp\" protocol tcp;}", object, None);
    f.expect(&space, "nft delete ct helper ip n h", None, None);
    // What iptables makes; and what was there before nsplane.
    f.expect(&space, "iptables-nft -A INPUT -m comment --comment x -j LOG", None, None);
    let v4 = Some("nftables rule with match conntrack in ip filter/INPUT");
    let words = "iptables-nft -A INPUT -m conntrack --ctstate NEW";
    f.expect(&space, words, v4, None);
    let f = Follower::new(&space);
    assert_eq!((f.hook(Family::V4), f.hook(Family::V6)), (v4, None));
}

/// So many rules that nobody reads them all.
#[test]
fn too_many_rules_to_read() {
    if !netns::tests::root("too_many_rules_to_read") {
        return;
    }
    let runtime = runtime();
    let _context = runtime.enter();
    let space = Space::new("many");
    let mut f = Follower::new(&space);
    let mut batch = String::from("table ip t {\nchain i { type filter hook input priority 0;\n");
    for i in 0..2_001 {
        batch.push_str(&format!("tcp dport {} accept\n", i + 1));
    }
    batch.push_str("}\n}\n");
    let file = std::env::temp_dir().join(format!("{}.nft", space.name));
    std::fs::write(&file, batch).unwrap();
    space.exec(&format!("nft -f {}", file.display()));
    std::fs::remove_file(&file).unwrap();
    let start = Instant::now();
    f.settle("many rules", false);
    println!("read after {:?}", start.elapsed());
    let many = "nftables with over 2000 rules, sets or objects, too many to read";
    assert_eq!((f.hook(Family::V4), f.hook(Family::V6)), (Some(many), Some(many)));
    // One less: they are read again.
    f.expect(&space, "nft delete rule ip t i handle 3", None, None);
}

#[test]
fn xfrm_policies_come_and_go() {
    if !netns::tests::root("xfrm_policies_come_and_go") {
        return;
    }
    let runtime = runtime();
    let _context = runtime.enter();
    let space = Space::new("xfrm");
    let mut f = Follower::new(&space);
    let policy = |act: &str, dir: &str| {
        let action = if act == "add" { " action block" } else { "" };
        format!("ip xfrm policy {act} src 10.0.0.0/8 dst 10.1.0.0/16 dir {dir}{action}")
    };
    f.expect(&space, &policy("add", "in"), None, None);
    let v4 = Some("xfrm policy dir fwd src 10.0.0.0/8 dst 10.1.0.0/16");
    f.expect(&space, &policy("add", "fwd"), v4, None);
    f.expect(&space, &policy("delete", "fwd"), None, None);
    let v6 = Some("xfrm policy dir out src ::/0 dst fd00::/8");
    let words = "ip xfrm policy add src ::/0 dst fd00::/8 dir out action block";
    f.expect(&space, words, None, v6);
    f.expect(&space, "ip xfrm policy flush", None, None);
    let block = Some("xfrm default policy fwd block");
    f.expect(&space, "ip xfrm policy setdefault fwd block", block, block);
    f.expect(&space, "ip xfrm policy setdefault fwd accept", None, None);
    // One that ends by itself.
    let words = format!("{} limit time-hard 1", policy("add", "fwd"));
    f.expect(&space, &words, v4, None);
    let end = Instant::now() + Duration::from_secs(5);
    while f.hook(Family::V4).is_some() {
        assert!(Instant::now() < end, "it expired without a word");
        std::thread::sleep(Duration::from_millis(50));
        f.settle("an expired policy", false);
    }
}

#[test]
fn disciplines_come_and_go() {
    if !netns::tests::root("disciplines_come_and_go") {
        return;
    }
    let runtime = runtime();
    let _context = runtime.enter();
    let space = Space::new("tc");
    space.ip("link add hfa type veth peer name hfb");
    space.ip("link set hfa up");
    let mut f = Follower::new(&space);
    let hfa = f.link("hfa").ifindex;
    for (words, expected) in [
        ("tc qdisc add dev hfa clsact", "clsact"),
        ("tc qdisc add dev hfa root handle 1: htb", "clsact htb"),
        ("tc class add dev hfa parent 1: classid 1:1 htb rate 1mbit", "clsact htb"),
        ("tc qdisc add dev hfa parent 1:1 tbf rate 1mbit burst 10k latency 9ms", "clsact htb tbf"),
        ("tc qdisc replace dev hfa root pfifo", "clsact"),
        ("tc qdisc del dev hfa clsact", ""),
        ("tc qdisc add dev hfa ingress", "ingress"),
        ("tc qdisc del dev hfa ingress", ""),
        ("tc qdisc del dev hfa root", ""),
    ] {
        space.exec(words);
        f.settle(words, false);
        let mut kinds: Vec<&str> = f.mirror.qdiscs(hfa).map(|q| q.kind.as_str()).collect();
        kinds.sort_unstable();
        assert_eq!(kinds.join(" "), expected, "{words}");
    }
    space.exec("tc qdisc add dev hfa clsact");
    f.settle("clsact", false);
    space.ip("link del hfa");
    f.settle("its device deleted", true);
    assert!(f.mirror.qdiscs.is_empty());
}

/// Only where the kernel has it: it is on its way out.
#[test]
fn legacy_tables_come() {
    let name = "legacy_tables_come";
    if !netns::tests::root(name) {
        return;
    }
    if !Path::new("/proc/net/ip_tables_names").exists() {
        println!("{name}: left out, this kernel has no legacy iptables");
        return;
    }
    let runtime = runtime();
    let _context = runtime.enter();
    let space = Space::new("legacy");
    let mut f = Follower::new(&space);
    f.expect(&space, "true", None, None);
    let v4 = Some("iptables (legacy) table filter");
    f.expect(&space, "iptables-legacy -A FORWARD -j DROP", v4, None);
    let dumped = Mirror::from_dump(netlink::dump(&f.ns).unwrap());
    assert!(dumped.hooks.contains_key(&HookSource::Iptables));
    // Somebody waiting hears of it too.
    let other = Space::new("legacy2");
    runtime.block_on(async {
        let mut monitor = Monitor::open(&Arc::new(other.open())).unwrap();
        other.exec("iptables-legacy -A FORWARD -j DROP");
        let heard = async {
            loop {
                let look_around = tokio::time::sleep(netlink::LOOK_AROUND);
                let events = tokio::select! {
                    events = monitor.next() => events.unwrap(),
                    () = look_around => { netlink::look_around(); continue }
                };
                for event in events {
                    if matches!(&event, Event::Hooks(HookSource::Iptables, h) if !h.is_empty()) {
                        return;
                    }
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(5), heard).await.unwrap();
    });
}
