//! qemu-img: one file for each command.

mod amend;
mod bench;
mod bitmap;
mod check;
mod commit;
mod compare;
mod convert;
mod create;
mod dd;
mod failure;
mod info;
mod map;
mod measure;
pub mod opening;
mod progress;
mod rebase;
mod resize;
mod snapshot;

use std::process::ExitCode;

use qemu_compat::image_tool::arguments::{Typed, flag, split, with_value};
use qemu_compat::image_tool::commands::{self, Command};

use failure::{Failure, Outcome};

/// What `--version` prints. Tools parse the first line.
pub fn version_text() -> String {
    format!("qemu-img version 10.0.2 (Hostel {})\n", env!("CARGO_PKG_VERSION"))
}

/// The codes that commands end with, unless they say otherwise.
const EXIT_FAILED: u8 = 1;

type Run = fn(&Typed) -> Outcome;

/// What each command runs.
const RUNS: &[(&str, Run)] = &[
    ("amend", amend::run),
    ("bench", bench::run),
    ("bitmap", bitmap::run),
    ("check", check::run),
    ("commit", commit::run),
    ("compare", compare::run),
    ("convert", convert::run),
    ("create", create::run),
    ("dd", dd::run),
    ("info", info::run),
    ("map", map::run),
    ("measure", measure::run),
    ("rebase", rebase::run),
    ("resize", resize::run),
    ("snapshot", snapshot::run),
];

/// Runs qemu-img.
pub fn run(name: &str, arguments: &[String]) -> ExitCode {
    let standard = [flag('h', "help"), flag('V', "version"), with_value('T', "trace")];
    let typed = match split(&standard, arguments, true) {
        Ok(typed) => typed,
        Err(refusal) => {
            eprintln!("{name}: {refusal}\nTry '{name} --help' for more info");
            return ExitCode::from(EXIT_FAILED);
        }
    };
    if typed.has("help") {
        print!("{}", commands::overview(&version_text(), &drivers()));
        return ExitCode::SUCCESS;
    }
    if typed.has("version") {
        print!("{}", version_text());
        return ExitCode::SUCCESS;
    }
    if typed.has("trace") {
        eprintln!("{name}: The option -T/--trace is not supported");
        return ExitCode::from(EXIT_FAILED);
    }
    let Some((word, rest)) = typed.operands.split_first() else {
        eprintln!("{name}: Not enough arguments\nTry '{name} --help' for more info");
        return ExitCode::from(EXIT_FAILED);
    };
    let command = commands::find(word);
    let run = RUNS.iter().find(|(name, _)| name == word);
    match (command, run) {
        (Some(command), Some((_, run))) => run_command(name, command, *run, rest),
        _ => {
            eprintln!("{name}: Command not found: {word}\nTry '{name} --help' for more info");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn run_command(name: &str, command: &Command, run: Run, arguments: &[String]) -> ExitCode {
    // A size to shrink by begins like an option.
    let shrinks = |word: &&String| {
        command.name == "resize"
            && word.starts_with('-')
            && word[1..].starts_with(|c: char| c.is_ascii_digit())
    };
    let (arguments, size) = match arguments.split_last() {
        Some((last, rest)) if shrinks(&last) => (rest, Some(last.clone())),
        _ => (arguments, None),
    };
    let typed = match split(command.flags, arguments, false) {
        Ok(mut typed) => {
            typed.operands.extend(size);
            typed
        }
        Err(refusal) => {
            let command = command.name;
            eprintln!("{name} {command}: {refusal}\nTry '{name} {command} --help' for more info");
            return ExitCode::from(EXIT_FAILED);
        }
    };
    if typed.has("help") {
        print!("{}", commands::help(command));
        return ExitCode::SUCCESS;
    }
    let outcome = opening::make_objects(&typed).and_then(|()| run(&typed));
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.print(name, command.name);
            ExitCode::from(failure.code)
        }
    }
}

/// Every driver's name.
fn drivers() -> Vec<&'static str> {
    let formats = block::formats::FORMATS.iter().map(|format| format.name);
    let mut names: Vec<_> =
        formats.chain(block::protocols::PROTOCOLS.iter().map(|protocol| protocol.name)).collect();
    names.sort_unstable();
    names
}

/// A failure with the usual exit code.
fn fail(text: impl Into<String>) -> Failure {
    Failure::new(text)
}
