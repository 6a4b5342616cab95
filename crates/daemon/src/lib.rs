//! The daemon: domains, networks and storage behind libvirt's protocol.
//!
//! `server` moves frames, `handlers` holds one function per procedure of the table in
//! `libvirt_compat`, `world` is what a URI opens, `drivers` are the hypervisors. Blocking work
//! runs on a bounded pool; only `server` knows tokio.

mod options;
mod confine;
mod relay;
mod paths;
mod random;
mod files;
mod server;
mod streams;
mod client;
mod hub;
mod agent;
mod handlers;
mod world;
mod domains;
mod networks;
mod storage;
mod secrets;
mod node;
mod drivers;

use std::ffi::OsString;
use std::process::ExitCode;

/// The exit code for a command line that cannot be understood.
const EXIT_USAGE: u8 = 1;
/// The exit code when the daemon cannot start.
const EXIT_FAILED: u8 = 2;

pub use confine::run_launcher;
pub use relay::run as run_relay;

/// `hostel daemon`, also called `libvirtd`.
pub fn run(name: &str, arguments: &[OsString]) -> ExitCode {
    let options = match options::parse(arguments) {
        Ok(options::Request::Serve(options)) => options,
        Ok(options::Request::Help) => {
            print!("{}", options::help(name));
            return ExitCode::SUCCESS;
        }
        Ok(options::Request::Version) => {
            println!("{name} (hostel) {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("error: {problem}");
            eprintln!("  hint: '{name} --help' lists the options");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match server::serve(*options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}
