//! What a command is doing, on stderr: a line a step, with the time since the
//! start; for long work the last thing it said, every few seconds.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const HEARTBEAT: Duration = Duration::from_secs(10);
/// Lines of a log that are shown when its program failed.
const SHOWN: usize = 40;

/// Says that a step begins.
pub(crate) fn say(what: &str) {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed().as_secs_f64();
    eprintln!("[{elapsed:7.1} s] {what}");
}

/// Runs a program with its output on our terminal.
///
/// # Errors
/// It cannot be run, or fails.
pub(crate) fn run(what: &str, command: &mut Command) -> Result<()> {
    say(what);
    let line = words(command);
    let status = command.status().with_context(|| format!("cannot run `{line}`"))?;
    if !status.success() {
        bail!("{what} failed ({status}): `{line}`");
    }
    Ok(())
}

/// Runs a program with its output in `target/xtask/<name>.log`, which is shown if
/// it fails. While it runs, its last line is shown from time to time.
///
/// # Errors
/// It cannot be run, or fails; the error has the log's end.
pub(crate) fn run_logged(root: &Path, name: &str, what: &str, command: &mut Command) -> Result<()> {
    say(what);
    let path = log_path(root, name)?;
    let log = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    let line = words(command);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut child = command.spawn().with_context(|| format!("cannot run `{line}`"))?;
    let mut shown = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if shown.elapsed() >= HEARTBEAT {
            shown = Instant::now();
            say(&format!("  ... {}", tail(&path, 1)));
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    if !status.success() {
        let end = tail(&path, SHOWN);
        bail!("{what} failed ({status}): `{line}`\n{end}\nall of it: {}", path.display());
    }
    Ok(())
}

fn log_path(root: &Path, name: &str) -> Result<PathBuf> {
    let dir = root.join("target/xtask");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir.join(format!("{name}.log")))
}

fn tail(path: &Path, lines: usize) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    last_lines(&String::from_utf8_lossy(&bytes), lines)
}

fn last_lines(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn words(command: &Command) -> String {
    let args = command.get_args().map(|arg| arg.to_string_lossy());
    let program = command.get_program().to_string_lossy();
    std::iter::once(program).chain(args).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_those_with_words() {
        assert_eq!(last_lines("a\nb\n\nc\n\n", 2), "b\nc");
        assert_eq!(last_lines("a", 2), "a");
        assert_eq!(last_lines("", 2), "");
    }
}
