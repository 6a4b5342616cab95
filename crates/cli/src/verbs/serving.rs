//! Processes of this user that serve a machine after the command that started them has ended.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::failure::Failure;

/// What such a process says when it serves.
const READY: &str = "ready\n";

/// Starts this program again with these words, and waits until it serves; what it complains of
/// instead is the failure's cause.
pub fn start(words: &[&str], failed: impl Fn() -> Failure) -> Result<(), Failure> {
    let program = std::env::current_exe().map_err(|error| failed().because(&error))?;
    let mut child = Command::new(program)
        .args(words)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // It stays when this one ends, and Ctrl-C is not for it.
        .process_group(0)
        .spawn()
        .map_err(|error| failed().because(&error))?;
    let mut line = String::new();
    let read = child.stdout.take().map(|output| BufReader::new(output).read_line(&mut line));
    if matches!(read, Some(Ok(_))) && line == READY {
        return Ok(());
    }
    let mut said = String::new();
    if let Some(mut errors) = child.stderr.take() {
        _ = errors.read_to_string(&mut said);
    }
    let mut failure = failed();
    failure.causes.push(said.trim().trim_start_matches("error: ").to_owned());
    Err(failure)
}

/// Tells who started this process that it serves.
pub fn is_ready() {
    print!("{READY}");
    _ = std::io::stdout().flush();
}
