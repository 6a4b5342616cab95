//! `cargo xtask bench`: our command and the peer's, in alternation, with honest figures.
//!
//! A benchmark is a [`Row`]. For each, both commands run N times in turn (ours, theirs, ours, ...),
//! so that a machine whose speed drifts hurts both alike; the ratio is taken pair by pair. A run
//! with the wrong output fails its row. Nothing here ever gates CI.

mod kernels;
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

/// A comparison of commands that do the same work.
pub struct Row {
    pub name: String,
    /// Rows of one group have a geometric mean.
    pub group: Option<&'static str>,
    /// Files that must be there, below the workspace's root; without them the row is skipped.
    pub needs: Vec<String>,
    /// Our command, a shell line in the workspace's root.
    pub ours: String,
    /// The peers' commands: we are held against the best of them.
    pub theirs: Vec<String>,
    /// What standard output must hold, for all.
    pub expect: &'static str,
}

const RUNS: usize = 7;

/// Runs the task.
pub fn run(arguments: &[String]) -> Result<()> {
    let rows = rows::all();
    let mut runs = RUNS;
    let mut names = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--runs" => runs = words.next().context("--runs takes a number")?.parse()?,
            "--list" => {
                rows.iter().for_each(|row| println!("{}", row.name));
                return Ok(());
            }
            name => names.push(name.to_owned()),
        }
    }
    ensure!(runs > 0, "--runs takes a number above 0");
    for name in &names {
        let known = rows.iter().any(|row| row.name == *name || row.group == Some(name));
        ensure!(known, "There is no benchmark and no group '{name}'");
    }
    prepare()?;
    let named = |row: &Row, name: &str| row.name == name || row.group == Some(name);
    let chosen = |row: &&Row| names.is_empty() || names.iter().any(|name| named(row, name));
    let reports: Vec<Report> = rows.iter().filter(chosen).map(|row| compare(row, runs)).collect();
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
    kernels::build(&folder)?;
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
        return Report::skipped(row, format!("{} is missing", path.display()));
    }
    eprintln!("bench: {}", row.name);
    let commands: Vec<&String> = std::iter::once(&row.ours).chain(&row.theirs).collect();
    let mut figures: Vec<Vec<Figures>> = vec![Vec::new(); commands.len()];
    let mut printed = None;
    for turn in 0..=runs {
        for (command, figures) in commands.iter().zip(&mut figures) {
            match measure(command, row.expect) {
                Ok((_, output)) if turn == 0 => {
                    // The warm-up. Who computes the same prints the same.
                    if row.group.is_some() && *printed.get_or_insert(output.clone()) != output {
                        return Report::failed(row, format!("'{command}' printed {output}"));
                    }
                }
                Ok((measured, _)) => figures.push(measured),
                Err(error) => return Report::failed(row, format!("{error:#}")),
            }
        }
    }
    let ours = figures.remove(0);
    let best = figures.into_iter().min_by(|a, b| report::cpu(a).total_cmp(&report::cpu(b)));
    Report::compared(row, ours, best.unwrap_or_default())
}
