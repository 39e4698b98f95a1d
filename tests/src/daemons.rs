//! Routing daemons (FRR, BIRD), each in a namespace of the lab and with a folder of its
//! own for configuration, sockets and logs; ended with their guard.
//!
//! They are Debian's, as `cargo xtask setup` unpacks them, or those of the machine. A
//! daemon sees its folder as `/run` and `/var/tmp`, and a group that FRR asks for, by
//! mounts that nobody else sees: nothing is installed, and nothing is left behind.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::netns::Netns;
use crate::wait::wait_until;
use crate::{command, sys};

/// Names another folder than `target/routing-daemons`, in which they are unpacked.
pub const DIR_ENV: &str = "NSPLANE_ROUTING_DAEMONS";

const PATIENCE: Duration = Duration::from_secs(20);

/// Run by `sh`: folder, program, arguments.
const SCRIPT: &str = "set -e
cp /etc/group \"$0/group\"
grep -q '^frrvty:' \"$0/group\" || echo 'frrvty:x:64999:root' >> \"$0/group\"
mount --bind \"$0/group\" /etc/group
mount --bind \"$0/tmp\" /var/tmp
mount --bind \"$0/run\" /run
exec \"$@\"";

/// Where the daemons are.
#[derive(Clone, Debug)]
pub struct Programs {
    root: PathBuf,
}

impl Programs {
    /// Those of `$NSPLANE_ROUTING_DAEMONS`, of `target/routing-daemons`, or of the machine.
    ///
    /// # Errors
    /// There are none.
    pub fn find() -> Result<Self> {
        let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/routing-daemons");
        let unpacked = std::env::var_os(DIR_ENV).map_or(unpacked, PathBuf::from);
        for root in [unpacked, PathBuf::from("/")] {
            let found = Self { root };
            if found.frr("bgpd").is_file() && found.path("usr/sbin/bird").is_file() {
                return Ok(found);
            }
        }
        bail!("no FRR and BIRD: run `cargo xtask setup`, or set {DIR_ENV}")
    }

    fn path(&self, of: &str) -> PathBuf {
        self.root.join(of)
    }

    fn frr(&self, daemon: &str) -> PathBuf {
        self.path("usr/lib/frr").join(daemon)
    }

    /// Folders of libraries that lie beside the programs.
    fn libraries(&self) -> String {
        let under = fs::read_dir(self.path("usr/lib")).into_iter().flatten().flatten();
        let triplets =
            under.map(|e| e.path()).filter(|p| p.to_string_lossy().ends_with("-linux-gnu"));
        let all = triplets.flat_map(|dir| [dir.clone(), dir.join("frr")]);
        all.map(|dir| dir.to_string_lossy().into_owned()).collect::<Vec<_>>().join(":")
    }

    /// The versions of both, in one line.
    ///
    /// # Errors
    /// One cannot be run.
    pub fn versions(&self) -> Result<String> {
        let said = |program: PathBuf| {
            let mut command = Command::new(&program);
            command.arg("--version").env("LD_LIBRARY_PATH", self.libraries());
            let out = command.output().with_context(|| format!("cannot run {}", program.display()));
            let out = out?;
            // BIRD says it on standard error.
            let text = [out.stdout, out.stderr].concat();
            let text = String::from_utf8_lossy(&text).into_owned();
            anyhow::Ok(text.lines().next().unwrap_or_default().to_owned())
        };
        let (frr, bird) = (said(self.frr("bgpd"))?, said(self.path("usr/sbin/bird"))?);
        Ok(format!("FRR: {frr}; {bird}"))
    }
}

/// The routing daemons of one namespace; ended on drop, the last first.
#[derive(Debug)]
pub struct Router<'a> {
    netns: &'a Netns,
    programs: Programs,
    dir: PathBuf,
    daemons: Vec<Daemon>,
}

#[derive(Debug)]
struct Daemon {
    name: String,
    child: Child,
}

impl<'a> Router<'a> {
    /// One without daemons yet.
    ///
    /// # Errors
    /// Its folder cannot be made.
    pub fn new(programs: &Programs, netns: &'a Netns) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("{}-daemons", netns.name()));
        for part in ["run/frr", "tmp"] {
            let part = dir.join(part);
            fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
        }
        fs::write(dir.join("vtysh.conf"), "username root nopassword\n")?;
        Ok(Self { netns, programs: programs.clone(), dir, daemons: Vec::new() })
    }

    /// Starts a daemon of FRR and waits until it answers. zebra comes first.
    ///
    /// # Errors
    /// It cannot be run, or does not come up; the error has what it said.
    pub fn frr(&mut self, daemon: &str, config: &str) -> Result<()> {
        let socket = self.dir.join(format!("{daemon}.vty"));
        let file = self.config(daemon, config)?;
        let path = |name: &str| self.dir.join(name).to_string_lossy().into_owned();
        let mut args = vec!["-u".to_owned(), "root".to_owned(), "-g".to_owned(), "root".to_owned()];
        args.extend(["-f".to_owned(), file, "-i".to_owned(), path(&format!("{daemon}.pid"))]);
        args.extend(["-z".to_owned(), path("zserv.api"), "--vty_socket".to_owned(), path("")]);
        args.extend(["-P", "0", "--log", "stdout"].map(str::to_owned));
        if daemon == "bfdd" {
            args.extend(["--bfdctl".to_owned(), path("bfdd.sock")]);
        }
        // Left by one that was killed, it would tell of one that is up.
        let _ = fs::remove_file(&socket);
        self.spawn(daemon, &self.programs.frr(daemon), &args)?;
        self.wait_up(daemon, || UnixStream::connect(&socket).is_ok())
    }

