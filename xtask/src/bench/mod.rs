//! `cargo xtask bench`: our command and the peer's, in alternation, with honest figures.
//!
//! A benchmark is a [`Row`]. For each, both commands run N times in turn (ours, theirs, ours, ...),
//! so that a machine whose speed drifts hurts both alike; the ratio is taken pair by pair. A run
//! with the wrong output fails its row. Nothing here ever gates CI.

mod measure;
mod report;
mod rows;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::workspace;
use measure::{Figures, measure};
pub use measure::{TASK as RUN_ONE, run_one};
use report::Report;
use rows::ROWS;

/// A comparison of two commands that do the same work.
pub struct Row {
    pub name: &'static str,
    /// Files that must be there, below the workspace's root; without them the row is skipped.
    pub needs: &'static [&'static str],
    /// Our command, a shell line in the workspace's root.
    pub ours: &'static str,
    /// The peer's command.
    pub theirs: &'static str,
    /// What standard output must hold, for both.
    pub expect: &'static str,
}

const RUNS: usize = 7;

/// Runs the task.
pub fn run(arguments: &[String]) -> Result<()> {
    let mut runs = RUNS;
    let mut names = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--runs" => runs = words.next().context("--runs takes a number")?.parse()?,
            "--list" => {
                ROWS.iter().for_each(|row| println!("{}", row.name));
                return Ok(());
            }
            name => names.push(name.to_owned()),
        }
    }
    ensure!(runs > 0, "--runs takes a number above 0");
    for name in &names {
        ensure!(ROWS.iter().any(|row| row.name == name), "There is no benchmark '{name}'");
    }
    prepare()?;
    let chosen = |row: &&Row| names.is_empty() || names.iter().any(|name| name == row.name);
    let reports: Vec<Report> = ROWS.iter().filter(chosen).map(|row| compare(row, runs)).collect();
    print!("{}", report::table(&reports));
    report::write_json(&reports)
}

/// Init of the machine that is booted.
const INIT: &str = "echo INIT REACHED\n/bin/busybox poweroff -f";
/// Bytes of the image that is converted: the kernel over and over, so that it compresses.
const RAW_BYTES: usize = 256 << 20;

/// Makes the rows' inputs below `target/bench` from the fetched assets; what is missing is skipped
/// by the rows that need it.
fn prepare() -> Result<()> {
    let folder = workspace::root().join("target/bench");
    fs::create_dir_all(&folder)?;
    let busybox = tests::asset("busybox-amd64/bin/busybox");
    if let Some(busybox) = busybox {
        tests::initramfs::write(&folder.join("initrd"), &busybox, INIT)?;
    }
    if let Some(kernel) = tests::asset_file("kernel-12/boot", "vmlinuz") {
        let kernel = fs::read(kernel)?;
        fs::write(folder.join("vmlinuz"), &kernel)?;
        if !folder.join("raw").exists() {
            // Every other byte plain, so that there is something to compress.
            let half = kernel.iter().flat_map(|byte| [*byte, 0]).cycle();
            fs::write(folder.join("raw"), half.take(RAW_BYTES).collect::<Vec<u8>>())?;
        }
    }
    Ok(())
}

/// Runs one row. What goes wrong becomes part of the report, not an end of the run.
fn compare(row: &Row, runs: usize) -> Report {
    let missing: Vec<PathBuf> = row
        .needs
        .iter()
        .map(|path| workspace::root().join(path))
        .filter(|path| !path.exists())
        .collect();
    if let Some(path) = missing.first() {
        return Report::skipped(row.name, format!("{} is missing", path.display()));
    }
    eprintln!("bench: {}", row.name);
    let (mut ours, mut theirs): (Vec<Figures>, Vec<Figures>) = (Vec::new(), Vec::new());
    for turn in 0..=runs {
        for (command, figures) in [(row.ours, &mut ours), (row.theirs, &mut theirs)] {
            match measure(command, row.expect) {
                Ok(_) if turn == 0 => {} // the warm-up
                Ok(measured) => figures.push(measured),
                Err(error) => return Report::failed(row.name, format!("{error:#}")),
            }
        }
    }
    Report::compared(row.name, ours, theirs)
}
