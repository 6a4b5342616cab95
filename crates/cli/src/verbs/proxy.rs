//! `proxy`: a port of a machine on standard input and output, for ssh's `ProxyCommand`. It needs no
//! network between host and machine, and starts the machine if need be.

use std::io::{self, Read, Write};
use std::thread;
use std::time::Duration;

use agent::{FrameKind, Request};

use crate::arguments::{BOOT_PATIENCE, Level, Proxy};
use crate::daemon::Connection;
use crate::failure::Failure;
use crate::guest::{self, Session};
use crate::machine::State;
use crate::progress::Line;
use crate::verbs::{launch, lifecycle};

const PATIENCE: Duration = Duration::from_secs(10);
const PIECE_BYTES: usize = 64 << 10;

/// `hostel proxy`.
pub fn run(what: &Proxy) -> Result<u8, Failure> {
    let name = what.name.strip_suffix(".hostel").unwrap_or(&what.name);
    let mut connection = Connection::open()?;
    let machine = connection.machine(name)?;
    if machine.state == State::Stopped {
        lifecycle::start_unless_running(&mut connection, &machine)?;
    }
    let mut line = Line::new();
    launch::await_level(&connection, &machine, Level::Booted, BOOT_PATIENCE, &mut line)?;
    drop(line);
    let request = Request::Connect { port: what.port };
    let mut session = Session::open(&machine.socket(&connection), &request, PATIENCE)
        .map_err(|error| guest::unreachable(name, &error))?;
    guest::answer::<serde_json::Value>(name, &mut session)?;
    let broke = |error: io::Error| {
        Failure::new(format!("The connection to '{name}' broke")).because(&error).code(255)
    };
    let mut input = session.second().map_err(broke)?;
    thread::spawn(move || {
        let mut bytes = vec![0; PIECE_BYTES];
        loop {
            let count = io::stdin().read(&mut bytes).unwrap_or(0);
            if input.write(FrameKind::Input, &bytes[..count]).is_err() || count == 0 {
                return;
            }
        }
    });
    let mut output = io::stdout();
    while let Some(frame) = session.read().map_err(broke)? {
        if frame.kind != FrameKind::Output || frame.payload.is_empty() {
            break;
        }
        output.write_all(&frame.payload).and_then(|()| output.flush()).map_err(broke)?;
    }
    Ok(0)
}
