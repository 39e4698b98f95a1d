//! Stages run one after the other, all of them whatever fails, and a summary.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::progress::say;

/// What `cargo test` counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tests {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// What was run until now.
#[derive(Debug, Default)]
pub(crate) struct Stages {
    done: Vec<Stage>,
    left_out: Vec<String>,
}

#[derive(Debug)]
struct Stage {
    name: String,
    time: Duration,
    tests: Option<Tests>,
    error: Option<String>,
}

impl Stages {
    /// Runs a stage; a failure is kept for the summary.
    pub(crate) fn run(&mut self, name: &str, work: impl FnOnce() -> Result<()>) {
        self.record(name, || work().map(|()| None));
    }

    /// Runs a command as a stage, with its output on our terminal.
    pub(crate) fn command(&mut self, name: &str, command: &mut Command) {
        self.run(name, || {
            let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
            if status.success() { Ok(()) } else { bail!("{status}") }
        });
    }

    /// Runs a command that runs tests as a stage, and counts them.
    pub(crate) fn tests(&mut self, name: &str, command: &mut Command) {
        self.record(name, || count_tests(command, std::io::stdout()).map(Some));
    }

    fn record(&mut self, name: &str, work: impl FnOnce() -> Result<Option<Tests>>) {
        say(name);
        let start = Instant::now();
        let (tests, error) = match work() {
            Ok(tests) => {
                let failed = tests.is_some_and(|tests| tests.failed > 0);
                (tests, failed.then(|| "tests failed".to_owned()))
            }
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        if let Some(error) = &error {
            say(&format!("{name}: FAILED: {error}"));
        }
        self.done.push(Stage { name: name.to_owned(), time: start.elapsed(), tests, error });
    }

    /// Notes something that was not run, and why.
    pub(crate) fn leave_out(&mut self, what: impl Into<String>) {
        self.left_out.push(what.into());
    }

    /// Prints the summary.
    ///
    /// # Errors
    /// A stage failed.
    pub(crate) fn finish(self) -> Result<()> {
        let failed = self.done.iter().filter(|stage| stage.error.is_some()).count();
        print!("{}", self.summary());
        if failed > 0 {
            bail!("{failed} of {} stages failed", self.done.len());
        }
        Ok(())
    }

    fn summary(&self) -> String {
        let mut text = String::from("\nsummary:\n");
        let mut all = Tests::default();
        for stage in &self.done {
            let result = if stage.error.is_some() { "FAILED" } else { "ok" };
            let tests = stage.tests.map(|tests| {
                all.passed += tests.passed;
                all.failed += tests.failed;
                format!(", {} passed, {} failed", tests.passed, tests.failed)
            });
            let time = stage.time.as_secs_f64();
            let tests = tests.unwrap_or_default();
            text.push_str(&format!("  {result:<6}  {} ({time:.1} s{tests})\n", stage.name));
        }
        for what in &self.left_out {
            text.push_str(&format!("  left out: {what}\n"));
        }
        text.push_str(&format!("{} passed, {} failed\n", all.passed, all.failed));
        text
    }
}

/// Runs tests, repeats what they say on the terminal, and adds up what they say.
fn count_tests(command: &mut Command, mut terminal: impl Write) -> Result<Tests> {
    let name = format!("{command:?}");
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run {name}"))?;
    let mut all = Tests::default();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = line.context("reading what the tests say")?;
            let line = String::from_utf8_lossy(&line);
            writeln!(terminal, "{line}").context("repeating what the tests say")?;
            if let Some(tests) = parse_result(&line) {
                all.passed += tests.passed;
                all.failed += tests.failed;
                all.ignored += tests.ignored;
            }
        }
    }
    let status = child.wait().with_context(|| format!("cannot wait for {name}"))?;
    if !status.success() && all.failed == 0 {
        bail!("{name}: {status}");
    }
    Ok(all)
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; ...`
fn parse_result(line: &str) -> Option<Tests> {
    let rest = line.strip_prefix("test result: ")?;
    let (_, counts) = rest.split_once(". ")?;
    let mut tests = Tests::default();
    for part in counts.split("; ") {
        let (number, what) = part.split_once(' ')?;
        let Ok(number) = number.parse() else { continue };
        match what {
            "passed" => tests.passed = number,
            "failed" => tests.failed = number,
            "ignored" => tests.ignored = number,
            _ => {}
        }
    }
    Some(tests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_cargo_test_are_read() {
        let line = "test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; \
                    0 filtered out; finished in 0.02s";
        assert_eq!(parse_result(line), Some(Tests { passed: 3, failed: 2, ignored: 1 }));
        assert_eq!(parse_result("test a ... ok"), None);
    }

    #[test]
    fn tests_of_a_command_are_counted_also_when_it_fails() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'test result: FAILED. 1 passed; 1 failed; 0 ignored'; exit 101"]);
        let mut terminal = Vec::new();
        let tests = count_tests(&mut command, &mut terminal).unwrap();
        assert!(terminal.starts_with(b"test result"));
        assert_eq!((tests.passed, tests.failed), (1, 1));
        assert!(count_tests(Command::new("sh").args(["-c", "exit 101"]), Vec::new()).is_err());
    }

    #[test]
    fn all_stages_run_and_one_failure_fails_all() {
        let mut stages = Stages::default();
        stages.run("first", || bail!("no"));
        stages.run("second", || Ok(()));
        stages.leave_out("third: not root");
        let text = stages.summary();
        assert!(text.contains("FAILED  first"), "{text}");
        assert!(text.contains("ok      second"), "{text}");
        assert!(text.contains("left out: third: not root"), "{text}");
        assert!(stages.finish().is_err());
    }
}
