//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks every few milliseconds until `condition` is true.
///
/// # Errors
/// It was not within `timeout`; the error says for `what` we waited.
pub fn wait_until(
    timeout: Duration,
    what: &str,
    mut condition: impl FnMut() -> bool,
) -> Result<()> {
    wait_for(timeout, what, || condition().then_some(()))
}

/// Asks every few milliseconds until `probe` gives a value.
///
/// # Errors
/// It gave none within `timeout`; the error says for `what` we waited.
pub fn wait_for<T>(
    timeout: Duration,
    what: &str,
    mut probe: impl FnMut() -> Option<T>,
) -> Result<T> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(value) = probe() {
            return Ok(value);
        }
        if start.elapsed() >= timeout {
            bail!("waited {timeout:?} in vain for {what}");
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_ends_the_wait() {
        let mut asked = 0;
        wait_until(Duration::from_secs(5), "three questions", || {
            asked += 1;
            asked == 3
        })
        .unwrap();
        assert_eq!(asked, 3);
    }

    #[test]
    fn the_error_says_what_did_not_happen() {
        let error = wait_until(Duration::from_millis(5), "the moon", || false).unwrap_err();
        assert!(error.to_string().contains("the moon"));
    }
}
