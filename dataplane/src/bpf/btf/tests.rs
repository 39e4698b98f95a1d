use super::*;

/// Builds BTF from types given as words, names given by their text.
#[derive(Default)]
struct Builder {
    types: Vec<u32>,
    strings: Vec<u8>,
    /// Of a module: bytes of the kernel's strings.
    before: u32,
}

impl Builder {
    fn name(&mut self, name: &str) -> u32 {
        let at = self.before + u32::try_from(self.strings.len()).expect("short");
        self.strings.extend(name.as_bytes());
        self.strings.push(0);
        if name.is_empty() { 0 } else { at }
    }

    fn composite(&mut self, kind: u32, name: &str, size: u32, members: &[(&str, u32, u32)]) {
        let name = self.name(name);
        let count = u32::try_from(members.len()).expect("few");
        let bitfields = u32::from(members.iter().any(|m| m.2 >> 24 != 0));
        self.types.extend([name, bitfields << 31 | kind << 24 | count, size]);
        for (name, id, offset) in members {
            let name = self.name(name);
            self.types.extend([name, *id, *offset]);
        }
    }

    fn finish(self) -> Vec<u8> {
        let types: Vec<u8> = self.types.iter().flat_map(|w| w.to_ne_bytes()).collect();
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("short");
        let mut out = Vec::new();
        out.extend(MAGIC.to_ne_bytes());
        out.extend([1, 0]);
        for word in [24, 0, len(&types), len(&types), len(&self.strings)] {
            out.extend(word.to_ne_bytes());
        }
        out.extend(types);
        out.extend(self.strings);
        out
    }
}

/// A kernel's BTF in miniature: `ip_summed` is two anonymous levels down.
fn kernel(with_veth: bool) -> Vec<u8> {
    let mut b = Builder::default();
    b.name("");
    // 1: int, 2: the inner struct, 3: the union around it, 4: sk_buff, 5: xdp_buff
    let name = b.name("int");
    b.types.extend([name, 1 << 24, 4, 32]);
    let inner = [
        ("pkt_type", 1, 3 << 24),
        ("ip_summed", 1, 2 << 24 | 5),
        ("csum_start", 1, 64),
        ("csum_offset", 1, 80),
        ("vlan_all", 1, 96),
    ];
    b.composite(STRUCT, "", 16, &inner);
    b.composite(UNION, "", 16, &[("", 2, 0), ("headers", 2, 0)]);
    b.composite(STRUCT, "sk_buff", 48, &[("", 3, 128), ("head", 1, 256), ("data", 1, 320)]);
    b.composite(STRUCT, "xdp_buff", 56, &[("data", 1, 0)]);
    if with_veth {
        b.composite(STRUCT, "veth_xdp_buff", 72, &[("xdp", 5, 0), ("skb", 1, 512)]);
    }
    b.finish()
}

fn constants(bytes: &[u8]) -> Vec<Const> {
    constants_from(&Btf::parse(bytes).expect("well formed")).expect("complete")
}

#[test]
fn fields_are_found_through_anonymous_members() {
    let expected = [
        (consts::XDP_SKB, 64),
        (consts::SKB_IP_SUMMED, 16),
        (consts::SKB_IP_SUMMED_SHIFT, 5),
        (consts::SKB_CSUM_START, 24),
        (consts::SKB_CSUM_OFFSET, 26),
        (consts::SKB_VLAN_ALL, 28),
        (consts::SKB_HEAD, 32),
        (consts::SKB_DATA, 40),
    ];
    assert_eq!(constants(&kernel(true)), expected);
}

#[test]
fn a_modules_types_continue_the_kernels() {
    let mut b = Builder::default();
    b.name("");
    // 1: int, 2: hlist_head, 3: an array of 64 of those
    let name = b.name("int");
    b.types.extend([name, 1 << 24, 4, 32]);
    b.composite(STRUCT, "hlist_head", 8, &[("first", 1, 0)]);
    b.types.extend([0, ARRAY << 24, 0, 2, 1, 64]);
    let before = u32::try_from(b.strings.len()).expect("short");
    let kernel = b.finish();
    let mut b = Builder { before, ..Builder::default() };
    // 4: of a struct without a name, 5: the port
    b.composite(STRUCT, "", 16, &[("count", 1, 64)]);
    let members = [("vlan_hash", 3, 64), ("", 4, 512), ("first", 1, 1024)];
    b.composite(STRUCT, "macvlan_port", 136, &members);
    let module = b.finish();
    let kernel = Btf::parse(&kernel).expect("well formed");
    let module = Btf::parse_module(&module, &kernel).expect("well formed");
    let offset = |field| module.offset("macvlan_port", field).ok();
    assert_eq!((offset("vlan_hash"), offset("count")), (Some(8), Some(72)));
    assert_eq!(module.elements("macvlan_port", "vlan_hash"), Some(64));
    assert_eq!(module.elements("macvlan_port", "first"), None, "no array");
    assert_eq!(module.kernel().size("hlist_head"), Some(8));
    assert!(module.offset("macvlan_port", "dev").is_err());
    assert!(kernel.offset("macvlan_port", "vlan_hash").is_err());
}

#[test]
fn without_veth_the_skb_is_behind_the_xdp_buff() {
    assert_eq!(constants(&kernel(false))[0], (consts::XDP_SKB, 56));
}

#[test]
fn cut_or_garbled_btf_is_an_error_and_no_panic() {
    let good = kernel(true);
    for len in 0..good.len() {
        let cut = Btf::parse(&good[..len]);
        assert!(cut.is_err(), "{len}");
    }
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0xff;
        if let Ok(btf) = Btf::parse(&bad) {
            let _ = constants_from(&btf);
        }
    }
}

#[test]
fn the_running_kernel_is_understood() {
    if !std::path::Path::new(VMLINUX).exists() {
        eprintln!("left out: this kernel offers no BTF");
        return;
    }
    let found = skb_constants().expect("the kernel's BTF has sk_buff");
    assert!(found.iter().all(|(_, offset)| *offset < 1024), "{found:?}");
}
