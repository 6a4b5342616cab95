//! `console`: the serial console of a machine on this terminal, from its first word on.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use libvirt_compat::rpc::types::Domain;

use crate::arguments::Console;
use crate::daemon::Connection;
use crate::failure::Failure;
use crate::machine::{Machine, State};
use crate::terminal::Raw;

/// `domain_open_console`, of libvirt's main program.
const PROGRAM: u32 = libvirt_compat::rpc::PROGRAM_REMOTE;
const OPEN_CONSOLE: u32 = 201;
/// `VIR_DOMAIN_CONSOLE_FORCE`.
const FORCE: u32 = 1;
/// Ctrl-].
pub const ESCAPE: u8 = 29;
/// How much of what was said before is shown.
const BEFORE_BYTES: u64 = 2048;

/// How a console ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The escape key was typed.
    Escaped,
    /// The machine went off.
    Off,
}

/// `hostel console`.
pub fn run(what: &Console) -> Result<u8, Failure> {
    let mut connection = Connection::open()?;
    let machine = connection.machine(&what.name)?;
    let name = machine.name().to_owned();
    if !matches!(machine.state, State::Running | State::Suspended) {
        let failure = Failure::new(format!("'{name}' does not run"));
        return Err(failure.hint(format!("'hostel start {name}' starts it")));
    }
    attach(connection, &machine, what.escape, what.force)
}

/// Attaches to a machine that runs, until the escape key is typed or the machine goes off.
pub fn attach(
    connection: Connection,
    machine: &Machine,
    escape: u8,
    force: bool,
) -> Result<u8, Failure> {
    let name = machine.name();
    let on_terminal = io::stdin().is_terminal();
    if on_terminal {
        eprintln!("Connected to '{name}'. The key {} leaves its console.", key_name(escape));
    }
    before(machine);
    let flags = if force { FORCE } else { 0 };
    let end =
        carry(connection, machine.domain.clone(), None, flags, escape).map_err(|failure| {
            failure.hint(format!("'hostel logs --follow {name}' shows it without typing"))
        })?;
    if on_terminal {
        match end {
            End::Escaped => eprintln!("\nLeft the console of '{name}', which goes on."),
            End::Off => eprintln!("\n'{name}' has gone off."),
        }
    }
    Ok(0)
}

/// What was said just before, so that whoever comes late sees where the machine is.
fn before(machine: &Machine) {
    let Some(mut log) = machine.console_log().and_then(|path| File::open(path).ok()) else {
        return;
    };
    let length = log.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = Vec::new();
    let from = length.saturating_sub(BEFORE_BYTES);
    let read = log.seek(SeekFrom::Start(from)).and_then(|_| log.read_to_end(&mut bytes));
    if read.is_ok() {
        // From the beginning of a line.
        let start = match from {
            0 => 0,
            _ => bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1),
        };
        _ = io::stdout().write_all(&bytes[start..]);
        _ = io::stdout().flush();
    }
}

/// Carries bytes both ways between this terminal and a domain's console.
pub fn carry(
    mut connection: Connection,
    domain: Domain,
    device: Option<String>,
    flags: u32,
    escape: u8,
) -> Result<End, Failure> {
    let failed =
        |error: &dyn std::error::Error| Failure::new("The console cannot be opened").because(error);
    connection.client.domain_open_console(domain, device, flags).map_err(|error| failed(&error))?;
    let mut receiver = connection.client.transport.into_stream();
    let mut sender = receiver.sender(PROGRAM, OPEN_CONSOLE).map_err(|error| failed(&error))?;
    let raw = io::stdin().is_terminal().then(Raw::new).transpose();
    let raw = raw.map_err(|error| Failure::new("The terminal cannot be used").because(&error))?;
    let escaped = Arc::new(AtomicBool::new(false));
    let (mark, on_terminal) = (Arc::clone(&escaped), raw.is_some());
    // The thread may sit in a read for ever; it ends with the process.
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        // Without input there is still something to see.
        while let Ok(count @ 1..) = io::stdin().read(&mut bytes) {
            let typed = &bytes[..count];
            let end = typed.iter().position(|byte| on_terminal && *byte == escape);
            let sent = sender.send(&typed[..end.unwrap_or(count)]);
            if end.is_some() || sent.is_err() {
                mark.store(end.is_some(), Ordering::Release);
                sender.close();
                return;
            }
        }
    });
    let mut output = io::stdout();
    let broke = |error: &dyn std::error::Error| Failure::new("The console broke").because(error);
    let end = loop {
        match receiver.receive() {
            Ok(Some(bytes)) => {
                let written = output.write_all(&bytes).and_then(|()| output.flush());
                match written {
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                        break Ok(End::Escaped);
                    }
                    Err(error) => break Err(broke(&error)),
                    Ok(()) => {}
                }
            }
            _ if escaped.load(Ordering::Acquire) => break Ok(End::Escaped),
            Ok(None) => break Ok(End::Off),
            Err(error) => break Err(broke(&error)),
        }
    };
    drop(raw);
    end
}

/// Reads a key as `^]`, or one character.
pub fn escape_key(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [b'^', key @ (b'@'..=b'_' | b'a'..=b'z')] => Ok(key & 0x1f),
        [key] => Ok(*key),
        _ => Err("a key such as ^] or ^a is expected".to_owned()),
    }
}

fn key_name(key: u8) -> String {
    match key {
        0..32 => format!("Ctrl-{}", char::from(key + 64)),
        key => char::from(key).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_and_named() {
        assert_eq!(
            (escape_key("^]"), escape_key("^a"), escape_key("~")),
            (Ok(29), Ok(1), Ok(b'~'))
        );
        assert!(escape_key("").is_err() && escape_key("ab").is_err() && escape_key("é").is_err());
        assert_eq!((key_name(29), key_name(1)), ("Ctrl-]".to_owned(), "Ctrl-A".to_owned()));
    }
}
