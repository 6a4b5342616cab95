//! Python programs that Debian does not have, with what they depend on, for the machine's Python.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::MANIFEST;

/// A program and its version, by pip.
pub struct PythonProgram {
    /// The folder below `target/assets`: what `PYTHONPATH` has to name.
    pub name: &'static str,
    /// As pip takes it.
    pub requirement: &'static str,
}

pub const PYTHON_PROGRAMS: &[PythonProgram] =
    &[PythonProgram { name: "vncdotool", requirement: "vncdotool==1.4.2" }];

impl PythonProgram {
    /// Downloads and unpacks it, unless it is there.
    pub fn fetch(&self, cache: &Path) -> Result<()> {
        let folder = cache.join(self.name);
        let manifest = folder.join(MANIFEST);
        let recipe = format!("pip: {}\n", self.requirement);
        if fs::read_to_string(&manifest).is_ok_and(|text| text.starts_with(&recipe)) {
            return Ok(());
        }
        println!("fetch: {} ({})", self.name, recipe.trim());
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        // Ready packages only: nothing of theirs runs here before a test asks for it.
        let mut install = pip();
        install.args(["install", "--quiet", "--only-binary", ":all:", "--target"]);
        let output = install.arg(&folder).arg(self.requirement).output();
        let output = output.context("Cannot run python3")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "pip: {}", errors.trim());
        let listed = pip().args(["freeze", "--path"]).arg(&folder).output()?;
        ensure!(listed.status.success(), "pip cannot list what it installed");
        fs::write(manifest, recipe + &String::from_utf8_lossy(&listed.stdout))?;
        println!("fetch: {} is ready", self.name);
        Ok(())
    }
}

fn pip() -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "--disable-pip-version-check"]);
    command
}
