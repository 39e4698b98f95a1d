//! What becomes of a packet, step by step, beside what the kernel says of it.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A packet, as far as routing looks at it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The namespace that it is in.
    pub netns: String,
    /// The device that it arrives at.
    pub iif: String,
    /// Where it goes.
    pub dst: IpAddr,
    /// Where it comes from; None: a neighbour on the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src: Option<IpAddr>,
    /// The protocol's number; None: UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<u8>,
    /// Source port, where the protocol has ports.
    #[serde(default)]
    pub sport: u16,
    /// Destination port.
    #[serde(default)]
    pub dport: u16,
    /// TOS or traffic class.
    #[serde(default)]
    pub tos: u8,
}

/// Who does with the packet what is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// nsplane forwards it.
    Userspace,
    /// The kernel has it, and does what it says.
    Kernel,
    /// nsplane drops it.
    Dropped,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Userspace => "userspace",
            Self::Kernel => "kernel",
            Self::Dropped => "dropped",
        })
    }
}

/// One step of a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What was looked at.
    pub step: String,
    /// What was found.
    pub found: String,
}

/// How a packet leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// By which device.
    pub dev: String,
    /// To which router; None: to the destination itself.
    pub via: Option<IpAddr>,
    /// To which Ethernet address, if it is known.
    pub lladdr: Option<String>,
}

/// The kernel's own answer (`RTM_GETROUTE`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// "unicast", "local" and so on; "refused" where routing ends with an error.
    pub kind: String,
    /// The prefix of the route that it takes.
    pub prefix: Option<String>,
    /// That route's table.
    pub table: Option<u32>,
    /// That route's metric.
    pub metric: Option<u32>,
    /// How it leaves.
    pub way: Option<Way>,
    /// The error, and what it means.
    pub error: Option<String>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The question, with what it left open filled in.
    pub packet: Question,
    /// Who has the packet.
    pub tier: Tier,
    /// What is done with it, or why: "forwarded", or a reason as the counters name it.
    pub reason: String,
    /// The steps that lead there.
    pub steps: Vec<Step>,
    /// How it leaves, where nsplane forwards it.
    pub egress: Option<Way>,
    /// What the kernel says.
    pub kernel: Kernel,
    /// Where nsplane would do something else than the kernel: empty is right.
    pub differences: Vec<String>,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "out of {}", self.dev)?;
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        if let Some(lladdr) = &self.lladdr {
            write!(f, " to {lladdr}")?;
        }
        Ok(())
    }
}

/// A table as the kernel's tools call it.
#[must_use]
pub fn table_name(table: u32) -> String {
    match table {
        255 => "local".to_owned(),
        254 => "main".to_owned(),
        253 => "default".to_owned(),
        other => other.to_string(),
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if let Some(prefix) = &self.prefix {
            write!(f, " {prefix}")?;
        }
        if let Some(table) = self.table {
            write!(f, ", table {}", table_name(table))?;
        }
        if let Some(metric) = self.metric.filter(|m| *m != 0) {
            write!(f, ", metric {metric}")?;
        }
        if let Some(way) = &self.way {
            write!(f, ", {way}")?;
        }
        match &self.error {
            Some(error) => write!(f, ": {error}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |what: &str, found: &str| writeln!(f, "{what:<10} {found}");
        for Step { step, found } in &self.steps {
            line(step, found)?;
        }
        line("tier", &format!("{}: {}", self.tier, self.reason))?;
        if let Some(way) = &self.egress {
            line("leaves", &way.to_string())?;
        }
        line("\nkernel    ", &self.kernel.to_string())?;
        match (self.differences.as_slice(), self.tier) {
            ([], Tier::Kernel) => line("same", "the kernel has the packet, and does what it says"),
            ([], _) => line("same", "nsplane does what the kernel would"),
            (all, _) => all.iter().try_for_each(|d| line("DIFFERS", d)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet() -> Question {
        let [src, dst] = ["10.0.0.2", "10.0.1.2"].map(|a| a.parse().unwrap());
        Question {
            netns: "blue".to_owned(),
            iif: "a0".to_owned(),
            dst,
            src: Some(src),
            proto: Some(17),
            sport: 0,
            dport: 0,
            tos: 0,
        }
    }

    #[test]
    fn it_reads_well() {
        let way = Way {
            dev: "b0".to_owned(),
            via: Some("10.0.1.9".parse().unwrap()),
            lladdr: Some("02:00:00:00:00:01".to_owned()),
        };
        let mut e = Explanation {
            packet: packet(),
            tier: Tier::Userspace,
            reason: "forwarded".to_owned(),
            steps: vec![Step { step: "prefix".to_owned(), found: "10.0.1.0/24".to_owned() }],
            egress: Some(way.clone()),
            kernel: Kernel {
                kind: "unicast".to_owned(),
                prefix: Some("10.0.1.0/24".to_owned()),
                table: Some(254),
                metric: Some(20),
                way: Some(way),
                error: None,
            },
            differences: Vec::new(),
        };
        let text = e.to_string();
        assert!(text.contains("prefix     10.0.1.0/24\n"), "{text}");
        assert!(text.contains("tier       userspace: forwarded\n"), "{text}");
        let kernel = "unicast 10.0.1.0/24, table main, metric 20, out of b0 via 10.0.1.9 to 02:";
        assert!(text.contains(kernel), "{text}");
        assert!(text.contains("\nsame ") && !text.contains("DIFFERS"), "{text}");
        e.differences.push("another device".to_owned());
        let text = e.to_string();
        assert!(text.ends_with("DIFFERS    another device\n"), "{text}");
    }

    #[test]
    fn questions_are_what_scripts_write() {
        let q: Question =
            serde_json::from_str(r#"{"netns":"blue","iif":"a0","dst":"10.0.1.2"}"#).unwrap();
        assert_eq!(q, Question { src: None, proto: None, ..packet() });
        assert!(serde_json::from_str::<Question>(r#"{"netns":"blue","iif":"a0"}"#).is_err());
    }
}
