//! One run of one command: CPU time, wall time and peak memory, by the operating system's account.
//!
//! The system gives a process the account of all its finished children together, so each run has a
//! process of its own: this program again, as [`TASK`], with one child.

use std::env;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::workspace;

/// What one run cost.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// User and system time together.
    pub cpu_s: f64,
    pub wall_s: f64,
    /// Never less than this program's own few MiB, which a child starts with.
    pub peak_kib: f64,
}

/// The hidden task that runs one command and prints its account as the last line of standard error.
pub const TASK: &str = "run-one";

/// Runs `command` once: what it cost, and its output. An exit code other than 0 or output without
/// `expect` is an error.
pub fn measure(command: &str, expect: &str) -> Result<(Figures, String)> {
    let output = Command::new(env::current_exe().context("This program has no path")?)
        .args([TASK, command])
        .current_dir(workspace::root())
        .stdin(Stdio::null())
        .output()
        .context("Cannot start a run")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "'{command}' ended with {}: {stderr}", output.status);
    let stdout = String::from_utf8_lossy(&output.stdout);
    ensure!(stdout.contains(expect), "'{command}' printed no '{expect}'");
    let account = stderr.lines().last().context("no account of the run")?;
    let mut numbers = account.split_whitespace().map(str::parse::<f64>);
    let mut number = || numbers.next().context("an account of three numbers")?.context("a number");
    let figures = Figures { cpu_s: number()?, wall_s: number()?, peak_kib: number()? };
    Ok((figures, stdout.into_owned()))
}

/// The task: a shell line, whose output is ours.
pub fn run_one(arguments: &[String]) -> Result<()> {
    let [line] = arguments else { bail!("{TASK} takes one shell line") };
    let start = Instant::now();
    let status = Command::new("/bin/sh").args(["-c", &format!("exec {line}")]).status()?;
    let wall_s = start.elapsed().as_secs_f64();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("The system gives no account")?;
    let cpu_us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    ensure!(status.success(), "it ended with {status}");
    eprintln!("{} {wall_s} {}", cpu_us as f64 / 1e6, usage.max_rss());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_accounted_for() {
        run_one(&["true".to_owned()]).unwrap();
        let error = run_one(&["false".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("exit status: 1"), "{error}");
    }
}
