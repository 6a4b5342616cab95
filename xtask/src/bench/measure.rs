//! One run of one command: CPU time, wall time and peak memory, by the operating system's account.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::workspace;

/// What one run cost.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// User and system time together.
    pub cpu_s: f64,
    pub wall_s: f64,
    pub peak_kib: f64,
}

/// A small Python program that runs its arguments and writes wait4's account of them to descriptor
/// 3. Python is on every machine that runs the tests, and this task needs no unsafe code that way.
const TIMER: &str = "
import os, sys, time
start = time.monotonic()
child = os.posix_spawn('/bin/sh', ['/bin/sh', '-c', 'exec ' + sys.argv[1]], os.environ)
_, status, usage = os.wait4(child, 0)
wall = time.monotonic() - start
print(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status) & 255)
";

/// Runs `command` once; an exit code other than 0 or output without `expect` is an error.
pub fn measure(command: &str, expect: &str) -> Result<Figures> {
    let output = Command::new("python3")
        .args(["-c", TIMER, command])
        .current_dir(workspace::root())
        .output()
        .context("Cannot start python3")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "'{command}' ended with {}: {stderr}", output.status);
    let stdout = String::from_utf8_lossy(&output.stdout);
    ensure!(stdout.contains(expect), "'{command}' printed no '{expect}'");
    let account = stderr.lines().last().context("no account of the run")?;
    let mut numbers = account.split_whitespace().map(str::parse::<f64>);
    let mut number = || numbers.next().context("an account of three numbers")?.context("a number");
    Ok(Figures { cpu_s: number()?, wall_s: number()?, peak_kib: number()? })
}
