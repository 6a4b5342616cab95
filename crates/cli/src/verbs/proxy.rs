//! `proxy`: a port of a machine on standard input and output, for ssh's `ProxyCommand`. It needs no
//! network between host and machine, and starts the machine if need be.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::path::Path;
use std::thread;
use std::time::Duration;

use agent::{FrameKind, Request};

use crate::arguments::{BOOT_PATIENCE, Proxy};
use crate::daemon::Connection;
use crate::failure::Failure;
use crate::guest::{self, Session};
use crate::machine::State;
use crate::progress::Line;
use crate::verbs::{launch, lifecycle};
use crate::way::{self, Way};

const PATIENCE: Duration = Duration::from_secs(10);
const SSH_PORT: u16 = 22;
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
    let way = launch::await_way(&mut connection, &machine, BOOT_PATIENCE, &mut line)?;
    drop(line);
    let broke = |error: io::Error| {
        Failure::new(format!("The connection to '{name}' broke")).because(&error).code(255)
    };
    let socket = machine.socket(&connection);
    match way {
        Way::Agent => by_agent(name, &socket, what.port).map_err(broke),
        Way::SshSocket if what.port == SSH_PORT => {
            let stream = way::virtual_socket(&socket).map_err(broke)?;
            stream.set_read_timeout(None).map_err(broke)?;
            let to = stream.try_clone().map_err(broke)?;
            carry(stream, to, |to| _ = to.shutdown(Shutdown::Write)).map_err(broke)
        }
        Way::SshForwarded(host) if what.port == SSH_PORT => {
            let stream = way::forwarded_port(host).map_err(broke)?;
            stream.set_read_timeout(None).map_err(broke)?;
            let to = stream.try_clone().map_err(broke)?;
            carry(stream, to, |to| _ = to.shutdown(Shutdown::Write)).map_err(broke)
        }
        way => {
            let failure = Failure::new(format!("Port {} of '{name}' cannot be had", what.port));
            Err(failure.hint(format!("the way into it is: {way}")).code(255))
        }
    }
}

/// Standard input to one end, the other end to standard output.
fn carry<W: Write + Send + 'static>(
    mut from: impl Read,
    mut to: W,
    close: impl FnOnce(&W) + Send + 'static,
) -> io::Result<u8> {
    thread::spawn(move || {
        _ = io::copy(&mut io::stdin(), &mut to);
        close(&to);
    });
    let mut bytes = vec![0; PIECE_BYTES];
    let mut output = io::stdout();
    loop {
        match from.read(&mut bytes)? {
            0 => return Ok(0),
            count => output.write_all(&bytes[..count]).and_then(|()| output.flush())?,
        }
    }
}

fn by_agent(name: &str, socket: &Path, port: u16) -> io::Result<u8> {
    let mut session = Session::open(socket, &Request::Connect { port }, PATIENCE)?;
    guest::answer::<serde_json::Value>(name, &mut session)
        .map_err(|failure| io::Error::other(failure.what))?;
    let mut input = session.second()?;
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
    while let Some(frame) = session.read()? {
        if frame.kind != FrameKind::Output || frame.payload.is_empty() {
            break;
        }
        output.write_all(&frame.payload).and_then(|()| output.flush())?;
    }
    Ok(0)
}
