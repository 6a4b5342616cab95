//! `logs`: what a machine has printed.

use std::fs::File;
use std::io;

use crate::arguments::Logs;
use crate::daemon::Connection;
use crate::failure::Failure;

/// `hostel logs`.
pub fn run(what: &Logs) -> Result<u8, Failure> {
    let mut connection = Connection::open()?;
    let machine = connection.any_machine(&what.name)?;
    let serial = machine.definition.child("devices").and_then(|devices| devices.child("serial"));
    let path = serial.and_then(|serial| serial.attribute_at("source", "path"));
    let Some(path) = path else {
        return Err(Failure::new(format!("What '{}' prints is not kept", what.name)));
    };
    let failed = |error: io::Error| Failure::new(format!("{path} cannot be read")).because(&error);
    let mut file = File::open(path).map_err(failed)?;
    match io::copy(&mut file, &mut io::stdout()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(failed(error)),
        _ => Ok(0),
    }
}
