//! `-daemonize`: the command returns when the machine can be reached, and the machine goes on.
//!
//! A process with threads cannot be forked, so the program starts itself again and waits for its
//! word.

use std::env;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};

/// Set for the one that goes on.
const MARK: &str = "HOSTEL_EMULATOR_IN_BACKGROUND";
const READY: &[u8] = b"ready";

/// Whether this process is the one that goes on.
pub fn is_in_background() -> bool {
    env::var_os(MARK).is_some()
}

/// Starts the one that goes on, and waits until it says that it can be reached, or ends.
pub fn start() -> Result<ExitCode> {
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_default();
    let program = env::current_exe().context("cannot find the program to put into background")?;
    let mut child = Command::new(program)
        .arg0(name)
        .args(arguments)
        .env(MARK, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot go into background")?;
    let mut word = Vec::new();
    if let Some(output) = child.stdout.take() {
        _ = output.take(READY.len() as u64).read_to_end(&mut word);
    }
    if word == READY {
        return Ok(ExitCode::SUCCESS);
    }
    // It has said why on the way that both share.
    let status = child.wait().context("cannot wait for the background process")?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// Lets go of the terminal, and tells the one that waits.
pub fn ready() -> Result<()> {
    // A process that leads a group already has a session of its own.
    _ = rustix::process::setsid();
    env::set_current_dir("/").context("cannot go to /")?;
    let mut output = io::stdout();
    output.write_all(READY).and_then(|()| output.flush()).context("nobody waits")?;
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}
