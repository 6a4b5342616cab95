//! `logs`: what a machine has printed.

use std::fs::File;
use std::io;
use std::time::Duration;

use crate::arguments::Logs;
use crate::daemon::Connection;
use crate::failure::Failure;

/// Between two looks for more.
const PAUSE: Duration = Duration::from_millis(100);

/// `hostel logs`.
pub fn run(what: &Logs) -> Result<u8, Failure> {
    let mut connection = Connection::open()?;
    let machine = connection.any_machine(&what.name)?;
    let Some(path) = machine.console_log() else {
        return Err(Failure::new(format!("What '{}' prints is not kept", what.name)));
    };
    let failed = |error: io::Error| {
        Failure::new(format!("{} cannot be read", path.display())).because(&error)
    };
    let mut file = File::open(&path).map_err(failed)?;
    loop {
        match io::copy(&mut file, &mut io::stdout()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(0),
            Err(error) => return Err(failed(error)),
            Ok(_) if !what.follow => return Ok(0),
            Ok(_) => std::thread::sleep(PAUSE),
        }
    }
}
