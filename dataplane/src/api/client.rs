//! The client's side, blocking: `nsplane show`, tests.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Request, Response};
use crate::control::view::View;

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
    /// nsplane said no.
    #[error("{0}")]
    Refused(String),
}

/// Asks the nsplane that listens at `path`.
///
/// # Errors
/// Nobody answers there, or the answer is an error.
pub fn ask(path: &Path, request: &Request) -> Result<View, ClientError> {
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
    match serde_json::from_str(&answer)? {
        Response::Ok(view) => Ok(view),
        Response::Error(why) => Err(ClientError::Refused(why)),
    }
}
