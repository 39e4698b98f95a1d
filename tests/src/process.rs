//! `nsplane` as a child process.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::netns::Netns;
use crate::stop::Stopped;
use crate::wait::{wait_for, wait_until};
use crate::{command, sys};

/// Names another binary than the workspace's release build.
pub const BIN_ENV: &str = "NSPLANE_BIN";

const START: Duration = Duration::from_secs(20);
const STOP: Duration = Duration::from_secs(10);

/// A running `nsplane`; ended on drop. Its log is kept in memory's file system
/// until then, and is part of every error.
#[derive(Debug)]
pub struct Nsplane {
    binary: PathBuf,
    child: Child,
    status: Option<ExitStatus>,
    dir: PathBuf,
}

impl Nsplane {
    /// The binary to run: `$NSPLANE_BIN`, else the release build of this
    /// workspace.
    ///
    /// # Errors
    /// There is none.
    pub fn binary() -> Result<PathBuf> {
        let built = || {
            let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
                || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
                PathBuf::from,
            );
            target.join("release/nsplane")
        };
        let path = std::env::var_os(BIN_ENV).map_or_else(built, PathBuf::from);
        if !path.is_file() {
            bail!("no nsplane at {}: build it, or set {BIN_ENV}", path.display());
        }
        Ok(path)
    }

    /// Starts `nsplane run` for the namespaces and waits until it is ready.
    ///
    /// # Errors
    /// No binary, or it ended or was not ready within 20 s; the error has its log.
    pub fn start(namespaces: &[&Netns], args: &[&str]) -> Result<Self> {
        Self::start_with(namespaces, args, &[])
    }

    /// The same, with these variables in its environment.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(namespaces: &[&Netns], args: &[&str], env: &[(&str, &str)]) -> Result<Self> {
        let mut nsplane = Self::spawn_with(namespaces, args, env)?;
        nsplane.wait_ready()?;
        Ok(nsplane)
    }

    /// Starts `nsplane run` and returns at once, ready or not.
    ///
    /// # Errors
    /// No binary, or it cannot be run.
    pub fn spawn(namespaces: &[&Netns], args: &[&str]) -> Result<Self> {
        Self::spawn_with(namespaces, args, &[])
    }

    fn spawn_with(namespaces: &[&Netns], args: &[&str], env: &[(&str, &str)]) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let binary = Self::binary()?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("nslab-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let log = File::create(dir.join("log")).context("cannot make the log")?;
        let mut run = Command::new(&binary);
        run.arg("run").arg("--api").arg(dir.join("api"));
        for netns in namespaces {
            run.arg("--netns").arg(netns.name());
        }
        run.args(args).envs(env.iter().copied()).stdin(Stdio::null());
        // A Ctrl-C is for us, who then stop it in good order.
        run.process_group(0);
        run.stdout(log.try_clone().context("cannot share the log")?).stderr(log);
        let child = run.spawn().with_context(|| format!("cannot run {}", binary.display()))?;
        Ok(Self { binary, child, status: None, dir })
    }

    fn wait_ready(&mut self) -> Result<()> {
        let ready = wait_for(START, "nsplane to be ready", || {
            if self.exited().is_some() {
                return Some(false);
            }
            self.show("namespaces", &[]).is_ok().then_some(true)
        });
        match ready {
            Ok(true) => Ok(()),
            Ok(false) => bail!("nsplane ended at its start; its log:\n{}", self.log()),
            Err(error) => bail!("{error}; its log:\n{}", self.log()),
        }
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops the control thread, which hears of changes, while the workers go on.
    ///
    /// # Errors
    /// It has ended, or the system refuses.
    pub fn stop_control(&self) -> Result<Stopped> {
        Stopped::first_of(self.pid()).context("stopping nsplane's first thread")
    }

    /// The path of the API's socket.
    #[must_use]
    pub fn api(&self) -> PathBuf {
        self.dir.join("api")
    }

    /// What `nsplane` wrote until now.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// `nsplane show WHAT --json ARGS`, parsed.
    ///
    /// # Errors
    /// The command failed (nobody answers on the socket), or printed no JSON.
    pub fn show(&self, what: &str, args: &[&str]) -> Result<serde_json::Value> {
        let api = self.api();
        let words = ["show", what, "--json", "--api", &api.to_string_lossy()].map(str::to_owned);
        let args = args.iter().map(|&arg| arg.to_owned());
        let text = command::run(&self.binary.to_string_lossy(), words.into_iter().chain(args))?;
        serde_json::from_str(&text)
            .with_context(|| format!("`nsplane show {what} --json` printed no JSON: {text}"))
    }

    /// Asks over the API's socket, without a process in between: `what` as `nsplane
    /// show` takes it. Returns the rows.
    ///
    /// # Errors
    /// Nobody answers, or the answer is an error.
    pub fn ask(&self, what: &str, netns: Option<&Netns>) -> Result<serde_json::Value> {
        let mut request = serde_json::json!({ "show": what });
        if let Some(netns) = netns {
            request["netns"] = netns.name().into();
        }
        let mut answer = self.request(&request)?;
        match answer["ok"][what].take() {
            serde_json::Value::Null => bail!("nsplane answers {answer}"),
            rows => Ok(rows),
        }
    }

    /// Sends a request over the API's socket; returns the answer.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn request(&self, request: &serde_json::Value) -> Result<serde_json::Value> {
        let mut stream = UnixStream::connect(self.api()).context("connecting to nsplane")?;
        stream.set_read_timeout(Some(STOP)).context("setting a timeout")?;
        stream.write_all(format!("{request}\n").as_bytes()).context("asking nsplane")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).context("waiting for nsplane's answer")?;
        serde_json::from_str(&line).with_context(|| format!("nsplane answers {line:?}"))
    }

    /// `nsplane WORDS --api ...`: a command to this nsplane.
    ///
    /// # Errors
    /// The command cannot be run.
    pub fn tell(&self, words: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.binary);
        command.args(words).arg("--api").arg(self.api());
        command.output().with_context(|| format!("cannot run {}", self.binary.display()))
    }

    /// How the process ended, if it did.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process is gone.
    pub fn signal(&mut self, signal: i32) -> Result<()> {
        if let Some(status) = self.exited() {
            bail!("nsplane already ended ({status}); its log:\n{}", self.log());
        }
        sys::kill(self.child.id(), signal).context("cannot signal nsplane")
    }

    /// SIGTERM, then waits for the end.
    ///
    /// # Errors
    /// It was already gone, or did not end within 10 s.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(libc::SIGTERM)?;
        self.wait_end()
    }

    /// SIGKILL, then waits until the kernel has taken the process down.
    ///
    /// # Errors
    /// It was already gone.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.signal(libc::SIGKILL)?;
        self.wait_end()
    }

    fn wait_end(&mut self) -> Result<ExitStatus> {
        let ended = wait_until(STOP, "nsplane to end", || self.exited().is_some());
        match (ended, self.status) {
            (Ok(()), Some(status)) => Ok(status),
            (Err(error), _) => bail!("{error}; its log:\n{}", self.log()),
            (Ok(()), None) => bail!("nsplane ended without a status"),
        }
    }
}

impl Drop for Nsplane {
    fn drop(&mut self) {
        if self.exited().is_none() && self.stop().is_err() {
            // Not ours to wait for any longer; the kernel takes down what it held.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the log of nsplane ({}) ---\n{}", self.child.id(), self.log());
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}
