//! The API: one line of JSON in, one line of JSON out, over a unix socket.
//!
//! ```text
//! > {"show":"ports","netns":"blue"}
//! < {"ok":{"ports":[...]}}
//! < {"error":"no namespace \"blue\" here; there are: red"}
//! ```
//!
//! The server answers from the control thread's own loop; a slow or silent client
//! costs a task, never the loop. Whoever may connect is decided by the socket's
//! mode (0600: root, or whoever runs nsplane).

mod client;
mod server;

use serde::{Deserialize, Serialize};

pub use client::{ClientError, ask};
pub use server::{Call, ListenError, Listener};

use crate::control::view::{Subject, View};

/// Longest request that is read, in bytes.
const MAX_REQUEST: u64 = 4096;

/// A question.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// What to show.
    pub show: Subject,
    /// Of this namespace only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
}

/// An answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    /// What was asked for.
    Ok(View),
    /// Why not.
    Error(String),
}
