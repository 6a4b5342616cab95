//! The RFB client: a conversation, and one over a socket.

mod conversation;

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::codec::{ClientMessage, ProtocolError, ScreenLayout, encoding};
use crate::decode;
use crate::socket::Socket;
use crate::surface::Frame;

pub use conversation::{Conversation, Event};

/// Why a connection ended.
#[derive(Debug, Error)]
pub enum ViewerError {
    /// The socket failed.
    #[error("The connection to the server failed")]
    Socket(#[from] io::Error),
    /// The server said something impossible, or no.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// Nothing came in time.
    #[error("The server did not answer in time")]
    Late,
}

/// A connected client.
pub struct Viewer {
    socket: Socket,
    conversation: Conversation,
}

/// How long to wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);

impl Viewer {
    /// Connects over the network and waits until the server lets us in.
    pub fn connect(address: &str, password: Option<&str>) -> Result<Self, ViewerError> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT_MAX) {
                Ok(stream) => return Self::over(Socket::Tcp(stream), password, true),
                Err(error) => last = error,
            }
        }
        Err(last.into())
    }

    /// The same over a unix socket.
    pub fn connect_unix(path: &Path, password: Option<&str>) -> Result<Self, ViewerError> {
        Self::over(Socket::Unix(UnixStream::connect(path)?), password, true)
    }

    /// The same over a socket that is connected. `shared`: others may stay.
    pub fn over(socket: Socket, password: Option<&str>, shared: bool) -> Result<Self, ViewerError> {
        let mut viewer = Self { socket, conversation: Conversation::new(password, shared) };
        let deadline = Instant::now() + CONNECT_MAX;
        while !viewer.conversation.is_ready() {
            viewer.wait(deadline)?;
        }
        viewer.encodings(decode::KNOWN)?;
        Ok(viewer)
    }

    /// The picture as far as it has come.
    #[must_use]
    pub fn frame(&self) -> &Frame {
        self.conversation.frame()
    }

    /// Which encodings the server may use, and which abilities we have.
    pub fn encodings(&mut self, list: &[i32]) -> Result<(), ViewerError> {
        let mut list = list.to_vec();
        list.extend([
            encoding::DESKTOP_SIZE,
            encoding::EXTENDED_DESKTOP_SIZE,
            encoding::CURSOR,
            encoding::CURSOR_ALPHA,
            encoding::SCAN_KEYS,
            encoding::LIGHTS,
            encoding::SOUND,
            encoding::FENCE,
            encoding::CONTINUOUS_UPDATES,
        ]);
        self.send(&ClientMessage::Encodings(list))
    }

    /// Says something.
    pub fn send(&mut self, message: &ClientMessage) -> Result<(), ViewerError> {
        self.conversation.send(message);
        self.flush()
    }

    /// Asks for an update of everything.
    pub fn request(&mut self, incremental: bool) -> Result<(), ViewerError> {
        let side = |side: u32| u16::try_from(side).unwrap_or(u16::MAX);
        let area = [0, 0, side(self.frame().width), side(self.frame().height)];
        self.send(&ClientMessage::UpdateRequest { incremental, area })
    }

    /// Presses and releases a key by its X11 symbol.
    pub fn press(&mut self, symbol: u32) -> Result<(), ViewerError> {
        self.send(&ClientMessage::Key { down: true, symbol })?;
        self.send(&ClientMessage::Key { down: false, symbol })
    }

    /// Asks for another size.
    pub fn resize(&mut self, width: u16, height: u16) -> Result<(), ViewerError> {
        let screens = vec![ScreenLayout { id: 0, place: [0, 0, width, height], flags: 0 }];
        self.send(&ClientMessage::DesktopSize { width, height, screens })
    }

    /// Waits until something comes.
    pub fn wait(&mut self, deadline: Instant) -> Result<Vec<Event>, ViewerError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ViewerError::Late);
        }
        self.flush()?;
        self.socket.patience(Some(left), None)?;
        let mut buffer = vec![0; 64 << 10];
        let count = match self.socket.read(&mut buffer) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(ViewerError::Late);
            }
            Err(error) => return Err(error.into()),
        };
        let events = self.conversation.receive(&buffer[..count])?;
        self.flush()?;
        Ok(events)
    }

    /// Asks for all of the screen and waits until it is there.
    pub fn look(&mut self, patience: Duration) -> Result<&Frame, ViewerError> {
        let deadline = Instant::now() + patience;
        self.request(false)?;
        loop {
            let events = self.wait(deadline)?;
            // After a change of size all pixels are asked for anew.
            if events.contains(&Event::Resized) {
                self.request(false)?;
            } else if events.contains(&Event::Updated) {
                return Ok(self.frame());
            }
        }
    }

    fn flush(&mut self) -> Result<(), ViewerError> {
        let out = self.conversation.take_output();
        if !out.is_empty() {
            self.socket.write(&out)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
