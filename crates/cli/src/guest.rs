//! Conversations with the agent in a guest.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use agent::{Failure as Refusal, Frame, FrameKind, Info, Request, read_frame, write_frame};
use serde::de::DeserializeOwned;

use crate::failure::Failure;

/// How long the agent may take to accept.
const PATIENCE: Duration = Duration::from_secs(5);

/// A session.
pub struct Session {
    stream: UnixStream,
}

impl Session {
    /// Connects to the agent behind a machine's socket and makes a request.
    pub fn open(socket: &Path, request: &Request, patience: Duration) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        connect(&mut stream, agent::PORT)?;
        let text = serde_json::to_vec(request)?;
        write_frame(&mut stream, FrameKind::Request, &text)?;
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(None)?;
        Ok(Self { stream })
    }

    /// Limits how long the next frame may take.
    pub fn set_patience(&self, patience: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(patience)
    }

    /// The next frame; none at the end.
    pub fn read(&mut self) -> io::Result<Option<Frame>> {
        read_frame(&mut self.stream).map_err(|error| match error {
            agent::FrameError::Io(error) => error,
            other => io::Error::other(other),
        })
    }

    /// Sends a frame.
    pub fn write(&mut self, kind: FrameKind, payload: &[u8]) -> io::Result<()> {
        write_frame(&mut self.stream, kind, payload)
    }

    /// Another handle on the same session, for another thread.
    pub fn second(&self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.try_clone()? })
    }
}

/// Asks the emulator for a port of the guest's virtual socket.
pub fn connect(stream: &mut UnixStream, port: u32) -> io::Result<()> {
    writeln!(stream, "CONNECT {port}")?;
    // `OK` and a number; byte by byte, for what follows is not ours to take.
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        if stream.read(&mut byte)? == 0 || line.len() > 64 {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        line.push(byte[0]);
    }
    match line.starts_with(b"OK ") {
        true => Ok(()),
        false => Err(io::ErrorKind::ConnectionRefused.into()),
    }
}

/// A refusal of the agent.
pub fn refusal(name: &str, frame: &Frame) -> Failure {
    match serde_json::from_slice::<Refusal>(&frame.payload) {
        Ok(refusal) => {
            Failure::new(format!("'{name}' refused: {}", refusal.reason)).code(refusal.code)
        }
        Err(error) => Failure::new(format!("The agent of '{name}' is unreadable")).because(&error),
    }
}

/// No agent answers.
pub fn unreachable(name: &str, error: &io::Error) -> Failure {
    Failure::new(format!("The agent of '{name}' does not answer"))
        .because(error)
        .hint(format!("'hostel logs {name}' shows what the machine has printed"))
}

/// Asks for something that has one answer.
pub fn ask<T: DeserializeOwned>(
    name: &str,
    socket: &Path,
    request: &Request,
) -> Result<T, Failure> {
    let mut session =
        Session::open(socket, request, PATIENCE).map_err(|error| unreachable(name, &error))?;
    answer(name, &mut session)
}

/// The one answer of a session.
pub fn answer<T: DeserializeOwned>(name: &str, session: &mut Session) -> Result<T, Failure> {
    match session.read().map_err(|error| unreachable(name, &error))? {
        Some(frame) if frame.kind == FrameKind::Answer => serde_json::from_slice(&frame.payload)
            .map_err(|error| {
                Failure::new(format!("The agent of '{name}' is unreadable")).because(&error)
            }),
        Some(frame) => Err(refusal(name, &frame)),
        None => Err(unreachable(name, &io::ErrorKind::UnexpectedEof.into())),
    }
}

/// How a guest is, if its agent answers at once.
pub fn quick_info(socket: &Path, patience: Duration) -> Option<Info> {
    let mut session = Session::open(socket, &Request::Info {}, patience).ok()?;
    session.set_patience(Some(patience)).ok()?;
    let frame = session.read().ok()??;
    serde_json::from_slice(&frame.payload).ok()
}
