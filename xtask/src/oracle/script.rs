//! A plan as a shell script: run, it builds one twin to look at; given to `--replay`, the
//! plan at its end is run through both.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nsplane_tests::netns::show_mac;

use super::compare::Difference;
use super::plan::Plan;
use super::twin::devices;

const BEGIN: &str = ": <<'PLAN'";
const END: &str = "PLAN";

/// Writes the script of a plan.
///
/// # Errors
/// The file cannot be written.
pub(super) fn write(dir: &Path, plan: &Plan, found: &[Difference]) -> Result<PathBuf> {
    let case = plan.cases().next().map_or(0, |case| case.id);
    let path = dir.join(format!("{:016x}-{case}.sh", plan.seed));
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let text = script(plan, found, &path)?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Reads a plan from a script.
///
/// # Errors
/// There is none in it.
pub(super) fn read(path: &Path) -> Result<Plan> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (_, plan) =
        text.split_once(BEGIN).with_context(|| format!("no plan in {}", path.display()))?;
    let plan = plan.rsplit_once(END).map_or(plan, |(plan, _)| plan);
    serde_json::from_str(plan).with_context(|| format!("the plan in {}", path.display()))
}

fn script(plan: &Plan, found: &[Difference], path: &Path) -> Result<String> {
    let mut out = String::from("#!/bin/sh\n");
    let w = &mut out;
    writeln!(w, "# Both twins: cargo xtask oracle --replay {}", path.display())?;
    writeln!(w, "# One to look at: run this as root. Packets are put in at outside's devices.")?;
    for line in found.iter().flat_map(|d| d.text.lines()) {
        writeln!(w, "# {line}")?;
    }
    writeln!(w, "ip netns add outside")?;
    writeln!(
        w,
        "ip netns exec outside sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1"
    )?;
    for space in 0..plan.spaces {
        writeln!(w, "ip netns add s{space}")?;
        for which in ["all", "default"] {
            writeln!(
                w,
                "ip netns exec s{space} sysctl -qw net.ipv6.conf.{which}.accept_dad=0 net.ipv4.conf.{which}.rp_filter=0"
            )?;
        }
    }
    for (n, wire) in plan.wires.iter().enumerate() {
        let (device, far) = match wire.far {
            Some(far) => (format!("u{n}"), format!("s{far}")),
            None => (format!("w{n}"), "outside".to_owned()),
        };
        let (near, mtu) = (wire.near, wire.mtu);
        let (a, b) = (show_mac(wire.macs.0), show_mac(wire.macs.1));
        writeln!(
            w,
            "ip link add d{n} netns s{near} address {a} mtu {mtu} type veth peer name {device} netns {far} address {b} mtu {mtu}"
        )?;
        if wire.is_outer() {
            writeln!(w, "ip -n outside link set {device} up")?;
        }
    }
    for space in 0..plan.spaces {
        for device in devices(plan, space) {
            writeln!(w, "ip -n s{space} link set {device} up")?;
        }
    }
    for host in &plan.hosts {
        writeln!(w, "# at w{} {} answers for {}", host.wire, show_mac(host.mac), host.addr)?;
    }
    for phase in &plan.phases {
        for (space, path, value) in &phase.sysctls {
            writeln!(w, "ip netns exec s{space} sh -c 'echo {value} > /proc/sys/{path}'")?;
        }
        for (space, line) in &phase.lines {
            writeln!(w, "ip -n s{space} {line}")?;
        }
        for case in &phase.cases {
            let frame = case.packet.bytes(case.id);
            let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(w, "# case {} into w{}: {hex}", case.id, case.wire)?;
        }
    }
    writeln!(w, "{BEGIN}\n{}\n{END}", serde_json::to_string(plan)?)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::super::topology;
    use super::*;

    #[test]
    fn a_plan_is_read_back_from_its_script() {
        let dir = std::env::temp_dir().join(format!("oracle-{}", std::process::id()));
        let plan = topology::plan(5, 10);
        let path = write(&dir, &plan, &[]).unwrap();
        let back = read(&path).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(serde_json::to_string(&plan).unwrap(), serde_json::to_string(&back).unwrap());
    }
}
