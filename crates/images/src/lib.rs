//! The applets for disk images: qemu-img, qemu-io and qemu-nbd.

mod img;
mod io;
mod nbd;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the applet `name`.
pub fn run(name: &str, arguments: &[OsString]) -> ExitCode {
    block::notices::listen(name, |text| eprintln!("{text}"));
    let arguments: Vec<String> =
        arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    match name {
        "qemu-io" => io::run(name, &arguments),
        "qemu-nbd" => nbd::run(name, &arguments),
        _ => img::run(name, &arguments),
    }
}
