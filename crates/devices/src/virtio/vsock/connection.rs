//! A connection between a program in the guest and a unix socket of the host.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

/// What the guest may send before it is passed on.
pub(super) const BUFFER_BYTES: u32 = 256 << 10;
/// The longest greeting: `CONNECT`, a number, a line end.
const GREETING_BYTES_MAX: usize = 32;

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The guest was asked; its answer is awaited.
    Asked,
    /// Data flows.
    Open,
    /// The host's end is gone; the guest knows, and ends it when it likes.
    Ended,
}

/// What came of reading or writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    /// So many bytes.
    Bytes(usize),
    /// Nothing for now.
    Later,
    /// The far end has closed.
    Closed,
}

/// A connection.
pub(super) struct Connection {
    pub socket: UnixStream,
    pub phase: Phase,
    /// The socket may have something to read, as far as is known.
    pub readable: bool,
    /// From the guest, not yet written to the socket.
    pending: VecDeque<u8>,
    /// The guest sends no more: the socket is told when all is written.
    pub finishing: bool,
    /// The guest receives no more.
    pub deaf: bool,
    /// The guest's buffer, and what it has passed on of it.
    peer_buffer: u32,
    peer_forwarded: u32,
    /// What was sent to the guest, and passed on from it. Wrap around, as on the wire.
    sent: u32,
    pub forwarded: u32,
    /// `forwarded`, as the guest was last told.
    pub told: u32,
}

impl Connection {
    pub fn new(socket: UnixStream, phase: Phase) -> Self {
        Self {
            socket,
            phase,
            readable: true,
            pending: VecDeque::new(),
            finishing: false,
            deaf: false,
            peer_buffer: 0,
            peer_forwarded: 0,
            sent: 0,
            forwarded: 0,
            told: 0,
        }
    }

    /// What the guest said about its room.
    pub fn set_credit(&mut self, buffer: u32, forwarded: u32) {
        (self.peer_buffer, self.peer_forwarded) = (buffer, forwarded);
    }

    /// Bytes that the guest has room for.
    pub fn credit(&self) -> usize {
        self.peer_buffer.saturating_sub(self.sent.wrapping_sub(self.peer_forwarded)) as usize
    }

    /// Reads for the guest.
    pub fn read(&mut self, into: &mut [u8]) -> Moved {
        loop {
            return match self.socket.read(into) {
                Ok(0) => Moved::Closed,
                Ok(bytes) => {
                    self.sent = self.sent.wrapping_add(bytes as u32);
                    Moved::Bytes(bytes)
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => Moved::Later,
                Err(_) => Moved::Closed,
            };
        }
    }

    /// Room for data of the guest.
    pub fn room(&self) -> usize {
        (BUFFER_BYTES as usize).saturating_sub(self.pending.len())
    }

    /// Data of the guest, for which there is room.
    pub fn put(&mut self, data: &[u8]) {
        debug_assert!(data.len() <= self.room());
        self.pending.extend(data);
    }

    /// Writes to the socket what it takes. False when its far end is gone.
    pub fn write(&mut self) -> bool {
        while !self.pending.is_empty() {
            let (first, _) = self.pending.as_slices();
            match self.socket.write(first) {
                Ok(0) => return false,
                Ok(bytes) => {
                    self.pending.drain(..bytes);
                    self.forwarded = self.forwarded.wrapping_add(bytes as u32);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
        if self.finishing {
            // The far end may be gone already.
            _ = self.socket.shutdown(Shutdown::Write);
        }
        true
    }

    /// Everything of the guest has reached the socket.
    pub fn is_drained(&self) -> bool {
        self.pending.is_empty()
    }
}

/// A program of the host that has connected and has not yet said to which port.
pub(super) struct Greeting {
    pub socket: UnixStream,
    line: Vec<u8>,
}

/// How far a greeting is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Greeted {
    /// There is more to come.
    Later,
    /// It wants this port.
    Port(u32),
    /// It speaks something else, or is gone.
    Nonsense,
}

impl Greeting {
    pub fn new(socket: UnixStream) -> Self {
        Self { socket, line: Vec::new() }
    }

    /// Reads on. A byte at a time: what comes behind the line is the guest's.
    pub fn read(&mut self) -> Greeted {
        let mut byte = [0];
        loop {
            match self.socket.read(&mut byte) {
                Ok(1) if byte[0] == b'\n' => return parse(&self.line),
                Ok(1) if self.line.len() < GREETING_BYTES_MAX => self.line.push(byte[0]),
                Ok(_) => return Greeted::Nonsense,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Greeted::Later,
                Err(_) => return Greeted::Nonsense,
            }
        }
    }
}

fn parse(line: &[u8]) -> Greeted {
    let text = std::str::from_utf8(line).unwrap_or_default();
    let mut words = text.split_ascii_whitespace();
    let (verb, port) = (words.next().unwrap_or_default(), words.next());
    match port.and_then(|port| port.parse().ok()) {
        Some(port) if verb.eq_ignore_ascii_case("connect") && words.next().is_none() => {
            Greeted::Port(port)
        }
        _ => Greeted::Nonsense,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_names_a_port() {
        for (line, greeted) in [
            ("CONNECT 52", Greeted::Port(52)),
            ("connect 4294967295\r", Greeted::Port(u32::MAX)),
            ("CONNECT 4294967296", Greeted::Nonsense),
            ("CONNECT", Greeted::Nonsense),
            ("CONNECT 1 2", Greeted::Nonsense),
            ("GET / HTTP/1.1", Greeted::Nonsense),
        ] {
            assert_eq!(parse(line.as_bytes()), greeted, "{line}");
        }
    }
}
