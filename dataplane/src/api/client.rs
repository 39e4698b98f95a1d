//! The client's side, blocking: `nsplane show`, `explain` and `reload`, tests.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Explanation, Question, Reloaded, Request, Response};
use crate::control::view::{Subject, View};

/// How long to wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there, or not for us.
    #[error("connecting to nsplane at {} failed (is it running? see --api)", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The connection broke or stayed silent.
    #[error("nsplane gives no answer (it may still be starting, or be stopping)")]
    Io(#[from] io::Error),
    /// The answer is not of this version.
    #[error("an answer that this version does not understand (is the nsplane that runs another?)")]
    Answer(#[from] serde_json::Error),
    /// The answer is to another question.
    #[error("an answer to another question (is the nsplane that runs another version?)")]
    Other,
    /// nsplane said no.
    #[error("{0}")]
    Refused(String),
}

/// Asks the nsplane that listens at `path` to show something.
///
/// # Errors
/// Nobody answers there, or the answer is an error.
pub fn show(path: &Path, show: Subject, netns: Option<String>) -> Result<View, ClientError> {
    match ask(path, &Request::Show { show, netns })? {
        Response::Ok(view) => Ok(view),
        other => Err(unexpected(other)),
    }
}

/// Asks the nsplane that listens at `path` what becomes of a packet.
///
/// # Errors
/// Nobody answers there, or there is no such namespace or port.
pub fn explain(path: &Path, question: Question) -> Result<Explanation, ClientError> {
    match ask(path, &Request::Explain(question))? {
        Response::Explained(explanation) => Ok(*explanation),
        other => Err(unexpected(other)),
    }
}

/// Tells the nsplane that listens at `path` to read its config again.
///
/// # Errors
/// Nobody answers there, or what is wrong with the config.
pub fn reload(path: &Path) -> Result<Reloaded, ClientError> {
    match ask(path, &Request::Reload)? {
        Response::Reloaded(report) => Ok(report),
        other => Err(unexpected(other)),
    }
}

fn unexpected(response: Response) -> ClientError {
    match response {
        Response::Error(why) => ClientError::Refused(why),
        _ => ClientError::Other,
    }
}

fn ask(path: &Path, request: &Request) -> Result<Response, ClientError> {
    let mut stream = UnixStream::connect(path)
        .map_err(|source| ClientError::Connect { path: path.to_owned(), source })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    if BufReader::new(stream).read_line(&mut answer)? == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(serde_json::from_str(&answer)?)
}
