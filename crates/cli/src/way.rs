//! The ways into a guest, best first: our agent, the ssh server that systemd opens on the virtual
//! socket, ssh through a forwarded port, the serial console.
//!
//! Finding the way reads a greeting at most; nobody logs in.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use agent::Exec;

use crate::daemon::{Connection, Places};
use crate::failure::Failure;
use crate::guest;
use crate::machine::{Machine, Note};
use crate::{ssh, verbs};

/// Where ssh listens, in a network and on a virtual socket.
const SSH_PORT: u16 = 22;
/// How long a greeting may take.
const PATIENCE: Duration = Duration::from_millis(700);

/// A way into a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Our agent, over the virtual socket.
    Agent,
    /// ssh over the virtual socket: systemd opens it from version 256 on.
    SshSocket,
    /// ssh over this port of the host, which leads to the guest's.
    SshForwarded(u16),
    /// Its serial console, for people.
    Serial,
}

impl fmt::Display for Way {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent => out.write_str("agent"),
            Self::SshSocket => out.write_str("ssh on the virtual socket"),
            Self::SshForwarded(port) => write!(out, "ssh on port {port} of this host"),
            Self::Serial => out.write_str("serial console"),
        }
    }
}

/// The best way of those that are open now.
pub fn find(socket: &Path, note: &Note) -> Way {
    match guest::quick_info(socket, PATIENCE) {
        Some(_) => Way::Agent,
        None => find_without_agent(socket, note),
    }
}

/// The best way, of one whose agent is known not to answer.
pub fn find_without_agent(socket: &Path, note: &Note) -> Way {
    // Who listens there is systemd, which starts a server for each connection: its greeting takes a
    // slow guest longer than anybody wants to wait, and nobody else accepts.
    if virtual_socket(socket).is_ok() {
        return Way::SshSocket;
    }
    let forwarded = note.ports.iter().filter(|(_, guest)| *guest == SSH_PORT);
    for (host, _) in forwarded {
        if forwarded_port(*host).and_then(greets).is_ok() {
            return Way::SshForwarded(*host);
        }
    }
    Way::Serial
}

/// The best way, for which a port is forwarded if nothing better is there: whoever wants to log in.
pub fn open(connection: &mut Connection, machine: &Machine) -> Way {
    let note = machine.note().unwrap_or_default();
    let way = find(&machine.socket(connection), &note);
    let has_port = note.ports.iter().any(|(_, guest)| *guest == SSH_PORT);
    let has_network = machine.definition.at("devices/interface").is_some();
    if way != Way::Serial || has_port || !has_network {
        return way;
    }
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr());
    let Ok(host) = free.map(|address| address.port()) else { return way };
    if verbs::port::forward(connection, machine, host, SSH_PORT).is_err() {
        return way;
    }
    if forwarded_port(host).and_then(greets).is_ok() {
        // It stays, so that the next one finds it.
        _ = connection.change_note(machine, |note| note.ports.push((host, SSH_PORT)));
        return Way::SshForwarded(host);
    }
    _ = verbs::port::release(connection, machine, host);
    way
}

/// A connection to the ssh server on the virtual socket.
pub fn virtual_socket(socket: &Path) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    guest::connect(&mut stream, u32::from(SSH_PORT))?;
    Ok(stream)
}

/// A connection to a port of this host.
pub fn forwarded_port(host: u16) -> io::Result<TcpStream> {
    let address = (Ipv4Addr::LOCALHOST, host).into();
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn greets(mut stream: impl Read) -> io::Result<()> {
    let mut greeting = [0; 4];
    stream.read_exact(&mut greeting)?;
    match &greeting {
        b"SSH-" => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Runs a program by the host's ssh, which finds the way by our `proxy`.
pub fn run_by_ssh(places: &Places, machine: &Machine, program: &Exec) -> Result<u8, Failure> {
    let name = machine.name();
    let config = ssh::configuration(places);
    let mut command = Command::new("ssh");
    command.arg("-F").arg(config).args(["-o", "LogLevel=ERROR"]);
    if program.terminal.is_some() {
        command.arg("-t");
    } else {
        command.arg("-T");
    }
    if let Some(user) = &program.user {
        command.args(["-l", user]);
    }
    command.arg(format!("{name}.hostel"));
    if let Some(line) = line_of(program) {
        command.arg("--").arg(line);
    }
    let status = command.stdin(Stdio::inherit()).status().map_err(|error| {
        Failure::new(format!("'{name}' is only reached by ssh, which cannot be started here"))
            .because(&error)
            .hint(format!("install ssh, or 'hostel console {name}'"))
    })?;
    _ = io::stdout().flush();
    use std::os::unix::process::ExitStatusExt;
    let signalled = status.signal().map(|signal| 128 + signal);
    Ok(u8::try_from(status.code().or(signalled).unwrap_or(255)).unwrap_or(255))
}

/// What a shell of the guest is to read; nothing for a login shell.
fn line_of(program: &Exec) -> Option<String> {
    if program.words.is_empty() && program.folder.is_none() && program.environment.is_empty() {
        return None;
    }
    let mut line = String::new();
    if let Some(folder) = &program.folder {
        line.push_str(&format!("cd {} 2>/dev/null; ", quoted(folder)));
    }
    line.push_str("exec env");
    for (name, value) in &program.environment {
        line.push_str(&format!(" {}", quoted(&format!("{name}={value}"))));
    }
    if program.words.is_empty() {
        line.push_str(" \"${SHELL:-/bin/sh}\" -l");
    }
    for word in &program.words {
        line.push_str(&format!(" {}", quoted(word)));
    }
    Some(line)
}

/// As a shell reads it back.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell_of_the_guest() {
        let words = ["printf", "%s\\n", "a  b", "$HOME", "it's", "x\ny"].map(str::to_owned);
        let environment = [("A".to_owned(), "1 'b'".to_owned())].into();
        let program =
            Exec { words: words.into(), environment, folder: Some("/".into()), ..Exec::default() };
        let line = line_of(&program).unwrap();
        let run = Command::new("sh").args(["-c", &line]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&run.stdout), "a  b\n$HOME\nit's\nx\ny\n");
        assert_eq!(line_of(&Exec::default()), None);
    }

    #[test]
    fn only_ssh_greets_like_ssh() {
        assert!(greets(&b"SSH-2.0-OpenSSH"[..]).is_ok());
        assert!(greets(&b"HTTP/1.1"[..]).is_err() && greets(&b"SS"[..]).is_err());
    }
}
