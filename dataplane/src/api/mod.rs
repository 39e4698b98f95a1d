//! The API: one line of JSON in, one line of JSON out, over a unix socket.
//!
//! ```text
//! > {"reload":true}
//! < {"reloaded":{"taken_in":["green"],...}}
//! > {"explain":{"netns":"blue","iif":"eth0","dst":"10.0.1.2"}}
//! < {"explained":{"tier":"userspace","steps":[...],"kernel":{...},...}}
//! > {"show":"ports","netns":"blue"}
//! < {"ok":{"ports":[...]}}
//! < {"error":"no namespace \"blue\" here; there are: red"}
//! ```
//!
//! The server answers from the control thread's own loop; a slow or silent client
//! costs a task, never the loop. Whoever may connect is decided by the socket's
//! mode (0600: root, or whoever runs nsplane).

mod client;
mod explain;
mod reload;
mod server;

use serde::{Deserialize, Serialize};

pub use client::{ClientError, explain, reload, show};
pub use explain::{Explanation, Kernel, Question, Step, Tier, Way, table_name};
pub use reload::{ChangedNamespace, Reloaded};
pub use server::{Call, ListenError, Listener};

use crate::control::view::{Subject, View};

/// Longest request that is read, in bytes.
const MAX_REQUEST: u64 = 4096;

/// A question or an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Line", into = "Line")]
pub enum Request {
    /// Show something.
    Show {
        /// What.
        show: Subject,
        /// Of this namespace only.
        netns: Option<String>,
    },
    /// Say what becomes of a packet.
    Explain(Question),
    /// Read the config file again and apply it.
    Reload,
}

/// A request as it is written.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    show: Option<Subject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<Question>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    reload: bool,
}

impl TryFrom<Line> for Request {
    type Error = &'static str;

    fn try_from(line: Line) -> Result<Self, Self::Error> {
        match line {
            Line { show: Some(show), netns, explain: None, reload: false } => {
                Ok(Self::Show { show, netns })
            }
            Line { show: None, netns: None, explain: Some(question), reload: false } => {
                Ok(Self::Explain(question))
            }
            Line { show: None, netns: None, explain: None, reload: true } => Ok(Self::Reload),
            _ => Err("it has either `show`, with or without `netns`, or `explain`, or `reload`"),
        }
    }
}

impl From<Request> for Line {
    fn from(request: Request) -> Self {
        match request {
            Request::Show { show, netns } => Self { show: Some(show), netns, ..Self::default() },
            Request::Explain(question) => Self { explain: Some(question), ..Self::default() },
            Request::Reload => Self { reload: true, ..Self::default() },
        }
    }
}

/// An answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    /// What was asked for.
    Ok(View),
    /// What becomes of a packet.
    Explained(Box<Explanation>),
    /// What a new config changed.
    Reloaded(Reloaded),
    /// Why not.
    Error(String),
}
