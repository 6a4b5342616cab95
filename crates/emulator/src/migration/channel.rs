//! Where a state goes to or comes from, by QEMU's addresses: `file:`, `fd:`, `unix:`, `tcp:`, `exec:`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::character::Descriptors;

/// An address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A file, from this byte on.
    File(String, u64),
    /// A descriptor by its name or number.
    Descriptor(String),
    /// A socket.
    Unix(String),
    /// Host and port.
    Tcp(String, u16),
    /// A shell's command.
    Command(String),
}

impl Address {
    /// Reads an address. The texts are QEMU's where it has them.
    pub fn parse(uri: &str) -> Result<Self, String> {
        let (kind, rest) = uri.split_once(':').unwrap_or((uri, ""));
        match kind {
            "file" => Self::file(rest),
            "fd" => Ok(Self::Descriptor(rest.to_owned())),
            "unix" => Ok(Self::Unix(rest.to_owned())),
            "exec" => Ok(Self::Command(rest.to_owned())),
            "tcp" => {
                // What follows are options of the socket.
                let place = rest.split(',').next().unwrap_or_default();
                let (host, port) = place
                    .rsplit_once(':')
                    .ok_or_else(|| format!("error parsing address '{rest}'"))?;
                let port =
                    port.parse().map_err(|_| format!("error parsing port in address '{rest}'"))?;
                let host = host.trim_start_matches('[').trim_end_matches(']');
                Ok(Self::Tcp(host.to_owned(), port))
            }
            "rdma" | "vsock" => Err(format!("Migration over '{kind}' is not built in Hostel")),
            _ => Err(format!("unknown migration protocol: {uri}")),
        }
    }

    fn file(rest: &str) -> Result<Self, String> {
        let Some((path, offset)) = rest.split_once(",offset=") else {
            return Ok(Self::File(rest.to_owned(), 0));
        };
        let bytes = qemu_compat::system::values::size("offset", offset, 0);
        let bytes = bytes.map_err(|_| format!("file URI has bad offset {offset}"))?;
        Ok(Self::File(path.to_owned(), bytes))
    }

    /// Opens it for writing.
    pub fn sink(&self, descriptors: &dyn Descriptors) -> io::Result<Sink> {
        Ok(match self {
            Self::File(path, offset) => {
                let mut options = OpenOptions::new();
                let mut file =
                    options.write(true).create(true).truncate(*offset == 0).open(path)?;
                file.seek(SeekFrom::Start(*offset))?;
                Sink::File(file)
            }
            Self::Descriptor(name) => Sink::File(File::from(take(descriptors, name)?)),
            Self::Unix(path) => Sink::File(File::from(OwnedFd::from(UnixStream::connect(path)?))),
            Self::Tcp(host, port) => {
                let stream = TcpStream::connect((or_local(host), *port))?;
                stream.set_nodelay(true)?;
                Sink::File(File::from(OwnedFd::from(stream)))
            }
            Self::Command(line) => {
                let mut child = shell(line).stdin(Stdio::piped()).spawn()?;
                let input = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
                Sink::Command(input, child)
            }
        })
    }

    /// Opens it for reading, or begins to listen: whoever comes from now on is heard.
    pub fn listen(&self, descriptors: &dyn Descriptors) -> io::Result<Waiting> {
        Ok(match self {
            Self::File(path, offset) => {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(*offset))?;
                Waiting::There(Source::File(file))
            }
            Self::Descriptor(name) => {
                Waiting::There(Source::File(File::from(take(descriptors, name)?)))
            }
            Self::Unix(path) => {
                // One that nobody listens on any more.
                _ = std::fs::remove_file(path);
                Waiting::Unix(UnixListener::bind(path)?, path.clone())
            }
            Self::Tcp(host, port) => {
                let host = if host.is_empty() { "0.0.0.0" } else { host };
                Waiting::Tcp(TcpListener::bind((host, *port))?)
            }
            Self::Command(line) => {
                let mut child = shell(line).stdout(Stdio::piped()).stdin(Stdio::null()).spawn()?;
                let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
                Waiting::There(Source::Command(output, child))
            }
        })
    }
}

/// A source, or a place to which one comes.
pub enum Waiting {
    /// It is there.
    There(Source),
    /// Somebody connects.
    Unix(UnixListener, String),
    /// Somebody connects.
    Tcp(TcpListener),
}

impl Waiting {
    /// Waits for it.
    pub fn accept(self) -> io::Result<Source> {
        let descriptor = match self {
            Self::There(source) => return Ok(source),
            Self::Unix(listener, path) => {
                let accepted = listener.accept();
                _ = std::fs::remove_file(path);
                OwnedFd::from(accepted?.0)
            }
            Self::Tcp(listener) => OwnedFd::from(listener.accept()?.0),
        };
        Ok(Source::File(File::from(descriptor)))
    }
}

fn or_local(host: &str) -> &str {
    if host.is_empty() { "localhost" } else { host }
}

fn shell(line: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", line]);
    command
}

fn take(descriptors: &dyn Descriptors, name: &str) -> io::Result<OwnedFd> {
    let descriptor = descriptors.take(name);
    let text = format!("File descriptor named '{name}' has not been found");
    descriptor.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, text))
}

/// Where a state goes.
pub enum Sink {
    /// A file or a socket.
    File(File),
    /// A command's input.
    Command(ChildStdin, Child),
}

impl Sink {
    /// Says that nothing follows, and hears whether all has arrived.
    pub fn close(self) -> io::Result<()> {
        match self {
            Self::File(file) => match file.sync_all() {
                // Sockets and pipes keep nothing.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
                result => result,
            },
            Self::Command(input, mut child) => {
                drop(input);
                ended(&mut child)
            }
        }
    }
}

fn ended(child: &mut Child) -> io::Result<()> {
    let status = child.wait()?;
    match status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("the command has ended with {status}"))),
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Command(input, _) => input.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Command(input, _) => input.flush(),
        }
    }
}

/// Where a state comes from.
pub enum Source {
    /// A file or a socket.
    File(File),
    /// A command's output.
    Command(ChildStdout, Child),
}

impl Read for Source {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(into),
            Self::Command(output, _) => output.read(into),
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Self::Command(_, child) = self {
            _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_qemu() {
        let text = str::to_owned;
        for (uri, address) in [
            ("file:/tmp/x", Ok(Address::File(text("/tmp/x"), 0))),
            ("file:/tmp/x,offset=4k", Ok(Address::File(text("/tmp/x"), 4096))),
            ("fd:migrate", Ok(Address::Descriptor(text("migrate")))),
            ("unix:/run/a", Ok(Address::Unix(text("/run/a")))),
            ("tcp:host:4444", Ok(Address::Tcp(text("host"), 4444))),
            ("tcp:[::1]:1,ipv6=on", Ok(Address::Tcp(text("::1"), 1))),
            ("exec:cat >x", Ok(Address::Command(text("cat >x")))),
            ("nonsense", Err(text("unknown migration protocol: nonsense"))),
            ("tcp:host", Err(text("error parsing address 'host'"))),
            ("rdma:host:1", Err(text("Migration over 'rdma' is not built in Hostel"))),
        ] {
            assert_eq!(Address::parse(uri), address, "{uri}");
        }
    }
}
