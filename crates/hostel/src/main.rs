//! The executable `hostel`: chooses an applet and hands over.
//!
//! An applet is chosen by the name the program was started under (a symbolic link `qemu-img`
//! is qemu-img) or, when that name is no applet's, by the first argument (`hostel qemu-img`).
//! What an applet does lives in its own crate; this one holds the table.

mod applets;
mod doctor;
mod help;
mod link;

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use applets::Applet;

/// The exit code for a command line that cannot be understood.
const EXIT_USAGE: u8 = 1;

fn main() -> ExitCode {
    let mut arguments = env::args_os();
    let started_as = arguments.next().unwrap_or_default();
    let arguments: Vec<OsString> = arguments.collect();

    let base_name = Path::new(&started_as).file_name().unwrap_or_default().to_string_lossy();
    // What the daemon starts a machine's process with, before it becomes the emulator.
    if base_name == "hostel-confined" {
        return daemon::run_launcher(&base_name, &arguments);
    }
    if let Some(applet) = applets::find(&base_name) {
        return (applet.run)(applet.name, &arguments);
    }
    by_first_argument(&arguments)
}

/// `hostel WORD ...`: an applet, or one of the executable's own few commands.
fn by_first_argument(arguments: &[OsString]) -> ExitCode {
    let Some((word, rest)) = arguments.split_first() else {
        print!("{}", help::newcomer());
        return ExitCode::SUCCESS;
    };
    let word = word.to_string_lossy();
    match &*word {
        "--help" | "-h" | "help" => help::run(rest),
        "--version" | "-V" | "version" => {
            println!("hostel {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        "doctor" => doctor::run(rest),
        "link" => link::run(rest),
        "binfmt" => linux_user::binfmt::run(rest),
        name => match applets::find(name) {
            Some(Applet { name, run, .. }) => run(name, rest),
            None if cli::is_verb(name) => cli::run(name, rest),
            None => unknown(name),
        },
    }
}

fn unknown(word: &str) -> ExitCode {
    eprintln!("error: Hostel has no applet or command '{word}'");
    if let Some(nearest) =
        cli::nearest(word, applets::words().chain(cli::VERBS.iter().map(|(verb, _)| *verb)))
    {
        eprintln!("  hint: did you mean 'hostel {nearest}'?");
    }
    eprintln!("  hint: 'hostel --help' lists them all");
    ExitCode::from(EXIT_USAGE)
}
