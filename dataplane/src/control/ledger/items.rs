//! Everything of the kernel that changes what happens to a forwarded packet, as the
//! code of the kernel that forwards has it: `ip_rcv`, `ip_route_input_slow`,
//! `ip_forward`, `ip_output` (net/ipv4), `ip6_rcv_core`, `ip6_forward`, `ip6_output`
//! (net/ipv6), `__netif_receive_skb_core` and `__dev_queue_xmit` (net/core/dev.c).
//!
//! A line here is a line in docs/ledger.md; a test holds them together. The order is
//! that of `show ledger`: what keeps most comes first.

use super::{Item, Mirror, Scope, Status, Use, Watched, find};
use crate::config::Bypass;

type Find = fn(&Mirror) -> Vec<Use>;

/// The kernel's, whatever the operator says.
const fn kernel(name: &'static str, scope: Scope, watched: Watched, find: Find) -> Item {
    let status = Status::Kernel;
    Item { name, what: "", status, scope, reason: "", watched, bypass: None, find }
}

const fn converted(name: &'static str, scope: Scope, watched: Watched, find: Find) -> Item {
    Item { status: Status::Converted, ..kernel(name, scope, watched, find) }
}

const fn harmless(name: &'static str, scope: Scope) -> Item {
    Item { status: Status::Harmless, ..kernel(name, scope, Watched::Never, find::nothing) }
}

impl Item {
    const fn says(self, what: &'static str, reason: &'static str) -> Self {
        Self { what, reason, ..self }
    }

    const fn or(self, bypass: Bypass) -> Self {
        Self { bypass: Some(bypass), ..self }
    }
}

