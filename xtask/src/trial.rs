//! `cargo xtask try`: one command from a clone to a shell in a machine on the translator.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::workspace;

/// Runs the task: `hostel shell`, which makes the machine. Further arguments go to it.
pub fn run(arguments: &[String]) -> Result<()> {
    let root = workspace::root();
    println!("try: building the release executable");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let build = ["build", "--release", "--quiet", "--package", "hostel"];
    let status = Command::new(cargo).args(build).current_dir(&root).status()?;
    ensure!(status.success(), "cargo build ended with {status}");
    let status = Command::new(root.join("target/release/hostel"))
        .arg("shell")
        .args(arguments)
        .status()
        .context("Cannot start hostel")?;
    ensure!(status.success(), "the shell ended with {status}");
    Ok(())
}
