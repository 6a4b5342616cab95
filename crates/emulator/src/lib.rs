//! The `qemu-system-x86_64` applet: command line to machine to run.

mod acceleration;
mod audio;
mod blocks;
mod boards;
mod character;
mod commands;
mod counted;
mod credentials;
mod daemonize;
mod debugger;
mod descriptors;
mod device_help;
mod emulator;
mod errors;
mod exports;
mod filters;
mod firmware;
mod help;
mod keys;
mod dump;
mod migration;
mod monitor;
mod networks;
mod nics;
mod objects;
mod options;
mod parts;
mod passt;
mod picture;
mod processors;
mod reactor;
mod sandbox;
mod screens;
mod shares;
mod smb;
mod smbios;
mod snapshots;
mod start;
mod tap_helpers;
mod wires;
mod typist;

use std::ffi::OsString;
use std::process::ExitCode;

use machine::End;
pub use machine::kvm::probe as micro_guest;
use options::{Action, Options};

/// Before messages that do not end the program.
const PROGRAM: &str = "qemu-system-x86_64";

/// The version that we report, so that scripts find what they know.
const QEMU_VERSION: (u32, u32, u32) = (10, 0, 2);
/// Behind the version, where distributions put theirs.
const PACKAGE: &str = concat!("Hostel ", env!("CARGO_PKG_VERSION"));

/// Runs the applet.
pub fn run(name: &str, arguments: &[OsString]) -> ExitCode {
    match Options::parse(arguments) {
        Ok(Action::Version) => {
            let (major, minor, micro) = QEMU_VERSION;
            let own = env!("CARGO_PKG_VERSION");
            println!("QEMU emulator version {major}.{minor}.{micro} (Hostel {own})");
            ExitCode::SUCCESS
        }
        Ok(Action::Print(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Action::Run(options)) => {
            let stamp = options.run.timestamps;
            let ended = match options.run.daemonize && !daemonize::is_in_background() {
                true => daemonize::start(),
                false => start::run(*options).map(exit_code),
            };
            ended.unwrap_or_else(|error| {
                let now = if stamp { timestamp() } else { String::new() };
                eprintln!("{now}{name}: {error:#}");
                ExitCode::FAILURE
            })
        }
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Seconds by which the host's local time is ahead of UTC.
fn local_time_offset() -> i64 {
    i64::from(chrono::Local::now().offset().local_minus_utc())
}

fn exit_code(end: End) -> ExitCode {
    match end {
        End::Exit(code) => ExitCode::from(code),
        End::Shutdown | End::Quit => ExitCode::SUCCESS,
    }
}

/// The time as it stands before messages, with a blank behind.
fn timestamp() -> String {
    chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S%.6fZ ").to_string()
}