    /// Starts BIRD and waits until it answers.
    ///
    /// # Errors
    /// As [`Self::frr`].
    pub fn bird(&mut self, config: &str) -> Result<()> {
        let file = self.config("bird", config)?;
        let socket = self.dir.join("bird.ctl");
        let args = ["-f", "-c", &file, "-s", &socket.to_string_lossy()].map(str::to_owned);
        self.spawn("bird", &self.programs.path("usr/sbin/bird"), &args)?;
        // It listens before it has read its configuration, and greets after that.
        self.wait_up("bird", || {
            let greeting = || -> std::io::Result<[u8; 4]> {
                let mut stream = UnixStream::connect(&socket)?;
                stream.set_read_timeout(Some(Duration::from_secs(1)))?;
                let mut code = [0; 4];
                stream.read_exact(&mut code).map(|()| code)
            };
            greeting().is_ok_and(|code| code == *b"0001")
        })
    }

    fn config(&self, daemon: &str, text: &str) -> Result<String> {
        let file = self.dir.join(format!("{daemon}.conf"));
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file.to_string_lossy().into_owned())
    }

    fn spawn(&mut self, name: &str, program: &Path, args: &[String]) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log_of(name))?;
        let mut run = Command::new("ip");
        run.args(["netns", "exec", self.netns.name(), "sh", "-c", SCRIPT]);
        run.arg(&self.dir).arg(program).args(args);
        run.env("LD_LIBRARY_PATH", self.programs.libraries()).stdin(Stdio::null());
        run.stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = run.spawn().with_context(|| format!("cannot run {}", program.display()))?;
        self.daemons.push(Daemon { name: name.to_owned(), child });
        Ok(())
    }

    fn wait_up(&mut self, name: &str, mut up: impl FnMut() -> bool) -> Result<()> {
        let Some(daemon) = self.daemons.last_mut() else { bail!("no {name} was started") };
        let mut ended = None;
        let waited = wait_until(PATIENCE, &format!("{name} to answer"), || {
            ended = daemon.child.try_wait().ok().flatten();
            ended.is_some() || up()
        });
        let netns = self.netns.name();
        match (waited, ended) {
            (Ok(()), None) => Ok(()),
            (Ok(()), Some(status)) => bail!("{name} in {netns}: {status}; {}", self.log(name)),
            (Err(error), _) => bail!("{error} in {netns}; it said:\n{}", self.log(name)),
        }
    }

    fn log_of(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    /// What a daemon said.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.log_of(name)).unwrap_or_default()
    }

    /// Asks FRR, in the words of `vtysh`.
    ///
    /// # Errors
    /// It does not answer.
    pub fn vtysh(&self, words: &str) -> Result<String> {
        let path = self.programs.path("usr/bin/vtysh");
        let mut command = Command::new(path);
        command.arg("--config_dir").arg(&self.dir).arg("--vty_socket").arg(&self.dir);
        command.args(["-c", words]).env("LD_LIBRARY_PATH", self.programs.libraries());
        let out = command.output().context("cannot run vtysh")?;
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// Asks BIRD, in the words of `birdc`.
    ///
    /// # Errors
    /// It does not answer.
    pub fn birdc(&self, words: &str) -> Result<String> {
        let path = self.programs.path("usr/sbin/birdcl");
        let socket = self.dir.join("bird.ctl");
        let mut all = vec!["-s".to_owned(), socket.to_string_lossy().into_owned()];
        all.extend(words.split(' ').map(str::to_owned));
        command::run(&path.to_string_lossy(), all)
    }

    /// SIGKILL to a daemon, and waits for its end.
    ///
    /// # Errors
    /// There is no such daemon.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        let at = self.daemons.iter().position(|d| d.name == name);
        let mut daemon = self.daemons.remove(at.with_context(|| format!("no {name} runs"))?);
        daemon.child.kill().with_context(|| format!("cannot kill {name}"))?;
        daemon.child.wait().with_context(|| format!("cannot wait for {name}")).map(drop)
    }
}

impl Drop for Router<'_> {
    fn drop(&mut self) {
        for mut daemon in std::mem::take(&mut self.daemons).into_iter().rev() {
            let _ = sys::kill(daemon.child.id(), libc::SIGTERM);
            let ended = || daemon.child.try_wait().is_ok_and(|status| status.is_some());
            if wait_until(Duration::from_secs(5), "a daemon to end", ended).is_err() {
                let _ = daemon.child.kill();
                let _ = daemon.child.wait();
            }
            if std::thread::panicking() {
                let (name, netns) = (&daemon.name, self.netns.name());
                eprintln!("--- {name} in {netns} ---\n{}", self.log(name));
            }
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}
