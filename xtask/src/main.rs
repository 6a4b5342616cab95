//! Automation in Rust: `cargo xtask TASK`. What CI runs, a laptop runs.

mod bench;
mod ci;
mod claims;
mod fetch;
mod tidy;
mod trial;
mod workspace;

use std::env;
use std::process::ExitCode;

use anyhow::{Result, bail};

/// A task: its word, its arguments, what it does.
struct Task {
    name: &'static str,
    usage: &'static str,
    summary: &'static str,
    run: fn(&[String]) -> Result<()>,
}

const TASKS: &[Task] = &[
    Task {
        name: "ci",
        usage: "ci [STAGE...]",
        summary: "Fetch, check and test everything; the README's test command",
        run: ci::run,
    },
    Task {
        name: "try",
        usage: "try [OPTION...]",
        summary: "Boot a Debian kernel to a shell on the translator; the README's main job",
        run: trial::run,
    },
    Task {
        name: "tidy",
        usage: "tidy [--bless]",
        summary: "Check the layering, the fences, lengths and docs",
        run: tidy::run,
    },
    Task {
        name: "fetch",
        usage: "fetch [ASSET...]",
        summary: "Bring test assets from Debian's archive into target/assets",
        run: fetch::run,
    },
    Task {
        name: "bench",
        usage: "bench [--runs N] [ROW...]",
        summary: "Compare us with the tools we replace, side by side",
        run: bench::run,
    },
    Task {
        name: "claims",
        usage: "claims",
        summary: "Rewrite the tables of what works from the claims",
        run: claims::run,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.split_first() {
        None => print_help(),
        Some((word, _)) if matches!(word.as_str(), "help" | "--help" | "-h") => print_help(),
        Some((word, rest)) if word == bench::RUN_ONE => bench::run_one(rest),
        Some((word, rest)) => run_task(word, rest),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_task(word: &str, rest: &[String]) -> Result<()> {
    match TASKS.iter().find(|task| task.name == word) {
        Some(task) => (task.run)(rest),
        None => bail!("There is no task '{word}'; 'cargo xtask help' lists them"),
    }
}

fn print_help() -> Result<()> {
    println!("Usage: cargo xtask TASK\n");
    for Task { usage, summary, .. } in TASKS {
        println!("  {usage:<28} {summary}");
    }
    Ok(())
}
