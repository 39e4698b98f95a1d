//! Programs run to their end, with what they said in the error.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a program to its end and returns its standard output.
///
/// # Errors
/// The program cannot be started, or ends with another status than 0; the error
/// has the whole command line and what it printed.
pub fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Result<String> {
    let mut command = Command::new(program);
    command.args(args);
    output(command, None)
}

/// Runs `program` with `input` as its standard input.
///
/// # Errors
/// As [`run`].
pub fn run_with_input<S: AsRef<OsStr>>(
    program: &str,
    args: impl IntoIterator<Item = S>,
    input: &str,
) -> Result<String> {
    let mut command = Command::new(program);
    command.args(args);
    output(command, Some(input))
}

fn output(mut command: Command, input: Option<&str>) -> Result<String> {
    let line = command_line(&command);
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run `{line}`"))?;
    if let (Some(text), Some(mut pipe)) = (input, child.stdin.take()) {
        // A program that ends early says why in its status and output.
        let _ = pipe.write_all(text.as_bytes());
    }
    let out = child.wait_with_output().with_context(|| format!("cannot wait for `{line}`"))?;
    let stdout = String::from_utf8_lossy(&out.stdout).into_owned();
    if !out.status.success() {
        let stderr = String::from_utf8_lossy(&out.stderr);
        let fed = input.map(|text| format!(" with input\n{text}")).unwrap_or_default();
        bail!("`{line}`{fed} failed ({}): {} {}", out.status, stderr.trim(), stdout.trim());
    }
    Ok(stdout)
}

fn command_line(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_the_command_and_what_it_said() {
        let error = run("sh", ["-c", "echo no such thing >&2; exit 3"]).unwrap_err().to_string();
        assert!(error.contains("sh -c"), "{error}");
        assert!(error.contains("no such thing"), "{error}");
        assert!(error.contains('3'), "{error}");
    }

    #[test]
    fn input_reaches_the_program() {
        assert_eq!(run_with_input("cat", [] as [&str; 0], "hello").unwrap(), "hello");
    }
}
