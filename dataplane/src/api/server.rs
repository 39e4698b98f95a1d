//! The server's side: accepts, reads one request a line, asks control.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use super::{MAX_REQUEST, Request, Response};

/// How long a client may stay silent.
const IDLE: Duration = Duration::from_secs(30);

/// A request with the way back for its answer.
#[derive(Debug)]
pub struct Call {
    /// The question.
    pub request: Request,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Response>,
}

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A running nsplane has it.
    #[error("another nsplane listens at {} (choose another --api PATH, or stop it)", .0.display())]
    InUse(PathBuf),
    /// Something is there that is not ours to replace.
    #[error("{} is there and is no socket (choose another --api PATH)", .0.display())]
    NotASocket(PathBuf),
    /// A step failed.
    #[error("{step} {} failed", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// The listening socket; its file is removed on drop.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Listens at `path`, making its directory. A socket that a dead nsplane left
    /// is replaced. Must be called inside the runtime.
    ///
    /// # Errors
    /// The path is in use, or cannot be made.
    pub fn bind(path: &Path) -> Result<Self, ListenError> {
        let fail = |step| move |source| ListenError::Io { step, path: path.to_owned(), source };
        if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
            std::fs::create_dir_all(dir).map_err(fail("making the directory of"))?;
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(ListenError::InUse(path.to_owned()));
        }
        match std::fs::symlink_metadata(path) {
            Ok(there) if !there.file_type().is_socket() => {
                return Err(ListenError::NotASocket(path.to_owned()));
            }
            Ok(_) => std::fs::remove_file(path).map_err(fail("removing the stale socket"))?,
            // None there, or `bind` will say what is wrong.
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(fail("listening at"))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .map_err(fail("setting the mode of"))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Serves until dropped: each connection is a task, each request a [`Call`].
    pub async fn serve(&self, calls: mpsc::Sender<Call>) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(serve_one(stream, calls.clone()));
                }
                // Out of descriptors: others may give some back.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn serve_one(stream: UnixStream, calls: mpsc::Sender<Call>) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = String::new();
        let mut limited = (&mut read).take(MAX_REQUEST);
        let got = tokio::time::timeout(IDLE, limited.read_line(&mut line)).await;
        if !matches!(got, Ok(Ok(n)) if n > 0) {
            return;
        }
        let Ok(mut answer) = serde_json::to_string(&answer(&line, &calls).await) else { return };
        answer.push('\n');
        if write.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn answer(line: &str, calls: &mpsc::Sender<Call>) -> Response {
    let request = match serde_json::from_str(line) {
        Ok(request) => request,
        Err(e) => return Response::Error(format!("not a request: {e}")),
    };
    let (reply, answer) = oneshot::channel();
    if calls.send(Call { request, reply }).await.is_err() {
        return Response::Error("nsplane is stopping".to_owned());
    }
    answer.await.unwrap_or_else(|_| Response::Error("nsplane is stopping".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ClientError, reload, show};
    use crate::control::view::{Subject, View};

    #[test]
    fn a_file_of_somebody_elses_is_left_alone() {
        let path = std::env::temp_dir().join(format!("nsplane-api-file-{}", std::process::id()));
        std::fs::write(&path, "precious").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let bound = runtime.block_on(async { Listener::bind(&path) });
        assert!(matches!(bound, Err(ListenError::NotASocket(_))), "{bound:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_request_comes_back_answered_and_nonsense_is_refused() {
        let path = std::env::temp_dir().join(format!("nsplane-api-test-{}", std::process::id()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = Listener::bind(&path).unwrap();
            assert!(matches!(Listener::bind(&path), Err(ListenError::InUse(_))));
            let (tx, mut calls) = mpsc::channel::<Call>(4);
            let client_path = path.clone();
            let client =
                tokio::task::spawn_blocking(move || show(&client_path, Subject::Workers, None));
            let serve = async { listener.serve(tx).await };
            let control = async {
                let call = calls.recv().await.unwrap();
                let show = Subject::Workers;
                assert_eq!(call.request, Request::Show { show, netns: None });
                call.reply.send(Response::Ok(View::Workers(Vec::new()))).unwrap();
                client.await.unwrap()
            };
            tokio::select! {
                () = serve => unreachable!("the server does not end"),
                got = control => assert!(matches!(got, Ok(View::Workers(w)) if w.is_empty())),
            }
        });
        assert!(!path.exists(), "the socket's file is left behind");
        assert!(matches!(reload(&path), Err(ClientError::Connect { .. })));
    }

    #[test]
    fn requests_are_what_scripts_write() {
        let read = |line: &str| serde_json::from_str::<Request>(line);
        let ports = Request::Show { show: Subject::Ports, netns: Some("blue".to_owned()) };
        assert_eq!(read(r#"{"show":"ports","netns":"blue"}"#).unwrap(), ports);
        assert_eq!(read(r#"{"reload":true}"#).unwrap(), Request::Reload);
        assert_eq!(serde_json::to_string(&Request::Reload).unwrap(), r#"{"reload":true}"#);
        for wrong in ["{}", r#"{"show":"ports","reload":true}"#, r#"{"shwo":"ports"}"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