/// The table.
pub static ITEMS: &[Item] = &[
    kernel("unreadable", Scope::Family, Watched::Notice, find::unreadable).says(
        "a route, rule or next hop in a form that nsplane does not know",
        "it may lead anywhere",
    ),
    kernel("rules", Scope::Family, Watched::Notice, find::rules)
        .says(
            "policy routing rules that ask for what nsplane does not know of a packet: a tunnel's key, users, \
             the flow label, or for packets of no VRF; over 1,000 rules; none at all",
            "not converted",
        )
        .or(Bypass::Rules),
    kernel("netfilter", Scope::Family, Watched::NoticeAndLook, find::netfilter)
        .says(
            "nftables base chains and flowtables (but for the hooks input and output), legacy \
             iptables tables, BPF programs on netfilter's hooks",
            "they may drop, change or count any packet",
        )
        .or(Bypass::Netfilter),
    kernel("conntrack", Scope::Family, Watched::Notice, find::conntrack)
        .says(
            "connection tracking, or putting fragments together, that nftables asks for where it has no base chains but of the \
             hooks input and output: rules, sets or objects with `ct`, nat, `synproxy`, `tproxy` and the like, in any chain",
            "the kernel tracks what it forwards too, puts its fragments together, and drops new flows while the table is full",
        )
        .or(Bypass::Conntrack),
    kernel("ipvs", Scope::Family, Watched::Look, find::ipvs)
        .says("IPVS services", "answers of real servers are rewritten on their way")
        .or(Bypass::Ipvs),
    kernel("xfrm", Scope::Family, Watched::Notice, find::xfrm)
        .says(
            "IPsec policies of the directions fwd and out, and the default to block",
            "packets may have to be encrypted, or may not pass in the clear",
        )
        .or(Bypass::Xfrm),
    kernel("redirects", Scope::Family, Watched::Look, find::redirects)
        .says(
            "`accept_redirects` of IPv4's `all` while forwarding; IPv6 devices with `forwarding` \
             off while `all` forwards",
            "a redirect changes where single destinations are forwarded to, without a notice",
        )
        .or(Bypass::Redirects),
    kernel("pmtu", Scope::Family, Watched::Look, find::use_pmtu)
        .says("`ip_forward_use_pmtu`", "the MTU that counts is learned, without a notice")
        .or(Bypass::Pmtu),
    kernel("proxy-ndp", Scope::Family, Watched::Notice, find::proxy_ndp)
        .says(
            "`proxy_ndp` of IPv6's `all`",
            "neighbour solicitations for proxied addresses are answered, not forwarded",
        )
        .or(Bypass::ProxyNdp),
    kernel("local-prefixes", Scope::Family, Watched::Notice, find::local_prefixes)
        .says(
            "local routes to IPv4 prefixes shorter than /32, but for 127.0.0.0/8",
            "packets from inside of them are refused, and only single addresses are known to the \
             XDP program",
        )
        .or(Bypass::LocalPrefixes),
    kernel("quiet-routes", Scope::Family, Watched::Look, find::quiet_routes).says(
        "`net.ipv6.route.skip_notify_on_dev_down`",
        "routes that go with their device would be forwarded by",
    ),
    converted("forwarding", Scope::Device, Watched::Notice, find::forwarding).says(
        "`ip_forward`, `conf.DEV.forwarding` (IPv4), `conf.all.forwarding` (IPv6)",
        "what arrives where it is off is the kernel's to refuse; tests/ledger.rs, \
         tests/follows_changes.rs",
    ),
    kernel("force-forwarding", Scope::Device, Watched::Notice, find::force_forwarding).says(
        "`force_forwarding` of an IPv6 device while `all` does not forward",
        "the kernel forwards what arrives there",
    ),
    converted("policy", Scope::Family, Watched::Notice, find::policy).says(
        "policy routing rules by source, destination, device, mark, TOS or DSCP, protocol and ports; goto, nop, \
         blackhole, unreachable, prohibit; `suppress_prefixlength`, `suppress_ifgroup`",
        "gone through for each packet; tests/routes_like_the_kernel.rs",
    ),
    converted("rp-filter", Scope::Device, Watched::Notice, find::rp_filter).says(
        "`rp_filter` of a device or of `all`",
        "the stricter counts; what does not pass is punted, so that the kernel drops and logs it; \
         tests/ledger.rs",
    ),
    kernel("master", Scope::Device, Watched::Notice, find::masters)
        .says("membership in a bridge, bond, team, VRF or Open vSwitch", "no port: what arrives is the master's"),
    kernel("shared-mac", Scope::Device, Watched::Notice, find::shared_macs).says(
        "ipvlan devices on top, in the same namespace",
        "they have the device's Ethernet address, so their packets look like the device's",
    ),
    kernel("tc", Scope::Device, Watched::Notice, find::filters)
        .says("the queueing disciplines `clsact` and `ingress`, with filters or without", "filters may drop, change or divert any packet")
        .or(Bypass::Tc),
    kernel("tcx", Scope::Device, Watched::Programs, find::tcx)
        .says("BPF programs on a device's tcx", "as with tc")
        .or(Bypass::Tc),
    kernel("shaping", Scope::Device, Watched::Notice, find::shapers)
        .says(
            "queueing disciplines that do more than order packets (tbf, htb, netem, cake, fq with `maxrate`, ...)",
            "what nsplane sends does not go through them",
        )
        .or(Bypass::Tc),
    converted("balanced", Scope::Routes, Watched::NoticeAndSettings, find::nothing).says(
        "routes with several next hops and next-hop groups, by weight: `fib_multipath_hash_policy` 0 and 1, \
         `fib_multipath_hash_seed`",
        "the kernel's choice where a seed is set; tests/routes_like_the_kernel.rs",
    ),
    kernel("multipath", Scope::Routes, Watched::NoticeAndSettings, find::nothing).says(
        "several next hops with `fib_multipath_hash_policy` 2 or 3 (`_hash_fields`), or `_use_neigh`; resilient \
         groups; several IPv6 routes of one prefix and metric that are not one",
        "which next hop a flow takes is the kernel's choice",
    ),
    kernel("encap", Scope::Routes, Watched::Notice, find::nothing).says(
        "routes with a lightweight tunnel: MPLS, seg6, seg6local, BPF, ioam6, rpl",
        "not converted",
    ),
    kernel("refusing", Scope::Routes, Watched::Notice, find::nothing)
        .says("blackhole, unreachable, prohibit and local routes; throw, where no rule asks for more than a table", "the kernel drops, answers or delivers"),
    kernel("some-packets", Scope::Routes, Watched::Notice, find::nothing).says(
        "routes for a TOS or a source prefix, beside others of the prefix",
        "the choice between them is the kernel's",
    ),
    kernel("expiring", Scope::Routes, Watched::Notice, find::nothing)
        .says("routes that end by themselves, as router advertisements make them", "they end without a notice"),
    kernel("other-devices", Scope::Routes, Watched::Notice, find::nothing).says(
        "routes out of a device that is no port, is down, has no carrier, or whose way out is the kernel's",
        "not ours to send by; so `ignore_routes_with_linkdown` is the kernel's too",
    ),
    kernel("unknown-route", Scope::Routes, Watched::Notice, find::nothing)
        .says("routes with an attribute that nsplane does not know", "it may mean anything"),
    kernel("multicast", Scope::Packets, Watched::Notice, find::multicast)
        .says("multicast routing (`mc_forwarding`, vif, mfc)", "packets to a group always pass; unicast is not concerned"),
    kernel("local", Scope::Packets, Watched::Notice, find::nothing).says(
        "packets to or from an address of the namespace, or to its broadcast addresses: `accept_local`, \
         `bc_forwarding`, `src_valid_mark`, seg6 and rpl end points",
        "they always pass",
    ),
    kernel("scoped", Scope::Packets, Watched::Never, find::nothing)
        .says("packets to or from loopback, link-local and reserved addresses: `route_localnet`", "they always pass"),
    kernel("options", Scope::Packets, Watched::Never, find::nothing).says(
        "IPv4 options and IPv6 hop-by-hop options: `accept_source_route`, router alert, CIPSO, CALIPSO, ioam6",
        "they always pass",
    ),
    kernel("ttl", Scope::Packets, Watched::Never, find::nothing).says(
        "packets at the end of their hops, too long, or without a known neighbour: the settings of ICMP",
        "they pass or are punted, and the kernel answers",
    ),
    kernel("not-ip", Scope::Packets, Watched::Never, find::nothing)
        .says("frames with a VLAN tag, an MPLS label, or anything but IP; frames to another address: \
               `drop_unicast_in_l2_multicast`, macvlan on top, `mpls.conf.*`", "they always pass"),
    Item { watched: Watched::Notice, find: find::proxy_arp, ..harmless("proxy-arp", Scope::Packets) }
        .says("`proxy_arp`, `proxy_arp_pvlan`, `arp_*`, `medium_id`", "ARP always passes; neighbours are mirrored, whoever made them"),
    Item { status: Status::Converted, ..harmless("send-redirects", Scope::Packets) }.says(
        "`send_redirects`, `secure_redirects`, `shared_media`",
        "of packets that leave where they came in the kernel is given a sample, from which it sends \
         redirects; tests/kernel_still_answers.rs",
    ),
    Item { status: Status::Converted, watched: Watched::Notice, ..harmless("disable-ipv6", Scope::Device) }
        .says("`disable_ipv6`", "it takes the device's addresses away; without one nothing is forwarded"),
    Item { status: Status::Converted, watched: Watched::Notice, ..harmless("mtu", Scope::Device) }.says(
        "MTU of devices and routes, `mtu` of an IPv6 device",
        "longer packets are punted; a lower `mtu` of an IPv6 device is heard of with the device's \
         next notice",
    ),
    harmless("priority", Scope::Packets).says(
        "`ip_forward_update_priority`, qdiscs that only order packets, XPS, RPS",
        "order among packets of different flows is nobody's promise; ours leave in order",
    ),
    harmless("xfrm-switches", Scope::Packets)
        .says("`disable_policy`, `disable_xfrm`", "mean something where there are policies: see `xfrm`"),
    harmless("router-advertisements", Scope::Packets)
        .says("`accept_ra*`, `autoconf`", "what they make is mirrored: see `expiring`"),
    harmless("logging", Scope::Packets)
        .says("`log_martians`, `rt_acct`, realms, route notifications (`fib_notify_on_flag_change`, `nexthop_compat_mode`)", "observe; what they would log passes"),
    harmless("own-packets", Scope::Packets).says(
        "`ip_default_ttl`, `hop_limit`, `ip_no_pmtu_disc`, `ip_nonlocal_bind`, `early_demux`, `fwmark_reflect`, \
         BPF of cgroups and sockets, tcp, udp",
        "about packets of the namespace itself",
    ),
];
