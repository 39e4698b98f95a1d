//! `nsplane explain`: asks a running nsplane what becomes of a packet.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use nsplane::api::{self, Explanation, Question};

use super::Explain;
use super::print::out;

/// How long a change of the kernel's may be on its way into the tables: what differs is
/// looked at once more.
const ON_ITS_WAY: Duration = Duration::from_millis(300);

/// Runs the command. True: nsplane and the kernel agree.
pub(crate) fn explain(args: &Explain) -> Result<bool> {
    let question = Question {
        netns: args.netns.clone(),
        iif: args.iif.clone(),
        dst: args.dst,
        src: args.src,
        proto: args.proto,
        sport: args.sport,
        dport: args.dport,
        tos: args.tos,
    };
    let ask = || api::explain(&args.api.path, question.clone());
    let mut answer: Explanation = ask()?;
    if !answer.differences.is_empty() {
        sleep(ON_ITS_WAY);
        answer = ask()?;
    }
    out(&if args.json {
        format!("{}\n", serde_json::to_string_pretty(&answer)?)
    } else {
        answer.to_string()
    })?;
    Ok(answer.differences.is_empty())
}

/// A protocol's number, or its name.
pub(crate) fn protocol(text: &str) -> Result<u8, String> {
    match text {
        "icmp" => Ok(1),
        "tcp" => Ok(6),
        "udp" => Ok(17),
        "esp" => Ok(50),
        "icmpv6" => Ok(58),
        "sctp" => Ok(132),
        number => number
            .parse()
            .map_err(|_| "a number, or one of icmp, tcp, udp, esp, icmpv6, sctp".to_owned()),
    }
}
